"""What the rules find about one folio."""

from __future__ import annotations

from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.folio.numbers import OneFolio
from inspector.snapshot import Snapshot

_ALWAYS = (
    "targets",
    "compound",
    "free",
    "mapcount",
    "entire",
    "pages-mapped",
    "mm-ids",
    "refcount",
    "exclusive",
    "writable",
    "nonpresent",
)
"""Groups of rules about struct pages and the entries that map them."""


def findings_about(s: Snapshot, f: OneFolio) -> list[Finding]:
    """Findings whose subject is a page of the folio or an entry that maps it.

    Only rules that can speak of such a folio are run.
    """
    groups = list(_ALWAYS)
    if f.is_hugetlb:
        groups.append("hugetlb")
    elif f.is_ksm:
        groups.append("ksm")
    elif f.is_anon:
        groups += ["anon-rmap", "swap-cache"]
    if f.is_file:
        groups += ["file-rmap", "page-cache"]
    report = run_check(s, groups, max_findings=1 << 20)
    return [x for x in report.findings if x.subject.pfn is not None and f.pfn <= x.subject.pfn < f.pfn + f.nr_pages]
