"""``python -m tests.bench.keys``: bytes that are sent to the terminal for a key, as over ssh each of them is.

A key is pressed on a pseudo-terminal that is otherwise at rest, and what comes back is counted: for the arrow in a
table, the arrow in the memory map and its zoom, at two sizes. Bytes do not depend on how fast a machine is. Beside it:
seconds from the start until the frame is on the terminal, the best of some rounds.

``--beside TREE`` measures the program of another working tree in turn with this one: a commit before a change, say.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.terminal import Terminal
from tests.fixtures import fixture_path

SIZES = ((80, 24), (200, 60))
KEYS = {
    "table arrow": ("3", ("down",)),
    "map arrow": ("5", ("right", "down")),
    "map zoom": ("5", ("plus", "minus")),
}
"""What is measured: the key to the screen, and the keys whose mean is taken."""

_NAMES = {"plus": "+", "minus": "-"}
_TIMES = 6
_FIRST = 2
"""Keys that are not counted: they scroll the table or the map to where the cursor is."""


_ROUNDS = 3


def first_paint(core: Path, size: tuple[int, int]) -> float:
    """Seconds from the start of the interface until its frame is on the terminal: the best of some rounds."""
    found = []
    for _ in range(_ROUNDS):
        terminal = Terminal([*_WORDS, str(core)], size)
        found.append(terminal.wait_for(b"Overview"))
        terminal.close()
    return min(found)


_WORDS = [sys.executable, "-P", "-m", "inspector", "tui", "-c"]


@contextmanager
def program_of(tree: Path | None) -> Iterator[None]:
    """What is started here is the program of a working tree; None for this one."""
    before = os.environ.get("PYTHONPATH")
    try:
        if tree is not None:
            os.environ["PYTHONPATH"] = str(tree)
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def sent(core: Path, size: tuple[int, int]) -> dict[str, float]:
    """Bytes a key of each kind, in the mean."""
    terminal = Terminal([*_WORDS, str(core)], size)
    terminal.wait_for(b"Overview")
    terminal.settle(3.0)
    out = {}
    for what, (screen, keys) in KEYS.items():
        terminal.press(screen, 0.6)
        terminal.settle(1.0)
        found = []
        for nr in range(_FIRST + _TIMES):
            before = len(terminal.seen)
            key = keys[nr % len(keys)]
            terminal.press(_NAMES.get(key, key), 0.3)
            found.append(len(terminal.seen) - before)
        out[what] = statistics.mean(found[_FIRST:])
    terminal.close()
    return out


def measured(core: Path) -> dict[str, dict[str, float]]:
    """For `make bench`: by size of the terminal."""
    return {f"{columns}x{lines}": sent(core, (columns, lines)) for columns, lines in SIZES}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=Path, default=fixture_path("7.3"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--beside", type=Path, metavar="TREE", help="another working tree, built")
    asked = parser.parse_args()
    if asked.json:
        print(json.dumps(measured(asked.core)))
        return
    for size in SIZES:
        for tree in [asked.beside, None] if asked.beside else [None]:
            with program_of(tree):
                row, seconds = sent(asked.core, size), first_paint(asked.core, size)
            bytes_ = ", ".join(f"{what} {nr / 1000:.2f} KB" for what, nr in row.items())
            print(f"{size[0]}x{size[1]} {tree or 'here'}: {bytes_}, first paint {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
