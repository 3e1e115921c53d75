"""``python -m tests.corrupt.truncation``: dumps of every format cut off at many places, and what commands say of each.

A file that ends too early must be refused in one line, or be checked as far as it goes and called incomplete: never
"consistent", never with a finding that the whole dump does not have, never with a traceback or a signal.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspector import cli
from inspector.errors import Exit
from inspector.target.corefile import PagesAt, examine_core
from tests.bench.compression import COMPRESSIONS
from tests.bench.convert import converted
from tests.elf import pages_of, write_elf
from tests.fixtures import KERNELS, fixture_path

PAGE = 4096
_STEP = 100_000
COMMANDS = ("check", "info", "ps")
"""What each file is asked."""


@dataclass(frozen=True)
class Cut:
    """A place to cut a file off at.

    Attributes:
        where: In words.
        at: How many bytes are left.
    """

    where: str
    at: int


@dataclass(frozen=True)
class Told:
    """What one command said of a file.

    Attributes:
        code: Exit code; below zero: the signal that ended it.
        out, err: What it wrote.
    """

    code: int
    out: str
    err: str

    def defect(self, command: str, whole: Told) -> str:
        """What is wrong with that; empty where nothing is.

        Args:
            command: What was asked: ``check`` must say that something lacks, ``info`` must name it, another command may
                have had all that it needs, and then says what it says of the whole dump.
            whole: What the same command said of that.
        """
        lines = self.err.splitlines()
        if self.code < 0:
            return f"ended by signal {-self.code}"
        if "Traceback" in self.err or "unexpected" in self.err:
            return "traceback"
        if self.code == Exit.TARGET:
            return "" if len(lines) == 1 and not self.out else f"{len(lines)} lines of error, {len(self.out)} of output"
        if self.code == Exit.INCOMPLETE:
            return "" if command != "check" or "the dump is truncated" in self.out else "not called truncated"
        if self.code == Exit.CLEAN and command == "info":
            return "" if "at the end of the dump" in self.out else "not called truncated"
        if self.code == Exit.CLEAN and command != "check":
            return "" if self.out == whole.out else "another answer, and called whole"
        return f"exit code {self.code}"


def flattened(data: bytes) -> bytes:
    """A stream of a file: its pieces in another order, its header first wrong and then written again."""
    places = list(range(0, len(data), _STEP))
    pieces = [(0, bytes(4096)), *((at, data[at : at + _STEP]) for at in reversed(places))]
    body = b"".join(struct.pack(">qq", at, len(piece)) + piece for at, piece in pieces)
    return (b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)).ljust(4096, b"\0") + body + b"\xff" * 16


def _capture(kernel: str, _folder: Path) -> Path:
    return fixture_path(kernel)


def _elf(kernel: str, folder: Path) -> Path:
    out = folder / f"{kernel}.elf"
    write_elf(str(fixture_path(kernel)), out, pages_of(str(fixture_path(kernel))))
    return out


def _flattened(kernel: str, folder: Path) -> Path:
    out = folder / f"{kernel}.flat"
    out.write_bytes(flattened(fixture_path(kernel).read_bytes()))
    return out


def _kdump(compression: str) -> Callable[[str, Path], Path]:
    def make(kernel: str, folder: Path) -> Path:
        core = folder / f"{kernel}.kdump"
        if not core.exists():
            core.symlink_to(fixture_path(kernel))
        return converted(core, compression)

    return make


FORMATS: dict[str, Callable[[str, Path], Path]] = {
    "capture": _capture,
    "ELF": _elf,
    "flattened": _flattened,
    **{f"kdump, {name}": _kdump(name) for name in ("none", *COMPRESSIONS)},
}
"""Makes a dump of each format of a kernel's captured one."""


