"""``python -m tests.bench.tui``: how long the interface takes to be seen, and whether any keystroke is ever slow.

The first paint is measured from outside: a process of its own on a pseudo-terminal. Keystrokes are measured inside: for
each, how long the event loop could not have answered another one, and how long until what it did was painted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pty
import resource
import select
import sys
import time
from pathlib import Path

import numpy as np
from textual.widgets import Input

from inspector.snapshot import Snapshot
from inspector.target import open_core
from inspector.walk.kinds import KINDS
from tests.fixtures import fixture_path
from tui.app import FolioscopeApp
from tui.places import FolioPlace, Folios, MmPlace, Place
from tui.rows import Column, Field, Rows, number
from tui.session import Session

ROUNDS = 3


def first_paint(core: Path) -> float:
    """Seconds from the start of ``folioscope tui`` until its frame is on the terminal; the best of some rounds."""
    return min(_first_paint(core) for _ in range(ROUNDS))


def _first_paint(core: Path) -> float:
    words = [sys.executable, "-c", "from inspector.cli import main; raise SystemExit(main())", "tui", "-c", str(core)]
    start = time.perf_counter()
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80", LINES="24")
        os.execv(sys.executable, words)
    seen, took = b"", 0.0
    while time.perf_counter() - start < 60:
        if select.select([fd], [], [], 0.02)[0]:
            try:
                seen += os.read(fd, 1 << 16)
            except OSError:
                break
        if b"Overview" in seen:
            took = time.perf_counter() - start
            break
    os.write(fd, b"q")
    os.close(fd)
    os.waitpid(pid, 0)
    if not took:
        raise SystemExit("the interface never appeared")
    return took


def million(nr: int) -> Rows:
    """Folios that never were, as the table of folios has them."""
    rng = np.random.default_rng(1)
    pfn = np.arange(nr, dtype=np.int64) * 4
    return Rows(
        [
            number("pfn", pfn, lambda n: f"{n:#x}"),
            Field(Column("kind"), rng.integers(0, len(KINDS), nr).astype(np.uint8), str, KINDS),
            number("order", rng.integers(0, 10, nr), str),
            number("mapped", rng.integers(0, 1000, nr), blank=0),
            number("huge", rng.integers(0, 3, nr), blank=0),
            number("mms", rng.integers(0, 50, nr), blank=0),
            number("refs", rng.integers(0, 1 << 20, nr)),
        ],
        lambda row: FolioPlace(int(pfn[row])),
    )


KEYS = {
    "scroll": ("down", "pagedown", "pagedown", "end", "pageup", "home", "pagedown"),
    "sort": ("greater_than_sign", "greater_than_sign", "comma", "greater_than_sign", "greater_than_sign", "comma"),
}
ENDING = ("enter", "end", "home")


class Watch:
    """How long the event loop was deaf, at worst, since it was last asked."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.002)
            self.worst = max(self.worst, time.perf_counter() - start - 0.002)

    def stop(self) -> None:
        """No longer."""
        self._task.cancel()


async def keystrokes(
    session: Session, place: Place, words: str, rows: Rows | None = None
) -> dict[str, tuple[float, ...]]:
    """For each kind of keystroke the worst of the three measures, in milliseconds."""
    app = FolioscopeApp(session, place)
    out: dict[str, tuple[float, ...]] = {}
    async with app.run_test(size=(140, 45)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause(0.3)
        table = app.screen.query("ColumnTable").last()
        if rows is not None:
            table.show(rows)  # type: ignore[attr-defined]
        table.focus()
        await pilot.pause(0.3)
        for what, keys in {**KEYS, "filter": ("slash", *words, *ENDING)}.items():
            deaf = computed = painted = 0.0
            for key in keys:
                watch = Watch()
                start, busy = time.perf_counter(), time.thread_time()
                await pilot.press(key)
                painted = max(painted, time.perf_counter() - start)
                computed = max(computed, time.thread_time() - busy)
                await app.workers.wait_for_complete()
                await pilot.pause(0.05)
                deaf = max(deaf, watch.worst)
                watch.stop()
            out[what] = deaf * 1000, computed * 1000, painted * 1000
        assert not app.screen.query_one("#filter", Input).has_class("wrong")
    return out


def busiest(snapshot: Snapshot) -> tuple[MmPlace, int]:
    """The process with the most VMAs, and how many."""
    counts = np.bincount(snapshot.vmas.mm_idx, minlength=len(snapshot.mms))
    mm = int(np.argmax(counts))
    return MmPlace(mm), int(counts[mm])


def report(title: str, measured: dict[str, tuple[float, ...]]) -> None:
    """Print one table."""
    print(title)
    for what, (deaf, computed, painted) in measured.items():
        print(f"  {what:<8} deaf at most {deaf:6.1f} ms, computing {computed:6.1f} ms, painted after {painted:6.1f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=Path, default=fixture_path("7.3"), help="a dump, the larger the better")
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    print(f"first paint  {first_paint(fixture_path('7.3')):.2f} s after start, of a captured vmcore")
    snapshot = Snapshot(open_core(str(asked.core), types="btf"))
    session = Session(snapshot)
    session.check()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report(
        f"a table of {asked.rows:,} folios",
        asyncio.run(keystrokes(session, Folios(), "anon refs>=1000", million(asked.rows))),
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  memory   {(after - before) / 1024:.0f} MiB more than {before / 1024:.0f} MiB after the check")
    place, nr = busiest(snapshot)
    report(f"a process of {nr:,} VMAs", asyncio.run(keystrokes(session, place, "rw rss>=4")))


if __name__ == "__main__":
    main()
