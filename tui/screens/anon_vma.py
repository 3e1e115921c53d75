"""One anon_vma: its family as a tree, and its interval tree drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from inspector.report.anon_vma import (
    AnonVmaReport,
    Member,
    aim_at_family,
    build_anon_vma,
    find_anon_vma,
    render_anon_vma,
)
from inspector.text import counted
from tui.places import AnonVmaPlace, Place
from tui.screens.base import PlaceScreen, ReportText
from tui.views.anon_vma import tree_rows
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Phrases

_MAX_MEMBERS = 3000
"""Members of a family that the tree holds; a shell that forks all day has many more."""


@dataclass
class AnonVmaData:
    """What the screen shows."""

    report: AnonVmaReport
    rows: Rows


class AnonVmaScreen(PlaceScreen[AnonVmaData]):
    """Family above, interval tree below."""

    TAB = "processes"
    HELP: ClassVar[str] = """\
Above: the family of anon_vmas that forks made, parents over children, with the processes whose VMAs each belongs to;
counters that differ from the family as rebuilt are shown as *stored, must be rebuilt*. Enter goes to another member.

Below: the interval tree of this anon_vma, by which rmap finds VMAs: every chain under the one above it, ● black and
○ red, and where its page offsets lie. Enter opens the VMA.
"""

    place: AnonVmaPlace

    def body(self) -> ComposeResult:
        """Family, then tree."""
        yield Phrases(id="title", classes="title")
        yield Tree("family", id="family")
        yield Static(id="tree-title", classes="title", markup=False)
        yield ColumnTable(id="chains")

    def load(self) -> AnonVmaData:
        """Family and tree."""
        s = self.session.snapshot
        seen, row = (s, find_anon_vma(s, self.place.addr)) if s.has_walked else aim_at_family(s, self.place.addr)
        report = build_anon_vma(seen, row)
        return AnonVmaData(report, tree_rows(seen, report))

    def written(self) -> ReportText | None:
        """The report."""
        return None if self.data is None else ReportText(render_anon_vma, self.data.report)

    def show(self, data: AnonVmaData) -> None:
        """Fill both."""
        r = data.report
        held = "its rwsem is taken for writing" if r.locked else ""
        words = (f"anon_vma {r.address:#x}", f"root {r.root:#x}", held)
        self.query_one("#title", Phrases).show(*(Text(each, "bold") for each in words))
        here = self._fill(data.report)
        chains = f"interval tree of {r.address:#x}: {counted(len(r.tree), 'chain')}"
        self.query_one("#tree-title", Static).update(chains)
        self.query_one("#chains", ColumnTable).show(data.rows)
        if here is not None:
            self.call_after_refresh(self._move_to, here)

    def _move_to(self, here: TreeNode[Place]) -> None:
        tree: Tree[Place] = self.query_one("#family", Tree)
        # Lines have no numbers before they are built; asking for the last one builds them.
        if tree.last_line >= 0:
            tree.move_cursor(here)

    def _fill(self, report: AnonVmaReport) -> TreeNode[Place] | None:
        tree: Tree[Place] = self.query_one("#family", Tree)
        tree.clear()
        tree.root.set_label(Text(counted(len(report.family), "anon_vma") + " in the family", "bold"))
        nodes: dict[int, TreeNode[Place]] = {}
        here = None
        family = report.family[:_MAX_MEMBERS]
        # The member asked for is always there, however large the family.
        family += [m for m in report.family[_MAX_MEMBERS:] if m.address == report.address]
        for member in family:
            above = nodes.get(member.parent, tree.root) if member.parent != member.address else tree.root
            node = above.add(
                _member(member, report.address, is_wrong=bool(report.damage)), AnonVmaPlace(member.address), expand=True
            )
            node.allow_expand = bool(member.children)
            nodes[member.address] = node
            if member.address == report.address:
                here = node
        rest = len(report.family) - len(family)
        if rest > 0:
            tree.root.add_leaf(Text(f"... and {rest:,} more"), None)
        tree.root.expand()
        tree.styles.height = min(max(len(family) + 1, 3), 12) if len(family) < 10 else "1fr"
        return here

    def on_tree_node_selected(self, event: Tree.NodeSelected[Place]) -> None:
        """To another member."""
        if event.node.data is not None:
            self.scope.go(event.node.data)


def _member(m: Member, asked: int, *, is_wrong: bool) -> Text:
    """One line; counts that differ are wrong where a rule says so, otherwise a part of what they count is missing."""
    text = Text(f"{m.address:#x}", "bold" if m.address == asked else "")
    if m.address == asked:
        text.append(" ◀", "bold")
    who = ", ".join(m.processes[:4]) + (f" and {len(m.processes) - 4} more" if len(m.processes) > 4 else "")
    text.append(f"  {who or 'no VMA of its own'}", "" if who else "dim")
    text.append(f"  refs {m.refcount}, {counted(m.chains, 'chain')}", "dim")
    for name, stored, rebuilt in (
        ("children", m.num_children, m.children),
        ("active VMAs", m.num_active_vmas, m.active_vmas),
    ):
        if stored != rebuilt:
            if is_wrong:
                text.append(f"  ! {name} {stored}, must be {rebuilt}", "bold #e5484d")
            else:
                text.append(f"  {name} {stored}, found {rebuilt}", "dim")
    if m.depth < 0:
        text.append("  ! its parents do not lead to the root", "bold #e5484d")
    return text
