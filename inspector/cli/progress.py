"""A progress bar on stderr for work that takes a while; nothing for work that does not."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from inspector.workers import bystanders

if TYPE_CHECKING:
    from inspector.cli.params import Settings

_DELAY = 0.5
"""Seconds of work before a bar is worth showing."""

_REFRESHED = 0.2
"""Seconds until the clock goes on."""


class ProgressBar:
    """A bar that appears after a moment and goes away without a trace.

    Args:
        settings: ``quiet`` and the debug log level keep it away.
        title: What the work is on, when there are several.
        delay: Seconds before it appears.
    """

    def __init__(self, settings: Settings, title: str = "", delay: float = _DELAY) -> None:
        wanted = not settings.quiet and settings.log_level != "debug" and _is_terminal()
        self._title = f"{title} " if title else ""
        self._no_color = settings.color == "never"
        self._lock = threading.Lock()
        self._bar: Any = None
        self._state = ("", 0, 1)
        self._delay = delay
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True) if wanted else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            # Nothing that a worker does prints.
            bystanders.add(self._thread)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def __call__(self, what: str, done: int, steps: int) -> None:
        """Show what is being done, how many steps are done and how many there are."""
        with self._lock:
            self._state = (what, done, steps)
            self._show()

    def _run(self) -> None:
        if self._over.wait(self._delay):
            return
        self._start()
        while not self._over.wait(_REFRESHED):
            with self._lock:
                if self._bar is not None:
                    self._bar.refresh()

    def _start(self) -> None:
        from rich.console import Console  # noqa: PLC0415  (51 ms that short work need not spend)
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        with self._lock:
            if self._over.is_set():
                return
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
                console=Console(stderr=True, no_color=self._no_color),
                transient=True,
                # A thread of rich's own would keep this process from having workers.
                auto_refresh=False,
            )
            self._bar.add_task("", total=1)
            self._bar.start()
            self._show()
            self._bar.refresh()

    def _show(self) -> None:
        if self._bar is not None:
            what, done, steps = self._state
            self._bar.update(0, description=f"{self._title}{what}", completed=done, total=steps)


def _is_terminal() -> bool:
    """Whether a bar can be shown, and taken away without a trace."""
    if os.environ.get("TERM") == "dumb":
        return False
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