def cuts(path: Path) -> list[Cut]:
    """Where to cut a dump: at and inside of each of its headers, at borders of pages, and at its end."""
    size, head = path.stat().st_size, path.read_bytes()[: 1 << 20]
    if head.startswith(b"\x7fELF"):
        inside = _inside_elf(head)
    elif head.startswith(b"KDUMP"):
        found = examine_core(str(path)).pages
        assert found is not None
        inside = _inside_kdump(head, found)
    else:
        inside = _inside_stream(path)
    last = (size - 1) // PAGE * PAGE
    ends = [
        *(Cut(f"{share:.4g}% left", int(size * share / 100)) for share in (50, 90, 99)),
        Cut("half a page left of the last", last + (size - last) // 2),
        Cut("the border of the last page", last),
        Cut("in the page before", last - 100),
        Cut("16 bytes short", size - 16),
        Cut("one byte short", size - 1),
    ]
    return [Cut("no bytes", 0), Cut("in the magic", 5), *inside, *ends]


def _inside_elf(head: bytes) -> list[Cut]:
    phoff, phnum = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
    table = phoff + 56 * phnum
    rows = [struct.unpack_from("<IIQQQQQQ", head, phoff + 56 * i) for i in range(phnum)]
    notes = next(row for row in rows if row[0] == 4)
    first = next(row for row in rows if row[0] == 1)
    second = [row for row in rows if row[0] == 1][1]
    return [
        Cut("in the ELF header", 40),
        Cut("behind the ELF header", 64),
        Cut("in the program headers", table - 56 * (phnum // 2) - 8),
        Cut("one byte of the program headers lacks", table - 1),
        Cut("behind the program headers", max(table, 64)),
        Cut("in the notes", notes[2] + notes[5] // 2),
        Cut("one byte of the notes lacks", notes[2] + notes[5] - 1),
        Cut("behind the notes", notes[2] + notes[5]),
        Cut("before the first page", first[2]),
        Cut("in the first page", first[2] + 100),
        Cut("behind the first segment", second[2]),
        Cut("in the second segment", second[2] + PAGE // 2),
    ]


def _inside_kdump(head: bytes, pages: PagesAt) -> list[Cut]:
    info_at, info_size, notes_at, notes_size = struct.unpack_from("<QQQQ", head, PAGE + 32)
    size = pages.table - pages.bitmap
    bits = np.bitwise_count(np.frombuffer(head[pages.bitmap : pages.table], np.uint8)).sum(dtype=np.int64)
    descriptors = 24 * int(bits)
    return [
        Cut("in the header", 300),
        Cut("behind the header", PAGE),
        Cut("in the sub-header", PAGE + 50),
        Cut("in VMCOREINFO", info_at + info_size // 2),
        Cut("in the notes", notes_at + notes_size // 2),
        Cut("in the first bitmap", pages.bitmap - size // 2),
        Cut("in the second bitmap", pages.bitmap + size // 2),
        Cut("behind the bitmaps", pages.table),
        Cut("in the page descriptors", pages.table + descriptors // 2 + 5),
        Cut("behind the page descriptors", pages.table + descriptors),
        Cut("in the first page", pages.table + descriptors + 10),
        Cut("behind ten pages", pages.table + descriptors + 10 * PAGE),
    ]


def _inside_stream(path: Path) -> list[Cut]:
    size = path.stat().st_size
    first = 4096 + 16 + 4096
    second = first + 16 + struct.unpack_from(">q", path.read_bytes()[first + 8 : first + 16])[0]
    return [
        Cut("in the stream's header", 20),
        Cut("behind the stream's words", 32),
        Cut("one byte of its header lacks", 4095),
        Cut("behind its header", 4096),
        Cut("in the first piece's place", 4096 + 7),
        Cut("behind the first piece's place", 4096 + 16),
        Cut("in the first piece", 4096 + 16 + 500),
        Cut("behind the first piece", first),
        Cut("in the second piece's place", first + 12),
        Cut("in the second piece", first + 16 + 1000),
        Cut("behind the second piece", second),
        Cut("without its end", size - 17),
    ]


def told(words: list[str]) -> Told:
    """Run one command in a process of its own, which may be ended by a signal."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 70
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                code = cli.main(words)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return Told(code, out.read().decode(errors="replace"), err.read().decode(errors="replace"))


def asked(path: Path, folder: Path, commands: tuple[str, ...] = COMMANDS) -> Iterator[tuple[Cut, str, Told, str]]:
    """Cut a dump off at each place, and ask each command: the place, the command, its answer, the defect if any."""
    data, short = path.read_bytes(), folder / "vmcore"
    short.write_bytes(data)
    whole = {command: told([command, "-c", str(short), "--no-cache"]) for command in commands}
    for cut in cuts(path):
        short.write_bytes(data[: cut.at])
        for command in commands:
            answer = told([command, "-c", str(short), "--no-cache"])
            yield cut, command, answer, answer.defect(command, whole[command])
    short.unlink()


def main() -> int:
    """Print what is said at each place; the exit code tells whether there is a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.corrupt.truncation", description=__doc__)
    parser.add_argument("kernels", nargs="*", help="6.1, 6.12, 7.3 (default: all)")
    parser.add_argument("--format", action="append", choices=FORMATS, help="one of the formats (default: all)")
    options = parser.parse_args()
    nr, bad = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kernel in options.kernels or KERNELS:
            for form in options.format or FORMATS:
                path = FORMATS[form](kernel, folder)
                for cut, command, answer, defect in asked(path, folder):
                    nr += 1
                    bad += bool(defect)
                    said = (answer.err.splitlines() or [""])[0].replace(f": {folder}/vmcore", "")[19:119]
                    print(
                        f"{kernel:<5}{form:<14}{cut.where:<36}{cut.at:>9} {command:<6}{answer.code:>3} {said}".rstrip()
                    )
                    if defect:
                        print(f"     DEFECT: {defect}\n{answer.err}{answer.out}")
    print(f"{nr} answers, {bad} defects")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
