"""Counters of whole processes that are off by exactly what broken folios or entries lost: the same cause."""

from __future__ import annotations

import numpy as np

from inspector.check.cause_types import Cause
from inspector.columns import I64
from inspector.rules.vmas.vmas import page_table_pages
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_SWAP
from inspector.walk.counts import EntryClass
from inspector.walk.rss import entry_pages, rss_class

_BAD = (EntryClass.FREE, EntryClass.TYPED, EntryClass.BROKEN, EntryClass.NO_PAGE)


def balance_counters(s: Snapshot, causes: list[Cause], of_folio: dict[int, Cause]) -> None:
    """Attach findings of rss, pgtables and node counters to the causes that account for them to the page.

    Args:
        s: The snapshot.
        causes: All causes; those that are explained are taken out.
        of_folio: Cause by the page frame of the folio's head.
    """
    _balance_rss(s, causes, of_folio)
    _balance_page_tables(s, causes, of_folio)
    _balance_node_counters(s, causes, of_folio)


def _of_rule(causes: list[Cause], slug: str) -> list[Cause]:
    return [c for c in causes if c.rule.slug == slug]


def _rows(causes: list[Cause]) -> I64:
    return np.array([int(c.violations.rows[c.rows[0]]) for c in causes], np.int64)


def _balance_rss(s: Snapshot, causes: list[Cause], of_folio: dict[int, Cause]) -> None:
    rss = _of_rule(causes, "rss-mismatch")
    if not rss or len(rss) == len(causes):
        return
    rows = _rows(rss)
    excess = s.mms.rss[rows] - s.rss[0][rows]
    by_class = _folio_excess(s, of_folio)
    bad_pages, bad_cause = _bad_entries(s, causes)
    changed, changed_cause = _changed_kind(s, causes)
    total = excess.sum(axis=0)
    for cause, row, delta in zip(rss, rows.tolist(), excess, strict=True):
        classes = np.flatnonzero(delta).tolist()
        root: Cause | None = None
        if delta[RSS_SWAP] == 0 and row in bad_cause and int(delta.sum()) == int(bad_pages[row]):
            root = bad_cause[row]
        elif row in changed_cause and int(delta.sum()) == 0 and int(np.abs(delta).sum()) == 2 * changed[row]:
            root = changed_cause[row]
        elif RSS_SWAP not in classes and all(k in by_class and by_class[k][0] == int(total[k]) for k in classes):
            root = by_class[classes[0]][1]
        if root is None:
            continue
        causes.remove(cause)
        root.add("rss-mismatch")
        root.facts[f"rss of pid {int(s.mms.pid[row])}"] = (
            f"stored minus rebuilt is {delta.tolist()} (file, anon, swap, shmem): what is missing was mapped there"
        )


def _folio_excess(s: Snapshot, of_folio: dict[int, Cause]) -> dict[int, tuple[int, Cause]]:
    """By rss class: pages that broken folios count beyond the rebuilt ones, and a cause among them."""
    out: dict[int, tuple[int, Cause]] = {}
    for head, cause in of_folio.items():
        row = s.pages.memmap.row(head)
        if row < 0 or s.pages.type_[row] != 0:
            continue
        nr = stored_minus_rebuilt(s, row)
        if nr:
            kind = int(rss_class(s.layout, s.pages, np.array([row]))[0])
            total, first = out.get(kind, (0, cause))
            out[kind] = (total + nr, first)
    return out


def stored_minus_rebuilt(s: Snapshot, head_row: int) -> int:
    """Pages' worth of mappings that a folio's own counters claim beyond the page tables (negative: lack)."""
    if s.expected is None:
        return 0
    folio = int(s.folio_of_page[head_row])
    nr = int(s.folios.nr_pages[folio]) if folio >= 0 else 1
    pages = slice(head_row, head_row + nr)
    delta = int((s.pages.mapcount_raw[pages].astype(np.int64) - s.expected.page_mapcount_raw[pages]).sum())
    if folio < 0:
        return delta
    entire = _entire_excess(s, folio)
    large = int(s.folios.large_raw[folio]) - int(s.expected.large_raw[folio])
    # The large mapcount counts a lost huge entry once, but rss lost all of its pages.
    return entire * nr if entire else max((delta, large), key=abs)


def _entire_excess(s: Snapshot, folio: int) -> int:
    return int(s.folios.entire_raw[folio]) + 1 - int(s.counts.entire[folio])


def _bad_entries(s: Snapshot, causes: list[Cause]) -> tuple[I64, dict[int, Cause]]:
    """Pages by mm behind entries that are not counted, and the cause that names such an entry in each mm."""
    m = s.mappings
    bad = np.flatnonzero(np.isin(s.counts.entry_class, np.array(_BAD, np.uint8)))
    pages = np.bincount(m.mm_idx[bad], weights=m.nr[bad] * entry_pages(s.layout, m.level[bad]), minlength=len(s.mms))
    of_mm: dict[int, Cause] = {}
    n = s.nonpresent
    for cause in causes:
        if cause.violations.subject == "mapping":
            for row in _rows([cause]).tolist():
                of_mm.setdefault(int(m.mm_idx[row]), cause)
            if cause.rule.slug == "special-entry-unexpected":
                # The page was counted before the entry was marked.
                rows = cause.violations.rows[cause.rows]
                np.add.at(pages, m.mm_idx[rows], m.nr[rows] * entry_pages(s.layout, m.level[rows]))
        elif cause.rule.slug == "nonpresent-target-invalid":
            # What such an entry stands for was counted by the kind of a folio that it no longer names.
            rows = cause.violations.rows[cause.rows]
            np.add.at(pages, n.mm_idx[rows], entry_pages(s.layout, n.level[rows]).astype(np.float64))
            for mm in n.mm_idx[rows].tolist():
                of_mm.setdefault(mm, cause)
    return pages.astype(np.int64), of_mm


