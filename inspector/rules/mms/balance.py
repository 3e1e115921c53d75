"""Causes that account for wrong rss counters: broken folios or entries that lost or gained exactly as many pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, Mask
from inspector.rules.cause import Cause, Causes
from inspector.rules.entries.nonpresent import nonpresent_target_invalid
from inspector.rules.entries.targets import special_entry_unexpected
from inspector.rules.registry import Rule
from inspector.rules.rmap.anon_rmap import anon_vma_unreachable
from inspector.rules.rmap.anon_vmas_map import anon_folio_mapping_invalid
from inspector.subjects import ENTRY
from inspector.tables.mms import RSS_SWAP
from inspector.walk.batches import MappingsOfPages, PagesByMm, run_collectors
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import Mappings, entry_pages
from inspector.walk.rss import rss_class

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_NOT_COUNTED = (EntryClass.FREE, EntryClass.TYPED, EntryClass.BROKEN, EntryClass.NO_PAGE)


def settle_rss(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach findings of rss to the causes that account for them to the page.

    Example: a shared anonymous page lost one of its three entries in pid 7. Its mapcount is one too high (the cause),
    and MM_ANONPAGES of pid 7 is one more than its page tables map: the sum over all processes equals the excess of the
    broken folios of that class, so that the second finding becomes part of the first.
    """
    off = causes.of(rule)
    if not off or len(off) == len(causes):
        return
    rows = causes.first_rows(rule)
    excess = s.mms.rss[rows] - s.rss[0][rows]
    by_class = _folio_excess(s, causes)
    bad_pages, bad_cause = _bad_entries(s, causes)
    changed, changed_cause = _changed_class(s, causes)
    total = excess.sum(axis=0)
    for cause, row, delta in zip(off, rows.tolist(), excess, strict=True):
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
        causes.attach(cause, root)
        root.facts[f"rss of pid {int(s.mms.pid[row])}"] = (
            f"stored minus rebuilt is {delta.tolist()} (file, anon, swap, shmem): the lost entries were in this process"
        )


def _folio_excess(s: Snapshot, causes: Causes) -> dict[int, tuple[int, Cause]]:
    """By rss class: pages that broken folios count beyond the rebuilt ones, and a cause among them."""
    out: dict[int, tuple[int, Cause]] = {}
    for head, cause in causes.of_folio.items():
        row = s.pages.memmap.row(head)
        if row < 0 or s.pages.type_[row] != 0:
            continue
        nr = _stored_minus_rebuilt(s, row)
        if nr:
            kind = int(rss_class(s.layout, s.pages, np.array([row]))[0])
            total, first = out.get(kind, (0, cause))
            out[kind] = (total + nr, first)
    return out


def _stored_minus_rebuilt(s: Snapshot, head_row: int) -> int:
    """Pages' worth of mappings that a folio's own counters have beyond the page tables (negative: fewer)."""
    if s.expected is None:
        return 0
    folio = int(s.folio_of_page[head_row])
    nr = int(s.folios.nr_pages[folio]) if folio >= 0 else 1
    pages = slice(head_row, head_row + nr)
    delta = int((s.pages.mapcount_raw[pages].astype(np.int64) - s.expected.page_mapcount_raw[pages]).sum())
    if folio < 0:
        return delta
    entire = entire_excess(s, folio)
    large = int(s.folios.large_raw[folio]) - int(s.expected.large_raw[folio])
    # The large mapcount counts a lost huge entry once, but rss lost all of its pages.
    return entire * nr if entire else max((delta, large), key=abs)


def entire_excess(s: Snapshot, folio: int) -> int:
    """Huge entries that a folio counts beyond those that map it."""
    return int(s.folios.entire_raw[folio]) + 1 - int(s.counts.entire[folio])


class UncountedPages(PagesByMm):
    """Pages under entries that no rss counter counts."""

    def some(self, m: Mappings) -> Mask:
        """Which entries count."""
        return np.isin(m.entry_class, np.array(_NOT_COUNTED, np.uint8))


def _bad_entries(s: Snapshot, causes: Causes) -> tuple[I64, dict[int, Cause]]:
    """Pages by mm of entries that are not counted, and the cause that names such an entry in each mm."""
    n = s.nonpresent
    pages = s.collected(UncountedPages).pages.copy()
    of_mm: dict[int, Cause] = {}
    for cause in causes:
        if cause.rule.about is ENTRY:
            m = s.entries(cause.rows)
            of_mm.setdefault(int(m.mm_idx[0]), cause)
            if cause.rule is special_entry_unexpected:
                # The page was counted before the entry was marked.
                np.add.at(pages, m.mm_idx, m.nr * entry_pages(s.layout, m.level))
        elif cause.rule is nonpresent_target_invalid:
            # Such an entry was counted by the class of a folio that it no longer names.
            np.add.at(pages, n.mm_idx[cause.rows], entry_pages(s.layout, n.level[cause.rows]))
            for mm in n.mm_idx[cause.rows].tolist():
                of_mm.setdefault(mm, cause)
    return pages, of_mm


def _changed_class(s: Snapshot, causes: Causes) -> tuple[dict[int, int], dict[int, Cause]]:
    """Pages by mm that were counted in one class and now look like another, and the cause of each mm."""
    pages: dict[int, int] = {}
    of_mm: dict[int, Cause] = {}
    changed = [
        (cause, row, nr)
        for cause in causes.of(anon_folio_mapping_invalid)
        for row, nr in dict(zip(cause.rows.tolist(), cause.fact("pages").tolist(), strict=True)).items()
    ]
    # A page of a file that names something else, as if it were anonymous.
    changed += [(cause, cause.first_row, 1) for cause in causes.of(anon_vma_unreachable)]
    if not changed:
        return pages, of_mm
    pfns = s.pages.memmap.pfns_of_rows(np.array([row for _, row, _ in changed], np.int64))
    found = MappingsOfPages(s, pfns, np.ones_like(pfns), shared=True)
    run_collectors(s, [found])
    for (cause, _, nr), m in zip(changed, found.runs(), strict=True):
        for mm, size in zip(m.mm_idx.tolist(), entry_pages(s.layout, m.level).tolist(), strict=True):
            pages[mm] = pages.get(mm, 0) + nr * size
            of_mm.setdefault(mm, cause)
    return pages, of_mm
