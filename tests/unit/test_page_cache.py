"""The page cache is read and compared alike however small the pieces, and what is kept of it is what is odd."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from inspector.columns import Table
from inspector.lib import xarray
from inspector.rules import find_rule
from inspector.rules.files import page_cache as rules
from inspector.rules.files.page_cache import cached_totals
from inspector.snapshot import Snapshot
from inspector.tables import files
from inspector.tables.files import SWAP, CacheEntries
from inspector.walk import page_cache, references
from inspector.walk.page_cache import CachedFolios, cached_folios
from tests.faults.overlay import KERNELS, core_path, opened, sound
from tests.rules.broken import broken, same

MODULES = (xarray, files, page_cache, rules, references)
RULES = ("cache-nrpages-mismatch", "cache-entry-mismatch", "cached-folio-missing", "shmem-swapped-mismatch")


@pytest.fixture(params=[1, 7])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        monkeypatch.setattr(module, "_PIECE", request.param)


def equal(one: Table, other: Table) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


@pytest.mark.parametrize("kernel", KERNELS)
def test_entries_are_the_same_in_any_pieces(kernel: str, small: None) -> None:
    whole = sound(core_path("fixture", kernel))
    assert len(whole.files.entries) > 1000
    s = Snapshot(opened(core_path("fixture", kernel)))
    assert equal(s.files.entries, whole.files.entries)
    assert equal(s.files.address_spaces, whole.files.address_spaces)


@pytest.mark.parametrize("kernel", KERNELS)
def test_rules_find_the_same_in_any_pieces(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s = broken(kernel)
    expected = {slug: find_rule(slug).run(s) for slug in RULES}
    rows = np.flatnonzero(s.pages.refcount > 0)[::11]
    totals, terms = cached_totals(s), references.break_down(s, rows)
    assert sum(len(found) for found in expected.values()) > 0
    for module in MODULES:
        monkeypatch.setattr(module, "_PIECE", 13)
    monkeypatch.delitem(vars(s), "page_cache")
    for slug, found in expected.items():
        assert same(find_rule(slug).run(s), found), slug
    assert cached_totals(s) == totals
    assert np.array_equal(references.break_down(s, rows).terms["page_cache"], terms.terms["page_cache"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_of_a_sound_page_cache_nothing_is_kept_an_entry_but_whether_it_agrees(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    cache, entries = s.page_cache, s.files.entries
    assert len(cache.odd) == 0
    assert len(cache.locked) < len(entries) / 100
    every = CachedFolios.concat(list(cached_folios(s)))
    assert np.array_equal(every.entry_row, np.flatnonzero(cache.agrees))
    assert (s.files.address_spaces.kind[entries.address_space_idx[every.entry_row]] != SWAP).all()
    assert cache.checked == len(every)


def test_neighbours_of_one_folio_across_pieces_are_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folios of the swap cache had an entry for each page before 6.18."""
    whole = sound(core_path("fixture", "6.1"))
    of_swap = whole.files.address_spaces.kind[whole.files.entries.address_space_idx] == SWAP
    assert of_swap.any()
    for piece in (1, 2, 3):
        monkeypatch.setattr(files, "_PIECE", piece)
        s = Snapshot(opened(core_path("fixture", "6.1")))
        assert isinstance(s.files.entries, CacheEntries)
        assert equal(s.files.entries, whole.files.entries)
