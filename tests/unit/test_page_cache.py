"""The page cache is read and compared alike however small the pieces, and what is kept of it is what is odd."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from inspector.columns import Table
from inspector.lib import xarray
from inspector.rules import find_rule
from inspector.rules.files.page_cache import cached_totals
from inspector.snapshot import Snapshot
from inspector.tables.files import ENTRY_KINDS, FOLIO, SWAP, SWAP_ENTRY
from inspector.walk import references
from inspector.walk.page_cache import CachedFolios, cached_folios
from tests.faults.overlay import KERNELS, core_path, opened, sound
from tests.rules.broken import broken, same

RULES = ("cache-nrpages-mismatch", "cache-entry-mismatch", "cached-folio-missing", "shmem-swapped-mismatch")


def in_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let pieces of the page cache have some entries, and none of these be kept."""
    monkeypatch.setattr(xarray, "_PIECE", size)
    monkeypatch.setattr(xarray, "_ENTRIES", size)
    monkeypatch.setattr(xarray, "_KEPT", 0)


@pytest.fixture(params=[1, 7, 1000])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, request.param)


def equal(one: Table, other: Table) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


@pytest.mark.parametrize("kernel", KERNELS)
def test_entries_are_the_same_in_any_pieces(kernel: str, small: None) -> None:
    whole = sound(core_path("fixture", kernel))
    assert len(whole.files.entries) > 1000
    s = Snapshot(opened(core_path("fixture", kernel)))
    assert equal(s.files.entries, whole.files.entries)
    assert equal(s.files.address_spaces, whole.files.address_spaces)
    assert equal(s.files.swapped, whole.files.swapped)
    assert equal(s.files.swap_cache, whole.files.swap_cache)
    assert np.array_equal(s.files.indices, whole.files.indices)


@pytest.mark.parametrize("kernel", KERNELS)
def test_entries_are_found_again_by_number_and_by_address_space(kernel: str, small: None) -> None:
    entries = sound(core_path("fixture", kernel)).files.entries
    s = Snapshot(opened(core_path("fixture", kernel)))
    numbers = np.array([len(entries) - 1, 0, 500, 0, 41], np.int64)
    assert equal(s.files.numbered(numbers), entries.take(numbers))
    kind, largest = s.files.address_spaces.kind, np.bincount(entries.address_space_idx).argmax()
    assert kind[largest] != SWAP
    assert equal(s.files.of_space(int(largest)), entries.take(np.flatnonzero(entries.address_space_idx == largest)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_entries_take_is_added_up_while_they_are_read(kernel: str) -> None:
    files = sound(core_path("fixture", kernel)).files
    e = files.entries
    for kind in range(len(ENTRY_KINDS)):
        mine = e.kind == kind
        added = np.bincount(e.address_space_idx[mine], weights=e.nr[mine], minlength=len(files.address_spaces))
        assert np.array_equal(files.indices[:, kind], added)
    assert len(files.swapped) == (e.kind == SWAP_ENTRY).sum()


@pytest.mark.parametrize("kernel", KERNELS)
def test_rules_find_the_same_in_any_pieces(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s = broken(kernel)
    expected = {slug: find_rule(slug).run(s) for slug in RULES}
    rows = np.flatnonzero(s.pages.refcount > 0)[::11]
    totals, terms = cached_totals(s), references.break_down(s, rows)
    assert sum(len(found) for found in expected.values()) > 0
    in_pieces(monkeypatch, 13)
    for table in ("page_cache", "files", "_found_spaces"):
        monkeypatch.delitem(vars(s), table)
    for slug, found in expected.items():
        assert same(find_rule(slug).run(s), found), slug
    assert cached_totals(s) == totals
    assert np.array_equal(references.break_down(s, rows).terms["page_cache"], terms.terms["page_cache"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_of_a_sound_page_cache_nothing_is_kept_an_entry(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    cache, entries = s.page_cache, s.files.entries
    assert len(cache.odd) == 0
    assert len(cache.locked) < len(entries) / 100
    every = CachedFolios.concat(list(cached_folios(s)))
    assert every.agree(s.files.address_spaces).all()
    assert equal(entries.take(every.entry), s.files.numbered(every.entry))
    assert (s.files.address_spaces.kind[every.space] != SWAP).all()
    assert cache.checked == len(every)


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 16])
def test_neighbours_of_one_folio_across_pieces_are_one_entry(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folios of the swap cache had an entry for each page before 6.18."""
    in_pieces(monkeypatch, size)
    s = Snapshot(opened(core_path("fixture", "6.1")))
    e, spaces = s.files.entries, s.files.address_spaces
    of_swap = (spaces.kind[e.address_space_idx] == SWAP) & (e.kind == FOLIO)
    merged = s.files.swap_cache
    assert int(merged.nr.sum()) == int(e.nr[of_swap].sum()) > 0
    assert len(np.unique(merged.pfn)) == len(merged)
    space = int(merged.address_space_idx[0])
    seen = s.files.of_space(space)
    assert np.array_equal(seen.pfn[seen.kind == FOLIO], merged.pfn[merged.address_space_idx == space])
