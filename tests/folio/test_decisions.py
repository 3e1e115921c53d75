"""What the kernel would do with a folio whose flags say that somebody is at work on it, in real dumps."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.report.explain import build_explanation
from tests.faults.overlay import KERNELS, core_path, flags_xor, pfn_of, planted, sound
from tests.folio.kinds import KINDS


def decided(kernel: str, kind: str, *flags: str) -> dict[str, tuple[str, str]]:
    """What is decided about a folio of some kind, once some of its flags were turned: answer and reason by question."""
    s = sound(core_path("fixture", kernel))
    pfn = KINDS[kind](s)
    head = pfn_of(s, int(s.pages.head_row[s.pages.memmap.row(pfn)]))
    e = build_explanation(planted(s.target.path, flags_xor(s, head, *flags)), pfn, check=False)
    return {d.question: (d.answer, d.reason) for d in e.decisions}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["anon", "file", "shmem", "thp by pte"])
def test_a_locked_folio_is_neither_moved_nor_reclaimed_nor_split(kernel: str, kind: str) -> None:
    found = decided(kernel, kind, "locked")
    for question in {"split", "collapse", "migrate", "reclaim"} & {*found}:
        assert found[question][0] == "no", (question, found[question])
    assert "PG_locked" in found["migrate"][1]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["anon", "shmem", "thp by pte"])
def test_a_folio_under_writeback_is_neither_moved_nor_reclaimed(kernel: str, kind: str) -> None:
    found = decided(kernel, kind, "writeback")
    assert (found["migrate"][0], found["reclaim"][0]) == ("no", "no")
    assert "writeback" in found["migrate"][1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_in_a_locked_vma_is_not_reclaimed_though_its_flag_was_lost(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    flags = s.layout.flags
    rows = np.flatnonzero(flags.test(s.pages.flags[:], "mlocked") & (s.pages.refcount[:] > 0) & (s.folio_of_page < 0))
    pfn = pfn_of(s, int(rows[0]))
    lost = planted(s.target.path, flags_xor(s, pfn, "mlocked", "unevictable"))
    e = build_explanation(lost, pfn, check=False)
    answer, reason = {d.question: (d.answer, d.reason) for d in e.decisions}["reclaim"]
    assert answer == "no"
    assert "VM_LOCKED" in reason
