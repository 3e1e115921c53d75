"""``python -m tests.bench.tui``: how long the interface takes to be seen, and whether any keystroke is ever slow.

All is measured from outside, as somebody at the terminal sees it: each program runs on a pseudo-terminal of 140 by 45
cells, and for each key the first and the last byte count that come back.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

import tui.app
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from inspector.walk.kinds import KINDS
from tests.bench.guest import vmas_dump
from tests.bench.terminal import Answer, Terminal
from tests.fixtures import fixture_path
from tui.app import FolioscopeApp
from tui.places import FolioPlace, FoliosPlace, MmPlace, Place
from tui.session import Session
from tui.views.rows import ColumnData, Rows, ViewColumn, number

ROUNDS = 3


def first_paint(core: Path) -> dict[str, float]:
    """From the start of ``folioscope tui`` until its frame is on the terminal: CPU and wall seconds, memory in MiB.

    The best of some rounds.
    """
    found = []
    for _ in range(ROUNDS):
        terminal = Terminal([sys.executable, "-m", "inspector", "tui", "-c", str(core)], (80, 24))
        wall = terminal.wait_for(b"Overview")
        found.append({"wall": wall, **terminal.used()})
        terminal.close()
    return min(found, key=lambda used: used["wall"])


JOURNEY = (
    *("3", "down", "pagedown", "down", "enter", "down", "down", "backspace"),
    *("4", "down", "pagedown", "5", "down", "2", "down", "1", "down"),
)
"""Keys pressed over and over while a check runs: lists, a process, the folios, the memory map."""

CHECKED = (b"consistent", b"nothing wrong found")
"""What the status says after a check; no sign of it ends the measurement of a dump that has findings."""


def while_checking(core: Path, seconds: float) -> tuple[list[Answer], list[Answer], float]:
    """The answers to keys while the check of a dump runs, to the same keys after it, and how long it ran.

    Args:
        core: The dump.
        seconds: How long to press keys at most.
    """
    terminal = Terminal([sys.executable, "-m", "inspector", "tui", "-c", str(core)])
    terminal.wait_for(b"Overview")
    during: list[Answer] = []
    start, seen = time.perf_counter(), len(terminal.seen)
    while not any(words in terminal.seen[seen:] for words in CHECKED) and time.perf_counter() - start < seconds:
        during.append(terminal.press(JOURNEY[len(during) % len(JOURNEY)]))
    ran = time.perf_counter() - start
    terminal.settle(1.0)
    after = [terminal.press(key) for key in JOURNEY]
    terminal.close()
    return during, after, ran


def answered(answers: list[Answer]) -> str:
    """How soon keys of the journey that changed the screen did so, and which took longest."""
    timed = [(a.first * 1000, JOURNEY[nr % len(JOURNEY)]) for nr, a in enumerate(answers) if a.first]
    if not timed:
        return "no key changed anything"
    first = sorted(ms for ms, _ in timed)
    slowest = ", ".join(f"{key} {ms:.0f}" for ms, key in sorted(timed, reverse=True)[:4])
    return (
        f"{len(first):3} keys answered: half within {first[len(first) // 2]:.0f} ms, nine of ten within "
        f"{first[len(first) * 9 // 10]:.0f}, all within {first[-1]:.0f} (slowest: {slowest})"
    )


def million(nr: int) -> Rows:
    """Folios that never were, as the table of folios has them."""
    rng = np.random.default_rng(1)
    pfn = np.arange(nr, dtype=np.int64) * 4
    return Rows(
        [
            number("pfn", pfn, lambda n: f"{n:#x}"),
            ColumnData(ViewColumn("kind"), rng.integers(0, len(KINDS), nr).astype(np.uint8), str, KINDS),
            number("order", rng.integers(0, 10, nr), str),
            number("mapped", rng.integers(0, 1000, nr), blank=0),
            number("huge", rng.integers(0, 3, nr), blank=0),
            number("mms", rng.integers(0, 50, nr), blank=0),
            number("refs", rng.integers(0, 1 << 20, nr)),
        ],
        lambda row: FolioPlace(int(pfn[row])),
    )


STROKES = {
    "scroll": ("down", "pagedown", "pagedown", "end", "pageup", "home", "pagedown"),
    "sort": (">", ">", ",", ">", ">", ","),
}
ENDING = ("enter", "end", "home")
READY = "READY-TO-MEASURE"


class Shown(FolioscopeApp):
    """The interface, with rows of our own in its first table, that tells its memory when it ends.

    Args:
        session: Of a target.
        place: Where it begins.
        rows: Instead of those there; None to leave them.
    """

    CSS_PATH = str(Path(tui.app.__file__).with_name("folioscope.tcss"))

    def __init__(self, session: Session, place: Place, rows: Rows | None) -> None:
        super().__init__(session, place)
        self._rows = rows

    def on_ready(self) -> None:
        """Wait for the table, then replace its rows."""
        self.set_timer(1.5, self._fill)

    def _fill(self) -> None:
        table = self.screen.query("ColumnTable").last()
        if self._rows is not None:
            table.show(self._rows)  # type: ignore[attr-defined]
        table.focus()
        self.notify(READY, timeout=0.5)


def show(core: str, nr_rows: int) -> None:
    """In a process of its own: the folios that never were, or the busiest process of a dump."""
    snapshot = Snapshot(open_core(core, types="btf"))
    session = Session(snapshot)
    session.check()
    app = Shown(session, FoliosPlace(), million(nr_rows)) if nr_rows else Shown(session, busiest(snapshot)[0], None)
    app.run()
    print(f"peak={resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}", flush=True)


def keystrokes(core: Path, nr_rows: int, words: str) -> tuple[dict[str, Answer], float]:
    """The slowest key of each kind, and the peak memory in MiB of the whole program."""
    command = [sys.executable, "-m", "tests.bench.tui", "--show", "--core", str(core), "--rows", str(nr_rows)]
    terminal = Terminal(command)
    terminal.wait_for(READY.encode())
    terminal.settle(1.0)
    out: dict[str, Answer] = {}
    for what, keys in {**STROKES, "filter": ("/", *words, *ENDING)}.items():
        answers = [terminal.press(key) for key in keys]
        out[what] = Answer(max(a.first for a in answers), max(a.last for a in answers))
    terminal.close()
    found = re.search(rb"peak=(\d+)", terminal.seen)
    assert found, "the program did not end as asked"
    return out, int(found[1]) / 1024


def busiest(snapshot: Snapshot) -> tuple[MmPlace, int]:
    """The process with the most VMAs, and how many."""
    counts = np.bincount(snapshot.vmas.mm_idx, minlength=len(snapshot.mms))
    mm = int(np.argmax(counts))
    return MmPlace(mm), int(counts[mm])


def report(title: str, measured: tuple[dict[str, Answer], float]) -> None:
    """Print one table."""
    answers, memory = measured
    print(f"{title}; peak memory {memory:.0f} MiB")
    for what, slowest in answers.items():
        print(
            f"  {what:<8} answered within {slowest.first * 1000:5.0f} ms, painted within {slowest.last * 1000:5.0f} ms"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=Path, help="a dump whose busiest process is shown [default: 60,000 VMAs]")
    parser.add_argument("--checked", type=Path, nargs="+", default=[], help="press keys while these dumps are checked")
    parser.add_argument("--seconds", type=float, default=120, help="for so long at most")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--show", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first-paint", type=Path, metavar="CORE", help="only that, of a dump, as JSON")
    asked = parser.parse_args()
    if asked.first_paint:
        print(json.dumps(first_paint(asked.first_paint)))
        return
    if asked.show:
        show(str(asked.core), asked.rows)
        return
    for core in asked.checked:
        print(f"{core.parent.name}/{core.name}")
        paint = first_paint(core)
        print(f"  first paint {paint['wall']:.2f} s after start, {paint['cpu']:.2f} s of processors")
        during, after, ran = while_checking(core, asked.seconds)
        print(f"  while the check ran, {ran:.1f} s: {answered(during)}")
        print(f"  after it, the same keys:  {answered(after)}", flush=True)
    if asked.checked:
        return
    fixture = fixture_path("7.3")
    print(f"first paint  {first_paint(fixture)['wall']:.2f} s after start, of a captured vmcore")
    report("a table of 19 rows", keystrokes(fixture, 19, "anon refs>=1000"))
    report(f"a table of {asked.rows:,} folios", keystrokes(fixture, asked.rows, "anon refs>=1000"))
    core = asked.core or vmas_dump(60_000)
    nr = busiest(Snapshot(open_core(str(core), types="btf")))[1]
    report(f"a process of {nr:,} VMAs", keystrokes(core, 0, "rw rss>=4"))


if __name__ == "__main__":
    main()
