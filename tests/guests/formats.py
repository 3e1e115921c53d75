"""``python -m tests.guests formats``: dumps in every format and at several levels, each compared with the whole dump.

makedumpfile writes them here, of the guest at rest (whose dump by QEMU gets the headers of /proc/vmcore) and of the
guest that panicked; some of the latter were written in the guest, by the kernel that the panic started. Faults are
planted in the memory before, so that the same findings are not only none.
"""

from __future__ import annotations

import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from inspector.check.run import run_check
from inspector.errors import FolioscopeError
from inspector.findings import Report
from inspector.layout.kernel import Layout
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.bench.patching import Patched
from tests.faults.every import CATALOGUE

from .cache import REST, dump_path
from .crash import CRASH, crash_folder
from .crash import FORMATS as CAPTURED
from .errors import GuestError
from .kernels import Kernel
from .makedumpfile import Makedumpfile, as_vmcore, fetch_makedumpfile, split_names, words_of

FORMATS = {
    f"{name}, level {level}": f"{words} -d {level}".split()
    for name, words in (
        ("ELF", "-E"),
        ("not compressed", ""),
        ("zlib", "-c"),
        ("lzo", "-l"),
        ("zstd", "-z"),
    )
    for level in (0, 1, 31)
} | {
    "flattened, zlib, level 31": ["-F", "-c", "-d", "31"],
    "flattened, lzo, level 1": ["-F", "-l", "-d", "1"],
    "in 3 parts, lzo, level 31": ["-l", "-d", "31", "--splitblock-size", "4096", "--split"],
    "in 3 parts, zstd, level 1": ["-z", "-d", "1", "--splitblock-size", "4096", "--split"],
}
"""What makedumpfile is asked for. Debian's cannot write snappy."""

SHORT = ("ELF, level 31", "zstd, level 31", "flattened, zlib, level 31", "in 3 parts, lzo, level 31")
PLANTED = ("mapcount-of-a-private-page-raised", "only-pte-of-a-page-lost")


