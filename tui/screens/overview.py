"""The target at a glance, filled in as the work behind it goes on."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static
from textual.worker import get_current_worker

from inspector.coverage import lost_words
from inspector.report.check import verdict_of
from inspector.text import clean, counted
from tui.places import FindingsPlace, FoliosPlace
from tui.screens.base import PlaceScreen
from tui.views.findings import rule_rows
from tui.views.map import build_layer
from tui.views.overview import Bar, bars, identity_lines, order_bars, top_processes
from tui.views.rows import Rows
from tui.widgets.bars import BarChart
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Facts

_MOST = 9
_LOW = 16
"""Lines below which not all of the first two panels are seen."""
_NEXT = (
    ("enter", "opens what the cursor is on; tab goes on to the next panel"),
    ("g", "jumps: pfn, address, pid, pid:va, file, #finding, rule"),
    ("2 ... 6", "findings, processes, folios, memory map, more"),
    ("[ ]", "back and forward, as in a browser"),
    ("/", "filters a table; < > , sort it; e exports it"),
    ("?", "explains the screen at hand; ctrl+p has every command"),
)


class VerdictLine(Static):
    """The verdict; it can be focused where no list of findings is below it, and Enter lists them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.findings", "Open"),
        Binding("down,j", "screen.beyond(1)", "Down", show=False),
        Binding("up,k", "screen.beyond(-1)", "Up", show=False),
    ]


