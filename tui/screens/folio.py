"""One folio: its ledger, a grid of its pages, and who maps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.widgets import Static, Tree

from inspector.columns import rows_of
from inspector.errors import UsageError
from inspector.findings import Finding
from inspector.folio.account import account_of
from inspector.folio.look import look_at, settled
from inspector.report.anon_vma import anon_vma_of
from inspector.report.explain import Explanation, explain_account
from inspector.report.explain_text import render_account, render_explanation
from inspector.report.pages import build_place
from inspector.text import counted, size
from inspector.walk.page_cache import address_space_name
from inspector.walk.page_numbers import NumberMeaning
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FindingPlace,
    FolioPlace,
    MemoryPlace,
    Place,
    RmapPlace,
)
from tui.screens.base import PlaceScreen, ReportText
from tui.views.folio import (
    LEGENDS,
    PageColumns,
    PageGridView,
    TreeMm,
    file_of,
    mapping_tree,
    page_columns,
    require_page,
)
from tui.views.links import text_links
from tui.widgets.cell_grid import CellGrid
from tui.widgets.facts import Phrases
from tui.widgets.legend import Legend, switch
from tui.widgets.paper import PaperView

_MAX_ENTRIES = 2000
"""Mappings that the tree holds; a page of libc may have very many."""

_PANES = ("ledger", "pages", "mapped")


@dataclass
class FolioData:
    """What the screen shows."""

    explanation: Explanation
    pages: PageColumns
    tree: list[TreeMm]
    findings: list[tuple[int, Finding]]
    anon_vma: int
    file: int


def _agreement(e: Explanation) -> str:
    """What no difference means, by where its mappings were searched for."""
    if e.searched == "nothing":
        return "nothing compared yet: it has no reverse map"
    if any(x.verdict == "not checked" for part in (e.ledger, e.mm_ids, e.sharing) for x in part):
        if e.searched == "reverse map":
            return "~ more is counted than its reverse map leads to"
        return "~ not compared: page tables are missing"
    if not e.ledger:
        return ""
    return "✓ counters agree" + (" with its reverse map" if e.searched == "reverse map" else "")


class FolioScreen(PlaceScreen[FolioData]):
    """Three panes: side by side where there is room, else one at a time."""

    TAB = "folios"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (130, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "next_view", "View"),
        Binding("x", "rmap", "Rmap"),
        Binding("a", "anon_vma", "anon_vma", show=False),
        Binding("i", "file", "File", show=False),
        Binding("m", "memory", "In memory"),
        Binding("d", "access", "Young/dirty", show=False),
        Binding("n", "finding", "Finding", show=False),
    ]
    HELP: ClassVar[str] = """\
`v` goes through three views, side by side where there is room:

* the **ledger**: every counter with its formula, who holds the references, what the kernel would do; `→` chooses a link
  in it, Enter goes there;
* its **pages**: how often each is mapped, **e** exclusive, **x** that bit left over on a page that is not mapped, **p**
  hwpoison, **!** a wrong count; `d` shows young, dirty;
* who **maps** it, as a tree; Enter goes to the process or VMA.

