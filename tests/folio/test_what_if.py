"""Operations tried on captured folios: what they change, what is refused, and that the result is a sound folio."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.errors import UsageError
from inspector.folio.captured import capture_folio
from inspector.folio.numbers import one_folio
from inspector.folio.what_if import WhatIf, what_if
from inspector.model.diagnose.evidence import RebuiltFolio, StoredCounters
from inspector.model.diagnose.search import diagnose
from inspector.model.interface import Op
from inspector.model.operations import apply
from inspector.model.scheme import Scheme
from inspector.model.state import Folio
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, sound
from tests.folio.kinds import KINDS


def fixture(kernel: str) -> Snapshot:
    return sound(core_path("fixture", kernel))


def tried(kernel: str, kind: str, *words: str) -> list[WhatIf]:
    s = fixture(kernel)
    return what_if(s, one_folio(s, KINDS[kind](s)), words)


def changes(step: WhatIf) -> dict[str, tuple[str, str]]:
    assert step.refused == ""
    return {c.what: (c.before, c.after) for c in step.changes}


def read(state: Folio) -> list[str]:
    """What is wrong with the counters of a state beside its mappings."""
    pages = np.zeros(state.nr, np.int64)
    for (_, page), n in state.ptes:
        pages[page] += n
    entire = sum(n for _, n in state.huge)
    rebuilt = RebuiltFolio(state.order, state.kind, pages, entire, state.double_map, pmd_order=state.pmd_order)
    stored = StoredCounters(np.array(state.pages, np.int64), state.entire, state.large, state.word)
    found = diagnose(state.scheme, rebuilt, stored)
    return [*([found.sentence] if found.sentence else []), *(c.sentence for c in found.candidates)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_large_folio_stays_sound_under_operations(kernel: str) -> None:
    s = fixture(kernel)
    mapped = np.flatnonzero((s.folio_totals > 0) & s.folios.readable & (s.folios.order <= s.layout.pmd_order))
    done = {"pte": 0, "pmd": 0}
    for folio in mapped.tolist():
        captured = capture_folio(s, one_folio(s, int(s.folios.pfn[folio])))
        if captured is None:
            continue
        state = captured.state
        assert read(state) == [], (folio, state)
        if state.kind.is_hugetlb:
            mm = state.huge[0][0]
            assert read(apply(state, Op("hugetlb_remove_rmap", mm)).folio) == []
            continue
        if state.ptes:
            (mm, page), _ = state.ptes[-1]
            assert read(apply(state, Op("folio_remove_rmap_pte", mm, page)).folio) == []
            done["pte"] += 1
        if state.huge and state.order == state.pmd_order:
            assert read(apply(state, Op("folio_remove_rmap_pmd", state.huge[0][0])).folio) == []
            done["pmd"] += 1
    assert done["pte"] > 3
    assert done["pmd"] > 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_unmapped_and_mapped_again_by_old_names(kernel: str) -> None:
    s = fixture(kernel)
    remove, add = tried(kernel, "thp by pte", "page_remove_rmap:3", "page_add_anon_rmap:3")
    name = "page_remove_rmap" if s.scheme is Scheme.OLD else "folio_remove_rmap_pte"
    assert remove.operation.startswith(f"{name}(page +3, pid ")
    down, up = changes(remove), changes(add)
    before, after = down["_refcount"]
    assert int(before) == int(after) + 1
    assert up["_refcount"] == (after, before)
    assert "_mapcount of page +3" in down
    assert any(what.startswith("rss of pid ") for what in down)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pmd_split(kernel: str) -> None:
    (step,) = tried(kernel, "thp by pmd", "split_huge_pmd")
    changed = changes(step)
    entries = [v for what, v in changed.items() if what.startswith("PTEs of ")]
    assert [int(new) - int(old) for old, new in entries] == [512]
    old, new = changed["_refcount"]
    assert int(new) - int(old) == 511


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernel_forbids_is_refused(kernel: str) -> None:
    (step,) = tried(kernel, "anon", "folio_add_file_rmap_pte:0", "folio_remove_rmap_pte:0")
    assert step.refused.startswith("the folio is anonymous [VM_")
    assert not step.changes
    (step,) = tried(kernel, "hugetlb", "folio_remove_rmap_pmd")
    assert "the hugetlb_*() family alone" in step.refused
    (step,) = tried(kernel, "anon", "folio_remove_rmap_pte:0@1")
    assert step.refused == "no PTE of pid 1 keeper maps page 0 [not tested by the kernel]"


def test_pages_that_the_rmap_does_not_count() -> None:
    s = fixture("7.3")
    with pytest.raises(UsageError, match="folios of processes and files only"):
        what_if(s, one_folio(s, KINDS["slab"](s)), ["folio_remove_rmap_pte"])
