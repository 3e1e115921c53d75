"""Rules of the page tables themselves and of where entries may be."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I64, Mask, rows_of_unordered
from inspector.rules.hugetlb.hugetlb import named_slots
from inspector.rules.needs import VMAS
from inspector.rules.pieces import EntryPiece, Judged, NonPresentPiece
from inspector.rules.registry import Phase, entry_rule, nonpresent_rule, rule
from inspector.rules.vmas.lost_vmas import lost_vma_covering, mms_changing_vmas
from inspector.snapshot import Snapshot
from inspector.subjects import NONPRESENT, TABLE
from inspector.tables.vmas import vmas_by_slot
from inspector.violations import Details, Unread, Violations, cannot_check, details, one, violations
from inspector.walk.mappings import ENTERED, TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM, TABLE_UNREADABLE
from inspector.walk.shared_tables import last_hugetlb_vma
from inspector.windows.window import Effect

_STATES = {
    TABLE_NO_PAGE: "no struct page",
    TABLE_NOT_A_TABLE: "free, or a page of another kind",
    TABLE_TWICE_IN_MM: "reached twice in one mm",
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
    """An upper page-table entry points to a page that is not a page table.

    Invariant: every page table in use is a page with a reference, of type table or none, reached once in its mm.
    Why: include/linux/mm.h, pagetable_pte_ctor() and its kin; mm/memory.c, free_pgtables().
    Consequence: the contents of the page are read as page-table entries: "Bad page map" in a flood.
    Exceptions: hugetlb shares a PMD table between mms. What such a table would map is not followed, so that one freed
        table gives one finding.
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
        expected={"table_page": "a page table"},
        checked=len(tables),
        unread=cannot_check(unreadable, "page tables are missing from the dump"),
        claims=one("folio", np.where(s.pages.memmap.rows(tables.pfn[rows]) >= 0, tables.pfn[rows], -1)),
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
    """An entry that points to a page table has other flags than _PAGE_TABLE.

    Invariant: in the user half of an address space such entries are present, writable and user-accessible; only the
        accessed and dirty bits may be set beside.
    Why: arch/x86/include/asm/pgalloc.h, pmd_populate() and its kin write _PAGE_TABLE; mm/pgtable-generic.c,
        pmd_clear_bad() throws entries away that differ.
    Consequence: everything below is dropped at the next unmap, "bad pmd": its pages are leaked.
    Exceptions: the accessed bit alone is missing (aging clears it); NX at the top level (page-table isolation).
    See also: folioscope va PID ADDRESS
    """
    t, arch = s.tables, s.layout.arch
    able = np.flatnonzero((t.parent >= 0) & np.isin(t.state, ENTERED))
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
        expected={"entry": "the table's address and _PAGE_TABLE"},
        checked=len(able),
        claims=one("page_table", rows),
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
    """Two mms share a page table that is not a shared hugetlb table.

    Invariant: a table has one owner; only PMD tables that hold nothing but hugetlb entries may have several.
    Why: mm/hugetlb.c, huge_pmd_share(); nothing else shares page tables between mms.
    Consequence: unmapping in one process unmaps the other's memory, and the table is freed twice.
    Exceptions: the addresses are in hugetlb VMAs.
    See also: folioscope va PID ADDRESS
    """
    tables = s.tables
    again = ~tables.first & (tables.state != TABLE_TWICE_IN_MM)
    legal = (tables.level == Level.PMD) & _covers_hugetlb(s)
    rows = np.flatnonzero(again & ~legal)
    # Everything below the table is found in both mms: the counters of one of them look wrong.
    first = _first_reached(s, rows)
    return violations(
        rows,
        observed={"owners": s.table_owners(rows)},
        expected={"owners": 1},
        checked=len(tables),
        claims=one("page_table", rows)
        + one("page_table", first)
        + one("mm", tables.mm_idx[rows])
        + one("mm", tables.mm_idx[first]),
    )


def _first_reached(s: Snapshot, rows: I64) -> I64:
    """For each of the given tables the row from which the same page was reached first."""
    first = np.flatnonzero(s.tables.first)
    return first[rows_of_unordered(s.tables.pfn[first], s.tables.pfn[rows])]


def _covers_hugetlb(s: Snapshot) -> Mask:
    """Whether the span of a PMD table at each table's address reaches into a hugetlb VMA of its mm."""
    t, arch = s.tables, s.layout.arch
    shape = next(each for each in arch.shapes if each.level == Level.PMD)
    return last_hugetlb_vma(s.vmas, t.mm_idx, t.va, shape.entries << shape.shift, arch.page_shift) >= 0


_HUGE_KINDS = (*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE)


def _huge_entry(s: Snapshot, rows: I64) -> Details:
    n = s.nonpresent
    return details(
        rows,
        observed={
            "entry": n.entry[rows],
            "kind": np.array([Kind(x).name.lower() for x in n.kind[rows].tolist()], dtype=np.str_),
        },
        expected={"kind": "migration"},
        claims=one("swap_slot", named_slots(s, rows)),
    )


