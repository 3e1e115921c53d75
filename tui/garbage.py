"""Python's garbage collections at moments at which no key waits.

A full one takes in every object there is: half a million of them, most of them lines that Textual keeps, take a third
of a second. Here they wait until no key has been pressed for a moment, and take in only what is new since the last one.
"""

from __future__ import annotations

import gc

from inspector.workers import leave_frozen

_RESTING = 0.5
"""Seconds without a key after which what is on the screen is being read."""

_AWAY = 30.0
"""Seconds without a key after which a long collection is hardly noticed."""

_WORTH, _LONG = 2, 12
"""Collections of young objects after which one of all that is new is worth it, and after which it takes as long as a
key may."""

_FULL = 400
"""Collections of young objects that were put by, at which a long one is due in any case: some 3 million objects."""

_NEVER = 1 << 30


class Garbage:
    """Decides when to look for garbage; to be asked now and then (`at`)."""

    def __init__(self) -> None:
        self._last_key = 0.0
        self._thresholds = gc.get_threshold()
        self._put_by = 0

    def begin(self) -> None:
        """From here on Python itself collects young objects only, and what there is by now stays."""
        leave_frozen(True)
        gc.freeze()
        gc.enable()
        gc.set_threshold(*self._thresholds[:2], _NEVER)

    def end(self) -> None:
        """Leave it to Python again."""
        leave_frozen(False)
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def key(self, now: float) -> None:
        """A key was pressed."""
        self._last_key = now

    def at(self, now: float) -> None:
        """Look for garbage where it is time to."""
        young, rested = gc.get_count()[2], now - self._last_key
        if self._put_by and (rested > _AWAY or self._put_by > _FULL):
            self._put_by = 0
            gc.unfreeze()
        elif young <= _WORTH or rested < _RESTING and young <= _LONG:
            return
        elif young > _LONG:
            # What is garbage of it is found when there is time.
            self._put_by += young
            gc.freeze()
            return
        gc.collect()
        gc.freeze()
