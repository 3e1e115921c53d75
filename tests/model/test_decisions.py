"""What the kernel would do with a folio: the comparisons of do_wp_page(), can_split_folio() and their like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.model.decisions import (
    FolioSituation,
    may_collapse,
    may_migrate,
    may_reclaim,
    may_split,
    on_fork,
    on_write_fault,
    sum_text,
)
from inspector.model.scheme import Scheme

SMALL = FolioSituation(
    scheme=Scheme.MM_IDS,
    refcount=1,
    mapcount=1,
    nr_pages=1,
    cache=0,
    swap=0,
    private=0,
    batch=0,
    pins=False,
    is_anon=True,
    is_ksm=False,
    is_hugetlb=False,
    on_lru=True,
    mlocked=False,
    unevictable=False,
    writeback=False,
    locked=False,
    dirty=False,
    swapbacked=True,
    in_locked_vma=False,
    free_swap=1000,
    maybe_shared=None,
)
THP = replace(SMALL, nr_pages=512, refcount=512, mapcount=512, maybe_shared=False)


def write(s: FolioSituation, *, exclusive: bool = False, huge: bool = False) -> str:
    return on_write_fault(s, exclusive=exclusive, huge=huge).answer


def test_the_only_reference_is_reused_and_two_are_not() -> None:
    assert write(SMALL) == "reuse"
    assert write(replace(SMALL, refcount=2)) == "copy"
    assert write(replace(SMALL, refcount=2), exclusive=True) == "reuse"
    found = on_write_fault(replace(SMALL, refcount=3), exclusive=False, huge=False)
    assert found.reason == "3 references, 1 allowed: the mapping's own"


def test_the_swap_cache_and_batches_may_hold_one_more() -> None:
    assert write(replace(SMALL, refcount=2, swap=1)) == "reuse"
    assert write(replace(SMALL, refcount=3, swap=1)) == "copy"
    assert write(replace(SMALL, refcount=2, batch=1, on_lru=False)) == "reuse"


def test_ksm_and_files_are_always_copied() -> None:
    assert write(replace(SMALL, is_ksm=True)) == "copy"
    assert write(replace(SMALL, is_anon=False, cache=1, refcount=2)) == "copy"


def test_hugetlb_looks_at_the_mapcount() -> None:
    assert write(replace(SMALL, is_hugetlb=True, nr_pages=512), huge=True) == "reuse"
    assert write(replace(SMALL, is_hugetlb=True, nr_pages=512, mapcount=2, refcount=2), huge=True) == "copy"


@pytest.mark.parametrize(
    ("scheme", "refcount", "mapcount", "answer"),
    [
        (Scheme.OLD, 1, 1, "reuse"),
        (Scheme.OLD, 2, 2, "copy"),
        (Scheme.RMAP68, 1, 1, "unknown"),
        (Scheme.RMAP68, 2, 2, "copy"),
        (Scheme.LARGE, 1, 1, "copy"),
        (Scheme.LARGE, 512, 512, "copy"),
        (Scheme.MM_IDS, 1, 1, "copy"),
        (Scheme.MM_IDS, 512, 512, "reuse"),
        (Scheme.MM_IDS, 513, 512, "copy"),
        (Scheme.NO_PAGE_MAPCOUNT, 7, 7, "reuse"),
    ],
)
def test_a_page_of_a_large_folio_that_is_not_exclusive(
    scheme: Scheme, refcount: int, mapcount: int, answer: str
) -> None:
    assert write(replace(THP, scheme=scheme, refcount=refcount, mapcount=mapcount)) == answer


def test_the_shared_flag_forbids_reuse() -> None:
    assert write(replace(THP, maybe_shared=True)) == "copy"


def test_a_huge_mapping_is_reused_whole_or_split() -> None:
    one = replace(THP, refcount=1, mapcount=1)
    assert write(one, huge=True) == "reuse"
    found = on_write_fault(replace(one, refcount=2, mapcount=2), exclusive=False, huge=True)
    assert found.answer == "copy"
    assert "the PMD is split" in found.reason


def test_fork_copies_what_is_pinned() -> None:
    assert on_fork(SMALL, exclusive=True).answer == "share"
    assert on_fork(replace(SMALL, pins=True, refcount=1025), exclusive=True).answer == "copy"
    assert on_fork(replace(SMALL, pins=True, refcount=1025), exclusive=False).answer == "share"


def test_splitting_wants_no_other_reference() -> None:
    assert may_split(SMALL).answer == "no"
    assert may_split(THP).answer == "yes"
    assert may_split(replace(THP, refcount=513)).reason == "513 references, 1 more than 512 mapped (-EAGAIN)"
    assert may_split(replace(THP, refcount=1024, swap=512)).answer == "yes"
    assert may_split(replace(THP, writeback=True)).answer == "no"
    assert may_split(replace(THP, is_hugetlb=True)).answer == "no"
    assert "locked" in may_split(replace(THP, locked=True)).reason


def test_migration_drains_batches_and_fears_pins() -> None:
    assert may_migrate(SMALL).answer == "yes"
    assert may_migrate(replace(SMALL, refcount=2)).answer == "no"
    assert may_migrate(replace(SMALL, refcount=2, batch=1)).answer == "yes"
    assert may_migrate(replace(SMALL, refcount=2, batch=1, on_lru=False)).answer == "yes"
    assert may_migrate(replace(SMALL, on_lru=False)).answer == "no"
    assert "pinned" in may_migrate(replace(SMALL, refcount=1025, pins=True)).reason
    assert "locked" in may_migrate(replace(SMALL, locked=True)).reason
    assert "locked" in may_migrate(replace(SMALL, locked=True, is_hugetlb=True, on_lru=False)).reason
    assert "-EBUSY" in may_migrate(replace(SMALL, writeback=True)).reason


def test_khugepaged_leaves_alone_what_is_locked_off_the_lru_or_held() -> None:
    assert may_collapse(SMALL).answer == "yes"
    assert may_collapse(replace(SMALL, mapcount=3, refcount=3)).answer == "yes"
    assert "SCAN_PAGE_LOCK" in may_collapse(replace(SMALL, locked=True)).reason
    assert "SCAN_PAGE_LRU" in may_collapse(replace(SMALL, on_lru=False)).reason
    assert "SCAN_PAGE_COUNT" in may_collapse(replace(SMALL, refcount=2)).reason


def test_reclaim_leaves_locked_and_pinned_memory_alone() -> None:
    assert may_reclaim(SMALL).answer == "yes"
    for changed in (
        replace(SMALL, mlocked=True),
        replace(SMALL, writeback=True),
        replace(SMALL, on_lru=False),
        replace(SMALL, refcount=1025, pins=True),
        replace(SMALL, is_hugetlb=True),
        replace(SMALL, refcount=2),
        replace(SMALL, locked=True),
        replace(SMALL, unevictable=True),
        replace(SMALL, in_locked_vma=True),
        replace(SMALL, free_swap=0),
    ):
        assert may_reclaim(changed).answer == "no"


def test_reclaim_needs_swap_only_for_what_is_nowhere_else() -> None:
    full = replace(SMALL, free_swap=0)
    assert may_reclaim(replace(full, swap=1, refcount=2)).answer == "yes"
    assert may_reclaim(replace(full, swapbacked=False)).answer == "yes"
    assert may_reclaim(replace(full, free_swap=None)).answer == "yes"
    shmem = replace(full, is_anon=False, cache=1, refcount=2)
    assert "no free swap" in may_reclaim(shmem).reason
    file = replace(shmem, swapbacked=False)
    assert may_reclaim(file).answer == "yes"
    assert "write it back" in may_reclaim(replace(file, dirty=True)).reason


def test_many_mappings_look_like_pins_to_reclaim_alone() -> None:
    shared = replace(SMALL, mapcount=1100, refcount=1100, pins=True)
    assert may_migrate(shared).answer == "yes"
    assert "counts as pinned" in may_reclaim(shared).reason
    file = replace(shared, is_anon=False, swapbacked=False, cache=1, refcount=1101)
    assert may_reclaim(file).answer == "yes"
    assert "pinned" in may_reclaim(replace(file, refcount=1101 + 1024)).reason


def test_the_file_system_and_its_flags_decide_about_file_folios() -> None:
    file = replace(SMALL, is_anon=False, swapbacked=False, cache=1, refcount=2)
    assert may_migrate(replace(file, migrate_folio=None)).answer == "yes"
    assert "not in the dump" in may_migrate(replace(file, migrate_folio=None)).reason
    private = replace(file, migrate_folio="", private=1, refcount=3)
    assert "filemap_release_folio()" in may_migrate(private).reason
    assert "filemap_release_folio()" in may_reclaim(private).reason
    assert may_migrate(replace(file, migrate_folio="", dirty=True)).source == "fallback_migrate_folio()"
    assert may_migrate(replace(file, space_flags=frozenset({"INACCESSIBLE"}))).answer == "no"
    assert "AS_UNEVICTABLE" in may_reclaim(replace(file, space_flags=frozenset({"UNEVICTABLE"}))).reason
    assert "flusher" in may_reclaim(replace(file, dirty_entries=True)).reason
    large = replace(file, nr_pages=4, cache=4, refcount=5)
    assert may_split(large).answer == "yes"
    assert "-EINVAL" in may_split(replace(large, min_order=2)).reason
    assert "-EAGAIN" in may_split(replace(large, in_tree=False)).reason
    assert "truncated" in may_split(replace(large, has_mapping=False)).reason


def test_compaction_passes_by_what_migration_would_move() -> None:
    assert "compaction" not in may_migrate(SMALL).reason
    assert "large" in may_migrate(THP).reason
    assert "hugetlb" in may_migrate(replace(SMALL, is_hugetlb=True, on_lru=False, nr_pages=512)).reason
    unevictable = replace(SMALL, mlocked=True, unevictable=True)
    assert may_migrate(replace(unevictable, compacts_unevictable=True)).reason == may_migrate(SMALL).reason
    assert "compact_unevictable_allowed" in may_migrate(replace(unevictable, compacts_unevictable=False)).reason


def test_what_cannot_be_unmapped_is_left_alone() -> None:
    stuck = replace(THP, left=1)
    for decide in (may_split, may_migrate, may_reclaim):
        assert "stays mapped" in decide(stuck).reason
        assert decide(replace(THP, left=None)).answer == "yes"
    assert may_split(replace(THP, mapcount=0, refcount=512, swap=512)).source == "folio_get_anon_vma()"
    assert may_split(replace(THP, anon_vma_refcount=0)).source == "folio_get_anon_vma()"


def test_what_madv_free_gave_up_is_dropped_unless_it_was_written_to() -> None:
    free = replace(SMALL, swapbacked=False)
    assert may_reclaim(replace(free, free_swap=0)).answer == "yes"
    for written in (replace(free, dirty=True), replace(free, dirty_entries=True)):
        assert "MADV_FREE" in may_reclaim(written).reason
        assert may_reclaim(replace(written, droppable=True)).answer == "yes"
    assert may_collapse(free).answer == "yes"
    assert "LAZYFREE" in may_collapse(replace(free, scan_results=frozenset({"PAGE_LAZYFREE"}))).reason
    assert may_collapse(replace(free, scan_results=frozenset({"PAGE_LAZYFREE"}), dirty_entries=True)).answer == "yes"


@given(
    mapcount=st.integers(0, 600),
    cache=st.sampled_from([0, 1, 16]),
    private=st.integers(0, 1),
    extra=st.integers(-3, 3),
)
def test_all_hangs_on_the_references_beyond_the_expected_ones(
    mapcount: int, cache: int, private: int, extra: int
) -> None:
    s = replace(THP, mapcount=mapcount, cache=cache, private=private, is_anon=False)
    s = replace(s, refcount=s.expected + extra)
    assert s.extra == extra
    for found in (may_split(s), may_collapse(s), may_migrate(s), may_reclaim(s)):
        assert found.answer == ("yes" if extra == 0 else "no")
        assert str(s.refcount) in found.reason
    assert sum_text(s).startswith(("nothing", "0 ")) == (s.expected == 0)
