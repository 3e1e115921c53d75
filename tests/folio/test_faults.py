"""Broken folios: the line that is wrong, what it means, the rule that says so, and the exit code."""

from __future__ import annotations

from collections.abc import Callable

import drgn
import numpy as np
import pytest

from inspector.folio.counters import CounterLine
from inspector.model.counters import RmapCounter, field_name
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.report.explain import Explanation, build_explanation
from inspector.report.explain_text import render_explanation
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.faults.overlay import (
    KERNELS,
    Patch,
    add,
    core_path,
    flags_xor,
    page_word,
    pfn_of,
    planted,
    sound,
    without_stacks,
)
from tests.faults.plants import (
    WORD,
    clear_entry,
    folio_at,
    head_field,
    mapcount_at,
    mapping_of_page,
    pick,
    pmd_mapped,
    pte_mapped_thp,
    small_anon,
)

Broken = Callable[[Snapshot], tuple[int, Patch]]


def explained(kernel: str, pfn: int, *patches: Patch, check: bool = True) -> Explanation:
    return build_explanation(planted(core_path("fixture", kernel), *patches), pfn, check=check)


def the_wrong(e: Explanation) -> CounterLine:
    wrong = [x for x in e.ledger if x.verdict == "WRONG"]
    assert len(wrong) == 1, wrong
    return wrong[0]


