"""Rules of the page tables that wait for huge PMDs to be split."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I32, I64, Mask
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.anon_vmas_map import in_anonymous_vma
from inspector.snapshot import Snapshot
from inspector.subjects import TABLE
from inspector.violations import Violations, cannot_check, holds, one, violations
from inspector.walk.counts import EntryClass
from inspector.walk.deposits import SOUND, STATES, UNREAD, keeps_rings
from inspector.windows.locks import mm_in_flight, tables_locked
from inspector.windows.window import Effect

_STANDING = np.array([*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE], np.uint8)
"""Entries that stand for a THP without mapping it; its deposited table stays."""

_BY_MM = "this kernel keeps one ring of deposited tables for each mm, which is not read"


def deposits_due(s: Snapshot) -> tuple[Mask, Mask]:
    """Which mappings and which non-present entries a page table is deposited for.

    On x86 those are the huge PMDs of anonymous memory: of THPs, of the huge zero folio outside of files, and the
    migration and device entries that stand for a THP for a while (mm/huge_memory.c, has_deposited_pgtable() and
    copy_huge_non_present_pmd()). Files' and hugetlb's have none.
    """
    m, n, vmas, folios = s.mappings, s.nonpresent, s.vmas, s.folios
    huge = m.level == Level.PMD
    folio = s.folio_of_page[np.maximum(s.counts.head_row, 0)]
    zero = huge & (s.counts.entry_class == EntryClass.ZERO) & ~_of_files(s, m.vma_idx)
    own = huge & (s.counts.entry_class == EntryClass.NORMAL) & (folio >= 0)
    if len(folios):
        anon = folios.is_anon[np.maximum(folio, 0)] | in_anonymous_vma(s)
        own &= ~folios.is_hugetlb[np.maximum(folio, 0)] & anon
    standing = (n.level == Level.PMD) & np.isin(n.kind, _STANDING) & ~_of_files(s, n.vma_idx)
    if len(vmas):
        standing &= ~(vmas.is_hugetlb[np.maximum(n.vma_idx, 0)] & (n.vma_idx >= 0))
    return zero | own, standing


def tables_due(s: Snapshot) -> I64:
    """int64[tables]; how many tables must be deposited with each."""
    m, n, size = s.mappings, s.nonpresent, len(s.tables)
    mapped, standing = deposits_due(s)
    due: I64 = np.bincount(m.table_idx[mapped & m.counted], minlength=size)
    return due + np.bincount(n.table_idx[standing & n.counted], minlength=size)


def _of_files(s: Snapshot, vma_idx: I32) -> Mask:
    """Which of the VMAs are not anonymous as the kernel judges it (vma_is_anonymous()); no VMA is not told apart."""
    vmas = s.vmas
    if not len(vmas):
        return np.zeros(len(vma_idx), np.bool_)
    found: Mask = (vmas.ops != 0)[np.maximum(vma_idx, 0)] & (vma_idx >= 0)
    return found


def _in_motion(s: Snapshot, rows: I64) -> Mask:
    """Tables whose entries and deposits may be half changed: they are locked, or their mm is at work."""
    return tables_locked(s, rows) | (s.mm_in_motion | mm_in_flight(s))[s.tables.mm_idx[rows]]


@rule(
    "deposit-list-damaged",
    TABLE,
    "page-tables",
    Phase.TOTALS,
    effect=Effect.TABLES,
    decides="91",
)
def deposit_list_damaged(s: Snapshot) -> Violations:
    """The ring of page tables that are deposited with a PMD table is damaged.

    Invariant: pmd_huge_pte of a PMD table is null or names a page table that nothing maps; the list_head in its
        descriptor leads through all tables deposited with this PMD table and back.
    Why: mm/pgtable-generic.c, pgtable_trans_huge_deposit() and pgtable_trans_huge_withdraw().
    Consequence: the next split of a huge page takes a page for a page table that is none, or one that is in use: what
        lies in it is overwritten and read as entries. CONFIG_DEBUG_LIST says "list_del corruption".
    Exceptions: the PMD table is being worked on (its lock is held, or a task stands in a window of its mm); the kernel
        was built for few CPUs and keeps the ring with the mm.
    See also: folioscope page PFN
    """
    if not keeps_rings(s.layout):
        return holds(0, unread=cannot_check(len(s.tables), _BY_MM))
    d = s.deposits
    bad = np.flatnonzero((d.state != SOUND) & (d.state != UNREAD))
    rows = d.rows[bad]
    unread = int((d.state == UNREAD).sum())
    # One table in two rings is one fault.
    return violations(
        rows,
        observed={"ring": np.array([STATES[x] for x in d.state[bad].tolist()], dtype=np.str_)},
        expected={"ring": np.full(len(bad), "deposited page tables, back to the first")},
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
)
def deposited_tables_mismatch(s: Snapshot) -> Violations:
    """A PMD table has more or fewer page tables deposited than it holds huge entries of anonymous memory.

    Invariant: each huge PMD of anonymous memory or of the huge zero folio, and each migration or device entry that
        stands for one, has one PTE table deposited with its PMD table. PMDs of files and of hugetlb have none.
    Why: mm/huge_memory.c, __do_huge_pmd_anonymous_page(), copy_huge_pmd() and zap_huge_pmd(); mm/pgtable-generic.c.
    Consequence: too few: the next split or unmap takes a null pointer for a page table, and the kernel dies. Too many:
        tables are leaked, "BUG: non-zero pgtables_bytes on freeing mm".
    Exceptions: the PMD table is being worked on (its lock is held, or a task stands in a window of its mm), or the ring
        itself is damaged (a finding of its own).
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    if not keeps_rings(s.layout):
        return holds(0, unread=cannot_check(len(s.tables), _BY_MM))
    d, due = s.deposits, tables_due(s)
    able = d.state == SOUND
    bad = np.flatnonzero(able & (d.count != due[d.rows]))
    rows = d.rows[bad]
    mm = s.tables.mm_idx[rows].astype(np.int64)
    # Entries that came or went without their table show in the bytes of the mm as well.
    return violations(
        rows,
        observed={"deposited": d.count[bad]},
        expected={"deposited": due[rows]},
        checked=int(able.sum()),
        unread=cannot_check(int((d.state == UNREAD).sum()), "struct pages of page tables are missing from the dump"),
        depends=one("mm_tables", mm) + one("huge_zero", np.zeros(len(rows), np.int64)),
        transient=_in_motion(s, rows),
    )
