"""The command palette: every key's command, every screen, and whatever the jump dialog finds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

if TYPE_CHECKING:
    from tui.app import FolioscopeApp
    from tui.jump import Goal


@dataclass(frozen=True)
class PaletteCommand:
    """A command of the palette.

    Attributes:
        action: What it does.
        key: Which key does the same; "" for none.
        also: Other words for it.
    """

    action: str
    key: str = ""
    also: str = ""


COMMANDS = {
    "Overview": PaletteCommand("go_to('overview')", "1", "home start summary info"),
    "Findings": PaletteCommand("go_to('findings')", "2", "errors bugs problems check"),
    "Processes": PaletteCommand("go_to('processes')", "3", "ps tasks top rss"),
    "Folios": PaletteCommand("go_to('folios')", "4", "pages thp compound"),
    "Memory map": PaletteCommand("go_to('memory')", "5", "physical heat zones"),
    "More: CPUs, files, large folios, swap, hugetlb and others": PaletteCommand(
        "go_to('subjects')", "6", "bt stacks mthp leak zram locks references ksm userfaultfd windows notifiers memcg"
    ),
    "Jump to a pfn, address, pid, pid:va, file, finding or rule": PaletteCommand("jump", "g", "go find open vtop"),
    "Back": PaletteCommand("back", "[", "previous return"),
    "Forward": PaletteCommand("forward", "]", "next"),
    "Export the table or the screen": PaletteCommand("export", "e", "save write csv json svg picture"),
    "Copy the command that shows the same": PaletteCommand("copy_command", "c", "clipboard cli"),
    "Read the running kernel again": PaletteCommand("refresh", "r", "reload refresh update"),
    "Run the check, or stop it": PaletteCommand("toggle_check", "", "rules verify abort cancel"),
    "A drgn prompt with the object at hand": PaletteCommand("prompt", "D", "python shell debugger"),
    "Light or dark": PaletteCommand("toggle_dark", "", "theme colors colours"),
    "Help for this screen": PaletteCommand("help", "?", "keys manual"),
    "Quit": PaletteCommand("quit", "q", "exit close"),
}


def _with_key(name: str | Content, command: PaletteCommand) -> Content:
    return Content.assemble(name, (f"  {command.key}", "$accent"))


class PaletteCommands(Provider):
    """Commands by name, and places by anything that the jump dialog understands."""

    @property
    def _scope(self) -> FolioscopeApp:
        return cast("FolioscopeApp", self.app)

    async def discover(self) -> Hits:
        """Everything that has a name."""
        for name, command in COMMANDS.items():
            yield DiscoveryHit(_with_key(name, command), partial(self.app.run_action, command.action), text=name)

    async def search(self, query: str) -> Hits:
        """Commands and places that fit."""
        matcher = self.matcher(query)
        low = query.strip().lower()
        for name, command in COMMANDS.items():
            score = matcher.match(name)
            if low and any(word.startswith(low) for word in (*command.also.split(), command.key.lower())):
                score = 1.0
            if score > 0:
                run = partial(self.app.run_action, command.action)
                yield Hit(score, _with_key(matcher.highlight(name), command), run, text=name)
        for goal in await asyncio.to_thread(self._goals, query):
            if goal.what != "screen":
                yield Hit(0.5, f"{goal.what}  {goal.text}".replace("[", r"\["), partial(self._scope.go, goal.place))

    def _goals(self, query: str) -> list[Goal]:
        from tui.jump import goals  # noqa: PLC0415

        session = self._scope.session
        if session.opened is None:
            return []
        with session.lock:
            return goals(session, query)[:10]
