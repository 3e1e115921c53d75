"""Both views of a folio's mappings: the rmap walk beside the page tables, differences first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import rich.text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from inspector.errors import Exit, UsageError
from inspector.folio.look import look_at
from inspector.report.anon_vma import anon_vma_of
from inspector.report.mappings import NOT_ALLOWED
from inspector.report.pages import build_place
from inspector.report.rmap import RmapReport, build_rmap, render_rmap
from inspector.text import counted
from inspector.walk.page_numbers import NumberMeaning
from tui.places import AnonVmaPlace, FilePlace, FolioPlace, RmapPlace
from tui.screens.base import PlaceScreen, ReportText
from tui.views.folio import file_of, require_page
from tui.views.rmap import MARKS, SideRow, rmap_rows, side_by_side
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Phrases


@dataclass
class RmapData:
    """What the screen shows."""

    report: RmapReport
    sides: list[SideRow]
    rows: Rows
    anon_vma: int
    file: int


class RmapScreen(PlaceScreen[RmapData]):
    """The steps of the rmap walk, then both views row beside row."""

    TAB = "folios"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "folio", "Folio"),
        Binding("a", "anon_vma", "anon_vma"),
        Binding("i", "file", "File"),
    ]
    HELP: ClassVar[str] = """\
On the left the places where the kernel's own reverse map looks for the folio, on the right what the page tables hold.
**=** both agree; **·** the walk searches there but the folio is not mapped there now, which is normal; **<** only the
page tables know the mapping: the kernel would not find it; **≠** they count differently. Enter opens the VMA.
"""

    place: RmapPlace

    def body(self) -> ComposeResult:
        """Steps, verdict, table, what the row says."""
        yield Phrases(id="title", classes="title")
        yield Static(id="steps", classes="info", markup=False)
        yield ColumnTable(id="sides")
        yield Static(id="note", classes="info", markup=False)

    def load(self) -> RmapData:
        """Walk both."""
        pfn = self.place.pfn
        require_page(self.session.snapshot, pfn)
        s = look_at(self.session.snapshot, pfn)
        report = build_rmap(s, build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), []))
        sides = side_by_side(report, s.layout.arch.page_shift)
        try:
            anon = anon_vma_of(s, pfn)
        except UsageError:
            anon = 0
        return RmapData(report, sides, rmap_rows(s, sides), anon, file_of(s, report.folio.pfn))

    def written(self) -> ReportText | None:
        """The report."""
        return None if self.data is None else ReportText(render_rmap, self.data.report)

    def show(self, data: RmapData) -> None:
        """Fill the table; the verdict in words, not in colour alone."""
        r = data.report
        order = f" order {r.folio.order}" if r.folio.order else ""
        names = (f"folio {r.folio.pfn:#x}", f"{r.folio.kind}{order}", f"rmap walk: {r.walk}")
        title = [rich.text.Text(name, "bold") for name in names]

        def say(words: str, style: str = "") -> None:
            title.append(rich.text.Text(words, style))

        if r.rejected:
            say(f" ≠ {counted(r.rejected, *NOT_ALLOWED)} ", "bold white on #b3262b")
        if r.walk == "none":
            say("no rmap walk possible: folio->mapping names nothing")
        elif r.searched != "all page tables":
            mark = "✓" if r.agree else "~" if r.exit_code == Exit.INCOMPLETE else "≠"
            say(f"{mark} the walk finds {r.by_walk}, the folio counts {counted(r.mapcount, 'mapping')}")
        elif r.agree:
            say(f"✓ both views agree: {counted(r.by_tables, 'entry', 'entries')}", "#5fae5f")
        else:
            words = f" ≠ {r.by_walk} by the rmap walk, {r.by_tables} by the page tables "
            say(words, "bold white on #b3262b")
        self.query_one("#title", Phrases).show(*title)
        steps = "\n".join(f"{name}: {value}" for name, value in r.steps.items())
        self.query_one("#steps", Static).update(steps)
        self.query_one(ColumnTable).show(data.rows)

    def session_changed(self) -> None:
        """Both views when all page tables were walked."""
        known = self.data is None or self.data.report.searched == "all page tables"
        if not known and self.session.snapshot.has_walked:
            self.reload()

    def on_column_table_moved(self, event: ColumnTable.Moved) -> None:
        """What the mark of the row means."""
        if self.data is not None and len(self.data.rows):
            row = self.data.sides[self.data.rows.row(event.row)]
            text = f"{row.mark} {MARKS[row.mark]}"
            self.query_one("#note", Static).update(f"{text}\n{row.note}" if row.note else text)

    def action_folio(self) -> None:
        """The folio itself."""
        self.scope.go(FolioPlace(self.place.pfn))

    def action_anon_vma(self) -> None:
        """The anon_vma that the walk starts from."""
        if self.data is not None and self.data.anon_vma:
            self.scope.go(AnonVmaPlace(self.data.anon_vma))
        else:
            self.refuse("the rmap walk of this folio goes through no anon_vma")

    def action_file(self) -> None:
        """The file that the walk starts from."""
        if self.data is not None and self.data.file:
            self.scope.go(FilePlace(self.data.file))
        else:
            self.refuse("the rmap walk of this folio goes through no file")
