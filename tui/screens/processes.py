"""All address spaces: their processes, what they hold, and how many findings concern them."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from inspector.text import counted
from inspector.walk.mthp import large_folios, large_of_mms
from inspector.walk.smaps import vma_figures
from tui.screens.base import PlaceScreen
from tui.views.processes import process_rows
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable


class ProcessesScreen(PlaceScreen[Rows]):
    """The table of address spaces; Enter opens one."""

    TAB = "processes"
    HELP: ClassVar[str] = """\
Every address space, those without a task too, the largest rss first. *rss* and its parts *anon*, *file*, *shmem*, and
*swap*, are the kernel's own counters. From the page tables: *THP*, memory that PMDs map; *mTHP*, memory of large folios
that PTEs map; *partly*, large folios mapped in part, by it and all others together, and *wasted*, what no process maps
of those. **!** counts findings that concern the process.

`S` and a letter sorts by a column, the same again turns the order; `→` shows columns that do not fit.

Filter: `/` then words of the name, or comparisons: `rss>=10M`, `wasted>0`, `findings>0`. Sizes are in bytes, or in K,
M, G or `pages`; `!` before a word or a comparison turns it round, `or` parts alternatives; Tab completes names.
"""

    _is_partial = False
    """Whether figures are left open that take all page tables."""

    def body(self) -> ComposeResult:
        """A line of sums, and the table."""
        yield Static(id="title", classes="title", markup=False)
        yield ColumnTable(id="processes")

    def load(self) -> Rows:
        """The counters of all mms."""
        s = self.session.snapshot
        # What takes all page tables is not looked for while the check reads them.
        self._is_partial = self.session.is_checking
        figures = None if self._is_partial else self.session.keep("vma_figures", lambda: vma_figures(s))
        large = (
            None if self._is_partial else self.session.keep("large_of_mms", lambda: large_of_mms(s, large_folios(s)))
        )
        return process_rows(self.session, figures, large)

    def show(self, data: Rows) -> None:
        """Fill the table."""
        alone = int((self.session.snapshot.mms.pid < 0).sum())
        rest = f", {alone} without a task" if alone else ""
        threads = int((self.session.snapshot.tasks.mm == 0).sum())
        none = f"; {counted(threads, 'task')} without one" if threads else ""
        words = f"{counted(len(data), 'address space')}{rest}{none}"
        self.query_one("#title", Static).update(words)
        self.fill(self.query_one(ColumnTable), data, order="-rss")

    def session_changed(self) -> None:
        """Findings are counted anew when the check is through, and what was left open is filled in."""
        changed = (self.session.report is not None and self.session.findings) or self._is_partial
        if changed and not self.session.is_checking and self.data is not None:
            self.reload()
