"""``make bench-growth``: how time and memory of a check, and of questions about one folio, grow with the machine.

Real guests of some sizes, and synthetic dumps (`tests/bench/enlarge.py`) of 64 GB to 1 TB, with and without processes
that share pages. Each run is a process of its own under a memory limit, by a cgroup that kills where this machine lets
one be made. Writes ``docs/growth.md`` and its plot.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.cost import Cost, FailedError, compile_modules, measure
from tests.bench.results import commit
from tests.fixtures import fixture_path
from tests.guests.cache import guests_folder

GIB = 1 << 30
LIMIT = 8 * GIB
BASE_MB = 1536
DOCS = Path(__file__).parents[2] / "docs"
_ENOUGH = 5
"""Points from which on three numbers are fitted to them."""
QUESTIONS = ("folio", "rmap", "va", "vmas")


@dataclass(frozen=True)
class Size:
    """One machine.

    Attributes:
        name: In the table.
        megabytes: Of a real guest; 0 for a synthetic dump.
        size, used, members: Of a synthetic dump, in GiB; how many address spaces map each of the used pages.
        cached: GiB of page cache in it.
        compression: Of it; empty for ELF.
    """

    name: str
    megabytes: int = 0
    size: int = 0
    used: int = 0
    members: int = 1
    compression: str = ""
    cached: int = 0

    @property
    def path(self) -> Path:
        """Where its dump is kept."""
        if self.megabytes:
            return guests_folder() / "big-7.3" / f"{self.megabytes}.elf"
        kind = f"{self.compression}.kdump" if self.compression else "elf"
        held = f"{self.used}-{self.members}" if not self.cached else f"cached-{self.cached}"
        return guests_folder() / "synthetic" / f"{self.size}G-{held}.{kind}"

    def made(self) -> Path:
        """The dump, built when this machine has none yet."""
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.megabytes:
                _module("guest", "--megabytes", str(self.megabytes))
            else:
                # The busy guest has no file without cached pages.
                base = fixture_path("7.3") if self.cached else Size("", megabytes=BASE_MB).made()
                words = [str(base), str(self.path), "--size", f"{self.size}G", "--used", f"{self.used}G"]
                words += ["--members", str(self.members), "--cached", f"{self.cached}G"]
                words += [*(["--to", self.compression] if self.compression else [])]
                _module("enlarge", *words)
        return self.path


SIZES = (
    Size("1.5 GB", megabytes=1536),
    Size("4 GB", megabytes=4096),
    Size("12 GB", megabytes=12 << 10),
    Size("64 GB", size=64),
    Size("64 GB, 16 GB by 8", size=64, used=16, members=8),
    Size("64 GB, 48 GB of a file", size=64, cached=48),
    Size("256 GB", size=256),
    Size("256 GB, 64 GB by 4", size=256, used=64, members=4),
    Size("1 TB", size=1024, compression="zlib"),
    Size("1 TB, 256 GB by 4", size=1024, used=256, members=4, compression="zlib"),
)


@dataclass(frozen=True)
class Point:
    """What was measured of one machine.

    Attributes:
        name: Of the machine.
        is_real: Whether the dump is one of a real guest.
        pages, entries: Struct pages and leaf entries.
        check: Cost of a whole check; None where it was killed.
        questions: Cost of each question about one thing that was asked; None likewise.
        commit: At which it was measured.
    """

    name: str
    is_real: bool
    pages: int
    entries: int
    check: Cost | None
    questions: dict[str, Cost | None]
    commit: str = ""

    @classmethod
    def known(cls, row: dict[str, Any]) -> Point:
        """One that a file of results holds."""
        costs = {name: Cost(**cost) if cost else None for name, cost in row["questions"].items()}
        return cls(**{**row, "check": Cost(**row["check"]) if row["check"] else None, "questions": costs})


def _module(name: str, *words: str) -> str:
    return measure([sys.executable, "-m", f"tests.bench.{name}", *words])[1]


def _run(core: Path, words: Sequence[str], limit: int, options: Sequence[str]) -> tuple[Cost | None, dict[str, Any]]:
    """A command under the limit; None for its cost when it was killed or found no more memory."""
    command = [sys.executable, "-m", "inspector", "-c", str(core), "--types", "btf", "-q", "--format", "json"]
    try:
        cost, text = measure([*command, *options, *words], codes=(0, 4, -9), limit=limit)
    except FailedError as error:
        if "Memory" not in str(error):
            raise
        return None, {}
    return (cost, json.loads(text)) if cost.status >= 0 else (None, {})


def measure_size(size: Size, limit: int, options: Sequence[str], names: Sequence[str]) -> Point:
    """Measure one machine: a check, and the questions of these names."""
    core = size.made()
    places = json.loads(_module("places", str(core)))
    asked = {
        "folio": ["folio", f"{places['pfn']:#x}"],
        "rmap": ["rmap", f"{places['pfn']:#x}"],
        "va": ["va", str(places["pid"]), f"{places['va']:#x}"],
        "vmas": ["vmas", str(places["pid"])],
    }
    questions = {name: _run(core, words, limit, options)[0] for name, words in asked.items() if name in names}
    check, report = _run(core, ["check"], limit, options)
    summary = report.get("summary", {})
    if report and report["findings"]:
        raise FailedError(f"{core}: {len(report['findings'])} findings in a sound dump")
    pages, entries = int(places["nr_pages"]), int(summary.get("leaf_entries", 0))
    return Point(size.name, bool(size.megabytes), pages, entries, check, questions, commit())


def fit(points: Sequence[tuple[int, int, float]]) -> tuple[float, float, float]:
    """Least squares of a value over pages and entries: a constant, what a page adds, what an entry adds.

    Each point counts by its relative error, so that the largest do not decide alone.
    """
    rows = [((1.0 / y, pages / y, entries / y), 1.0) for pages, entries, y in points]
    # Normal equations, solved by elimination; scaled, as pages and entries are large.
    scale = (1.0, max(p for p, _, _ in points), max(max(e for _, e, _ in points), 1))
    matrix = [[sum(x[i] / scale[i] * x[j] / scale[j] for x, _ in rows) for j in range(3)] for i in range(3)]
    right = [sum(x[i] / scale[i] * y for x, y in rows) for i in range(3)]
    for i in range(3):
        pivot = max(range(i, 3), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot], right[i], right[pivot] = matrix[pivot], matrix[i], right[pivot], right[i]
        for r in range(i + 1, 3):
            factor = matrix[r][i] / matrix[i][i] if matrix[i][i] else 0.0
            matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[i], strict=True)]
            right[r] -= factor * right[i]
    found = [0.0] * 3
    for i in (2, 1, 0):
        rest = right[i] - sum(matrix[i][j] * found[j] for j in range(i + 1, 3))
        found[i] = rest / matrix[i][i] if matrix[i][i] else 0.0
    return found[0] / scale[0], found[1] / scale[1], found[2] / scale[2]


def table(points: Sequence[Point], limit: int) -> list[str]:
    """The figures as Markdown."""

    def cell(cost: Cost | None) -> str:
        return f"{cost.cpu:.2f} s, {cost.peak_mib:,.0f} MiB" if cost else "killed"

    asked_for = " | ".join(f"`{name}`" for name in QUESTIONS)
    out = [
        f"| machine | struct pages | leaf entries | `check`: CPU | wall | peak | {asked_for} |",
        "| --- |" + " --: |" * (5 + len(QUESTIONS)),
    ]
    for p in points:
        name = p.name if p.is_real else f"{p.name} (synthetic)"
        check = [f"{p.check.cpu:.1f} s", f"{p.check.wall:.1f} s", f"{p.check.peak_mib:,.0f} MiB"] if p.check else []
        check = check or [f"killed at {limit / GIB:.0f} GiB", "", ""]
        asked = [cell(p.questions[name]) if name in p.questions else "" for name in QUESTIONS]
        entries = f"{p.entries:,}" if p.entries else ""
        out.append(f"| {' | '.join([name, f'{p.pages:,}', entries, *check, *asked])} |")
    return out


def plot(points: Sequence[Point]) -> str:
    """CPU seconds and peak memory of a check over struct pages, both axes logarithmic, as SVG."""
    done = [(p, p.check) for p in points if p.check is not None]
    panels = (("CPU seconds", [c.cpu for _, c in done]), ("peak MiB", [c.peak_mib for _, c in done]))
    width, height, margin = 420, 300, 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width}" height="{height + 40}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{2 * width}" height="{height + 40}" fill="white"/>',
    ]
    for number, (title, values) in enumerate(panels):
        left = number * width + margin
        xs = [math.log10(p.pages) for p, _ in done]
        x0, x1 = math.floor(min(xs)), math.ceil(max(xs))
        y0, y1 = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        w, h = width - margin - 20, height - margin

        def at(x: float, y: float, left: int = left, w: int = w, h: int = h, box: Any = (x0, x1, y0, y1)) -> Any:
            return left + (x - box[0]) / (box[1] - box[0]) * w, 24 + h - (y - box[2]) / (box[3] - box[2]) * h

        parts.append(f'<text x="{left}" y="14" font-weight="bold">check: {title} over struct pages</text>')
        for x in range(x0, x1 + 1):
            (a, b), (_, c) = at(x, y0), at(x, y1)
            parts.append(f'<line x1="{a}" y1="{b}" x2="{a}" y2="{c}" stroke="#ddd"/>')
            parts.append(f'<text x="{a}" y="{b + 16}" text-anchor="middle">{10**x:,}</text>')
        for power in range(y0, y1 + 1):
            (a, b), (c, _) = at(x0, power), at(x1, power)
            parts.append(f'<line x1="{a}" y1="{b}" x2="{c}" y2="{b}" stroke="#ddd"/>')
            parts.append(f'<text x="{a - 4}" y="{b + 4}" text-anchor="end">{10**power:g}</text>')
        for (p, _), place, value in zip(done, xs, values, strict=True):
            a, b = at(place, math.log10(value))
            fill = "#1f6feb" if p.is_real else "white"
            parts.append(f'<circle cx="{a}" cy="{b}" r="4" fill="{fill}" stroke="#1f6feb"/>')
            parts.append(f'<text x="{a + 6}" y="{b - 5}" font-size="9">{p.name}</text>')
    parts.append(f'<text x="{margin}" y="{height + 30}">filled: real guests; hollow: synthetic dumps</text></svg>')
    return "\n".join(parts) + "\n"


def page(points: Sequence[Point], limit: int, limited_by: str) -> str:
    """``docs/growth.md``."""
    done = [(p.pages, p.entries, p.check) for p in points if p.check is not None]
    commits = ", ".join(dict.fromkeys(p.commit for p in points))
    lines = [
        "# Growth",
        "",
        "What a check and questions about one thing cost on machines of growing size: CPU time (user and system,",
        "workers included) and peak resident memory of a process of its own, from start to end, without a cache, under",
        f"a limit of {limit / GIB:.0f} GiB ({limited_by or 'none'}); at {commits}. Made with `make bench-growth`.",
        "",
        "The dumps are those of [tests/bench](../tests/bench/README.md): real guests with some 2,000 address spaces,",
        'and synthetic ones made from the smallest of them. "16 GB by 8": 16 GB of anonymous pages, each of which 8',
        'address spaces map. "48 GB of a file": as much page cache.',
        "",
        *table(points, limit),
        "",
    ]
    if len(done) >= _ENOUGH:
        time, memory = fit([(p, e, c.cpu) for p, e, c in done]), fit([(p, e, c.peak_mib) for p, e, c in done])
        lines += [
            f"Fitted: CPU = {time[0]:.1f} s + {time[1] * 1e9:.1f} ns a page + {time[2] * 1e9:.1f} ns an entry; "
            f"peak = {memory[0]:.0f} MiB + {memory[1] * (1 << 20):.1f} bytes a page + "
            f"{memory[2] * (1 << 20):.1f} bytes an entry.",
            "",
        ]
    return "\n".join([*lines, "![CPU time and memory over struct pages](growth.svg)", ""])


def main() -> None:
    """Measure all sizes, print the table and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--sizes", default="", help="rows to measure anew: 1,2,... or none [default: all]")
    parser.add_argument("--limit", type=float, default=LIMIT / GIB, help="GiB of memory [default: 8]")
    parser.add_argument("--options", default="--no-cache", help="of folioscope [default: --no-cache]")
    parser.add_argument("--questions", default=",".join(QUESTIONS), help="about one thing [default: all]")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of growth.md and growth.svg")
    asked = parser.parse_args()
    limit = int(asked.limit * GIB)
    chosen = [SIZES[int(n) - 1] for n in asked.sizes.split(",") if n != "none"] if asked.sizes else list(SIZES)
    kept = asked.out / "growth.json"
    found = {row["name"]: Point.known(row) for row in json.loads(kept.read_text())} if kept.is_file() else {}
    points = [found[size.name] for size in SIZES if size.name in found]
    compile_modules()
    for size in chosen:
        found[size.name] = measure_size(size, limit, asked.options.split(), asked.questions.split(","))
        points = [found[size.name] for size in SIZES if size.name in found]
        print(table([found[size.name]], limit)[-1], flush=True)
        kept.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    text = page(points, limit, next((p.check.limited_by for p in points if p.check), ""))
    (asked.out / "growth.md").write_text(text)
    if any(p.check for p in points):
        (asked.out / "growth.svg").write_text(plot(points))
    print(f"\n{text}")


if __name__ == "__main__":
    main()
