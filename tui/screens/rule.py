"""The manual page of a rule, and how far it got here."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from inspector.findings import RuleCoverage
from inspector.report.rules import RuleInfo, build_rules, rule_facts
from inspector.rules import find_rule
from inspector.text import clean, counted
from tui.places import RulePlace
from tui.screens.base import PlaceScreen
from tui.views.findings import findings_of_rule, page_sections
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Facts


class RuleScreen(PlaceScreen[RuleInfo]):
    """What the rule says, why, and what it found."""

    TAB = "findings"
    HELP = """
The rule's manual page as `folioscope rules RULE` prints it, what the rule checked in this target, and what it found.
"""

    def body(self) -> ComposeResult:
        """The page above what it found."""
        with VerticalScroll(id="page", can_focus=True):
            yield Static(id="rule-head")
            yield Facts(id="rule-facts", markup=False)
            yield Static("", id="rule-gap")
            yield Facts(id="rule-page", markup=False)
        yield ColumnTable(id="rule-findings")

    def load(self) -> RuleInfo:
        """Its page."""
        assert isinstance(self.place, RulePlace)
        return build_rules([find_rule(self.place.slug)]).rules[0]

    def show(self, data: RuleInfo) -> None:
        """Show it."""
        self.query_one("#rule-head", Static).update(
            Content.assemble((data.rule, "bold $primary"), "\n", data.title + ".\n")
        )
        self.query_one("#rule-page", Facts).show(page_sections(data.page))
        self.session_changed()

    def session_changed(self) -> None:
        """What it found, and how far it got."""
        if self.data is None:
            return
        rule = self.data
        facts = [
            *rule_facts(rule),
            ("here", self._coverage()),
        ]
        self.query_one("#rule-facts", Facts).show(facts)
        rows: Rows = findings_of_rule(self.session, rule.rule)
        table = self.query_one("#rule-findings", ColumnTable)
        table.display = rows.total > 0
        table.styles.height = min(rows.total, 8) + 1
        table.show(rows)
        (table if table.display else self.query_one("#page")).focus()

    def _coverage(self) -> str:
        report = self.session.report
        mine = [c for c in report.coverage.rules if c.rule == self.data.rule] if report and self.data else []
        return _words(mine[0]) if mine else "not run yet"


def _words(c: RuleCoverage) -> str:
    if c.state == "not-applicable":
        return f"does not apply: {clean(c.reason)}"
    words = f"{counted(c.checked, 'subject')} checked"
    return words + (f", {c.unchecked:,} not: {clean(c.reason)}" if c.unchecked else "")
