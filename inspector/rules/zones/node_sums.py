"""Rules of counters of memory nodes that follow single pages: page tables, and pins taken and given back."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.rules.needs import NO_CGROUPS, PAGES
from inspector.rules.registry import Phase, rule
from inspector.rules.settling import settle_by_pages
from inspector.snapshot import Snapshot
from inspector.subjects import NODE_COUNTER
from inspector.violations import Violations, cannot_check, holds, violations
from inspector.walk.node_sums import pins_by_node, tables_by_node
from inspector.windows.holders import runs_on
from inspector.windows.window import Effect, named

_LIVE = "pages and counters are read at different moments while the kernel runs"

_OF_TABLES = named(
    "pte_alloc_one __pte_alloc __pte_alloc_kernel __pmd_alloc __pud_alloc __p4d_alloc pgd_alloc pgd_free _pgd_alloc"
    " _pgd_free pagetable_free pte_free pte_free_now pte_free_defer ___pte_free_tlb ___pmd_free_tlb ___pud_free_tlb"
    " ___p4d_free_tlb __tlb_remove_table tlb_remove_table tlb_remove_table_rcu __tlb_remove_table_one free_pgd_range"
    " pmd_free_pte_page pud_free_pmd_page do_huge_pmd_anonymous_page collapse_huge_page retract_page_tables"
    " collapse_pte_mapped_thp try_collapse_pte_mapped_thp zap_deposited_table __split_huge_pmd __split_huge_pmd_locked"
)
"""Functions that make pages page tables and give them back: mm/memory.c, mm/mmu_gather.c, mm/pgtable-generic.c,
mm/huge_memory.c, mm/khugepaged.c, arch/x86/mm/pgtable.c."""

_OF_PINS = named(
    "try_grab_folio try_grab_page try_grab_folio_fast gup_put_folio gup_fast_pte_range gup_pte_range gup_huge_pmd"
    " gup_fast gup_fast_fallback internal_get_user_pages_fast __get_user_pages follow_page_pte follow_page_mask"
    " unpin_user_page unpin_user_folio unpin_folio unpin_user_pages unpin_user_pages_dirty_lock"
    " unpin_user_page_range_dirty_lock unpin_folios folio_add_pin folio_add_pins __bio_release_pages bio_release_pages"
)
"""Functions that pin pages and give pins back: mm/gup.c, block/bio.c."""


def _stored(s: Snapshot, item: str) -> I64:
    """Rows of an item of all nodes in `inspector.tables.node_counters.NodeCounters`."""
    counters = s.node_counters
    return np.flatnonzero((counters.item == item) & (counters.zone < 0))


def _why_not(s: Snapshot) -> Violations | None:
    if runs_on(s):
        return holds(0, note=_LIVE)
    if s.layout.flag_fields is None or not len(s.node_counters):
        return holds(0, note=NO_CGROUPS)
    if s.pages.nr_unreadable:
        return holds(0, cannot_check(s.layout.nr_nodes, "struct pages are missing"))
    return None


@rule(
    "page-table-counter-mismatch",
    NODE_COUNTER,
    "node-counters",
    Phase.TOTALS,
    effect=Effect.STATISTIC,
    needs=PAGES,
    decides="137",
    severity="warn",
    settle=settle_by_pages,
)
def page_table_counter_mismatch(s: Snapshot) -> Violations:
    """NR_PAGETABLE of a node is not the number of pages there that are page tables.

    Invariant: NR_PAGETABLE of a node is the pages of type table on it, those of the kernel's own address space among
        them, as far as they were allocated as such. The per-CPU parts are added.
    Why: include/linux/mm.h, pagetable_pte_ctor() and its kin set the type and count the page, the destructors undo
        both; mm/vmstat.c, __mod_node_page_state().
    Consequence: meminfo's PageTables is wrong; a table was freed with its type, or lost its type while in use.
    Exceptions: a task is in a function that makes or frees page tables.
    See also: folioscope memory
    """
    why_not = _why_not(s)
    if why_not is not None:
        return why_not
    mine, counters = _stored(s, "NR_PAGETABLE"), s.node_counters
    expected = tables_by_node(s)[counters.node[mine]]
    off = np.flatnonzero(counters.stored[mine] != expected)
    return violations(
        mine[off],
        observed={"stored": counters.stored[mine[off]]},
        expected={"stored": expected[off]},
        checked=len(mine),
        transient=_in_motion(s, off, _OF_TABLES),
    )


@rule(
    "pin-counter-mismatch",
    NODE_COUNTER,
    "node-counters",
    Phase.TOTALS,
    effect=Effect.STATISTIC,
    needs=PAGES,
    decides="69",
    severity="warn",
    settle=settle_by_pages,
)
def pin_counter_mismatch(s: Snapshot) -> Violations:
    """The pins taken on a node less those given back are not the pins that its pages have.

    Invariant: NR_FOLL_PIN_ACQUIRED less NR_FOLL_PIN_RELEASED of a node is the sum of _pincount over its large folios,
        and a pin for each 1024 references of a small page; where a small page has so many references beyond its
        mappings, these may be pins or not. The per-CPU parts are added.
    Why: mm/gup.c, try_grab_folio() and gup_put_folio() count each pin with the reference.
    Consequence: a pin was lost with its page, or a page has pins that were never taken: memory under I/O is freed, or
        can never be moved again.
    Exceptions: a task is in a function that pins pages or gives pins back.
    See also: folioscope memory; folioscope references
    """
    why_not = _why_not(s)
    if why_not is not None:
        return why_not
    counters = s.node_counters
    mine, released = _stored(s, "NR_FOLL_PIN_ACQUIRED"), _stored(s, "NR_FOLL_PIN_RELEASED")
    if not len(mine) or len(mine) != len(released):
        return holds(0, note=NO_CGROUPS)
    live = counters.stored[mine] - counters.stored[released]
    least, most = (pins[counters.node[mine]] for pins in pins_by_node(s))
    off = np.flatnonzero((live < least) | (live > most))
    return violations(
        mine[off],
        observed={"stored": live[off]},
        expected={"stored": np.where(live[off] < least[off], least[off], most[off])},
        facts={"counted": np.full(len(off), "acquired less released")},
        checked=len(mine),
        transient=_in_motion(s, off, _OF_PINS),
    )


def _in_motion(s: Snapshot, off: I64, functions: frozenset[str]) -> Mask:
    return np.full(len(off), len(off) > 0 and s.stacks.any_in(functions), np.bool_)
