"""One swap slot: its count, its folio in the swap cache, and every entry that refers to it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from inspector.report.swap import SwapReport, build_slot, build_swap, render_swap
from tui.places import SlotPlace
from tui.screens.base import PlaceScreen, ReportText
from tui.views.links import text_links
from tui.widgets.paper import PaperView


class SlotScreen(PlaceScreen[SwapReport]):
    """The text of the command, with links."""

    TAB = "subjects"
    HELP: ClassVar[str] = """\
What `folioscope swap TYPE:OFFSET` prints: how often the slot is counted, the folio that is in the swap cache for it,
and the entries of page tables and shmem files that refer to it. `→` chooses a link, Enter goes there.
"""

    place: SlotPlace

    def body(self) -> ComposeResult:
        """One text."""
        yield PaperView(id="ledger")

    def load(self) -> SwapReport:
        """Look for it, in all page tables when they were walked."""
        s, asked = self.session.snapshot, f"{self.place.type}:{self.place.offset:#x}"
        return build_swap(s, asked) if s.has_walked else build_slot(s, asked)[0]

    def show(self, data: SwapReport) -> None:
        """Show the text."""
        paper = self.query_one(PaperView)
        paper.show(lambda page: render_swap(page, data), lambda text: text_links(text, {}, self.place))
        paper.focus()

    def written(self) -> ReportText | None:
        """The report."""
        return None if self.data is None else ReportText(render_swap, self.data)