def text(e: Explanation) -> str:
    return "\n".join(render_explanation(Screen(width=200), e))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_mapcount_too_high(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    row = pick(small_anon(s, 1), "a private page", 7)
    pfn = pfn_of(s, row)
    e = explained(kernel, pfn, add(s, mapcount_at(s, row), 1, 4))
    assert the_wrong(e).formula == "_mapcount + 1 = PTE 1 = 1, stored 2"
    assert the_wrong(e).note.startswith("leak: a mapping is counted that no page table holds")
    assert [x.rule for x in e.findings] == ["mapcount-too-high"]
    assert e.exit_code == 1
    remove = "page_remove_rmap" if kernel == "6.1" else "folio_remove_rmap_pte"
    assert any(x.startswith(f"one {remove}(") and "is missing" in x for x in e.looks_like)
    assert "the reference count is right: only the mapcounts went wrong" in e.looks_like
    assert f"looks like: one {remove}(" in text(e)
    assert "WRONG" in text(e)
    assert "verdict  1 difference and 1 finding" in text(e)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entry_lost_shows_in_every_counter_above_it(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    folio = pick(pte_mapped_thp(s), "a THP mapped by PTEs")
    page = int(s.folios.row[folio]) + 2
    at, skip = mapping_of_page(s, page)
    before = build_explanation(s, pfn_of(s, page), check=False)
    e = explained(kernel, pfn_of(s, page), clear_entry(s, at, skip))
    wrong = {x.counter: x for x in e.ledger if x.verdict == "WRONG"}
    assert "_mapcount" in wrong
    assert wrong["_mapcount"].first == 2
    assert wrong["_mapcount"].pages == 1
    if kernel != "6.1":
        assert wrong["_large_mapcount"].formula.endswith(f"= {before.pte - 1}, stored {before.pte}")
    assert e.references is not None
    assert e.references.unexplained == 1
    assert e.exit_code == 1
    assert e.findings
    remove = "page_remove_rmap" if kernel == "6.1" else "folio_remove_rmap_pte"
    assert any(x.startswith(f"one {remove}(page 2) is missing") for x in e.looks_like)
    assert "the references went with the counters: they were not dropped either" in e.looks_like


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_the_whole_bit_lost(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    assert s.scheme in WORD
    folio = pick(pmd_mapped(s, anon=True), "a THP mapped by a PMD")
    where = folio_at(s, folio, head_field(s, "_nr_pages_mapped.counter"))
    e = explained(kernel, int(s.folios.pfn[folio]), add(s, where, -ENTIRELY_MAPPED, 4))
    assert the_wrong(e).counter == "_nr_pages_mapped"
    assert the_wrong(e).formula.endswith("mapped as a whole 0x800000 = 0x800000, stored 0")
    assert [x.rule for x in e.findings] == ["nr-pages-mapped-invalid"]
    assert e.looks_like[0] == (
        'only the bit "mapped as a whole" of _nr_pages_mapped is wrong: it was taken away, but huge entries are left'
    )
    # Beside it come the operation that was cut short, and the bit that flipped.
    assert any("bit flip" in x for x in e.looks_like[1:])


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entire_mapcount_too_low(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    folio = pick(pmd_mapped(s, anon=True), "a THP mapped by a PMD")
    field = head_field(s, "_entire_mapcount.counter", tail=("compound_mapcount.counter",))
    e = explained(kernel, int(s.folios.pfn[folio]), add(s, folio_at(s, folio, field), -1, 4))
    assert s.scheme is not None
    assert the_wrong(e).counter == field_name(s.scheme, RmapCounter.ENTIRE)
    assert the_wrong(e).note.startswith("premature free")
    assert "entire-mapcount-mismatch" in [x.rule for x in e.findings]
    if kernel == "6.1":
        assert any(x.startswith("one page_remove_rmap(") and "too many" in x for x in e.looks_like)
    else:
        assert e.looks_like[0].startswith("only _entire_mapcount is off, by -1, and no operation moves it alone")


@pytest.mark.parametrize("kernel", KERNELS)
def test_references_too_few(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    row = pick(small_anon(s, 2, more=True), "a shared page", 3)
    e = explained(kernel, pfn_of(s, row), add(s, page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount"), -1, 4))
    assert the_wrong(e).counter == "_refcount"
    assert the_wrong(e).formula.endswith(": 1 too few")
    assert [x.rule for x in e.findings] == ["refcount-low"]
    assert e.references is not None
    assert e.references.unexplained == -1
    assert e.looks_like == ["one folio_put() too many: the mapcounts are right, references are missing"]
    migrate = next(d for d in e.decisions if d.question == "migrate")
    assert migrate.answer == "no"
    assert "the counts are damaged" in migrate.reason
    assert "1 reference fewer than holders were found" in text(e)


@pytest.mark.parametrize("kernel", KERNELS)
def test_references_too_many_are_told_but_no_fault(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    row = pick(small_anon(s, 1), "a private page", 9)
    e = explained(kernel, pfn_of(s, row), add(s, page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount"), 3, 4))
    assert e.references is not None
    assert e.references.unexplained == 3
    assert any("FOLL_PIN" in x for x in e.references.candidates)
    assert e.references.candidates[-1].endswith("a leak")
    assert (e.exit_code, e.findings) == (0, [])
    reclaim = next(d for d in e.decisions if d.question == "reclaim")
    assert reclaim.reason == "4 references, 3 more than 1 mapped (kept): not explained 3"
    assert "3 references are not explained; candidates:" in text(e)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_exclusive_page_with_two_mappings(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = small_anon(s, 2)
    row = pick(rows[~s.layout.flags.test(s.pages.flags[rows], "anon_exclusive")], "a shared page", 3)
    e = explained(kernel, pfn_of(s, row), flags_xor(s, pfn_of(s, row), "anon_exclusive"))
    assert [(x.mark, x.verdict, x.note) for x in e.sharing] == [
        ("E", "WRONG", "exclusive to one, but 2 entries map it")
    ]
    assert e.exit_code == 1
    assert "exclusive-page-mapcount-high" in [x.rule for x in e.findings]
    assert "was mapped once more without clearing PG_anon_exclusive" in e.looks_like[0]
    # The kernel believes the flag.
    assert next(d for d in e.decisions if d.question == "write fault").answer == "reuse"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_writable_page_that_is_not_exclusive(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = small_anon(s, 1)
    rows = rows[s.layout.flags.test(s.pages.flags[rows], "anon_exclusive")]
    pfns = [pfn_of(s, int(r)) for r in rows[:200]]
    pfn = next(p for p in pfns if build_explanation(s, p, check=False).sharing[0].writable)
    e = explained(kernel, pfn, flags_xor(s, pfn, "anon_exclusive"))
    assert [(x.mark, x.verdict) for x in e.sharing] == [("s", "WRONG")]
    assert "writable-page-exclusive-missing" in [x.rule for x in e.findings]
    assert e.looks_like[0].startswith("an entry was made writable before the page was made exclusive")


def test_an_mm_id_slot_too_high() -> None:
    s = sound(core_path("fixture", "7.3"))
    assert s.scheme is Scheme.MM_IDS
    folio = pick(pte_mapped_thp(s), "a THP mapped by PTEs")
    where = folio_at(s, folio, head_field(s, "_mm_id_mapcount[0]"))
    e = explained("7.3", int(s.folios.pfn[folio]), add(s, where, 1, 4))
    assert [i.verdict for i in e.mm_ids][0] == "WRONG"
    assert e.exit_code == 1
    assert e.findings[0].rule.startswith("mm-id-")
    assert e.looks_like[0].endswith("with 1 too many: removed in the name of another mm, or not at all")


def test_the_shared_flag_lost() -> None:
    s = sound(core_path("fixture", "7.3"))
    f = s.folios
    folios = np.flatnonzero(f.readable & ~f.is_hugetlb & (s.counts.nr_mms > 1) & f.is_anon)
    folio = pick(folios, "a folio of several processes")
    at = folio_at(s, folio, head_field(s, "_mm_ids"))
    e = explained("7.3", int(f.pfn[folio]), add(s, at, -(1 << 63)))
    assert the_wrong(e).counter == "FOLIO_MM_IDS_SHARED"
    assert f"{e.mms} address spaces map the folio; it is clear" in the_wrong(e).formula
    assert [x.rule for x in e.findings] == ["mm-id-shared-flag-missing"]
    assert e.looks_like[0].startswith("FOLIO_MM_IDS_SHARED is clear though")


@pytest.mark.parametrize("kernel", KERNELS)
def test_pages_that_the_dump_lacks(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = pfn_of(s, pick(small_anon(s, 1), "a private page", 5))
    target = open_core(path, types="btf")
    page = s.layout.memmap.page_addr(pfn) & ~4095

    def fault(address: int, _count: int, _offset: int, _physical: bool) -> bytes:
        raise drgn.FaultError("planted", address)

    target.prog.add_memory_segment(page, 4096, fault, False)
    e = build_explanation(Snapshot(target), pfn)
    assert (e.exit_code, e.head, e.ledger, e.references) == (4, None, [], None)
    assert "not in the dump" in text(e)


@pytest.mark.parametrize("kernel", KERNELS)
def test_work_in_flight_is_no_fault(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    row = pick(small_anon(s, 1), "a private page", 7)
    pfn = pfn_of(s, row)
    high = add(s, mapcount_at(s, row), 1, 4), flags_xor(s, pfn, "locked")
    e = build_explanation(without_stacks(core_path("fixture", kernel), *high), pfn)
    (line,) = [x for x in e.ledger if x.counter == "_mapcount"]
    assert (line.verdict, e.exit_code, e.looks_like) == ("in flight", 0, [])
    assert [x.severity for x in e.findings] == ["info"]
    # Where stacks are known and nobody stands in a window, a lock explains nothing.
    assert the_wrong(explained(kernel, pfn, *high)).counter == "_mapcount"
    # Too low is never in flight.
    low = explained(kernel, pfn, add(s, mapcount_at(s, row), -1, 4), flags_xor(s, pfn, "locked"))
    assert the_wrong(low).counter == "_mapcount"
