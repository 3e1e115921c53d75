"""What rmap, anon-vma and file say about damage, and their options, on every captured kernel."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from inspector.errors import UsageError
from inspector.report.anon_vma import anon_vma_of, build_anon_vma, find_anon_vma
from inspector.report.file import build_file, find_file
from inspector.report.pages import build_place
from inspector.report.rmap import RmapReport, SearchedPlace, build_rmap, found_text, render_rmap
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from inspector.walk.page_numbers import number_meanings
from inspector.walk.rmap import ANON, FILE, KSM, candidates_of
from tests.cli.conftest import Run
from tests.faults.overlay import planted, put, sound
from tests.faults.rmap_catalogue import (
    anon_vma_of_a_vma_forgotten,
    chain_unlinked_from_its_tree,
    file_vma_out_of_its_tree,
    folio_given_to_a_foreign_anon_vma,
    index_of_a_file_page_shifted,
    index_of_a_forked_page_shifted,
    subtree_last_of_a_leaf_wrong,
)
from tests.oracle.both_views import mapped_heads


def report_of(s: Snapshot, pfn: int, limit: int | None = None) -> RmapReport:
    return build_rmap(s, build_place(s, hex(pfn), number_meanings(s.layout, pfn)[0], []), limit)


def pfn_of(s: Snapshot, head: int) -> int:
    return int(s.pages.memmap.pfns_of_rows(np.array([head], np.int64))[0])


def heads_of(s: Snapshot, road: int) -> Any:
    heads = mapped_heads(s)
    places, kind = candidates_of(s, heads)
    nr = np.bincount(places.asked, minlength=len(heads))
    return heads[(kind == road) & ((nr > 1) | (road in (0, KSM)))]


def orphans_after(core: str, *patches: Any) -> tuple[Snapshot, list[RmapReport]]:
    """The damaged dump, and what rmap says of all its mapped folios where the views differ."""
    s = planted(core, *patches)
    heads = mapped_heads(s)
    reports = [report_of(s, pfn_of(s, h)) for h in heads[np.isin(heads, suspects(s))]]
    return s, [r for r in reports if not r.agree]


def suspects(s: Snapshot) -> Any:
    """Heads that some link or rule casts doubt on: not every folio is asked about one by one."""
    links, avcs = s.links, s.anon_rmap.avcs
    lost = np.concatenate(
        [
            avcs.list_vma_idx[avcs.tree_idx < 0],
            np.flatnonzero((s.file_rmap.address_space_of_vma >= 0) & ~s.file_rmap.in_tree),
        ]
    )
    named = links.mapping & ~np.uint64(3)
    own = s.vmas.anon_vma[links.vma_idx]
    foreign = links.is_anon & (named != own)
    return np.unique(links.head_row[(links.delta != 0) | np.isin(links.vma_idx, lost) | foreign])


@pytest.mark.parametrize("road", [ANON, FILE, KSM, 0])
def test_every_place_says_what_stands_there(any_core: str, road: int) -> None:
    s = sound(any_core)
    heads = heads_of(s, road)
    assert len(heads)
    for head in heads[:40]:
        report = report_of(s, pfn_of(s, head))
        assert report.agree
        assert all(sum(p.contents.values()) == p.pages for p in report.places)
        assert all((p.level is not None) == ("maps it" in p.contents) for p in report.places)


def test_places_of_ksm_are_found_without_the_page_tables(any_core: str) -> None:
    s = sound(any_core)
    reports = [report_of(s, pfn_of(s, h)) for h in heads_of(s, KSM)]
    assert sum(r.by_walk for r in reports) == len(s.ksm_entries)
    assert any(not p.entries for r in reports for p in r.places)


@pytest.mark.parametrize("road", [ANON, FILE])
def test_a_folio_whose_mapping_word_was_wiped_is_an_orphan(any_core: str, road: int) -> None:
    s = sound(any_core)
    pfn = pfn_of(s, heads_of(s, road)[0])
    word = s.layout.memmap.page_addr(pfn) + s.layout.struct("struct page").field("mapping").offset
    report = report_of(planted(any_core, put(s, word, 0)), pfn)
    assert (report.walk, report.agree) == ("none", False)
    assert len(report.orphans) == report.mapping_rows
    assert "no walk can begin" in report.orphans[0].reason
    assert "The views differ" in "\n".join(render_rmap(Screen(), report))


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (chain_unlinked_from_its_tree, "is not in the interval tree"),
        pytest.param(index_of_a_forked_page_shifted, "wrong index", marks=pytest.mark.long),
        (index_of_a_file_page_shifted, "wrong index"),
        pytest.param(file_vma_out_of_its_tree, "not in the file's i_mmap tree", marks=pytest.mark.long),
        (folio_given_to_a_foreign_anon_vma, "anon_vma unreachable"),
    ],
)
def test_the_reason_is_the_fault(any_core: str, plant: Any, reason: str) -> None:
    s, differ = orphans_after(any_core, *plant(sound(any_core)).patches)
    lost = np.flatnonzero((s.file_rmap.address_space_of_vma >= 0) & ~s.file_rmap.in_tree)
    maps_nothing = len(lost) > 0 and not np.isin(s.links.vma_idx, lost).any()
    assert bool(differ) != maps_nothing
    assert all(reason in o.reason for r in differ for o in r.orphans), differ[0].orphans[0].reason
    assert all(r.orphans for r in differ)


def test_the_road_does_not_need_the_anon_vma_of_the_vma(any_core: str) -> None:
    """Chains lead to it whatever vma->anon_vma says."""
    assert orphans_after(any_core, *anon_vma_of_a_vma_forgotten(sound(any_core)).patches)[1] == []


def test_limit_cuts_the_lists_and_nothing_else(run: Run, any_core: str) -> None:
    pfn = pfn_of(sound(any_core), heads_of(sound(any_core), FILE)[0])
    whole = run("-c", any_core, "rmap", hex(pfn), "--format", "json").object
    cut = run("-c", any_core, "rmap", hex(pfn), "--format", "json", "--limit", "1").object
    assert len(cut["places"]) == 1 < cut["place_rows"] == len(whole["places"])
    assert (cut["by_walk"], cut["agree"]) == (whole["by_walk"], True)
    assert "--limit 0 lists all" in run("-c", any_core, "rmap", hex(pfn), "--limit", "1").out


def test_anon_vma_of_a_page_is_the_one_that_its_folio_names(run: Run, any_core: str) -> None:
    s = sound(any_core)
    head = heads_of(s, ANON)[0]
    word = int(s.pages.mapping[head]) & ~3
    of = run("-c", any_core, "anon-vma", "--of", hex(pfn_of(s, head)), "--format", "json").object
    assert of["address"] == hex(word)
    assert of == run("-c", any_core, "anon-vma", hex(word), "--format", "json").object
    for words in ((), (hex(word), "--of", hex(pfn_of(s, head))), ("--of", hex(pfn_of(s, heads_of(s, FILE)[0])))):
        result = run("-c", any_core, "anon-vma", *words, "--format", "json")
        assert result.code == 2, words
        assert "error" in json.loads(result.out)


def test_families_are_whole_and_trees_are_sound(any_core: str) -> None:
    s = sound(any_core)
    table = s.anon_rmap.anon_vmas
    for row in np.flatnonzero(table.tree != 0)[::23].tolist():
        report = build_anon_vma(s, row)
        addresses = [m.address for m in report.family]
        assert len(set(addresses)) == len(addresses) == int((table.root_idx == table.root_idx[row]).sum())
        assert all(m.depth == 0 or addresses.index(m.parent) < i for i, m in enumerate(report.family) if m.depth >= 0)
        by_address = {c.address: c for c in report.tree}
        assert sum(c.above is None for c in report.tree) == 1
        assert not any(c.red and (c.above is None or by_address[c.above].red) for c in report.tree)


def test_a_wrong_bound_and_a_lost_vma_are_shown(any_core: str) -> None:
    whole = sound(any_core)
    s = planted(any_core, *subtree_last_of_a_leaf_wrong(whole).patches)
    wrong = np.flatnonzero(s.anon_rmap.avcs.subtree_last != s.anon_rmap.avcs.true_subtree_last)
    tree = build_anon_vma(s, int(s.anon_rmap.avcs.tree_idx[wrong[0]])).tree
    assert any(c.subtree_last != c.expected_subtree_last for c in tree)
    s = planted(any_core, *file_vma_out_of_its_tree(whole).patches)
    lost = np.flatnonzero((s.file_rmap.address_space_of_vma >= 0) & ~s.file_rmap.in_tree)
    space = int(s.file_rmap.address_spaces.addr[s.file_rmap.address_space_of_vma[lost[0]]])
    report = build_file(s, find_file(s, hex(space)))
    assert [m.in_tree for m in report.mappers].count(False) == len(lost)


def test_mapped_folios_of_a_file_add_up(any_core: str) -> None:
    s = sound(any_core)
    report = build_file(s, find_file(s, "/bin/keeper"))
    heads = mapped_heads(s)
    mine = heads[s.pages.mapping[heads] == np.uint64(report.address_space)]
    assert sum(o.mapped_folios for o in report.orders) == len(mine) > 0
    assert all(o.mapped_pages <= o.pages and o.mapped_folios <= o.folios for o in report.orders)
    assert report.tree_damage == []
    assert report.strange_vmas == []
    assert report.writable_vmas <= max(report.i_mmap_writable or 0, 0)


def test_a_page_that_is_not_anonymous_has_no_anon_vma(any_core: str) -> None:
    s = sound(any_core)
    with pytest.raises(UsageError, match="names no anon_vma"):
        anon_vma_of(s, pfn_of(s, heads_of(s, KSM)[0]))
    with pytest.raises(UsageError, match="there is no anon_vma"):
        find_anon_vma(s, 8)


@pytest.mark.parametrize(
    ("pages", "entries", "contents", "text"),
    [
        (16, 13, {"maps it": 13, "other page": 3}, "13 pages mapped by PTE, 3 hold another page"),
        (16, 15, {"maps it": 15, "empty": 1}, "15 pages mapped by PTE, 1 is empty"),
        (
            16,
            1,
            {"maps it": 1, "swap entry": 1, "migration entry": 14},
            "1 page mapped by PTE, 1 holds a swap entry, 14 hold a migration entry",
        ),
        (1, 1, {"maps it": 1}, "PTE maps it"),
        (1, 0, {"other page": 1}, "not mapped here: holds another page"),
        (2, 0, {"empty": 2}, "not mapped here: 2 are empty"),
    ],
)
def test_what_a_place_holds_in_words(pages: int, entries: int, contents: dict[str, int], text: str) -> None:
    place = SearchedPlace(0, None, None, 0, 0, 0, 0, 0, pages, 0, entries, "PTE" if entries else None, contents)
    assert found_text(place) == text
