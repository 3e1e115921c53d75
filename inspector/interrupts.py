"""Interrupts (ctrl-c, and signals that end a command in order) put off while something must not be left half done.

Not by the mask of signals: where there are other threads, one of those takes the signal, and Python calls the handler
in the main thread all the same.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import ClassVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Handlers:
    """The handlers that are called later, and what came meanwhile.

    Attributes:
        users: How many `PutOff` there are.
        held: Not 0 while no interrupt may be raised.
        waiting: What came, with the frame that it came in.
        behind: The handlers that were there before, by signal.
    """

    users: ClassVar = 0
    held: ClassVar = 0
    waiting: ClassVar[list[tuple[int, FrameType | None]]] = []
    behind: ClassVar[dict[int, Callable[[int, FrameType | None], object]]] = {}

    @classmethod
    def came(cls, number: int, frame: FrameType | None) -> None:
        """Handle a signal now, or keep it."""
        if cls.held:
            cls.waiting.append((number, frame))
            return
        # What cleans up behind the first is not interrupted by a second.
        cls.held = 1
        cls.behind[number](number, frame)
        cls.held = 0

    @classmethod
    def install(cls) -> None:
        """Put `came` in the place of every handler of Python's; no signal that is ignored or kills is touched."""
        cls.held, cls.waiting = 1, []
        cls.behind = {number: found for number in _SIGNALS if callable(found := signal.getsignal(number))}
        for number in cls.behind:
            signal.signal(number, cls.came)
        cls.users = 1

    @classmethod
    def remove(cls) -> None:
        """Put the handlers back, and let them handle what came."""
        for number, handler in cls.behind.items():
            signal.signal(number, handler)
        for number, frame in cls.waiting:
            cls.behind[number](number, frame)

    @classmethod
    def handle_waiting(cls) -> None:
        """Handle what was kept, as if it came now."""
        while cls.waiting and not cls.held:
            cls.came(*cls.waiting.pop(0))


def end_by_signals() -> None:
    """In a forked process: let signals whose handlers are the parent's end it at once."""
    for number in _SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


class PutOff:
    """Within it no interrupt is raised but inside `Allowed`; at its end one that came is.

    In other threads than the main one it does nothing: interrupts are raised in that one alone.
    """

    def __enter__(self) -> None:
        """From here on interrupts wait."""
        self._here = threading.current_thread() is threading.main_thread()
        if not self._here:
            return
        if _Handlers.users:
            _Handlers.held += 1
            _Handlers.users += 1
        else:
            _Handlers.install()

    def __exit__(self, *_: object) -> None:
        """Nothing is half done any more."""
        if not self._here:
            return
        _Handlers.users -= 1
        if not _Handlers.users:
            _Handlers.remove()
            return
        _Handlers.held -= 1
        _Handlers.handle_waiting()


class Allowed:
    """Inside `PutOff`, a stretch that may be interrupted: what waits is raised at its beginning."""

    def __enter__(self) -> None:
        """Raise what came, and what comes."""
        self._here = threading.current_thread() is threading.main_thread()
        if self._here:
            self._held, _Handlers.held = _Handlers.held, 0
            _Handlers.handle_waiting()

    def __exit__(self, *_: object) -> None:
        """From here on interrupts wait again."""
        if self._here:
            _Handlers.held = self._held
