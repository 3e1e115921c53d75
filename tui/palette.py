"""The command palette: every key's command, every screen, and whatever the jump dialog finds."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

if TYPE_CHECKING:
    from tui.app import FolioscopeApp
    from tui.jump import Goal

COMMANDS = {
    "Overview": "go_to('overview')",
    "Findings": "go_to('findings')",
    "Processes": "go_to('processes')",
    "Folios": "go_to('folios')",
    "Memory map": "go_to('memory')",
    "More: CPUs, files, large folios, references, swap, KSM, hugetlb, userfaultfd, windows": "go_to('subjects')",
    "Jump to a pfn, address, pid, pid:va, file, finding or rule": "jump",
    "Export the table or the screen": "export",
    "Copy the command that shows the same": "copy_command",
    "Read the running kernel again": "refresh",
    "Run the check, or stop it": "toggle_check",
    "A drgn prompt with the object at hand": "prompt",
    "Light or dark": "toggle_dark",
    "Help for this screen": "help",
}


class PaletteCommands(Provider):
    """Commands by name, and places by anything that the jump dialog understands."""

    @property
    def _scope(self) -> FolioscopeApp:
        return cast("FolioscopeApp", self.app)

    async def discover(self) -> Hits:
        """Everything that has a name."""
        for name, action in COMMANDS.items():
            yield DiscoveryHit(name, partial(self.app.run_action, action))

    async def search(self, query: str) -> Hits:
        """Commands and places that fit."""
        matcher = self.matcher(query)
        for name, action in COMMANDS.items():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), partial(self.app.run_action, action))
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
