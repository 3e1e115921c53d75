"""What the rules find about one folio."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from inspector.aimed.folio import FolioSnapshot
from inspector.check.confirm import gaps
from inspector.check.run import run_check
from inspector.folio.look import look_at
from inspector.rules import all_rules
from inspector.rules.needs import ZONES
from inspector.snapshot import Snapshot
from inspector.windows.window import Effect

if TYPE_CHECKING:
    from inspector.findings import Finding
    from inspector.folio.numbers import OneFolio


def findings_about(s: Snapshot, f: OneFolio) -> list[Finding]:
    """Findings whose subject is a page of the folio or an entry that maps it.

    Only rules that such subjects of this kind of folio can break are run. Of a kernel that runs on, only what is there
    in several looks, with the same values.
    """
    found = _in_one_look(s, f)
    for gap in gaps() if s.target.is_live else ():
        if not found:
            break
        time.sleep(gap)
        again = look_at(Snapshot(s.target), f.pfn, everything=not isinstance(s, FolioSnapshot))
        there = [(x.key, x.observed, x.expected) for x in _in_one_look(again, f)]
        found = [x for x in found if (x.key, x.observed, x.expected) in there]
    return found


def _in_one_look(s: Snapshot, f: OneFolio) -> list[Finding]:
    other_kinds = {
        Effect.TABLES: f.page_type != "table",
        Effect.ANON_RMAP: not f.is_anon or f.is_ksm or f.is_hugetlb,
        Effect.SWAP: not f.is_anon or f.is_ksm or f.is_hugetlb,
        Effect.KSM: not f.is_ksm,
        Effect.HUGETLB: not f.is_hugetlb,
        Effect.FILE_RMAP: not f.is_file,
        Effect.PAGE_CACHE: not f.is_file,
    }
    in_use = bool(s.pages.refcount[f.head] > 0)
    rules = [
        r.slug
        for r in all_rules()
        if r.about.of_folios and not (r.effect and other_kinds.get(r.effect)) and not (in_use and r.needs & ZONES)
    ]
    report = run_check(s, rules, max_findings=1 << 20)
    return [x for x in report.findings if x.subject.pfn is not None and f.pfn <= x.subject.pfn < f.pfn + f.nr_pages]
