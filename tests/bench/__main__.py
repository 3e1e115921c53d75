"""`make bench`: what each question costs on one dump, beside its floor and its peers.

Each figure is of a process of its own, from its start to its end: CPU time (user and system, children included), wall
time, and the most memory that was resident; of keys it is the bytes that are sent to the terminal. Beside ours are:

* the floor: a process that reads the same pages, each once, and does nothing else;
* of a compressed dump, the decompressor alone on the same pages: what `tests/bench/convert.py` makes of any dump; and,
  where the dump that it was made of lies beside it, what compression costs a check: the difference between the two;
* for a capture, a check of the same dump;
* the plain NumPy recipe (`tests/bench/recipe.py`), for a whole check;
* drgn's helpers and objects, with DWARF; for a whole check extrapolated from samples in which every address is mapped;
* drgn's commands after crash's (`crash kmem`, `crash vtop`, ...), and crash itself where it is installed and opens the
  dump.

The dump is in the page cache; ours is without its own cache ("cold"), and with one that a run before has filled
("warm"). Results are kept as JSON by commit and compared, as ratios, with the commit before; what
has grown by 10% is shown. No time is asserted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.cost import Cost, FailedError, best, compile_modules, measure
from tests.bench.peers import Asked, crash_code, crash_command, drgn_command, questions, vmlinux_of
from tests.bench.results import REGRESSION, compare, compression_costs, keep, latest_before

ROUNDS = 2
CACHE_VARIABLE = "FOLIOSCOPE_CACHE"
OURS, WARM, UNCOMPRESSED, FLOOR, DECOMPRESSOR, CHECK, RECIPE, OBJECTS, COMMANDS, CRASH = (
    "folioscope",
    "folioscope, warm",
    "folioscope, on ELF",
    "the bytes, read",
    "decompressor alone",
    "a check",
    "NumPy recipe",
    "drgn objects",
    "drgn's crash commands",
    "crash",
)
NAMES = ("info", "page", "folio", "explain", "rmap", "va", "vmas", "check", "capture", "tui", "keys")
Row = dict[str, float]
Rows = dict[str, dict[str, Row]]


class Bench:
    """Measures one dump.

    Args:
        core: The dump.
        rounds: How often each is run; the one that took least CPU time counts.
        options: Of our command line, before the command.
        folder: For files in between.
    """

    def __init__(self, core: Path, rounds: int, options: Sequence[str], folder: Path) -> None:
        self._core, self._rounds, self._options, self._folder = str(core), rounds, tuple(options), folder
        self.places: dict[str, Any] = json.loads(self._module("places", self._core)[1])
        (folder / "places.json").write_text(json.dumps(self.places))
        with core.open("rb") as file:
            self._is_compressed = file.read(5) == b"KDUMP"
        # What `tests.bench.convert` made it of.
        self._twin = core.with_name(Path(core.stem).stem + ".elf")
        self._vmlinux = vmlinux_of(self.places["release"])
        self._asked = questions(self.places, folder / "capture")

    def _module(self, name: str, *words: str) -> tuple[Cost, str]:
        return measure([sys.executable, "-m", f"tests.bench.{name}", *words])

    def _words(self, words: Sequence[str]) -> list[str]:
        return ["-c", self._core, "--types", "btf", "-q", *self._options, *words]

    def rows(self, name: str) -> dict[str, Row]:
        """Everybody's costs of one question, by who answered it."""
        if name == "tui":
            return {OURS: json.loads(self._module("tui", "--first-paint", self._core)[1])}
        if name == "keys":
            return json.loads(self._module("keys", "--json", "--core", self._core)[1])
        asked, out = self._asked[name], {}
        command = [sys.executable, "-m", "inspector", *self._words(asked.ours)]
        out[OURS] = best([*command, "--no-cache"], self._rounds, codes=(0, 4))[0].row()
        # A cache of its own, that one run before has filled.
        own = {CACHE_VARIABLE: str(self._folder / "cache")}
        measure(command, codes=(0, 4), environment=own)
        out[WARM] = best(command, self._rounds, codes=(0, 4), environment=own)[0].row()
        if name == "check" and self._is_compressed and self._twin.is_file():
            words = ["-c", str(self._twin), *self._words(asked.ours)[2:], "--no-cache"]
            out[UNCOMPRESSED] = best([*command[:3], *words], self._rounds, codes=(0, 4))[0].row()
        if name == "capture":
            words = [*self._words(self._asked["check"].ours), "--no-cache"]
            out[CHECK] = best([*command[:3], *words], self._rounds, codes=(0, 4))[0].row()
        out |= self._floor(asked if name != "capture" else self._asked["check"])
        if name == "check":
            out |= self._whole()
        out |= self._peers(asked)
        return out

    def _floor(self, asked: Asked) -> dict[str, Row]:
        reads = self._folder / "reads.npy"
        words = ["record", str(reads), *self._words(asked.ours)]
        measure([sys.executable, "-m", "tests.bench.replay", *words, "--no-cache"], codes=(0, 4))
        command = [sys.executable, "-m", "tests.bench.replay", "read", self._core, str(reads)]
        cost, text = best(command, self._rounds)
        out = {FLOOR: {**cost.row(), "mib": int(text) / (1 << 20)}}
        if self._is_compressed:
            out[DECOMPRESSOR] = json.loads(self._module("decompress", self._core, str(reads))[1])
        return out

    def _whole(self) -> dict[str, Row]:
        """What a whole check is measured against."""
        out: dict[str, Row] = {}
        cost, text = best([sys.executable, "-m", "tests.bench.recipe", self._core], self._rounds)
        counted = json.loads(text)
        out[RECIPE] = {**cost.row(), **counted}
        if self._vmlinux is not None:
            words = ("objects", self._core, str(self._vmlinux), str(self._folder / "places.json"))
            sample = json.loads(self._module("peers", *words)[1])
            if sample["hits"] != sample["addresses"]:
                raise FailedError(f"of {sample['addresses']} sampled addresses only {sample['hits']} are mapped")
            cpu = sample["open"] + counted["pages"] * sample["page"] + counted["leaves"] * sample["address"]
            out[OBJECTS] = {**sample, "cpu": cpu, "extrapolated": 1}
        return out

    def _peers(self, asked: Asked) -> dict[str, Row]:
        out: dict[str, Row] = {}
        if self._vmlinux is None:
            return out
        for who, command in (
            (OBJECTS, asked.objects and drgn_command(self._core, self._vmlinux, asked.objects)),
            (COMMANDS, asked.commands and drgn_command(self._core, self._vmlinux, crash_code(asked.commands))),
        ):
            if command:
                cost, text = best(command, self._rounds)
                if not asked.is_answer(text):
                    raise FailedError(f"{who} answered {asked.ours} with {text[:200]!r}")
                out[who] = cost.row()
        if asked.crash and (crash := crash_command(self._core, self._vmlinux)):
            try:
                out[CRASH] = measure(crash, words=f"{asked.crash}\nquit\n")[0].row()
            except FailedError as error:
                print(f"crash does not open this dump: {error}"[:120], file=sys.stderr)
        return out