class OverviewScreen(PlaceScreen[list[tuple[str, str]]]):
    """Identity, verdict, findings by rule, memory by kind and order, the largest processes, what to press next."""

    TAB = "overview"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("w", "note", "Note", show=False)]
    EARLY = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    HELP = """
The whole target on one page; it fills in while the check runs.

* **Target**: what was opened and how. `counting` is the accounting scheme: which counters this kernel keeps.
* **Findings**: one line a rule that found something. `✗ fail` is impossible by the kernel's own rules, `! warn` is
  legal but notable, `i info` is explained by work in flight or worth knowing.
* **Memory by kind** and **by order** count pages. Enter on a bar, or a click, lists such folios.
* **Largest processes** by rss, the kernel's own counters.

Arrows go through a panel and on to the next, as Tab does. `w` writes a note about the dump, which is remembered.
"""

    def body(self) -> ComposeResult:
        """Panels, two columns of them where there is room."""
        with VerticalScroll(id="panels", can_focus=False), Grid(id="grid"):
            first = [self._target, self._found]
            # On a low screen what has the focus would not be seen.
            for panel in reversed(first) if self.app.size.height < _LOW else first:
                yield from panel()
            with _panel("kinds", "Memory by kind"):
                yield BarChart(id="kind-bars")
            with _panel("top-processes", "Largest processes"):
                yield ColumnTable(id="largest")
            with _panel("orders", "Memory in use by order of folio"):
                yield BarChart(id="order-bars")
            with _panel("next", "Press next"):
                yield Static(Content("\n").join(_hints()))

    def _target(self) -> ComposeResult:
        with _panel("target", "Target"):
            yield Facts(id="identity", markup=False)

    def _found(self) -> ComposeResult:
        with _panel("found", "Findings"):
            yield VerdictLine(id="verdict")
            yield ColumnTable(id="rules")

    def load(self) -> list[tuple[str, str]]:
        """What is known as soon as the target is open."""
        return identity_lines(self.session.snapshot, is_early=True)

    def show(self, data: list[tuple[str, str]]) -> None:
        """Show it, and go on with what takes longer."""
        self.query_one("#identity", Facts).show(data)
        self.session_changed()
        self.run_worker(self._load_parts, name="parts", thread=True, exclusive=True, group="parts", exit_on_error=False)

    def _load_parts(self) -> None:
        session, worker = self.session, get_current_worker()
        session.wait_for_tables(lambda: worker.is_cancelled)
        with session.lock:
            s = session.snapshot
            identity = identity_lines(s)
        self.app.call_from_thread(self.query_one("#identity", Facts).show, identity)
        with session.lock:
            kinds = session.keep(("layer", "kind"), lambda: build_layer(s, "kind"))
        page = 1 << s.layout.arch.page_shift
        if worker.is_cancelled:
            return
        self.app.call_from_thread(self._show_bars, "#kind-bars", bars(kinds, _MOST), page)
        with session.lock:
            orders = session.keep(("layer", "order"), lambda: build_layer(s, "order"))
        if worker.is_cancelled:
            return
        self.app.call_from_thread(self._show_bars, "#order-bars", order_bars(orders), page)
        with session.lock:
            rows = session.keep("largest", lambda: top_processes(s, _MOST))
        if not worker.is_cancelled:
            self.app.call_from_thread(self._show_processes, rows)

    def _show_bars(self, chart: str, data: list[Bar], page: int) -> None:
        self.query_one(chart, BarChart).show(data, page)

    def _show_processes(self, rows: Rows) -> None:
        table = self.query_one("#largest", ColumnTable)
        table.styles.height = len(rows) + 1
        table.show(rows)

    def session_changed(self) -> None:
        """Findings so far, and the verdict when there is one."""
        if not self.query("#rules"):
            # The panels are there some moments after the screen.
            return
        table = self.query_one("#rules", ColumnTable)
        rows = rule_rows(self.session)
        table.display = len(rows) > 0
        table.styles.height = min(len(rows), 12) + 1
        table.show(rows, table.cursor)
        verdict = self.query_one("#verdict", VerdictLine)
        verdict.update(self._verdict())
        verdict.can_focus = not table.display
        if self.focused in (None, verdict, table):
            (table if table.display else verdict).focus(scroll_visible=False)

    def _focus_first(self) -> None:
        self.session_changed()

    def action_findings(self) -> None:
        """The list of findings."""
        self.scope.go(FindingsPlace())

    def on_column_table_at_edge(self, event: ColumnTable.AtEdge) -> None:
        """On to the next panel."""
        self.action_beyond(event.row)

    def on_bar_chart_at_edge(self, event: BarChart.AtEdge) -> None:
        """On to the next panel."""
        self.action_beyond(event.step)

    def action_beyond(self, step: int) -> None:
        """To the panel below or above; beyond the last one the page is scrolled to its end."""
        panels = [w for w in self.focus_chain if isinstance(w, (VerdictLine, ColumnTable, BarChart))]
        at = panels.index(self.focused) + step if self.focused in panels else 0
        scroll = self.query_one("#panels", VerticalScroll)
        if at < 0:
            scroll.scroll_home(animate=False)
        elif at >= len(panels):
            scroll.scroll_end(animate=False)
        else:
            panels[at].focus()

    def action_note(self) -> None:
        """A note about the dump."""
        self.scope.ask_note("", self.session.name, self.session_changed)

    def _verdict(self) -> Content:
        session, report = self.session, self.session.report
        if report is None:
            doing = session.doing
            if doing is None:
                return Content.styled("not checked to the end", "$warning")
            return Content.styled(f"checking: {doing[0]}", "$quiet")
        words, style = verdict_of(report, remarks_are="")
        mark, color = {"fail": ("✗", "$error"), "yellow": ("~", "$warning")}.get(style, ("✓", "$success"))
        rules = sum(c.state != "not-applicable" for c in report.coverage.rules)
        missing = ", ".join(lost_words(report.coverage.missing))
        lines = [
            Content.styled(f"{mark} {words}", f"bold {color}"),
            Content.styled(f"{counted(rules, 'rule')} run; unreadable: {missing or 'none'}", "$quiet"),
        ]
        lines += [Content.styled(clean(note), "$quiet") for note in report.coverage.notes]
        if session.note(""):
            lines.append(Content.styled(f"note: {clean(session.note(''))}", "$accent"))
        return Content("\n").join(lines)

    def on_bar_chart_chosen(self, event: BarChart.Chosen) -> None:
        """List such folios."""
        if event.chart.id == "order-bars" and event.label.startswith("order "):
            order = event.label.removeprefix("order ")
            self.scope.go(FoliosPlace(f"order>={order[:-1]}" if order.endswith("+") else f"order={order}"))
        elif event.label != "others":
            self.scope.go(FoliosPlace(event.label.replace(" ", "-")))


def _panel(name: str, title: str) -> Vertical:
    panel = Vertical(id=name, classes="panel")
    panel.border_title = title
    return panel


def _hints() -> list[Content]:
    width = max(len(key) for key, _ in _NEXT) + 2
    return [Content.assemble((key.ljust(width), "bold $accent"), (text, "$quiet")) for key, text in _NEXT]
