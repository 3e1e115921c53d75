"""What scripts call: one folio accounted for, and reports as text; `inspector` hands it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inspector.findings import Report
from inspector.folio.look import look_at
from inspector.folio.what_if import named_mms
from inspector.report.check import render_report
from inspector.report.explain import Explanation, build_explanation
from inspector.report.explain_text import render_explanation
from inspector.report.places import find_place
from inspector.report.screen import Screen

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def explain(
    s: Snapshot, page: int | str, *, operations: Sequence[str] = (), check: bool = True, everything: bool = True
) -> Explanation:
    """Account for the folio that a page belongs to, as ``folioscope explain --all`` does.

    Args:
        s: A snapshot of the target.
        page: A page frame number, a physical address, the address of a struct page or folio, or any address of the
            kernel; or text, as the command line takes it.
        operations: rmap operations to try on a model of the folio.
        check: Whether the rules are run, to report their findings about the folio.
        everything: Whether all page tables are walked, which many questions then share. If not, its mappings are found
            by its reverse map, as ``folioscope explain`` does: the quick way where few folios are asked about.

    Raises:
        UsageError: The number leads to no page of this target, or an operation cannot be understood.
    """
    found = find_place(s, str(page), None)
    seen = look_at(s, found.pfn, everything=everything, mms=named_mms(s, operations) if operations else None)
    return build_explanation(seen, found.pfn, place=found, check=check, operations=operations)


def as_text(report: Report | Explanation) -> str:
    """The text that the command line prints of a report, without colours."""
    lines = render_report(Screen(), report) if isinstance(report, Report) else render_explanation(Screen(), report)
    return "\n".join(lines)