`x` shows both views of its mappings, `a` its anon_vma, `i` its file, `m` where it lies in memory, `n` its first
finding.
"""

    place: FolioPlace
    _pane = "ledger"
    _mode = "counts"

    def body(self) -> ComposeResult:
        """Identity on top, three panes below."""
        yield Phrases(id="title", classes="title")
        yield Static(id="tabs", classes="title")
        with Container(id="panes"):
            yield PaperView(id="ledger")
            with Vertical(id="pages"):
                yield CellGrid(id="grid")
                yield Phrases(id="cell", classes="info")
                yield Legend(id="legend", classes="legend")
            yield Tree("mapped by", id="mapped")

    def load(self) -> FolioData:
        """The account of the folio."""
        pfn = self.place.pfn
        require_page(self.session.snapshot, pfn)
        account = settled(self.session.snapshot, lambda s: account_of(look_at(s, pfn), pfn), lambda a: a.is_wrong)
        s = account.s
        place = build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
        explained = explain_account(account, place, limit=_MAX_ENTRIES, check=False)
        pages = page_columns(account)
        try:
            anon = anon_vma_of(s, pfn)
        except UsageError:
            anon = 0
        found = self.session.findings_about(pages.pfn, len(pages.mapped))
        return FolioData(explained, pages, mapping_tree(s, explained.mappings), found, anon, file_of(s, pages.pfn))

    def show(self, data: FolioData) -> None:
        """Fill the panes."""
        e = data.explanation
        kind = e.head.kind if e.head else "not in the dump"
        names = (f"folio {data.pages.pfn:#x}", kind, f"order {e.order}, {size(e.pages << 12)}")
        title = [Text(name, "bold") for name in names]
        wrong = sum(x.verdict == "WRONG" for part in (e.ledger, e.mm_ids, e.sharing) for x in part)
        if wrong:
            title.append(Text(f" {wrong} WRONG ", "bold white on #b3262b"))
        if data.findings:
            first = data.findings[0][1].rule
            title.append(Text(f"! {counted(len(data.findings), 'finding')}: {first} (n)", "bold #e5484d"))
        elif not wrong:
            title.append(Text(_agreement(e)))
        self.query_one("#title", Phrases).show(*title)
        self._show_grid(0)
        self._fill_tree(data)
        known = self._known_words(data)
        self.query_one("#ledger", PaperView).show(
            lambda paper: render_account(paper, e), lambda text: text_links(text, known, FolioPlace(data.pages.pfn))
        )
        self.action_view(self._pane)

    def _known_words(self, data: FolioData) -> dict[str, Place]:
        """What the account names by an address, or by words, and where that leads."""
        head = data.explanation.head
        known: dict[str, Place] = {f"in {counted(data.explanation.mms, 'address space')}": RmapPlace(self.place.pfn)}
        if head is not None and head.mapping:
            word = f"mapping    {head.mapping:#x}"
            if data.anon_vma:
                known[word] = AnonVmaPlace(data.anon_vma)
            elif data.file:
                known[word] = FilePlace(data.file)
        if data.file:
            s = self.session.snapshot
            row = rows_of(s.files.address_spaces.addr, np.array([data.file], np.uint64))[0]
            if row >= 0:
                known[address_space_name(s, int(row))] = FilePlace(data.file)
        return known

    def written(self) -> ReportText | None:
        """The account."""
        return None if self.data is None else ReportText(render_explanation, self.data.explanation)

    def session_changed(self) -> None:
        """Findings about it are shown as they come, and what all page tables say when they were walked."""
        if self.data is not None:
            if self.data.explanation.searched != "all page tables" and self.session.snapshot.has_walked:
                self.reload()
                return
            found = self.session.findings_about(self.data.pages.pfn, len(self.data.pages.mapped))
            if found != self.data.findings:
                self.reload()

    def _show_grid(self, cell: int) -> None:
        assert self.data is not None
        grid = self.query_one("#grid", CellGrid)
        view = PageGridView(self.data.pages, "access" if self._mode == "access" else "counts")
        grid.styles.height = min(16, -(-view.count // view.columns))
        grid.show(view, cell or self.place.pfn - self.data.pages.pfn)
        self.query_one(Legend).show(LEGENDS[self._mode])

    def _fill_tree(self, data: FolioData) -> None:
        tree: Tree[Place] = self.query_one("#mapped", Tree)
        e = data.explanation
        tree.clear()
        total = e.pmd + e.pud + e.pte
        tree.root.set_label(Text(f"{counted(total, 'mapping')} in {counted(e.mms, 'address space')}", "bold"))
        for index, finding in data.findings:
            tree.root.add_leaf(Text(f"! {finding.rule}: {finding.title}", "#e5484d"), FindingPlace(index))
        for mm in data.tree:
            branch = tree.root.add(Text(mm.text), mm.place, expand=True)
            for vma in mm.vmas:
                twig = branch.add(Text(vma.text), vma.place, expand=True)
                for entry in vma.entries:
                    twig.add_leaf(Text(entry.text, "dim"), entry.place)
        rest = e.mapping_rows - len(e.mappings)
        if rest > 0:
            tree.root.add_leaf(Text(f"... and {rest:,} more"), None)
        tree.root.expand()

    def on_resize(self) -> None:
        """Where panes are side by side all are shown."""
        super().on_resize()
        self.call_after_refresh(self.action_view, self._pane)

    def action_view(self, pane: str) -> None:
        """Show a pane, or go to it where all are shown."""
        before, self._pane = self._pane, pane
        wide = self.size.width >= 130
        for name in _PANES:
            self.query_one(f"#{name}").display = wide or name == pane
        titles = zip(_PANES, ("ledger", "pages", "mapped by"), strict=True)
        self.query_one("#tabs", Static).update(switch(titles, pane))
        target = self.query_one({"ledger": "#ledger", "pages": "#grid", "mapped": "#mapped"}[pane])
        if self.focused is not target and (before != pane or self.focused is None):
            target.focus()

    def action_next_view(self) -> None:
        """To the next of the three."""
        self.action_view(_PANES[(_PANES.index(self._pane) + 1) % len(_PANES)])

    def _focus_first(self) -> None:
        self.query_one({"ledger": "#ledger", "pages": "#grid", "mapped": "#mapped"}[self._pane]).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Its findings are offered where there are some."""
        if action == "finding":
            return self.data is not None and bool(self.data.findings)
        return super().check_action(action, parameters)

    def on_cell_grid_moved(self, event: CellGrid.Moved) -> None:
        """Show everything about the page under the cursor."""
        view = event.grid.source
        if isinstance(view, PageGridView):
            self.query_one("#cell", Phrases).show_lines(view.describe(event.cell))

    def on_tree_node_selected(self, event: Tree.NodeSelected[Place]) -> None:
        """Go where the node leads."""
        if event.node.data is not None:
            self.scope.go(event.node.data)

    def action_access(self) -> None:
        """Counts, or young and dirty."""
        self._mode = "counts" if self._mode == "access" else "access"
        if self.data is not None:
            self._show_grid(self.query_one("#grid", CellGrid).cursor)
            self.action_view("pages")

    def action_rmap(self) -> None:
        """Both views of the mappings."""
        self.scope.go(RmapPlace(self.place.pfn))

    def action_memory(self) -> None:
        """Where it lies."""
        self.scope.go(MemoryPlace(self.place.pfn))

    def action_anon_vma(self) -> None:
        """The anon_vma that its mapping word names."""
        if self.data is not None and self.data.anon_vma:
            self.scope.go(AnonVmaPlace(self.data.anon_vma))
        else:
            self.refuse("this folio names no anon_vma")

    def action_file(self) -> None:
        """The file that it belongs to."""
        if self.data is not None and self.data.file:
            self.scope.go(FilePlace(self.data.file))
        else:
            self.refuse("this folio belongs to no file")

    def action_finding(self) -> None:
        """Its first finding."""
        if self.data is not None and self.data.findings:
            self.scope.go(FindingPlace(self.data.findings[0][0]))
