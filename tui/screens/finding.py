"""One finding: the claim, the proof, and the ways on from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from inspector.errors import UsageError
from inspector.findings import Finding
from inspector.hex_json import encode_json
from inspector.rules import find_rule
from tui.places import FindingPlace
from tui.screens.base import PlaceScreen
from tui.session import Session
from tui.views.findings import link_rows, links_of, page_sections, short_subject
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.finding_view import FindingView, Section


@dataclass(frozen=True)
class FindingData:
    """A finding with what it leads to.

    Attributes:
        finding: It.
        links: Places.
        page: Sections of the rule's manual page.
    """

    finding: Finding
    links: Rows
    page: list[Section]


def load_finding(session: Session, index: int) -> FindingData:
    """Gather it; for workers.

    Raises:
        UsageError: There is no such finding (any more).
    """
    if not 0 <= index < len(session.findings):
        raise UsageError("there is no finding of that number", f"#{index + 1}", "The list has what there is")
    finding = session.findings[index]
    links = link_rows(links_of(session.snapshot, finding))
    return FindingData(finding, links, page_sections(find_rule(finding.rule).page))


class FindingScreen(PlaceScreen[FindingData]):
    """One finding on a screen of its own."""

    TAB = "findings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "step(1)", "Next"),
        Binding("N", "step(-1)", "Previous", show=False),
        Binding("y", "copy_json", "Copy JSON"),
        Binding("s", "seen", "Seen"),
        Binding("w", "note", "Note"),
    ]
    HELP = """
One finding with its evidence. **stored** is what the kernel's memory holds, **expected** what the model derives from
the page tables; `≠` marks the values that differ.

The evidence rows are links: the folio, both views of its mappings, every mapping with its VMA, the process, the place
in physical memory, the rule. `n` and `N` go to the next and the previous finding. `s` marks it as seen, `w` writes a
note; both are remembered.
"""

    def body(self) -> ComposeResult:
        """The one view."""
        yield FindingView()

    def load(self) -> FindingData:
        """The finding with its links."""
        assert isinstance(self.place, FindingPlace)
        return load_finding(self.session, self.place.index)

    def show(self, data: FindingData) -> None:
        """Show it."""
        note = self.session.note(data.finding.key)
        self.query_one(FindingView).show(data.finding, data.links, data.page, note)
        self.query_one("#links", ColumnTable).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Other findings are offered where there are some."""
        if action == "step" and isinstance(self.place, FindingPlace):
            step = parameters[0] if parameters and isinstance(parameters[0], int) else 0
            return 0 <= self.place.index + step < len(self.session.findings)
        return super().check_action(action, parameters)

    def action_step(self, step: int) -> None:
        """Another finding."""
        assert isinstance(self.place, FindingPlace)
        index = self.place.index + step
        if 0 <= index < len(self.session.findings):
            self.scope.go(FindingPlace(index))

    def action_copy_json(self) -> None:
        """Copy as `check --format json` prints it."""
        if self.data is not None:
            copy_json(self, self.data.finding)

    def action_note(self) -> None:
        """Write a note about it."""
        if self.data is not None:
            finding = self.data.finding
            self.scope.ask_note(finding.key, f"{finding.rule}: {short_subject(finding)}", self.reload)

    def action_seen(self) -> None:
        """Mark, or take the mark away."""
        if self.data is not None:
            self.session.toggle_seen(self.data.finding)
            self.notify("marked as seen" if self.session.has_seen(self.data.finding) else "no longer marked as seen")


def copy_json(screen: PlaceScreen[FindingData] | PlaceScreen[Rows], finding: Finding) -> None:
    """Copy a finding to the clipboard of the terminal."""
    screen.app.copy_to_clipboard(encode_json(finding).decode())
    screen.notify("the finding as JSON", title="Copied")
