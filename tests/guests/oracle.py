"""Unpack what the guest's own /proc said before the dump, and load it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .errors import GuestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

_LENGTHS = struct.Struct("<II")
_VMA = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+)\s*(.*)")


def unpack_record(record: Path, folder: Path) -> int:
    """Unpack the recorder's raw disk into folder; return the number of files."""
    content = memoryview(record.read_bytes())
    parts: dict[str, list[memoryview]] = {}
    at = 0
    while True:
        if at + _LENGTHS.size > len(content):
            raise GuestError("the oracle", "the record has no end; its disk is too small")
        name_length, length = _LENGTHS.unpack_from(content, at)
        at += _LENGTHS.size
        if not name_length:
            break
        name = bytes(content[at : at + name_length]).decode()
        at += name_length
        parts.setdefault(name, []).append(content[at : at + length])
        at += length
    if not parts:
        raise GuestError("the oracle", "the record is empty")
    for name, pieces in parts.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise GuestError("the oracle", f"the record holds a strange name: {name!r}")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(pieces))
    return len(parts)


@dataclass(frozen=True)
class OracleVma:
    """One VMA as smaps shows it, with its pagemap entries."""

    start: int
    end: int
    perms: str
    offset: int
    name: str
    kb: dict[str, int]
    flags: tuple[str, ...]
    pagemap: Words


@dataclass(frozen=True)
class OracleProcess:
    """One process that had memory when the record was made; threads' memory counts for a dead leader."""

    pid: int
    comm: str
    status: dict[str, str]
    vmas: tuple[OracleVma, ...]


class Oracle:
    """The kernel's own word: /proc/kpagecount, kpageflags, and every process's smaps and pagemap."""

    def __init__(self, folder: Path) -> None:
        """Open the unpacked record in folder."""
        if not (folder / "proc/kpagecount").is_file():
            raise GuestError("the oracle", f"nothing recorded in {folder}")
        self.folder = folder

    @cached_property
    def kpagecount(self) -> Words:
        """The mapping count of every page, by pfn."""
        return self._words("proc/kpagecount")

    @cached_property
    def kpageflags(self) -> Words:
        """The KPF_ flags of every page, by pfn."""
        return self._words("proc/kpageflags")

    @cached_property
    def processes(self) -> list[OracleProcess]:
        """Every process that had an mm, by pid."""
        folders = [path for path in (self.folder / "proc").iterdir() if (path / "smaps").is_file()]
        return [self._process(path) for path in sorted(folders, key=lambda path: int(path.name))]

    @cached_property
    def meminfo(self) -> dict[str, int]:
        """/proc/meminfo, as printed (mostly kB)."""
        return self.numbers("proc/meminfo")

    @cached_property
    def vmstat(self) -> dict[str, int]:
        """/proc/vmstat."""
        return self.numbers("proc/vmstat")

    def text(self, name: str) -> str:
        """Return one recorded file, such as proc/zoneinfo or sys/kernel/mm/ksm/pages_shared."""
        return (self.folder / name).read_text(errors="replace")

    def numbers(self, name: str) -> dict[str, int]:
        """Return one recorded file of lines "name number"."""
        rows = (line.replace(":", " ").split() for line in self.text(name).splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}

    def _words(self, name: str) -> Words:
        import numpy as np  # noqa: PLC0415  (only readers of an oracle need it, the builder does not)

        return np.fromfile(self.folder / name, dtype="<u8").astype(np.uint64, copy=False)

    def _process(self, folder: Path) -> OracleProcess:
        lines = (folder / "status").read_text(errors="replace").splitlines()
        status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        return OracleProcess(
            pid=int(folder.name),
            comm=(folder / "comm").read_text(errors="replace").rstrip("\n"),
            status=status,
            vmas=tuple(self._vmas(folder)),
        )

    def _vmas(self, folder: Path) -> list[OracleVma]:
        entries = self._pagemap(folder.name)
        vmas: list[OracleVma] = []
        for line in (folder / "smaps").read_text(errors="replace").splitlines():
            if found := _VMA.match(line):
                start, end, perms, offset, _, _, name = found.groups()
                bounds = int(start, 16), int(end, 16)
                pagemap = entries.get(bounds[0], self.kpagecount[:0])
                vmas.append(OracleVma(*bounds, perms, int(offset, 16), name, {}, (), pagemap))
                continue
            key, _, value = line.partition(":")
            if key == "VmFlags":
                vmas[-1] = OracleVma(**{**vars(vmas[-1]), "flags": tuple(value.split())})
            elif value.split() and value.split()[0].isdecimal():
                vmas[-1].kb[key] = int(value.split()[0])
        return vmas

    def _pagemap(self, pid: str) -> dict[int, Words]:
        words = self._words(f"proc/{pid}/pagemap")
        by_start: dict[int, Words] = {}
        at = 0
        while at < len(words):
            start, count = int(words[at]), int(words[at + 1])
            by_start[start] = words[at + 2 : at + 2 + count]
            at += 2 + count
        return by_start
