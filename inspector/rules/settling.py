"""Totals that are wrong because pages are: what explains them is what is wrong with these pages."""

from __future__ import annotations

import numpy as np

from inspector.columns import take_or
from inspector.rules.cause import Causes
from inspector.rules.registry import Rule
from inspector.snapshot import Snapshot


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
