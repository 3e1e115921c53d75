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
    fixture = fixture_path("7.3")
    print(f"first paint  {first_paint(fixture)['wall']:.2f} s after start, of a captured vmcore")
    report("a table of 19 rows", keystrokes(fixture, 19, "anon refs>=1000"))
    report(f"a table of {asked.rows:,} folios", keystrokes(fixture, asked.rows, "anon refs>=1000"))
    core = asked.core or vmas_dump(60_000)
    nr = busiest(Snapshot(open_core(str(core), types="btf")))[1]
    report(f"a process of {nr:,} VMAs", keystrokes(core, 0, "rw rss>=4"))


if __name__ == "__main__":
    main()
