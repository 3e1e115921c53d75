"""The detection matrix: each fault, planted alone in each kernel's dump, and the one finding it gives.

``python -m tests.faults`` plants all of them and writes MATRIX.md anew, ``python -m tests.faults NAME`` only some; the
tests compare every cell with what they find.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

from inspector.check.run import run_check
from tests.faults.corpus import CORPUS
from tests.faults.every import CATALOGUE, FAMILIES
from tests.faults.overlay import KERNELS, core_path, planted, sound
from tests.faults.plants import MissingError

MATRIX = Path(__file__).with_name("MATRIX.md")

_HEAD = """\
# Detection matrix

Made by `python -m tests.faults`; do not edit. Each fault is planted alone in the captured vmcore of each kernel, the
whole dump is checked, and the cell names the rule of the only finding. `make test-all` compares every cell.
A dash: that kernel's dump has no place for the fault.
"""


def cell(name: str, kernel: str) -> str:
    """What a check finds after a fault was planted: one rule, or all that it found when it is not one."""
    path = core_path("fixture", kernel)
    try:
        fault = CATALOGUE[name](sound(path))
    except MissingError:
        return "-"
    found = run_check(planted(path, *fault.patches)).findings
    return ", ".join(f"{f.rule}" + ("" if f.severity == "fail" else f" ({f.severity})") for f in found) or "nothing"


def _title(name: str) -> str:
    return name.replace("-", " ")


def _names(module: ModuleType) -> list[str]:
    return [name for name, plant in CATALOGUE.items() if plant.__module__ == module.__name__]


def render(cells: dict[tuple[str, str], str]) -> str:
    """The document, from the cells by fault and kernel."""
    lines = [_HEAD]
    planted_cells = [text for text in cells.values() if text != "-"]
    lines.append(f"{len(CATALOGUE)} faults, {len(planted_cells)} planted, each found alone.\n")
    for title, module in FAMILIES:
        lines += [f"## {title}\n", "| fault | " + " | ".join(KERNELS) + " |", "| --- |" + " --- |" * len(KERNELS)]
        for name in _names(module):
            row = [cells[name, kernel] for kernel in KERNELS]
            lines.append(f"| {_title(name)} | " + " | ".join(row) + " |")
        lines.append("")
    lines.append("# Bugs that the kernel had\n")
    lines.append("What real bugs leave behind, and the faults above that are this state.\n")
    for family, bugs in CORPUS.items():
        lines += [f"## {family}\n", "| bug | planted as |", "| --- | --- |"]
        for bug in bugs:
            lines.append(f"| {bug.what} | {'; '.join(map(_title, bug.faults)) or 'not planted: ' + bug.why_not} |")
        lines.append("")
    return "\n".join(lines)


def parse(text: str) -> dict[tuple[str, str], str]:
    """The cells of the document by fault and kernel."""
    out = {}
    for line in text.split("# Bugs that the kernel had", 1)[0].splitlines():
        parts = [part.strip() for part in line.strip().strip("|").split("|")]
        if line.startswith("| ") and len(parts) == len(KERNELS) + 1 and parts[0] not in ("fault", "---"):
            out.update(
                {(parts[0].replace(" ", "-"), kernel): text for kernel, text in zip(KERNELS, parts[1:], strict=True)}
            )
    return out


def _pair(pair: tuple[str, str]) -> str:
    return cell(*pair)


def build(names: Sequence[str] = ()) -> str:
    """Plant the faults named, or all, and render the document; cells of the others stay as they are."""
    pairs = [(name, kernel) for kernel in KERNELS for name in names or CATALOGUE]
    kept = parse(MATRIX.read_text("utf-8")) if names else {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return render(kept | dict(zip(pairs, pool.map(_pair, pairs, chunksize=4), strict=True)))
