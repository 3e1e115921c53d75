"""The rule of page tables that nothing leads to."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, rows_of
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.tables.swap_devices import swap_entries
from inspector.text import counted
from inspector.violations import Relation, Violations, cannot_check, holds, several, violations
from inspector.walk.mappings import TABLE_OK
from inspector.windows.grading import IN_FLIGHT
from inspector.windows.window import Effect


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
    """A page is a page table by its type, but no address space leads to it and nobody is about to free it.

    Invariant: every page of type table hangs in the page tables of an mm or of the kernel, is deposited for a huge page
        to split, waits in a batch for a TLB flush or in a callback for an RCU grace period, or is named by the stack or
        the registers of a task that just allocated it or took it out.
    Why: include/linux/mm.h, pagetable_pte_ctor() and its kin set the type, pagetable_dtor() clears it; mm/mmu_gather.c,
        tlb_remove_table(); mm/pgtable-generic.c, pte_free_defer().
    Consequence: the table and whatever its entries refer to is never freed: pages stay mapped by nobody, and "BUG:
        non-zero pgtables_bytes on freeing mm" follows when its process exits.
    Exceptions: a table that cannot be followed or read may lead to it; the number of tables that wait for RCU is a
        note. Graded transient while RCU callbacks are being invoked, or while the stack of a running task is unknown:
        the table may be in their hands. Of tables that hang below one another the topmost is told.
    See also: folioscope page PFN
    """
    lost, p = s.lost_tables, s.pages
    total = sum(lost.counts.values())
    waiting = lost.counts["RCU"] + lost.counts["TLB flush"]
    note = f"waiting to be freed, for an RCU grace period or a TLB flush: {counted(waiting, 'page table')}" * bool(
        waiting
    )
    hidden = int((s.tables.state != TABLE_OK).sum()) + int((s.mms.pgd_pfn < 0).sum())
    missing = s.missing.counts.get("mms", 0) + s.missing.counts.get("tasks", 0) + (not s.layout.variable("mm_cachep"))
    rows = lost.row
    entries = np.bincount(lost.table, minlength=len(rows))
    if hidden or missing or lost.unreadable:
        why = "page tables, lists or processes that may lead to more page tables are damaged or missing from the dump"
        return holds(total, cannot_check(len(rows) + int(lost.below.sum()), why), note)
    unsure = ""
    if s.stacks.incomplete:
        unsure = f"the stacks of {counted(s.stacks.incomplete, 'task')} are not known: they may hold it"
    elif lost.invoked:
        unsure = f"{counted(lost.invoked, 'RCU callback')} are being invoked: one may free it"
    return violations(
        rows,
        observed={"owner": np.full(len(rows), "none"), "_refcount": p.refcount[rows]},
        expected={"owner": np.full(len(rows), "an address space, or a list of tables to be freed")},
        checked=total + len(rows),
        facts={"tables_below": lost.below, "entries": entries, IN_FLIGHT: np.full(len(rows), unsure)},
        claims=_held(s),
        transient=np.full(len(rows), bool(unsure)),
        note=note,
    )


def _held(s: Snapshot) -> Relation:
    """The folios and swap slots that each lost table refers to: that they count a user too much is its fault."""
    lost, arch, pages = s.lost_tables, s.layout.arch, s.pages
    # A leaf of any level names its first page as a PTE does.
    kind = arch.classify(Level.PTE, lost.entry)
    leaf, swap = np.flatnonzero(kind == Kind.LEAF), np.flatnonzero(kind == Kind.SWAP)
    row = pages.memmap.rows(arch.leaf_pfn(Level.PTE, lost.entry[leaf]))
    head = np.where(row >= 0, pages.head_row[np.maximum(row, 0)], -1)
    folio = np.where(head >= 0, pages.memmap.pfns_of_rows(np.maximum(head, 0)), -1)
    named = swap_entries(arch.swap_type(lost.entry[swap]), arch.swap_offset(lost.entry[swap]))
    slot = rows_of(s.swap.slots.entry, named)
    return _things("folio", lost.table[leaf], folio) + _things("swap_slot", lost.table[swap], slot.astype(np.int64))


def _things(kind: str, table: I64, things: I64) -> Relation:
    """Each thing that a table refers to, once."""
    table, thing = np.unique(np.stack([table, things])[:, things >= 0], axis=1)
    return several(kind, table, thing)