def show(name: str, rows: dict[str, Row]) -> None:
    """Print one question."""
    if name == "keys":
        for size, row in rows.items():
            sent = ", ".join(f"{what} {nr:,.0f} bytes" for what, nr in row.items())
            print(f"{name:<8} {size:<22} {sent}", flush=True)
        return
    ours = rows[OURS]
    for who, row in rows.items():
        beside = (
            []
            if who in (OURS, WARM, UNCOMPRESSED)
            else [f"ours takes {ours['cpu'] / row['cpu']:.2f} x its CPU time"]
            if row["cpu"]
            else []
        )
        beside += [f"{ours['wall'] / row['wall']:.2f} x its wall time"] if who == CHECK else []
        costs = compression_costs(rows) if who == DECOMPRESSOR else None
        beside += [f"compression costs ours {costs:.2f} x its CPU time"] if costs is not None else []
        beside += [f"reads {row['mib']:.1f} MiB"] if "mib" in row else []
        beside += [f"extrapolated; {row['hits']:.0f} of {row['addresses']:.0f} hits"] if "extrapolated" in row else []
        wall, peak = (f"{row[key]:{width}.{digits}f}" if key in row else " " * width for key, width, digits in _WALL)
        label = name if who == OURS else ""
        print(f"{label:<8} {who:<22} {row['cpu']:9.2f} {wall} {peak}   {'; '.join(beside)}".rstrip(), flush=True)


_WALL = (("wall", 9, 2), ("peak_mib", 9, 0))


def show_changes(before: dict[str, Any] | None, rows: Rows) -> None:
    """Print what has become worse since earlier results."""
    if before is None:
        print("\nno results of another commit to compare with")
        return
    changes = compare(before["rows"], rows)
    worse = [change for change in changes if change.is_worse]
    print(f"\n{len(changes)} ratios compared with {before['commit']} of {before['date'][:10]}:")
    for change in worse:
        print(f"  REGRESSION {change.question}: {change.what} was {change.before:.2f}, is {change.after:.2f}")
    if not worse:
        print(f"  none has grown by {REGRESSION:.0%}")


def main() -> None:
    """Measure, print, keep and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", type=Path, help="measure on this dump instead of the large guest")
    parser.add_argument("--questions", default=",".join(NAMES), help="which, with commas between [default: all]")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--options", default="", help="of folioscope, such as --no-cache")
    parser.add_argument("--baseline", type=Path, help="compare with these results [default: of the commit before]")
    parser.add_argument("--keep-as", type=Path, help="keep the results here [default: by commit, in the user's cache]")
    asked = parser.parse_args()
    core: Path = asked.core or Path(measure([sys.executable, "-m", "tests.bench.guest", "--large"])[1].strip())
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="folioscope-bench-") as folder:
        bench = Bench(core, asked.rounds, asked.options.split(), Path(folder))
        facts = {"release": bench.places["release"], "struct_pages": bench.places["nr_pages"]}
        print(f"{core}: Linux {facts['release']}, {facts['struct_pages']:,} struct pages; best of {asked.rounds}\n")
        print(f"{'':<8} {'':<22} {'CPU s':>9} {'wall s':>9} {'peak MiB':>9}")
        rows: Rows = {}
        for name in asked.questions.split(","):
            rows[name] = bench.rows(name)
            show(name, rows[name])
    show_changes(json.loads(asked.baseline.read_text()) if asked.baseline else latest_before(core), rows)
    print(f"kept in {keep(core, rows, facts, asked.keep_as)}")


if __name__ == "__main__":
    main()
