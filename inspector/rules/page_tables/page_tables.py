"""Rules of the page tables themselves and of where entries may stand."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I32, I64, Mask
from inspector.rules.hugetlb.hugetlb import named_slots
from inspector.rules.needs import VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.vmas.lost_vmas import lost_at, vmas_leave
from inspector.snapshot import Snapshot
from inspector.subjects import ENTRY, NONPRESENT, TABLE
from inspector.violations import Violations, cannot_check, one, violations
from inspector.walk.mappings import TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_OK, TABLE_TWICE_IN_MM, TABLE_UNREADABLE
from inspector.windows.window import Effect

_STATES = {
    TABLE_NO_PAGE: "no struct page",
    TABLE_NOT_A_TABLE: "free, or a page of another kind",
    TABLE_TWICE_IN_MM: "reached twice in one address space",
}


@rule(
    "page-table-type-mismatch",
    TABLE,
    "page-tables",
    Phase.WORDS,
    effect=Effect.TABLES,
    decides="88 146 147",
    was="table-page-not-a-table",
)
def page_table_type_mismatch(s: Snapshot) -> Violations:
    """An upper page-table entry points to a page that is no page table.

    Invariant: every page table in use is a page with a reference, of type table or none, reached once in its mm.
    Why: include/linux/mm.h, pagetable_pte_ctor() and its kin; mm/memory.c, free_pgtables().
    Consequence: whatever the page now holds is taken for page-table entries: "Bad page map" in a flood.
    Exceptions: hugetlb shares a PMD table between address spaces. What such a table would map is not followed, so that
        one freed table gives one finding.
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    tables = s.tables
    rows = np.flatnonzero(np.isin(tables.state, tuple(_STATES)))
    at = np.maximum(s.pages.memmap.rows(tables.pfn[rows]), 0)
    unreadable = int((tables.state == TABLE_UNREADABLE).sum())
    return violations(
        rows,
        observed={
            "table_page": np.array([_STATES[x] for x in tables.state[rows].tolist()], dtype=np.str_),
            "page_type": s.page_type_names(at),
            "_refcount": s.pages.refcount[at],
        },
        expected={"table_page": np.full(len(rows), "a page table")},
        checked=len(tables),
        unread=cannot_check(unreadable, "page tables are missing from the dump"),
    )


@rule(
    "table-entry-flags-invalid",
    TABLE,
    "page-tables",
    Phase.WORDS,
    after=("page-table-sharing-unexpected",),
    effect=Effect.TABLES,
    decides="88",
    was="table-entry-flags-wrong",
)
def table_entry_flags_invalid(s: Snapshot) -> Violations:
    """An entry that points to a page table carries other flags than the kernel writes.

    Invariant: in the user half of an address space such entries are present, writable and user-accessible, and nothing
        else but accessed and dirty.
    Why: arch/x86/include/asm/pgalloc.h, pmd_populate() and its kin write _PAGE_TABLE; mm/pgtable-generic.c,
        pmd_clear_bad() throws entries away that differ.
    Consequence: everything below is dropped at the next unmap, "bad pmd": its pages are leaked.
    Exceptions: the accessed bit alone is missing (aging clears it); NX at the top level (page-table isolation).
    See also: folioscope va PID ADDRESS
    """
    t, arch = s.tables, s.layout.arch
    able = np.flatnonzero((t.parent >= 0) & (t.state == TABLE_OK))
    parent = t.parent[able]
    entries, known = s.upper_entries
    entry = entries[able]
    bad = np.zeros(len(able), np.bool_)
    for shape in arch.shapes:
        at = known[able] & (t.level[parent] == shape.level)
        bad[at] = arch.table_flags_wrong(shape.level, entry[at])
    rows = able[bad]
    return violations(
        rows,
        observed={"entry": entry[bad]},
        expected={"entry": np.full(len(rows), "the table's address and _PAGE_TABLE")},
        checked=len(able),
        claims=one("page_table", rows),
    )


