"""One file: the VMAs of its i_mmap, and its page cache by order and by index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from inspector.aimed.file import FileSnapshot
from inspector.errors import UsageError
from inspector.report.file import FileReport, OrderOfFolios, build_file, render_file
from inspector.snapshot import Snapshot
from inspector.text import clean, counted, grouped
from inspector.walk.cache_view import cache_of, find_address_spaces
from tui.places import FilePlace
from tui.screens.base import PlaceScreen, ReportText
from tui.session import Session
from tui.views.file import MapperLine, cache_rows, mapper_lines, mapper_rows
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Phrases
from tui.widgets.legend import switch

_WIDE = 100
"""Columns from which bars may be long: the numbers beside them keep to their line."""


@dataclass
class FileData:
    """What the screen shows."""

    report: FileReport
    s: Snapshot
    mappers: Rows
    cache: Rows


class FileScreen(PlaceScreen[FileData]):
    """Facts and orders on top; below either who maps it or what is cached."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "next_view", "View"),
    ]
    HELP: ClassVar[str] = """\
`v` goes from the processes that map the file, each with whether its VMAs are in the i_mmap tree, where rmap looks, to
everything in its page cache by index, and back. Enter opens the VMA or the folio; of a process with several VMAs (`+`)
it shows them below, and hides them again. The bars show cached pages by order of their folios, the mapped part full.
"""

    place: FilePlace
    _half = "mappers"

    def __init__(self, session: Session, place: FilePlace) -> None:
        super().__init__(session, place)
        self._opened: set[int] = set()
        self._lines: list[MapperLine] = []

    def body(self) -> ComposeResult:
        """Facts, bars, and one of two tables."""
        yield Phrases(id="title", classes="title")
        yield Phrases(id="facts", classes="info")
        yield Static(id="orders", classes="legend")
        yield Static(id="tabs", classes="title")
        yield ColumnTable(id="mappers")
        yield ColumnTable(id="cache")

    def load(self) -> FileData:
        """Who maps it, and what is cached of it."""
        whole = self.session.snapshot
        s = whole if whole.has_walked else FileSnapshot(whole, self.place.addr)
        rows = find_address_spaces(s.files, address=self.place.addr)
        if not len(rows) or (s is not whole and not s.files.address_spaces.is_inode[rows[0]]):
            raise UsageError("no cached or mapped file has that address_space", f"{self.place.addr:#x}")
        row = int(rows[0])
        report = build_file(s, row)
        if report.name:
            self.session.file_names[self.place.addr] = clean(report.name)
        return FileData(report, s, mapper_rows(s, mapper_lines(report, ()), ()), cache_rows(cache_of(s, row)))

    def written(self) -> ReportText | None:
        """The report."""
        return None if self.data is None else ReportText(render_file, self.data.report)

    def show(self, data: FileData) -> None:
        """Fill everything."""
        r = data.report
        damages = [*r.tree_damage, *(f"vma {v.vma:#x} of no process is in the tree" for v in r.strange_vmas)]
        self.query_one("#title", Phrases).show(
            Text(clean(r.name or "a file without a name"), "bold"),
            f"inode {r.ino}, {counted(r.nrpages, 'page')} cached",
            *(Text(f"! {damage}", "bold #e5484d") for damage in damages),
        )
        writable = ""
        if r.i_mmap_writable is not None:
            writable = f"i_mmap_writable {r.i_mmap_writable}, {counted(r.writable_vmas, 'VMA')} may write"
        self.query_one("#facts", Phrases).show(
            *(f"address_space {r.address_space:#x}", f"inode {r.inode:#x}", "\n"),
            *(f"i_mmap {counted(r.tree_vmas, 'VMA')}", writable),
        )
        self.query_one("#orders", Static).update(
            _bars(r.orders, 24 if self.size.width >= _WIDE else 10, is_lost=r.nrpages > 0)
        )
        self.scope.dress(self)
        self._show_mappers(0)
        self.put(self.query_one("#cache", ColumnTable), data.cache)
        self.action_view(self._half if data.report.mappers else "cache")

    def _show_mappers(self, cursor: int) -> None:
        assert self.data is not None
        self._lines = mapper_lines(self.data.report, self._opened)
        table = self.query_one("#mappers", ColumnTable)
        self.put(table, mapper_rows(self.data.s, self._lines, self._opened))
        table.cursor = cursor

    def on_column_table_chosen(self, event: ColumnTable.Chosen) -> None:
        """Go to a VMA; of a process that has several, show them below it or hide them."""
        rows = event.table.rows
        line = self._lines[rows.row(event.row)] if event.table.id == "mappers" and rows is not None else None
        if line is None or not line.more:
            super().on_column_table_chosen(event)
            return
        self._opened ^= {line.vmas[0].mm}
        self._show_mappers(event.row)

    def action_view(self, half: str) -> None:
        """Show one of the two tables."""
        self._half = half
        for name in ("mappers", "cache"):
            self.query_one(f"#{name}").display = name == half
        if self.data is not None:
            mappers = self.data.report.mappers
            processes = counted(len({m.mm for m in mappers}), "process", "processes")
            views = (
                ("mappers", f"mapped by {processes}, {counted(len(mappers), 'VMA')}"),
                ("cache", f"page cache: {counted(len(self.data.cache), 'entry', 'entries')}"),
            )
            self.query_one("#tabs", Static).update(switch(views, half))
        self.query_one(f"#{half}").focus()

    def action_next_view(self) -> None:
        """The other table."""
        self.action_view("cache" if self._half == "mappers" else "mappers")


def _bars(orders: list[OrderOfFolios], width: int = 24, *, is_lost: bool = False) -> Text:
    """One bar an order: how many pages are cached in folios of it, the mapped part full."""
    most = max((o.pages for o in orders), default=1)
    lines = []
    for o in orders:
        whole = max(1, o.pages * width // most)
        mapped = min(whole, -(-o.mapped_pages * width // most))
        line = Text(f"order {o.order:>2} ")
        line.append("█" * mapped, "#5fae5f")
        line.append("░" * (whole - mapped) + " " * (width - whole), "#5fae5f")
        words = f" {counted(o.folios, 'folio')}, {counted(o.pages, 'page')}, {grouped(o.mapped_pages)} mapped"
        extra = [f"{n:,} {w}" for n, w in ((o.dirty_pages, "dirty"), (o.writeback_pages, "in writeback")) if n]
        line.append(", ".join([words, *extra]))
        lines.append(line)
    none = "none of its pages was found" if is_lost else "nothing is cached"
    return Text("\n").join(lines) if lines else Text(none)
