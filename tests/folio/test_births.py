"""What may have made the folios of workloads that make them in a known way."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.folio.births import BirthLine, births
from inspector.folio.numbers import one_folio
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, sound
from tests.folio.kinds import KINDS

FAULT, HUGE, COLLAPSE = "page fault on anonymous memory", "huge page fault", "collapse by khugepaged or MADV_COLLAPSE"
COW, FILE, SWAP, UFFD = (
    "copy on write",
    "first write to a private mapping of a file",
    "swap-in",
    "UFFDIO_COPY or UFFDIO_ZEROPAGE",
)


def of_process(s: Snapshot, comm: str, *, in_file: bool | None = None) -> list[int]:
    """Heads of anonymous folios that the process of a workload maps, its stack left out."""
    m = s.mappings
    names = np.array([bytes(c).rstrip(b"\0").decode() for c in s.mms.comm])
    own = np.flatnonzero(names[m.mm_idx] == comm[:15])
    ops = s.vmas.ops[m.vma_idx[own]] != 0
    own = own if in_file is None else own[ops == in_file]
    found = [one_folio(s, int(pfn)) for pfn in np.unique(m.pfn[own]).tolist()]
    return sorted({f.pfn for f in found if f.is_anon})


def judged(s: Snapshot, pfn: int) -> dict[str, BirthLine]:
    return {b.birth: b for b in births(s, one_folio(s, pfn))}


def able(s: Snapshot, pfn: int) -> set[str]:
    return {name for name, b in judged(s, pfn).items() if b.possible and not b.takes_over}


@pytest.mark.each_kernel
@pytest.mark.parametrize("kernel", KERNELS)
def test_folios_made_in_a_known_way(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    huge = [pfn for pfn in of_process(s, "collapse-anon") if one_folio(s, pfn).pmd]
    assert huge
    for pfn in huge:
        assert able(s, pfn) == {HUGE, COLLAPSE}
        assert judged(s, pfn)[COLLAPSE].since == []
    private = of_process(s, "file-private-cow", in_file=True)
    assert private
    for pfn in private:
        assert {COW, FILE} <= able(s, pfn)
        assert FAULT not in able(s, pfn)
    copied = of_process(s, "uffd-missing", in_file=False)
    assert copied
    assert all(UFFD in able(s, pfn) for pfn in copied)
    assert any(judged(s, pfn)[UFFD].since == [] for pfn in copied)
    cached = judged(s, KINDS["swap cache"](s))
    assert cached[SWAP].possible
    assert cached[SWAP].since == []
    assert next(iter(cached)) == SWAP


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_folio_was_born(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    mapped = np.unique(s.mappings.pfn[:: max(len(s.mappings.pfn) // 400, 1)])
    seen: set[str] = set()
    for pfn in mapped.tolist():
        f = one_folio(s, int(pfn))
        lines = births(s, f)
        if not lines:
            continue
        assert any(b.possible and not b.takes_over for b in lines), hex(f.pfn)
        assert not any(b.since and "PG_uptodate" in b.since[0] for b in lines if b.possible), hex(f.pfn)
        seen |= {b.birth for b in lines if b.possible}
    assert {FAULT, COW, SWAP, "read or fault of a file", "fault or write of shmem, or its swap-in"} <= seen