@rule(
    "huge-swap-entry-unexpected",
    NONPRESENT,
    "page-tables",
    Phase.WORDS,
    effect=Effect.TABLES,
    decides="I14",
    was="huge-swap-entry",
)
def huge_swap_entry_unexpected(s: Snapshot) -> Violations:
    """An upper table of ordinary memory holds a non-present entry that only single pages can have.

    Invariant: above the last level, outside hugetlb, a non-present entry is a migration entry, or names device memory.
    Why: include/linux/leafops.h, pmd_is_valid_softleaf() (is_pmd_migration_entry() before): huge pages are split before
        they are swapped out entry by entry.
    Consequence: the page-fault handler stops with a warning or takes the entry for a table.
    Exceptions: the entry lies in a hugetlb VMA (rules of their own).
    See also: folioscope va PID ADDRESS
    """
    n, vmas = s.nonpresent, s.vmas
    fine = np.isin(n.kind, np.array([*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.BAD], np.uint8))
    upper = (n.level != Level.PTE) & n.counted
    hugetlb = (n.vma_idx >= 0) & vmas.is_hugetlb[np.maximum(n.vma_idx, 0)] if len(vmas) else upper & False
    rows = np.flatnonzero(upper & ~fine & ~hugetlb)
    return violations(
        rows,
        observed={
            "entry": n.entry[rows],
            "kind": np.array([Kind(x).name.lower() for x in n.kind[rows].tolist()], dtype=np.str_),
        },
        expected={"kind": np.full(len(rows), "migration")},
        checked=int((upper & ~hugetlb).sum()),
        claims=one("swap_slot", named_slots(s, rows)),
    )


@rule(
    "page-table-sharing-unexpected",
    TABLE,
    "page-tables",
    Phase.WORDS,
    effect=Effect.TABLES,
    needs=VMAS,
    decides="88 146",
    was="table-shared-wrongly",
)
def page_table_sharing_unexpected(s: Snapshot) -> Violations:
    """A page table hangs under two address spaces although it is not a shared hugetlb table.

    Invariant: a table has one owner; only PMD tables that hold nothing but hugetlb entries may have several.
    Why: mm/hugetlb.c, huge_pmd_share(); nothing else shares page tables between mms.
    Consequence: unmapping in one process unmaps the other's memory, and the table is freed twice.
    Exceptions: the addresses lie in hugetlb VMAs.
    See also: folioscope va PID ADDRESS
    """
    tables = s.tables
    again = ~tables.first & (tables.state != TABLE_TWICE_IN_MM)
    legal = (tables.level == Level.PMD) & _in_hugetlb(s, tables.mm_idx, np.arange(len(tables), dtype=np.int64))
    rows = np.flatnonzero(again & ~legal)
    # Everything below the table is found in both address spaces, and spoils the counters of one.
    return violations(
        rows,
        observed={"owners": s.table_owners(rows)},
        expected={"owners": np.ones(len(rows), np.int64)},
        checked=len(tables),
        claims=one("page_table", rows)
        + one("page_table", _first_of(s, rows))
        + one("mm", tables.mm_idx[rows])
        + one("mm", tables.mm_idx[_first_of(s, rows)]),
    )


def _first_of(s: Snapshot, rows: I64) -> I64:
    """The row that stands for the same table page as each of the given ones."""
    first = np.flatnonzero(s.tables.first)
    order = np.argsort(s.tables.pfn[first], kind="stable")
    at = np.searchsorted(s.tables.pfn[first[order]], s.tables.pfn[rows])
    return first[order[at]]


