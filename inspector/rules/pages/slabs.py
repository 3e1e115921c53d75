"""Rules of the struct pages of slabs: their own words, and pages that are slabs by all but their type."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.layout.flags import type_code
from inspector.rules.needs import PAGES
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.tables.slab_words import WORDS
from inspector.text import counted
from inspector.violations import Details, Violations, details, holds, unread_pages, violations
from inspector.windows.holders import runs_on
from inspector.windows.window import named

_AT_WORK = named(
    "allocate_slab new_slab alloc_slab_page ___slab_alloc refill_objects get_from_partial_node get_partial_node"
    " __refill_objects_node put_cpu_partial __put_partials __unfreeze_partials flush_cpu_slab deactivate_slab"
    " __slab_free free_slab __free_slab discard_slab rcu_free_slab free_to_partial_list __kmem_cache_do_shrink"
    " __kmem_cache_shrink bootstrap early_kmem_cache_node_alloc alloc_slab_obj_exts account_slab"
    " memcg_alloc_slab_cgroups"
)
"""Functions of mm/slub.c and mm/memcontrol.c in which words of a slab are written one after another."""


def _is_at_work(s: Snapshot) -> bool:
    """Whether a task is in such a function."""
    return s.stacks.any_in(_AT_WORK)


@rule("slab-page-damaged", PAGE, "slab", Phase.STRUCTURES, needs=PAGES)
def slab_page_damaged(s: Snapshot) -> Violations:
    """A word of a slab's struct page is none that the slab allocator leaves there.

    Invariant: slab_cache is the address of a kmem_cache, an object of the cache of all kmem_caches; freelist is 0 or an
        address inside the slab; slab_list links it with others, or holds what list_del() or the page allocator left;
        obj_exts (memcg_data) is 0, a mark, or the address of an array that the allocator gave, its lowest bit set.
    Why: mm/slub.c, allocate_slab(), add_partial(), remove_partial() and put_cpu_partial(); include/linux/memcontrol.h,
        slab_obj_exts().
    Consequence: the next allocation hands out memory that is not the slab's, or objects are freed to another cache.
    Exceptions: KFENCE's pages; a task is in a function that writes these words one after another; a kernel that runs
        on.
    See also: folioscope page PFN
    """
    if runs_on(s):
        return holds(0, note="words of slabs change while the kernel runs")
    found, nr = s.slab_words
    if len(found) > nr // 4:
        return holds(0, note=f"{counted(nr, 'slab')} have words of a kind that is not known")
    return violations(
        found.row,
        observed={"word": np.array(WORDS)[found.word], "stored": found.stored},
        expected={"stored": "what the slab allocator writes"},
        checked=nr,
        unread=unread_pages(s),
        transient=np.full(len(found), len(found) > 0 and _is_at_work(s)),
    )


def _counts(s: Snapshot, rows: I64) -> Details:
    refcount, mapcount = s.slab_counts
    return details(
        rows,
        observed={"_refcount": s.pages.refcount[rows], "_mapcount": s.pages.mapcount_raw[rows]},
        expected={"_refcount": refcount, "_mapcount": mapcount},
        transient=np.full(len(rows), _takes_references(s)),
    )


_WALKERS = named(
    "gup_fast gup_fast_pte_range gup_pte_range internal_get_user_pages_fast lockless_pages_from_mm"
    " isolate_migratepages_block page_idle_get_folio page_idle_get_page damon_get_folio damon_get_page"
    " do_migrate_range memory_failure soft_offline_page filemap_get_entry"
)
"""Functions that take a reference of any page for a moment, to see what it is."""


def _takes_references(s: Snapshot) -> bool:
    return s.stacks.any_in(_WALKERS)


@page_rule("slab-refcount-mismatch", _counts, "slab", Phase.SUMS)
def slab_refcount_mismatch(p: PagePiece) -> Judged:
    """The _refcount or _mapcount of a slab is not that of all slabs.

    Invariant: the _refcount of a slab is 1, or 0 where the allocator's pages are frozen; its _mapcount is the page
        type, or -1 where PG_slab is a flag.
    Why: mm/slub.c, alloc_slab_page() (alloc_frozen_pages() from 6.14 on); nothing maps slabs or takes references of
        them.
    Consequence: the slab's pages are not freed with it, or while it is in use.
    Exceptions: a task that examines pages whatever they are (GUP, compaction) holds a reference for a moment.
    See also: folioscope page PFN
    """
    slabs = p.readable & ~p.is_tail & (p.type == type_code("slab")) & ~p.has("reserved")
    refcount, mapcount = p.s.slab_counts
    return p.judge((p.refcount != refcount) | (p.mapcount_raw != mapcount), slabs)
