"""The rule of pgtables_bytes, and which other causes account for what it counts too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, distinct
from inspector.rules.cause import Cause, Causes
from inspector.rules.mms.balance import entire_excess
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.page_tables.deposits import (
    DepositsDue,
    deposit_list_damaged,
    deposited_tables_mismatch,
    nonpresent_due,
)
from inspector.rules.page_tables.lost_tables import may_hang_in, page_table_unreachable
from inspector.rules.page_tables.page_tables import page_table_sharing_unexpected
from inspector.rules.registry import Phase, Rule, rule
from inspector.subjects import MM
from inspector.violations import Violations, cannot_check, one, violations
from inspector.windows.grading import IN_FLIGHT
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def _settle(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach mms with wrong pgtables_bytes to the cause that lost their tables or huge entries.

    Example: a PMD leaf of an anonymous THP was overwritten. Its entire mapcount is one too high (the cause), the
    page table deposited for it is still there, and pgtables_bytes is one page more than the tables that are due.
    """
    _settle_lost_tables(s, rule, causes)
    off = causes.of(rule)
    if not off:
        return
    lost, root = 0, None
    for head, cause in causes.of_folio.items():
        row = s.pages.memmap.row(head)
        folio = int(s.folio_of_page[row]) if row >= 0 else -1
        if folio >= 0 and s.folios.is_anon[folio] and not s.folios.is_hugetlb[folio]:
            # A lost PMD leaf of an anonymous THP leaves the table deposited for it behind
            # (pgtable_trans_huge_deposit()).
            excess = entire_excess(s, folio)
            lost, root = lost + excess, cause if excess else root
    if root is None or int(_excess_pages(s, causes.first_rows(rule)).sum()) != lost:
        return
    for cause in off:
        causes.attach(cause, root)


def _settle_lost_tables(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Join unreachable tables with the list of deposited tables that lost them, or with the mm that counts them."""
    lost = [c for c in causes.of(page_table_unreachable) if not c.fact(IN_FLIGHT)[0]]
    if not lost:
        return
    tables = sum(len(c.positions) + int(c.fact("tables_below").sum()) for c in lost)
    short, damaged = causes.of(deposited_tables_mismatch), causes.of(deposit_list_damaged)
    lists = short + damaged
    lacking = sum(_lacking(c) for c in short)
    # How many of its tables a damaged list still leads to is unknown.
    if lists and lacking <= tables <= lacking + sum(int(c.fact("due").sum()) for c in damaged):
        for cause in lost:
            causes.attach(cause, lists[0])
        return
    off = []
    for cause in causes.of(rule):
        mm = np.zeros(len(s.mms), np.bool_)
        mm[cause.first_row] = True
        if may_hang_in(s, lost, mm, empty=True):
            off.append(cause)
    excess = int(_excess_pages(s, np.array([cause.first_row for cause in off], np.int64)).sum())
    # An mm in which another's table was found in the place of its own counts no more than is found.
    foreign = sum(len(distinct(cause.rows)) for cause in causes.of(page_table_sharing_unexpected))
    if excess + foreign == tables:
        for cause in off:
            causes.attach(cause, lost[0])


def _excess_pages(s: Snapshot, rows: I64) -> I64:
    """Pages of page tables that mms count beyond those found."""
    tables, deposited = _table_pages(s)
    return (s.mms.pgtables_bytes[rows] >> s.layout.memmap.page_shift) - (tables + deposited)[rows]


def _lacking(cause: Cause) -> int:
    """Tables that are missing from the lists of one cause."""
    return int((cause.expected("deposited") - cause.observed("deposited")).sum())


@rule(
    "pgtables-bytes-mismatch",
    MM,
    "page-tables",
    Phase.TOTALS,
    effect=Effect.TABLES,
    needs=VMAS | PAGES,
    decides="87 137",
    settle=_settle,
    collects=(DepositsDue,),
)
def pgtables_bytes_mismatch(s: Snapshot) -> Violations:
    """pgtables_bytes differs from the size of the mm's page tables.

    Invariant: pgtables_bytes is the size of the PTE, PMD and PUD tables of the mm and of the PTE tables deposited for
        its anonymous and zero huge PMDs. PGD and P4D tables do not count; a shared hugetlb table counts in each mm.
    Why: include/linux/mm.h, mm_inc_nr_ptes() and its kin; mm/pgtable-generic.c, pgtable_trans_huge_deposit().
    Consequence: "BUG: non-zero pgtables_bytes on freeing mm"; a page table was lost or freed twice.
    Exceptions: page tables are missing from the dump; the mm is being changed or torn down, or unmappings wait for a
        TLB flush.
    See also: folioscope ps
    """
    mms = s.mms
    tables, deposited = _table_pages(s)
    expected = (tables + deposited) << s.layout.memmap.page_shift
    able = s.mm_tables_complete & (mms.users > 0)
    rows = np.flatnonzero(able & (expected != mms.pgtables_bytes))
    # Tables are deposited for the huge zero folio as well: if it is not known as such, there seem to be too many.
    return violations(
        rows,
        observed={"pgtables_bytes": mms.pgtables_bytes[rows]},
        expected={"pgtables_bytes": expected[rows]},
        checked=able,
        unread=cannot_check(int((~s.mm_tables_complete).sum()), "page tables of some processes are missing"),
        facts={"tables": tables[rows], "deposited": deposited[rows]},
        claims=one("mm_tables", rows),
        depends=one("mm", rows) + one("huge_zero", np.zeros(len(rows), np.int64)),
        transient=(s.mm_in_motion | mm_in_flight(s))[rows],
    )


def _table_pages(s: Snapshot) -> tuple[I64, I64]:
    """PTE, PMD and PUD tables reached from each mm, and tables due to be deposited for its huge PMDs."""
    t, n = s.tables, len(s.mms)
    tables = np.bincount(t.mm_idx[t.level <= Level.PUD], minlength=n)
    more = s.nonpresent.mm_idx[nonpresent_due(s)]
    return tables, s.collected(DepositsDue).of_mm + np.bincount(more, minlength=n)