def _in_hugetlb(s: Snapshot, mm_idx: I32, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Mask:
    """Whether each table covers part of a hugetlb VMA of its mm."""
    tables, vmas = s.tables, s.vmas
    huge = vmas.take(np.flatnonzero(vmas.is_hugetlb))
    out = np.zeros(len(rows), np.bool_)
    if len(huge):
        span = np.uint64(1 << 30)
        key = (huge.mm_idx.astype(np.uint64) << np.uint64(45)) | (huge.start >> np.uint64(12))
        want = (mm_idx.astype(np.uint64) << np.uint64(45)) | ((tables.va[rows] + span - np.uint64(1)) >> np.uint64(12))
        at = np.searchsorted(key, want, "right") - 1
        safe = np.maximum(at, 0)
        out = (at >= 0) & (huge.mm_idx[safe] == mm_idx) & (huge.end[safe] > tables.va[rows])
    return out


@rule(
    "entry-invalid",
    NONPRESENT,
    "page-tables",
    Phase.WORDS,
    effect=Effect.TABLES,
    decides="I14",
    was="entry-malformed",
)
def entry_invalid(s: Snapshot) -> Violations:
    """A page-table entry holds a pattern that this kernel never writes.

    Invariant: an entry is empty, a table, a leaf, or a swap, migration, device, poison or marker entry.
    Why: arch/x86/include/asm/pgtable_64.h and include/linux/swapops.h give every legal pattern.
    Consequence: the table was overwritten; the kernel prints "Bad page map" or "bad pmd" when it meets the entry.
    Exceptions: only bits are set that a processor erratum may set in an empty entry.
    See also: folioscope va PID ADDRESS
    """
    nonpresent = s.nonpresent
    rows = np.flatnonzero(nonpresent.kind == Kind.BAD)
    return violations(
        rows,
        observed={"entry": nonpresent.entry[rows]},
        expected={"entry": np.full(len(rows), "a legal pattern")},
        checked=len(nonpresent) + int(s.mappings.nr.sum()),
    )


def _known_trees(s: Snapshot, mm_idx: I32) -> Mask:
    """Entries of mms that are in use and whose trees of VMAs were read whole."""
    known = s.mms.users > 0
    for damaged in (s.vma_trees.unreadable, s.vma_trees.broken, s.vma_trees.missing):
        known[damaged] = False
    return known[mm_idx]


@rule(
    "entry-vma-missing",
    ENTRY,
    "page-tables",
    Phase.WORDS,
    after=(
        "table-entry-flags-invalid",
        "vma-unreachable",
    ),
    effect=Effect.TABLES,
    decides="30",
    was="entry-outside-vma",
)
def entry_vma_missing(s: Snapshot) -> Violations:
    """A page is mapped at an address where the process has no VMA.

    Invariant: every leaf entry in the user half of an address space lies in one of its VMAs.
    Why: mm/memory.c, unmap_page_range() clears the entries before a VMA goes; handle_mm_fault() needs one to map.
    Consequence: nothing will ever unmap the page: it is leaked at exit, "Bad rss-counter".
    Exceptions: the mm is being torn down (mm_users 0), or its tree of VMAs could not be read whole. Graded transient
        while mmap_lock is held: munmap takes VMAs out of the tree first, and goes on with the lock held for reading
        only (mm/vma.c, vms_complete_munmap_vmas()).
    See also: folioscope vmas PID; folioscope va PID ADDRESS
    """
    m = s.mappings
    known = _known_trees(s, m.mm_idx)
    rows = np.flatnonzero((m.vma_idx < 0) & known)
    unchecked = int((~known).sum())
    return violations(
        rows,
        observed={"vma": np.full(len(rows), "none")},
        expected={"vma": np.full(len(rows), "one that holds the address")},
        checked=int(known.sum()),
        unread=cannot_check(
            unchecked if s.missing.counts.get("VMAs") or s.missing.counts.get("VMA tree nodes") else 0,
            "VMAs of some processes are missing",
        ),
        facts={"entries": m.nr[rows]},
        depends=one("page_table", m.table_idx[rows]) + one("lost_vma", lost_at(s, m.mm_idx[rows], m.va[rows])),
        transient=vmas_leave(s)[m.mm_idx[rows]],
    )


@rule(
    "nonpresent-entry-vma-missing",
    NONPRESENT,
    "page-tables",
    Phase.WORDS,
    after=(
        "table-entry-flags-invalid",
        "vma-unreachable",
    ),
    effect=Effect.TABLES,
    decides="30",
    was="nonpresent-entry-outside-vma",
)
def nonpresent_entry_vma_missing(s: Snapshot) -> Violations:
    """A swap, migration or marker entry stands at an address where the process has no VMA.

    Invariant: every non-empty entry in the user half of an address space lies in one of its VMAs.
    Why: as for leaf entries: mm/memory.c, zap_pte_range() clears them with the VMA.
    Consequence: a swap slot is leaked, or a migration entry is never restored.
    Exceptions: the mm is being torn down, or its tree of VMAs could not be read whole. Graded transient while mmap_lock
        is held, as for leaf entries.
    See also: folioscope vmas PID; folioscope va PID ADDRESS
    """
    n = s.nonpresent
    known = _known_trees(s, n.mm_idx)
    rows = np.flatnonzero((n.vma_idx < 0) & known & (n.kind != Kind.BAD))
    return violations(
        rows,
        observed={"vma": np.full(len(rows), "none")},
        expected={"vma": np.full(len(rows), "one that holds the address")},
        checked=int(known.sum()),
        depends=one("page_table", n.table_idx[rows]) + one("lost_vma", lost_at(s, n.mm_idx[rows], n.va[rows])),
        transient=vmas_leave(s)[n.mm_idx[rows]],
    )