@nonpresent_rule(
    "huge-swap-entry-unexpected",
    _huge_entry,
    "page-tables",
    Phase.WORDS,
    effect=Effect.TABLES,
    decides="I14",
    was="huge-swap-entry",
)
def huge_swap_entry_unexpected(e: NonPresentPiece) -> Judged:
    """A PMD or PUD outside hugetlb holds a non-present entry that only PTEs can hold.

    Invariant: above the last level, outside hugetlb, a non-present entry is a migration entry, or names device memory.
    Why: include/linux/leafops.h, pmd_is_valid_softleaf() (is_pmd_migration_entry() before): huge pages are split before
        they are swapped out entry by entry.
    Consequence: the page-fault handler stops with a warning or takes the entry for a table.
    Exceptions: the entry is in a hugetlb VMA (rules of their own).
    See also: folioscope va PID ADDRESS
    """
    upper = (e.level != Level.PTE) & e.counted & ~e.of_vma(e.s.vmas.is_hugetlb, False)
    unread = cannot_check(int((upper & e.vma_lost).sum()), "the VMAs of some mms are not all known")
    # A pattern that is no entry at all is reported as such (entry-invalid).
    return Judged(upper & ~e.vma_lost & ~e.is_one_of(*_HUGE_KINDS, Kind.BAD), upper & ~e.vma_lost, unread)


# Leaf entries were checked as well when they were classified: the rule counts those of both tables.
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
    """A page-table entry has a bit pattern that this kernel never writes.

    Invariant: an entry is empty, a table, a leaf, or a swap, migration, device, poison or marker entry.
    Why: arch/x86/include/asm/pgtable_64.h and include/linux/swapops.h give every legal pattern.
    Consequence: the table was overwritten; the kernel prints "Bad page map" or "bad pmd" when it meets the entry.
    Exceptions: the only bits set are those that a processor erratum may set in an empty entry.
    See also: folioscope va PID ADDRESS
    """
    n = s.nonpresent
    rows = np.flatnonzero(n.kind == Kind.BAD)
    return violations(
        rows,
        observed={"entry": n.entry[rows]},
        expected={"entry": "a legal pattern"},
        checked=len(n) + s.counts.nr_entries,
    )


def _vmas_known(s: Snapshot) -> Mask:
    """Mms that are in use and all of whose VMAs are known."""
    return s.vma_tree_sound & (s.mms.users > 0)


def _entry_vma_missing(s: Snapshot, rows: I64) -> Details:
    m = s.entries(rows)
    return details(
        rows,
        observed={"vma": "none"},
        expected={"vma": "one that holds the address"},
        facts={"entries": m.nr},
        depends=one("page_table", m.table_idx)
        + one("lost_vma", lost_vma_covering(s, m.mm_idx, m.va))
        + one("vma", vmas_by_slot(s.vmas, m.mm_idx, m.va)),
        transient=mms_changing_vmas(s)[m.mm_idx],
    )


@entry_rule(
    "entry-vma-missing",
    _entry_vma_missing,
    "page-tables",
    Phase.WORDS,
    after=(
        "table-entry-flags-invalid",
        "vma-unreachable",
        "vma-range-mismatch",
    ),
    effect=Effect.COVER,
    decides="30",
    was="entry-outside-vma",
)
def entry_vma_missing(e: EntryPiece) -> Judged:
    """A present entry maps a page at an address outside every VMA of the mm.

    Invariant: every leaf entry in the user half of an address space is in one of its VMAs.
    Why: mm/memory.c, unmap_page_range() clears the entries before a VMA goes; handle_mm_fault() needs one to map.
    Consequence: nothing will ever unmap the page: it is leaked at exit, "Bad rss-counter".
    Exceptions: the mm is being torn down (mm_users 0), or its tree of VMAs could not be read whole. Graded transient
        while mmap_lock is held: munmap takes VMAs out of the tree first, and goes on with the lock held for reading
        only (mm/vma.c, vms_complete_munmap_vmas()); when a VMA is split, its bounds change before the other half is in
        the tree (6.1 mm/mmap.c, __vma_adjust(); later mm/vma.c, __split_vma() and vma_complete()).
    See also: folioscope vmas PID; folioscope va PID ADDRESS
    """
    trees, known = e.s.vma_trees, _vmas_known(e.s)[e.mm_idx]
    unread = Unread()
    if len(trees.missing) or len(trees.unreadable):
        unread = cannot_check(e.count(~known), "VMAs of some processes are missing")
    return Judged(~e.in_vma & known, known, unread)


def _nonpresent_entry_vma_missing(s: Snapshot, rows: I64) -> Details:
    n = s.nonpresent
    return details(
        rows,
        observed={"vma": "none"},
        expected={"vma": "one that holds the address"},
        depends=one("page_table", n.table_idx[rows])
        + one("lost_vma", lost_vma_covering(s, n.mm_idx[rows], n.va[rows]))
        + one("vma", vmas_by_slot(s.vmas, n.mm_idx[rows], n.va[rows])),
        transient=mms_changing_vmas(s)[n.mm_idx[rows]],
    )


@nonpresent_rule(
    "nonpresent-entry-vma-missing",
    _nonpresent_entry_vma_missing,
    "page-tables",
    Phase.WORDS,
    after=(
        "table-entry-flags-invalid",
        "vma-unreachable",
        "vma-range-mismatch",
    ),
    effect=Effect.COVER,
    decides="30",
    was="nonpresent-entry-outside-vma",
)
def nonpresent_entry_vma_missing(e: NonPresentPiece) -> Judged:
    """A swap, migration or marker entry is at an address outside every VMA of the mm.

    Invariant: every non-empty entry in the user half of an address space is in one of its VMAs.
    Why: as for leaf entries: mm/memory.c, zap_pte_range() clears them with the VMA.
    Consequence: a swap slot is leaked, or a migration entry is never restored.
    Exceptions: the mm is being torn down, or its tree of VMAs could not be read whole. Graded transient while mmap_lock
        is held, as for leaf entries.
    See also: folioscope vmas PID; folioscope va PID ADDRESS
    """
    known = _vmas_known(e.s)[e.mm_idx]
    return Judged(~e.in_vma & known & (e.kind != Kind.BAD), known)
