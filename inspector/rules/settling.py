"""Totals that are wrong because pages are: what explains them is what is wrong with these pages."""

from __future__ import annotations

import numpy as np

from inspector.columns import take_or
from inspector.rules.cause import Causes
from inspector.rules.registry import Rule
from inspector.snapshot import Snapshot
from inspector.tables.buddy import links_at


def settle_by_links(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach lists of pages whose first wrong link is of a page that is at fault, or leads to one."""
    memmap = s.layout.memmap
    for cause in causes.of(rule):
        for link in links_at(s.layout, int(cause.observed("first_wrong_link")[0])):
            page = link - (link - memmap.vmemmap) % memmap.page_size
            pfn = int(memmap.pfns(np.array([page], np.uint64))[0]) if 0 < page < 1 << 64 else -1
            root = causes.of_folio.get(pfn)
            if root is not None and root.rule.severity != "info" and root in list(causes):
                causes.attach(cause, root)
                break


def settle_behind(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach pages that are found nowhere to the page in front of them, which is at fault: theirs is its size."""
    for cause in causes.of(rule):
        root = causes.of_folio.get(s.pages.memmap.pfn(cause.first_row) - 1)
        if root is not None and root is not cause and root.rule.severity != "info" and root in list(causes):
            causes.attach(cause, root)


def settle_by_pages(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach totals that are off by no more than the pages of broken folios: those were counted there."""
    off = causes.of(rule)
    faulty = {head: cause for head, cause in causes.of_folio.items() if cause.rule.severity != "info"}
    if not off or not faulty:
        return
    rows = s.pages.memmap.rows(np.array(list(faulty), np.int64))
    folio = take_or(s.folio_of_page, rows, -1)
    pages = sum(int(s.folios.nr_pages[large]) if large >= 0 else 1 for large in folio.tolist())
    root = next(iter(faulty.values()))
    for cause in off:
        if abs(int(cause.observed("stored")[0] - cause.expected("stored")[0])) <= pages:
            causes.attach(cause, root)