@dataclass(frozen=True)
class Compared:
    """How the check of a dump differs from that of the whole one.

    Attributes:
        name: The format.
        size: Bytes of its files.
        seconds: Of the check.
        code: Its exit code.
        lacks: What it does not have, by kind, which the whole dump has.
        lost, more: Findings of the whole dump that it has not, and those it has beside them, by rule.
        other: What of the summary differs.
        error: Why it cannot be opened.
    """

    name: str
    size: int
    seconds: float
    code: int
    lacks: dict[str, int]
    lost: list[str]
    more: list[str]
    other: list[str]
    error: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether it says more than the whole dump, or less without saying that something lacks."""
        if self.error or self.more:
            return True
        return not self.lacks and bool(self.lost or self.other)

    def __str__(self) -> str:
        if self.error:
            return f"refused: {self.error}"
        if not (self.lacks or self.lost or self.more or self.other):
            return "the same"
        words = []
        if self.lacks:
            words.append("lacks " + ", ".join(f"{number} {kind}" for kind, number in self.lacks.items()))
        for what, names in (("NOT FOUND", self.lost), ("ALSO FOUND", self.more), ("differ:", self.other)):
            words += [f"{what} {', '.join(names)}"] if names else []
        return "; ".join(words)


def _checked(path: str | list[str]) -> Report:
    return run_check(Snapshot(open_core(path, types="btf")))


def _findings(report: Report) -> dict[str, str]:
    """Findings that are no information alone, each as what it names, by fingerprint."""
    return {f.fingerprint: f"{f.rule}" for f in report.findings if f.severity != "info"}


def compared(name: str, files: list[Path], whole: Report) -> Compared:
    """Check a dump and compare."""
    size, began = sum(path.stat().st_size for path in files), time.monotonic()
    try:
        report = _checked([str(path) for path in files])
    except (FolioscopeError, ValueError, LookupError) as error:
        return Compared(name, size, time.monotonic() - began, 3, {}, [], [], [], f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - began
    lacks = {kind: n for kind, n in report.coverage.missing.items() if n != whole.coverage.missing.get(kind, 0)}
    here, there = _findings(report), _findings(whole)
    lost = [rule for key, rule in there.items() if key not in here]
    more = [rule for key, rule in here.items() if key not in there]
    other = [key for key, value in whole.summary.items() if report.summary.get(key) != value]
    return Compared(name, size, seconds, report.exit_code, lacks, lost, more, other)


def plant(dump: Path, names: tuple[str, ...], layout_of: Path) -> list[str]:
    """Change an ELF dump in place; the rules of which one must be found of each fault.

    Args:
        dump: To be changed.
        names: Faults of the catalogue.
        layout_of: The same dump, which stays as it is.
    """
    s = Snapshot(open_core(str(layout_of), types="btf"))
    memory, rules = Patched(s.layout), []
    with dump.open("r+b") as file:
        head = file.read(64)
        phoff, phnum = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        file.seek(phoff)
        table = file.read(56 * phnum)
        loads = [row for row in struct.iter_unpack("<IIQQQQQQ", table) if row[0] == 1]
        for name in names:
            planted = CATALOGUE[name](s)
            rules.append(" or ".join(planted.rules))
            for patch in planted.patches:
                pa = patch.address if patch.physical else memory.physical(patch.address)
                _, _, at, _, start, _, _, _ = next(row for row in loads if row[4] <= pa < row[4] + row[5])
                file.seek(at + pa - start)
                file.write(patch.data)
    return rules


def _sources(kernel: Kernel, folder: Path) -> Iterator[tuple[str, Path]]:
    """The whole dumps of a kernel, as makedumpfile reads them, where they were built."""
    rest, panicked = dump_path(kernel.name), crash_folder(kernel.name) / "vmcore.elf"
    if rest.is_file():
        copy = folder / "rest.elf"
        as_vmcore(rest, Layout.probe(open_core(str(rest), types="btf")).memory.direct_map_base, copy)
        yield REST, copy
        copy.unlink()
    if panicked.is_file():
        copy = folder / "crash.elf"
        shutil.copyfile(panicked, copy)
        yield CRASH, copy
        copy.unlink()


def _written(program: Makedumpfile, source: Path, names: tuple[str, ...], whole: Report) -> Iterator[Compared]:
    for name in names:
        words, stdout, files = words_of(source.with_name("out"), source, FORMATS[name])
        try:
            program.run(*words, out=stdout)
            yield compared(name, files, whole)
        except GuestError as error:
            yield Compared(name, 0, 0, 3, {}, [], [], [], str(error))
        finally:
            for path in files:
                path.unlink(missing_ok=True)


def _captured(kernel: Kernel) -> Iterator[Compared]:
    """What the kernel that the panic started wrote, of a memory in which nothing is planted."""
    whole = _checked(str(crash_folder(kernel.name) / "vmcore.elf"))
    for name, words in CAPTURED.items():
        place = crash_folder(kernel.name) / name
        files = split_names(place) if "--split" in words else [place]
        if all(path.is_file() and path.stat().st_size for path in files):
            yield compared(f"in the guest: {words}", files, whole)


def matrix(
    kernels: list[Kernel],
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    faults: tuple[str, ...],
    show: Callable[[str], None] = print,
) -> int:
    """Print how each dump compares with the whole one; how many are bad.

    Args:
        kernels: Which.
        kinds: Which guests: rest, crash.
        names: Which of the formats.
        faults: What is planted before; nothing where empty.
        show: Prints a line.
    """
    program, bad, nr = fetch_makedumpfile(), 0, 0
    with tempfile.TemporaryDirectory(prefix="folioscope-formats-") as folder:
        for kernel in kernels:
            for kind, source in _sources(kernel, Path(folder)):
                if kind not in kinds:
                    continue
                if faults:
                    sound = dump_path(kernel.name) if kind == REST else crash_folder(kernel.name) / "vmcore.elf"
                    show(f"{kernel.name} {kind}: planted for {', '.join(plant(source, faults, sound))}")
                whole = _checked(str(source))
                found = ", ".join(_findings(whole).values()) or "none"
                show(f"{kernel.name} {kind}: the whole dump: exit code {whole.exit_code}, findings: {found}")
                rows = _written(program, source, names, whole)
                for row in chain(rows, _captured(kernel) if kind == CRASH else ()):
                    nr, bad = nr + 1, bad + row.is_bad
                    size = f"{row.size >> 20:>5} MiB {row.seconds:>5.1f} s"
                    mark = "BAD " if row.is_bad else ""
                    show(f"{kernel.name:<5}{kind:<6}{row.name:<40}{size}{row.code:>3} {mark}{row}")
                    sys.stdout.flush()
    show(f"{nr} dumps, {bad} bad; makedumpfile {program.version}")
    return bad
