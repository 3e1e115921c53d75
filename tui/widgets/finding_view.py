"""One finding from the claim to what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from inspector.findings import Finding
from inspector.text import cell_width, clean
from tui.views.findings import SEVERITY_MARKS, comparison, facts_of
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Facts

_COLORS = {"fail": "$error", "warn": "$warning", "info": "$secondary"}

Section = tuple[str, str]
"""Heading and text of a part of a rule's manual page."""


class FindingView(VerticalScroll, can_focus=False):
    """The claim, stored beside expected, where it leads, what is known, the rule's page, the suggested command."""

    def compose(self) -> ComposeResult:
        """The parts, filled by `show`."""
        self.add_class("finding")
        yield Static(classes="claim")
        yield Static(classes="compare")
        yield Static("Evidence: enter goes there", classes="heading")
        yield ColumnTable(id="links")
        yield Static("Known", classes="heading")
        yield Facts(classes="known", markup=False)
        yield Static("Show more with", classes="heading")
        yield Static(classes="look", markup=False)
        yield Static("The rule", classes="heading")
        yield Facts(classes="rule-page", markup=False)

    def show(self, finding: Finding, links: Rows | None, page: Sequence[Section], note: str = "") -> None:
        """Show a finding; without links the table of them is left out."""
        color = _COLORS[finding.severity]
        sure = "" if finding.exactness == "exact" else f"  ({finding.exactness})"
        self.query_one(".claim", Static).update(
            Content.assemble(
                (f"{SEVERITY_MARKS[finding.severity]}  ", f"bold {color}"),
                (clean(finding.rule), "bold"),
                (sure, "$quiet"),
                "\n",
                clean(finding.title) + ".",
                (f"\nnote: {clean(note)}" if note else "", "$accent"),
            )
        )
        self.query_one(".compare", Static).update(compared(finding))
        table = self.query_one(ColumnTable)
        table.display = links is not None
        self.query(".heading").first().display = links is not None
        if links is not None:
            table.styles.height = min(len(links), 12) + 1
            table.show(links)
        self.query_one(".known", Facts).show(facts_of(finding))
        self.query_one(".look", Static).update(clean(finding.look))
        self.query_one(".rule-page", Facts).show(page)
        self.scroll_home(animate=False)


def compared(finding: Finding) -> Content:
    """Stored and expected side by side; what differs is marked."""
    rows = comparison(finding)
    if not rows:
        return Content("")
    names = max(cell_width(name) for name, *_ in rows)
    stored = max(len("stored"), *(cell_width(a) for _, a, _ in rows))
    wanted = max(len("expected"), *(cell_width(b) for *_, b in rows))
    lines = [Content.styled(f"{'':{names}}  {'stored':>{stored}}     {'expected':>{wanted}}", "$quiet")]
    for name, a, b in rows:
        same = a == b
        lines.append(
            Content.assemble(
                (f"{name:{names}}  ", "$quiet"),
                (f"{a:>{stored}}", "" if same else "bold $error"),
                ("  =  " if same else "  ≠  ", "$quiet" if same else "bold $error"),
                (f"{b:>{wanted}}", "" if same else "bold $success"),
            )
        )
    return Content("\n").join(lines)