def _changed_kind(s: Snapshot, causes: list[Cause]) -> tuple[dict[int, int], dict[int, Cause]]:
    """Pages by mm that were counted as anonymous and read as another kind now, and the cause that says so."""
    pages: dict[int, int] = {}
    of_mm: dict[int, Cause] = {}
    m = s.mappings
    for cause in _of_rule(causes, "anon-folio-mapping-invalid"):
        counts = cause.violations.facts["pages"][cause.rows].tolist()
        rows = cause.violations.rows[cause.rows].tolist()
        for row, nr in dict(zip(rows, counts, strict=True)).items():
            at = s.mappings_of(int(s.pages.memmap.pfns_of_rows(np.array([row]))[0]))
            sizes = entry_pages(s.layout, m.level[at]).tolist()
            for mm, size in zip(m.mm_idx[at].tolist(), sizes, strict=True):
                pages[mm] = pages.get(mm, 0) + nr * size
                of_mm.setdefault(mm, cause)
    return pages, of_mm


def _balance_page_tables(s: Snapshot, causes: list[Cause], of_folio: dict[int, Cause]) -> None:
    """A lost PMD leaf of an anonymous THP leaves the table deposited for it behind (pgtable_trans_huge_deposit())."""
    _balance_lost_tables(s, causes)
    found = _of_rule(causes, "pgtables-bytes-mismatch")
    if not found:
        return
    lost, root = 0, None
    for head, cause in of_folio.items():
        row = s.pages.memmap.row(head)
        folio = int(s.folio_of_page[row]) if row >= 0 else -1
        if folio >= 0 and s.folios.is_anon[folio] and not s.folios.is_hugetlb[folio]:
            excess = _entire_excess(s, folio)
            lost, root = lost + excess, cause if excess else root
    rows = _rows(found)
    excess_pages = (s.mms.pgtables_bytes[rows] >> s.layout.memmap.page_shift) - page_table_pages(s)[rows]
    if root is None or int(excess_pages.sum()) != lost:
        return
    for cause in found:
        causes.remove(cause)
        for slug in ("pgtables-bytes-mismatch", *cause.also):
            root.add(slug)


def _balance_lost_tables(s: Snapshot, causes: list[Cause]) -> None:
    """Tables that hang nowhere are those that a ring of deposited tables lost, or that an mm still counts."""
    lost = [c for c in _of_rule(causes, "page-table-unreachable") if not c.violations.facts["in_flight"][c.rows[0]]]
    if not lost:
        return
    tables = sum(1 + int(c.violations.facts["tables_below"][row]) for c in lost for row in c.rows)
    short, damaged = _of_rule(causes, "deposited-tables-mismatch"), _of_rule(causes, "deposit-list-damaged")
    rings = short + damaged
    most = sum(_lacking(c) for c in short)
    # Of a damaged ring nobody knows how many of its tables it still leads to.
    if rings and most <= tables <= most + sum(int(c.violations.facts["due"][c.rows].sum()) for c in damaged):
        for cause in lost:
            causes.remove(cause)
            rings[0].add("page-table-unreachable")
        return
    counted = _of_rule(causes, "pgtables-bytes-mismatch")
    rows = _rows(counted)
    excess = (s.mms.pgtables_bytes[rows] >> s.layout.memmap.page_shift) - page_table_pages(s)[rows]
    if int(excess.sum()) == tables:
        for cause in counted:
            causes.remove(cause)
            for slug in ("pgtables-bytes-mismatch", *cause.also):
                lost[0].add(slug)


def _lacking(cause: Cause) -> int:
    """Tables that the rings of one cause should have and have not."""
    v = cause.violations
    return int((v.expected["deposited"][cause.rows] - v.observed["deposited"][cause.rows]).sum())


def _balance_node_counters(s: Snapshot, causes: list[Cause], of_folio: dict[int, Cause]) -> None:
    """Totals of mapped memory that are off by no more than the pages of broken folios: those were counted there."""
    found = _of_rule(causes, "node-mapped-mismatch")
    faulty = {head: cause for head, cause in of_folio.items() if cause.rule.severity != "info"}
    if not found or not faulty:
        return
    rows = s.pages.memmap.rows(np.array(list(faulty), np.int64))
    folio = np.where(rows >= 0, s.folio_of_page[np.maximum(rows, 0)], -1)
    pages = 0
    for large in folio.tolist():
        pages += int(s.folios.nr_pages[large]) if large >= 0 else 1
    root = next(iter(faulty.values()))
    for cause in found:
        first = cause.rows[0]
        if abs(int(cause.violations.observed["stored"][first] - cause.violations.expected["stored"][first])) <= pages:
            causes.remove(cause)
            root.add("node-mapped-mismatch")
