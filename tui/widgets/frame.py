"""What surrounds every screen: the tabs and the verdict on top, the way here, and work under way."""

from __future__ import annotations

from rich.segment import Segment
from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Footer, Static
from textual.widgets._footer import FooterKey

from inspector.text import cell_width, clean

TABS = (
    ("overview", "Overview"),
    ("findings", "Findings"),
    ("processes", "Processes"),
    ("folios", "Folios"),
    ("memory", "Memory"),
    ("subjects", "More"),
)
"""Places with a tab, in the order of the digits that lead to them."""

Status = tuple[str, str]
"""Words and the name of a component style: ok, warn, fail or busy."""

_BAR = 8


def bar(done: int, steps: int, width: int = _BAR) -> str:
    """A bar of that many columns, with eighths of a column."""
    eighths = max(0, min(width * 8, round(width * 8 * done / max(steps, 1))))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width, "░" if not rest or full + 1 <= width else "")


class TopBar(Widget):
    """Tabs on the left, what is known about the target on the right; both can be clicked."""

    COMPONENT_CLASSES = {"bar--tab", "bar--here", "bar--key", "bar--ok", "bar--warn", "bar--fail", "bar--busy"}

    here: reactive[str] = reactive("")
    status: reactive[Status] = reactive(("", "ok"))

    def _tabs(self) -> list[tuple[str, str, str, int, int]]:
        """``(name, key, title, first column, columns)`` of each tab."""
        room = self.size.width - cell_width(self.status[0]) - 2
        titles = [title for _, title in TABS]
        if room < sum(len(title) + 4 for title in titles):
            # What is known about the target is never cut: tabs shrink to their digits.
            titles = [title if name == self.here else "" for name, title in TABS]
        if room < sum(len(title) + 3 for title in titles) + 1:
            titles = ["" for _ in TABS]
        out, at = [], 0
        for i, ((name, _), title) in enumerate(zip(TABS, titles, strict=True), 1):
            width = len(title) + 4 if title else 3
            out.append((name, str(i), title, at, width))
            at += width
        return out

    def render_line(self, y: int) -> Strip:
        """The one line there is."""
        segments, at = [], 0
        for name, key, title, first, width in self._tabs():
            style = self.get_component_rich_style("bar--here" if name == self.here else "bar--tab")
            mark = self.get_component_rich_style("bar--key") if name != self.here else style
            segments += [Segment(f" {key} ", mark), Segment(f"{title} " if title else "", style)]
            at = first + width
        words, kind = self.status
        room = max(self.size.width - at - 1, 0)
        words = words if cell_width(words) <= room else words[: max(room - 1, 0)] + "…" * bool(room)
        segments += [
            Segment(" " * max(self.size.width - at - cell_width(words) - 1, 0), self.rich_style),
            Segment(words, self.get_component_rich_style(f"bar--{kind}")),
            Segment(" ", self.rich_style),
        ]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def on_click(self, event: events.Click) -> None:
        """To the tab, or to the findings."""
        for name, _, _, first, width in self._tabs():
            if first <= event.x < first + width:
                self.app.run_worker(self.app.run_action(f"go_to('{name}')"))
                return
        if event.x > self.size.width - cell_width(self.status[0]) - 2:
            self.app.run_worker(self.app.run_action("go_to('findings')"))


class Crumbs(Static):
    """The way here; each step can be clicked."""

    def show(self, target: str, steps: list[tuple[str, int]], *, ahead: bool) -> None:
        """Show the way.

        Args:
            target: Name of the target.
            steps: Titles and their places in the history; the last is where we are.
            ahead: Whether one can go forward.
        """
        hint = "  ] forward" if ahead else ""
        room = max((self.size.width or 80) - cell_width(target) - len(hint) - 6, 20)
        cut = False
        while len(steps) > 1 and sum(cell_width(t) + 3 for t, _ in steps) > room:
            steps, cut = steps[1:], True
        room = (self.size.width or 80) - 2 - len(hint)
        last = clean(steps[-1][0]) if steps else ""
        if len(steps) == 1 and cell_width(target) + 6 * cut + cell_width(last) + 3 > room:
            # Where we are comes first; of a path its end.
            target, cut, room = "…", False, room - 4
            steps = [(last if cell_width(last) <= room else "…" + last[-(room - 1) :], steps[0][1])]
        parts = [Content.styled(clean(target), "$quiet")]
        if cut:
            parts.append(Content.styled(" › …", "$faint"))
        for text, at in steps:
            parts.append(Content.styled(" › ", "$faint"))
            here = at == steps[-1][1]
            parts.append(Content.styled(clean(text), "bold" if here else f"$quiet @click=app.turn_to({at})"))
        parts.append(Content.styled(hint, "$faint"))
        self.update(Content.assemble(*parts))


class KeysLine(Footer):
    """Keys that work here; where not all have room the last are left out, but never the one for help, which has all."""

    def compose(self) -> ComposeResult:
        """The keys that fit."""
        keys = list(super().compose())
        room = self.app.size.width - sum(map(_columns_of, filter(_is_help, keys)))
        for key in keys:
            room -= 0 if _is_help(key) else _columns_of(key)
            if room >= 0 or _is_help(key):
                yield key

    def on_resize(self) -> None:
        """As many as fit now."""
        self.refresh(recompose=True)


def _is_help(key: Widget) -> bool:
    return isinstance(key, FooterKey) and key.action.endswith("help")


def _columns_of(key: Widget) -> int:
    return cell_width(f"{key.key_display} {key.description} ") if isinstance(key, FooterKey) else 0


class Notice(Static):
    """Why something that was asked for cannot be had; stays until the screen is left or something else is."""

    def __init__(self) -> None:
        super().__init__(id="notice", classes="hidden", markup=False)

    def show(self, words: str) -> None:
        """Show it; nothing for ""."""
        self.update(words)
        self.set_class(not words, "hidden")


class Working(Static):
    """What is being done while a screen waits; appears after a moment, so that quick work does not flicker."""

    def show(self, doing: tuple[str, int, int] | None) -> None:
        """Show progress."""
        if doing is None:
            self.update("")
            return
        what, done, steps = doing
        self.update(
            Content.assemble(
                (f"{what}\n\n", "bold"),
                (f"{bar(done, steps, 32)}", "$primary"),
                (f"  {done}/{steps}\n\n", "$quiet"),
                ("esc", "$accent"),
                (" gives up and goes back; the other screens stay usable", "$quiet"),
            )
        )

    def fail(self, reason: str) -> None:
        """Say why there is nothing to be seen."""
        self.update(
            Content.assemble(
                ("This cannot be shown\n\n", "bold $error"),
                (f"{reason}\n\n", ""),
                ("esc", "$accent"),
                (" goes back", "$quiet"),
            )
        )
