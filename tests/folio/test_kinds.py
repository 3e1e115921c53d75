"""Folios of every kind in sound dumps: each accounted for, nothing held against it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from inspector.folio.counters import CounterLine
from inspector.layout.flags import VM_SHARED
from inspector.report.explain import Explanation, build_explanation
from inspector.report.explain_text import render_explanation
from inspector.report.screen import Screen
from inspector.walk.counts import EntryClass
from tests.faults.overlay import KERNELS, core_path, pfn_of, sound
from tests.faults.plants import small_anon
from tests.folio.kinds import KINDS


@lru_cache
def explained(kernel: str, kind: str) -> Explanation:
    s = sound(core_path("fixture", kernel))
    return build_explanation(s, KINDS[kind](s), check=False, limit=20)


def line(e: Explanation, counter: str) -> CounterLine:
    found = [x for x in e.ledger if x.counter == counter]
    assert found, f"{counter} is not in the ledger of {e.head}"
    return found[0]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_folio_is_explained(kernel: str, kind: str) -> None:
    e = explained(kernel, kind)
    assert e.exit_code == 0
    assert e.head is not None
    assert e.about
    assert e.looks_like == []
    verdicts = [*(x.verdict for x in e.ledger), *(x.verdict for x in e.mm_ids), *(x.verdict for x in e.sharing)]
    assert set(verdicts) <= {"ok", ""}
    if e.references is not None:
        assert e.references.explained == sum(x.count for x in e.references.terms)
        assert e.references.explained + e.references.unexplained == e.references.stored == e.head.refcount
    for x in e.ledger:
        if x.relation == "equal":
            assert x.stored == x.expected
            assert x.formula.endswith(("= 0", ")")) or x.formula.split("= ")[-1] in (
                str(sum(x.terms.values())),
                hex(sum(x.terms.values())),
            )
    lines = list(render_explanation(Screen(width=100), e))
    assert all(text.isprintable() for text in lines)
    assert lines[-1] == "verdict  consistent"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_small_page_has_one_count_and_its_references(kernel: str) -> None:
    e = explained(kernel, "shared anon")
    count = line(e, "_mapcount")
    assert count.terms == {"PTE": e.pte}
    assert count.stored + 1 == e.pte >= 2
    assert {x.counter for x in e.ledger} == {"_mapcount", "_refcount"}
    assert [x.mark for x in e.sharing] == ["s"]
    fault, fork, collapse, migrate, reclaim, move = e.decisions
    assert move.question == "uffd move"
    assert (fork.question, fork.answer) == ("fork", "share")
    assert (fault.question, fault.answer) == ("write fault", "copy")
    assert [d.question for d in (collapse, migrate, reclaim)] == ["collapse", "migrate", "reclaim"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_exclusive_page_is_reused(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = small_anon(s, 1)
    marked = rows[s.layout.flags.test(s.pages.flags[rows], "anon_exclusive")]
    e = build_explanation(s, pfn_of(s, int(marked[0])), check=False)
    assert [(x.mark, x.mappings) for x in e.sharing] == [("E", 1)]
    assert [(d.answer, d.source) for d in e.decisions if d.question == "write fault"] == [("reuse", "do_wp_page()")]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_thp_mapped_by_a_pmd(kernel: str) -> None:
    e = explained(kernel, "thp by pmd")
    entire = line(e, "compound_mapcount" if kernel == "6.1" else "_entire_mapcount")
    assert entire.terms == {"PMD": e.pmd}
    assert e.pmd > 0
    if kernel != "6.1":
        word = line(e, "_nr_pages_mapped")
        assert word.stored == word.terms["mapped as a whole"] + word.terms["pages mapped by PTEs"]
        assert word.note == ""
        assert line(e, "_large_mapcount").terms["PMD"] == e.pmd
    assert "split" in {d.question for d in e.decisions}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tail_page_leads_to_its_head(kernel: str) -> None:
    e = explained(kernel, "tail")
    assert e.head is not None
    assert (e.page_index, e.head.pfn) == (3, e.place.pfn - 3)
    assert "tail page" in e.about[0]
    whole = explained(kernel, "thp by pte")
    assert [x.formula for x in e.ledger] == [x.formula for x in whole.ledger]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["hugetlb", "anon hugetlb"])
def test_hugetlb_uses_two_counters_at_most(kernel: str, kind: str) -> None:
    e = explained(kernel, kind)
    assert e.pmd > 0
    assert not [x for x in e.ledger if x.pages]
    if kernel != "6.1":
        assert "hugetlb does not use it" in line(e, "_nr_pages_mapped").formula
    assert not e.mm_ids
    if kind == "hugetlb":
        assert e.references is not None
        # Up to 6.6 one reference of the page cache for the folio, then one a base page.
        cache = [x.count for x in e.references.terms if x.term == "page_cache"]
        assert cache == [1 if kernel == "6.1" else e.pages]


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_holds_the_references(kernel: str) -> None:
    file = explained(kernel, "file")
    assert file.references is not None
    terms = {x.term: x for x in file.references.terms}
    assert terms["pte"].count == file.pte
    assert terms["page_cache"].count == 1
    assert "index" in terms["page_cache"].holders[0]
    cached = explained(kernel, "swap cache")
    assert cached.references is not None
    swap = {x.term: x for x in cached.references.terms}["swap_cache"]
    assert swap.count == cached.pages
    slots = sound(core_path("fixture", kernel)).swap.slots
    at = int(np.flatnonzero(slots.cache_pfn == cached.place.pfn)[0])
    where = f"swap type {int(slots.entry[at]) >> 58}, offset {int(slots.offset[at]):#x}"
    assert swap.holders[0].split(" to ")[0] == where


@pytest.mark.parametrize("kernel", KERNELS)
def test_pages_that_are_not_counted_say_what_they_are(kernel: str) -> None:
    assert "object allocator" in explained(kernel, "slab").about[0]
    assert "page type: slab" in line(explained(kernel, "slab"), "_mapcount").note or kernel == "6.1"
    assert "page table" in explained(kernel, "page table").about[0]
    assert "no references: free" in explained(kernel, "free").about[0]
    assert explained(kernel, "free").references is None
    zero = explained(kernel, "zero")
    assert "none is counted" in zero.about[-1]
    assert zero.mapping_rows > 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_write_to_a_file_goes_by_the_mapping(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    m = s.mappings
    shared = (s.vmas.flags[np.maximum(m.vma_idx, 0)] & np.uint64(VM_SHARED)) != 0
    head = np.maximum(s.mappings.head_row, 0)
    file = (s.pages.mapping[head] & np.uint64(3) == 0) & (s.pages.mapping[head] != 0) & (s.pages.type_[head] == 0)
    file &= (s.mappings.entry_class == EntryClass.NORMAL) & (m.vma_idx >= 0)
    answers = []
    for wanted in (shared, ~shared):
        e = build_explanation(s, int(m.pfn[np.flatnonzero(file & wanted)[0]]), check=False)
        answers.append({d.answer for d in e.decisions if d.question == "write fault"})
    assert "reuse" in answers[0]
    assert "copy" in answers[1]
