"""Rules of the page tables deposited for the time when huge PMDs are split."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I32, I64, Mask, take_or
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.anon_vmas_map import anonymous_vmas
from inspector.snapshot import Snapshot
from inspector.subjects import TABLE
from inspector.violations import Violations, cannot_check, holds, one, violations
from inspector.walk.batches import Collector, EntryBatch
from inspector.walk.counts import EntryClass
from inspector.walk.deposits import SOUND, STATES, UNREAD, deposits_tables, keeps_rings
from inspector.walk.mappings import Mappings
from inspector.windows.locks import mm_in_flight, tables_locked
from inspector.windows.window import Effect

_OF_A_THP = np.array([*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE], np.uint8)
"""Non-present entries that replace the leaf of a THP for a while; its deposited table stays."""

_BY_MM = "this kernel keeps one list of deposited tables for each mm, which is not read"


class DepositsDue(Collector):
    """Counts the leaf entries that a page table is deposited for.

    On x86 those are the huge PMDs of anonymous memory: of THPs, of the huge zero folio outside of files, and the
    migration and device entries that replace the leaf of a THP for a while (mm/huge_memory.c, has_deposited_pgtable()
    and copy_huge_non_present_pmd()). Those of files and of hugetlb have none.

    Attributes:
        of_table: int64[tables]; of each table, entries of shared tables counted once.
        of_mm: int64[mms]; of each mm.
    """

    gathers = ("of_table", "of_mm")

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self._anonymous = anonymous_vmas(s)
        self.of_table, self.of_mm = np.zeros(len(s.tables), np.int64), np.zeros(len(s.mms), np.int64)

    def due(self, m: Mappings) -> Mask:
        """Which of some entries."""
        s, folios = self.s, self.s.folios
        huge = m.level == Level.PMD
        if not huge.any():
            return huge
        folio = s.folio_of_page[np.maximum(m.head_row, 0)]
        zero = huge & (m.entry_class == EntryClass.ZERO) & ~_in_file_vma(s, m.vma_idx)
        anon = take_or(folios.is_anon, folio, False) | take_or(self._anonymous, m.vma_idx, False)
        thp = huge & (m.entry_class == EntryClass.NORMAL) & (folio >= 0)
        thp &= anon & ~take_or(folios.is_hugetlb, folio, False)
        return zero | thp

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        m = batch.m.take(np.flatnonzero(self.due(batch.m)))
        np.add.at(self.of_mm, m.mm_idx, 1)
        np.add.at(self.of_table, m.table_idx[m.counted], 1)


def nonpresent_due(s: Snapshot) -> Mask:
    """Which non-present entries a page table is deposited for."""
    n = s.nonpresent
    due = (n.level == Level.PMD) & np.isin(n.kind, _OF_A_THP) & ~_in_file_vma(s, n.vma_idx)
    return due & ~take_or(s.vmas.is_hugetlb, n.vma_idx, False)


def tables_due(s: Snapshot) -> I64:
    """int64[tables]; how many tables must be deposited with each."""
    n = s.nonpresent
    more = n.table_idx[nonpresent_due(s) & n.counted]
    return s.collected(DepositsDue).of_table + np.bincount(more, minlength=len(s.tables))


def _in_file_vma(s: Snapshot, vma_idx: I32) -> Mask:
    """Entries in a VMA that is not anonymous in the sense of vma_is_anonymous()."""
    return take_or(s.vmas.ops != 0, vma_idx, False)


def _in_motion(s: Snapshot, rows: I64) -> Mask:
    """Tables whose entries and deposits may be half changed: they are locked, or their mm is being changed."""
    return tables_locked(s, rows) | (s.mm_in_motion | mm_in_flight(s))[s.tables.mm_idx[rows]]


def _without_rings(s: Snapshot) -> Violations:
    """Where deposited tables hang in no ring: nothing can be wrong if the kernel has no THP, else nothing is read."""
    return holds(0, unread=cannot_check(len(s.tables) if deposits_tables(s.layout) else 0, _BY_MM))


@rule(
    "deposit-list-damaged",
    TABLE,
    "page-tables",
    Phase.TOTALS,
    effect=Effect.TABLES,
    decides="91",
    collects=(DepositsDue,),
)
def deposit_list_damaged(s: Snapshot) -> Violations:
    """The list of page tables deposited with a PMD table is damaged.

    Invariant: pmd_huge_pte of a PMD table is null or names a page table that nothing maps; the list_head in its
        descriptor leads through all tables deposited with this PMD table and back.
    Why: mm/pgtable-generic.c, pgtable_trans_huge_deposit() and pgtable_trans_huge_withdraw().
    Consequence: the next split of a huge page uses a page that is not a page table, or one that is in use: its contents
        are overwritten and read as entries. CONFIG_DEBUG_LIST reports "list_del corruption".
    Exceptions: the PMD table is being changed (its lock is held, or a task is in a window of its mm); the kernel was
        built for few CPUs and keeps the list in the mm.
    See also: folioscope page PFN
    """
    if not keeps_rings(s.layout):
        return _without_rings(s)
    d = s.deposits
    bad = np.flatnonzero((d.state != SOUND) & (d.state != UNREAD))
    rows = d.rows[bad]
    unread = int((d.state == UNREAD).sum())
    # One table in two lists is one fault.
    return violations(
        rows,
        observed={"ring": np.array([STATES[x] for x in d.state[bad].tolist()], dtype=np.str_)},
        expected={"ring": "deposited page tables, back to the first"},
        checked=len(d.rows) - unread,
        unread=cannot_check(unread, "struct pages of page tables are missing from the dump"),
        facts={"pfn": d.where[bad], "tables": d.count[bad], "due": tables_due(s)[rows]},
        claims=one("deposited_table", d.where[bad]),
        transient=_in_motion(s, rows),
    )


@rule(
    "deposited-tables-mismatch",
    TABLE,
    "page-tables",
    Phase.TOTALS,
    after=("pgtables-bytes-mismatch",),
    effect=Effect.TABLES,
    needs=VMAS | PAGES,
    decides="91",
    collects=(DepositsDue,),
)
def deposited_tables_mismatch(s: Snapshot) -> Violations:
    """The number of page tables deposited with a PMD table is not that of its huge anonymous entries.

    Invariant: each huge PMD of anonymous memory or of the huge zero folio, and each migration or device entry in the
        place of one, has one PTE table deposited with its PMD table. PMDs of files and of hugetlb have none.
    Why: mm/huge_memory.c, __do_huge_pmd_anonymous_page(), copy_huge_pmd() and zap_huge_pmd(); mm/pgtable-generic.c.
    Consequence: too few: the next split or unmap uses a null pointer as a page table, and the kernel crashes. Too many:
        tables are leaked, "BUG: non-zero pgtables_bytes on freeing mm".
    Exceptions: the PMD table is being changed (its lock is held, or a task is in a window of its mm), or the list
        itself is damaged (deposit-list-damaged).
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    if not keeps_rings(s.layout):
        return _without_rings(s)
    d, due = s.deposits, tables_due(s)
    able = d.state == SOUND
    bad = np.flatnonzero(able & (d.count != due[d.rows]))
    rows = d.rows[bad]
    mm = s.tables.mm_idx[rows].astype(np.int64)
    # Entries that came or went without their table make pgtables_bytes of the mm wrong as well.
    return violations(
        rows,
        observed={"deposited": d.count[bad]},
        expected={"deposited": due[rows]},
        checked=able,
        unread=cannot_check(int((d.state == UNREAD).sum()), "struct pages of page tables are missing from the dump"),
        depends=one("mm_tables", mm) + one("huge_zero", np.zeros(len(rows), np.int64)),
        transient=_in_motion(s, rows),
    )
