"""``python -m tests.bench.keys``: bytes that are sent to the terminal for a key, as over ssh each of them is.

A key is pressed on a pseudo-terminal that is otherwise at rest, and what comes back is counted: for the arrow in a
table, the arrow in the memory map and its zoom, at two sizes. Bytes do not depend on how fast a machine is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
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


def sent(core: Path, size: tuple[int, int]) -> dict[str, float]:
    """Bytes a key of each kind, in the mean."""
    terminal = Terminal([sys.executable, "-P", "-m", "inspector", "tui", "-c", str(core)], size)
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
    asked = parser.parse_args()
    found = measured(asked.core)
    if asked.json:
        print(json.dumps(found))
        return
    for size, row in found.items():
        print(size, ", ".join(f"{what} {nr / 1000:.2f} KB" for what, nr in row.items()))


if __name__ == "__main__":
    main()
