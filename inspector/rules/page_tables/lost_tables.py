"""The rule of page tables that no page table, list or task leads to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, AnyArray, Mask, distinct, rows_of, take_or
from inspector.rules.cause import Cause
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, PAGE, reached
from inspector.tables.pages import MANY_REFERENCES
from inspector.tables.swap_devices import swap_entries
from inspector.tables.zone_spans import of_no_zone
from inspector.text import counted
from inspector.violations import Things, Violations, cannot_check, holds, several, violations
from inspector.walk.deposits import UNREAD
from inspector.walk.mappings import TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM
from inspector.walk.unread_tables import pages_behind, tables_unknown, topless_mms, vmas_behind
from inspector.windows.grading import IN_FLIGHT
from inspector.windows.window import Effect

_OF_ANOTHER = (TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM)
"""States of what entries lead to that is not the table that they led to."""

_MOST_FOLIOS = 1 << 12
"""Folios in unreachable tables by which the mm that had them is known."""


@rule(
    "page-table-unreachable",
    PAGE,
    "page-tables",
    Phase.STRUCTURES,
    effect=Effect.TABLES,
    decides="89",
    was="page-table-orphaned",
)
def page_table_unreachable(s: Snapshot) -> Violations:
    """A page of type table is reachable from no mm and is not waiting to be freed.

    Invariant: every page of type table is reachable from the top table of an mm or of the kernel, is deposited for the
        split of a huge page, waits in a batch for a TLB flush or in a callback for an RCU grace period, or is named by
        the stack or the registers of a task that just allocated or unlinked it.
    Why: include/linux/mm.h, pagetable_pte_ctor() and its kin set the type, pagetable_dtor() clears it; mm/mmu_gather.c,
        tlb_remove_table(); mm/pgtable-generic.c, pte_free_defer().
    Consequence: the table and the pages that its entries map are never freed, and "BUG: non-zero pgtables_bytes on
        freeing mm" follows when its process exits.
    Exceptions: a table that cannot be followed or read may lead to it; the number of tables that wait for RCU is a
        note. Graded transient while RCU callbacks are being invoked, or while the stack of a running task is unknown:
        either may hold the table. Of an unreachable subtree only the topmost table is reported.
    See also: folioscope page PFN
    """
    lost = s.lost_tables
    total = sum(lost.counts.values())
    waiting = lost.counts["RCU"] + lost.counts["TLB flush"]
    note = ""
    if waiting:
        note = f"waiting to be freed, for an RCU grace period or a TLB flush: {counted(waiting, 'page table')}"
    rows = lost.row
    entries = np.bincount(lost.table, minlength=len(rows))
    rings_unread = (s.deposits.state == UNREAD).any()
    why = "page tables, lists, stacks or processes that may lead to more page tables are damaged or missing"
    if lost.unreadable or s.gathers.unreadable or not s.mms_complete:
        return holds(total, cannot_check(len(rows) + int(lost.below.sum()), why), note)
    # A table is empty while it is deposited (mm/huge_memory.c, __do_huge_pmd_anonymous_page() and its kin).
    fits = _fit(s) | (rings_unread & (entries == 0) & (lost.below == 0))
    unread = cannot_check(int((lost.below + 1)[fits].sum()), why)
    rows, entries = rows[~fits], entries[~fits]
    unsure = ""
    if s.stacks.incomplete:
        unsure = f"the stacks of {counted(s.stacks.incomplete, 'task')} are not known: they may hold it"
    elif lost.invoked:
        unsure = f"{counted(lost.invoked, 'RCU callback')} are being invoked: one may free it"
    return violations(
        rows,
        observed={"owner": "none", "_refcount": s.pages.refcount[rows]},
        expected={"owner": "an mm, or a list of tables to be freed"},
        checked=total + len(rows),
        unread=unread,
        facts={"tables_below": lost.below[~fits], "entries": entries, IN_FLIGHT: unsure},
        claims=_mapped(s).of(np.flatnonzero(~fits), len(fits)),
        transient=np.full(len(rows), bool(unsure)),
        note=note,
    )


def may_hang_in(s: Snapshot, causes: Sequence[Cause], mms: Mask, empty: bool) -> bool:
    """Whether unreachable tables map what some mms may map.

    Args:
        s: The snapshot.
        causes: What the rule of unreachable tables found.
        mms: bool by row of the mms.
        empty: The answer for tables that map no folio: they may have been any mm's.
    """
    parts = [
        ids for c in causes for kind, at, ids in c.violations.details.claims.parts if kind == FOLIO.name and len(at)
    ]
    heads = s.pages.memmap.rows(np.concatenate([*parts, np.empty(0, np.int64)])[:_MOST_FOLIOS])
    return bool(reached(s, heads, mms).any()) if len(heads) else empty


def _fit(s: Snapshot) -> Mask:
    """Which lost tables may be those that entries led to that cannot be followed: pages in them may be mapped there.

    An empty one may be any. There are no more of them than their mms count beside the tables that are found; those
    with the most such pages come first. A table of the last level that hangs below no other lost one was led to by an
    entry of the level above, and by no higher one.
    """
    lost, gone, arch = s.lost_tables, tables_unknown(s, Level.PTE), s.layout.arch
    topless = topless_mms(s)
    out = np.zeros(len(lost.row), np.bool_)
    if not len(out) or not (len(gone) or len(topless)):
        return out
    behind = vmas_behind(s, gone)
    if behind is None:
        return ~out
    leaf = lost.leaf
    hit = (lost.page >= 0) & take_or(pages_behind(s, behind), lost.page, False)
    pages = np.bincount(lost.table[leaf[hit]], minlength=len(out))
    out = (pages > 0) | (np.bincount(lost.table[leaf], minlength=len(out)) == 0)
    if not (_level_lost(s, gone) == Level.PTE).any():
        # To the level above what maps a page looks like what leads to a table.
        is_small = arch.table_mask(Level.PMD, lost.entry[leaf])
        out &= (lost.below > 0) | (np.bincount(lost.table[leaf[is_small]], minlength=len(out)) == 0)
    first = np.argsort(-pages, kind="stable")
    most = _tables_lost(s, distinct(np.concatenate([s.tables.mm_idx[gone], topless])))
    out[first] &= np.cumsum(((lost.below + 1) * out)[first]) <= most
    return out


def _level_lost(s: Snapshot, gone: I64) -> I64:
    """The level of the tables that entries in, or instead of, some tables led to.

    A table whose struct page was overwritten is there, but not among those that are lost.
    """
    instead = np.isin(s.tables.state, _OF_ANOTHER) & ~_struct_page_damaged(s)
    level = s.tables.level[gone].astype(np.int64)
    return np.where(instead[gone], level, level - 1)


def _tables_lost(s: Snapshot, mms: AnyArray) -> int:
    """How many page tables some mms count beyond those that are found (include/linux/mm.h, mm_inc_nr_ptes())."""
    t, shift = s.tables, s.layout.memmap.page_shift
    has = np.zeros(len(s.mms), np.bool_)
    has[mms] = True
    there = ~np.isin(t.state, _OF_ANOTHER) | _struct_page_damaged(s)
    found = np.count_nonzero(has[t.mm_idx] & (t.level <= Level.PUD) & there)
    deposited = np.count_nonzero(has[t.mm_idx[s.deposits.table_idx]])
    counted_by_mms = int((s.mms.pgtables_bytes[mms] >> shift).sum())
    not_counted = len(topless_mms(s)) * sum(shape.level > Level.PUD for shape in s.layout.arch.shapes)
    return max(counted_by_mms + not_counted - int(found) - int(deposited), 0)


def _struct_page_damaged(s: Snapshot) -> Mask:
    """Which page tables may be some, though their pages are of another kind: their struct pages make no sense."""
    row = s.pages.memmap.rows(s.tables.pfn)
    flags, refcount = take_or(s.pages.flags, row, 0), take_or(s.pages.refcount, row, 0).astype(np.int64)
    no_zone = of_no_zone(s.zone_spans, s.layout.zone_bits, s.tables.pfn, flags)
    out: Mask = (row >= 0) & (no_zone | (np.abs(refcount) > MANY_REFERENCES))
    return out


def _mapped(s: Snapshot) -> Things:
    """The folios and swap slots in each lost table's entries: they count more users than are found without it."""
    lost, arch, pages = s.lost_tables, s.layout.arch, s.pages
    swap = np.flatnonzero(arch.classify(Level.PTE, lost.entry) == Kind.SWAP)
    folio = pages.memmap.pfns_of_rows(take_or(pages.head_row, lost.page, -1))
    named = swap_entries(arch.swap_type(lost.entry[swap]), arch.swap_offset(lost.entry[swap]))
    slot = rows_of(s.swap.slots.entry, named)
    return _once("folio", lost.table[lost.leaf], folio) + _once("swap_slot", lost.table[swap], slot.astype(np.int64))


def _once(kind: str, table: I64, things: I64) -> Things:
    """The things that each table refers to, each once."""
    table, thing = np.unique(np.stack([table, things])[:, things >= 0], axis=1)
    return several(kind, table, thing)
