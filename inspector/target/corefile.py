"""What a file is before drgn opens it: which kind of dump or symbols, whether whole, and why it will not do."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np

from inspector.columns import AnyArray
from inspector.errors import TargetError
from inspector.records import dataclass
from inspector.target.prstatus import NT_PRSTATUS, OWNER

DumpFormat = Literal["core", "kdump"]

_ELF = b"\x7fELF"
_KDUMP = b"KDUMP   "
_STREAM = b"makedumpfile\0"
_MAGICS = (_ELF, _KDUMP, _STREAM)
"""How the dumps begin that are read."""
_EHDR = struct.Struct("<HHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_LOAD = np.dtype(
    [
        *(("type", "<u4"), ("flags", "<u4"), ("offset", "<u8"), ("vaddr", "<u8")),
        *(("paddr", "<u8"), ("filesz", "<u8"), ("memsz", "<u8"), ("align", "<u8")),
    ]
)
"""A program header (`_PHDR`) as a row."""
_KERNEL_HALF = 1 << 63
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NHDR = struct.Struct("<III")
_KDUMP_HEADER = struct.Struct("<8si390s6xqqIiiII")
_KDUMP_SUB_HEADER = struct.Struct("<QiiQQQQQQQQQQQ")
_KDUMP_WITH_NOTES = 4
"""Version of the header from which on it names the place of the ELF notes."""
_KDUMP_WITH_WIDE_PFNS = 6
"""Version of the header from which on page frames of parts, and how many there are, are also in 64 bits."""
DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
"""struct page_desc of makedumpfile's diskdump_mod.h."""
_PIECE = 24 << 18
"""Bytes read at once of tables that grow with the machine's memory."""

_ET_REL, _ET_CORE = 1, 4
_PT_LOAD, _PT_NOTE, _SHT_NOTE = 1, 4, 7
_NT_GNU_BUILD_ID = 3
_MAX_NOTES = 64 << 20
_XNUM = 0xFFFF

_X86_64 = 62
_MACHINES = {
    3: "i386",
    8: "MIPS",
    20: "32-bit PowerPC",
    21: "PowerPC",
    22: "s390",
    40: "32-bit ARM",
    183: "arm64",
    243: "RISC-V",
    258: "LoongArch",
}
"""e_machine values of the architectures Linux runs on (include/uapi/linux/elf-em.h)."""

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}

_FOREIGN = {
    b"PAGEDUMP": "a crash dump of Windows",
    b"PAGEDU64": "a crash dump of Windows",
    b"!<arch>": "a package or archive",
    b"!<arch>\n": "a package or archive",
    b"QFI\xfb": "a disk image",
    b"LiME": "a LiME memory image",
    b"EMiL": "a LiME memory image",
}


_FLAT_HEADER = 4096
_FLAT_PIECE = struct.Struct(">qq")
"""Place and size of a piece of a flattened stream; both -1 at the end."""


class ReadableFile(Protocol):
    """An open file, or what is read as one."""

    def seek(self, at: int, /) -> int:
        """Read from there on."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""


_FORMATS = "Only ELF and kdump-compressed dumps are read"


@dataclass(frozen=True, slots=True)
class PagesAt:
    """Where a kdump-compressed file has its pages.

    Attributes:
        page_size: Bytes of a page.
        bitmap: Where in the file the bitmap of the pages in it begins: one bit a page frame, lowest bit first.
        table: Where it ends and the descriptors of these pages begin, in the order of the page frames.
        first: Of one part of a dump the first page frame with a descriptor here; the bitmap may be the whole dump's.
        end: One more than the last of them; None where the file is the whole dump.
    """

    page_size: int
    bitmap: int
    table: int
    first: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Segments:
    """What an ELF dump says of memory.

    Attributes:
        ram: Physical memory that it is about, [start, end) ascending.
        left_out: Memory that it names and does not hold, as (address, bytes, whether physical): ``makedumpfile -E``
            leaves pages out of a segment's end and keeps its size in memory.
    """

    ram: tuple[tuple[int, int], ...]
    left_out: tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True, slots=True)
class PartOf:
    """Which split dump a file is a part of.

    Attributes:
        dump: What all parts of one dump have in common, and no other dump has.
        nr_pfns: Page frames of the whole dump.
    """

    dump: bytes
    nr_pfns: int


@dataclass(frozen=True, slots=True)
class CoreFile:
    """A dump that can be tried.

    Attributes:
        format: ELF vmcore ("core") or kdump-compressed ("kdump").
        missing_bytes: Bytes of memory that the file's own headers promise behind its end.
        vmcoreinfo: VMCOREINFO as the file has it, empty when it has none.
        prstatus: Contents of the NT_PRSTATUS notes, one a CPU, in the order of the CPUs.
        pages: Where a kdump-compressed dump has its pages.
        segments: Of an ELF dump.
        part: What it is a part of, where ``makedumpfile --split`` wrote it.
    """

    format: DumpFormat
    vmcoreinfo: bytes
    missing_bytes: int = 0
    prstatus: tuple[bytes, ...] = ()
    pages: PagesAt | None = None
    segments: Segments | None = None
    part: PartOf | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that an ELF dump is about, those that it lacks included."""
        return sum(end - start for start, end in self.segments.ram) if self.segments is not None else 0


def read_head(path: str, what: str, size: int = 4096) -> bytes:
    """The first bytes of a file, or the one reason why there are none.

    Args:
        path: The file.
        what: How to call it in an error: "dump" or "symbols file".
        size: How many bytes at most.

    Raises:
        TargetError: It does not exist, is no file, may not be read or is empty.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(size)
    except FileNotFoundError:
        raise TargetError(f"no such {what}", path, "Check the path") from None
    except IsADirectoryError:
        raise TargetError(f"the {what} is a directory", path, "Name the file inside it") from None
    except PermissionError:
        raise TargetError(f"the {what} may not be read", path, "Run as its owner or as root") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"the {what} cannot be read ({reason})", path, "Check the path") from None
    if not head:
        raise TargetError(f"the {what} is empty", path, "Check that it was written to the end")
    return head


def examine_core(path: str, *, is_whole: bool = False) -> CoreFile:
    """Find what kind of dump a file is.

    Args:
        path: The file.
        is_whole: Whether it is known already that all pages lie inside it.

    Raises:
        TargetError: It cannot be opened, or not alone; the message says what it is instead.
    """
    found = _examined(path, is_whole=is_whole)
    if found.part is not None:
        todo = "Name all its parts together, each with -c, or join them: makedumpfile --reassemble"
        raise TargetError("this is one part of a split dump", path, todo)
    return found


def examine_parts(paths: Sequence[str]) -> dict[str, CoreFile]:
    """Find what the parts of one dump are, as ``makedumpfile --split`` wrote them.

    Args:
        paths: The files, in any order.

    Returns:
        Each with what it is, in the order of the page frames.

    Raises:
        TargetError: One of them cannot be opened, is no part or is one of another dump, or a part is missing.
    """
    found = {path: _examined(path) for path in paths}
    ordered = sorted(found, key=lambda path: _place(found[path]))
    at, first = 0, found[ordered[0]].part
    for path in ordered:
        core = found[path]
        if core.part is None or core.pages is None:
            raise TargetError("this is a whole dump, not a part of one", path, "Name it alone")
        if first is None or core.part != first:
            raise TargetError("the files are parts of different dumps", f"{ordered[0]}, {path}", "Name those of one")
        _require_parts(at, core.pages.first, path)
        at = max(at, core.pages.end or 0)
    assert first is not None
    _require_parts(at, first.nr_pfns, ordered[-1])
    return {path: found[path] for path in ordered}


def _place(core: CoreFile) -> tuple[int, int]:
    return (core.pages.first, core.pages.end or 0) if core.pages is not None else (0, 0)


def _require_parts(at: int, first: int, path: str) -> None:
    """Refuse parts that overlap, and those between which something lacks."""
    if first < at:
        raise TargetError("a part of the split dump was named twice", path, "Name each of its parts once")
    if first > at:
        what = f"a part of the split dump is missing, with the page frames {at:#x} to {first - 1:#x}"
        raise TargetError(what, path, "Name all its parts together, each with -c")


def together(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Put files that are parts of one dump together, in the place of the first of them; all others stay alone.

    What cannot be read stays alone as well: who opens it says why.
    """
    out: dict[object, tuple[str, ...]] = {}
    for number, path in enumerate(paths):
        try:
            part = _examined(path, is_whole=True).part
        except TargetError:
            part = None
        key = number if part is None else part
        out[key] = (*out.get(key, ()), path)
    return list(out.values())


def _examined(path: str, *, is_whole: bool = False) -> CoreFile:
    head = read_head(path, "dump")
    if any(magic.startswith(head) for magic in _MAGICS):
        raise TargetError("the dump is truncated", path, "Copy it again; not even its header is complete")
    try:
        if head.startswith(_ELF):
            return _examine_elf(path, head)
        if head.startswith(_KDUMP):
            with Path(path).open("rb") as file:
                return _examine_kdump(path, head, file, os.fstat(file.fileno()).st_size, is_whole=is_whole)
        if head.startswith(_STREAM):
            return _examine_flattened(path, is_whole=is_whole)
    except OSError as error:
        raise TargetError(f"the dump cannot be read ({error.strerror})", path, "Check the disk it is on") from error
    if head.startswith(b"DISKDUMP"):
        raise TargetError("the dump is in the old diskdump format", path, _FORMATS)
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            raise TargetError(f"the dump is packed with {packer}", path, "Unpack it first")
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise TargetError(f"this is {name}, not a Linux vmcore", path, "Name a vmcore with -c")
    if not any(head):
        raise TargetError("the dump begins with zeros", path, "It was not written to the end, or is a raw memory image")
    if _is_text(head):
        raise TargetError("this is a text file, not a vmcore", path, "Name a vmcore with -c")
    raise TargetError("this is no dump of a known format", path, _FORMATS)


def _is_text(head: bytes) -> bool:
    return not any(b < 32 and b not in b"\t\n\r\f\x1b" for b in head)


def _unsupported(machine: str, path: str) -> TargetError:
    what = f"the kernel is of an architecture that is not supported ({machine})"
    return TargetError(what, path, "x86-64 only so far")


def _elf_header(path: str, head: bytes, what: str) -> tuple[int, ...]:
    """The fields of a 64-bit little-endian ELF header behind its identification."""
    if len(head) < 16 + _EHDR.size:
        raise TargetError(f"the {what} is truncated", path, "Copy it again; not even its header is complete")
    if head[4] != 2 or head[5] != 1:
        raise _unsupported("32-bit" if head[4] == 1 else "big-endian", path)
    return _EHDR.unpack_from(head, 16)


def _examine_elf(path: str, head: bytes) -> CoreFile:
    kind, machine, _, _, phoff, _, _, _, phentsize, phnum, *_ = _elf_header(path, head, "dump")
    if kind != _ET_CORE:
        what = "a kernel module or object file" if kind == _ET_REL else "a program or vmlinux"
        raise TargetError(f"this is {what}, not a vmcore", path, "Name the vmcore with -c, a vmlinux with -s")
    if machine != _X86_64:
        raise _unsupported(_MACHINES.get(machine, f"ELF machine {machine}"), path)
    with Path(path).open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        if phnum == _XNUM:
            phnum = _long_phnum(file, head)
        table = _at(file, phoff, phnum * phentsize)
        if phentsize != _PHDR.size or not phnum or len(table) < phnum * phentsize:
            raise TargetError("the dump is truncated", path, "Copy it again; its program headers are not complete")
        notes, loads = b"", np.frombuffer(table, _LOAD)
        for row in np.flatnonzero(loads["type"] == _PT_NOTE).tolist():
            _, _, offset, _, _, size, _, _ = _PHDR.unpack_from(table, row * _PHDR.size)
            if len(notes) + size <= _MAX_NOTES:
                notes += _at(file, offset, size)
                if offset + size > end > 0:
                    raise TargetError("the dump is truncated", path, "Copy it again; its notes are not complete")
    loads = loads[loads["type"] == _PT_LOAD]
    vmcoreinfo = _vmcoreinfo_note(path, notes)
    # /proc/kcore and /proc/vmcore have no size.
    missing = _behind(loads, end) if end else 0
    return CoreFile("core", vmcoreinfo, missing, _prstatus_notes(notes), segments=_segments(loads))


def _behind(loads: AnyArray, end: int) -> int:
    """Bytes of memory that the program headers place behind the end of the file."""
    size = loads["filesz"]
    inside = np.uint64(end) - np.minimum(loads["offset"], np.uint64(end))
    return sum((size - np.minimum(size, inside))[size > inside].tolist())


def _segments(loads: AnyArray) -> Segments:
    """What the program headers of memory say; of memory that two of them name, one may hold what the other lacks."""
    spans = _joined(loads["paddr"], loads["paddr"] + loads["memsz"])
    left_out: list[tuple[int, int, bool]] = []
    for member, some in (("paddr", loads), ("vaddr", loads[loads["vaddr"] >= _KERNEL_HALF])):
        held = _joined(some[member], some[member] + some["filesz"])
        lacks = some[some["filesz"] < some["memsz"]]
        for first, last in _joined(lacks[member] + lacks["filesz"], lacks[member] + lacks["memsz"]):
            left_out += [(start, end - start, member == "paddr") for start, end in _without(first, last, held)]
    return Segments(tuple(spans), tuple(left_out))


def _joined(starts: AnyArray, ends: AnyArray) -> list[tuple[int, int]]:
    """Ranges that touch or overlap made one, ascending."""
    order = np.lexsort((ends, starts))
    order = order[starts[order] < ends[order]]
    if not len(order):
        return []
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    fresh = np.append(np.flatnonzero(np.append(True, starts[1:] > reach[:-1])), len(order))
    return list(zip(starts[fresh[:-1]].tolist(), reach[fresh[1:] - 1].tolist(), strict=True))


def _without(start: int, end: int, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of [start, end) without some ranges, ascending and apart."""
    out = []
    for at in range(max(bisect_right(ranges, (start, 0)) - 1, 0), len(ranges)):
        first, last = ranges[at]
        if first >= end:
            break
        if first > start:
            out.append((start, first))
        start = max(start, last)
    return [*out, (start, end)] if start < end else out


def _long_phnum(file: BinaryIO, head: bytes) -> int:
    """Number of program headers when the header's 16 bits are too few: the first section header has it."""
    shoff = _EHDR.unpack_from(head, 16)[5]
    first = _at(file, shoff, _SHDR.size)
    return int(_SHDR.unpack(first)[7]) if len(first) == _SHDR.size else 0


def _at(file: ReadableFile, offset: int, size: int) -> bytes:
    """Up to ``size`` bytes at ``offset``; fewer, or none, where the file does not have them."""
    if not 0 <= offset < 1 << 62 or size > _MAX_NOTES:
        return b""
    file.seek(offset)
    return file.read(size)


def _notes(data: bytes) -> list[tuple[bytes, int, bytes]]:
    """Owner, type and content of each note; what follows a damaged one is not read."""
    found, at = [], 0
    while at + _NHDR.size <= len(data):
        namesz, descsz, kind = _NHDR.unpack_from(data, at)
        name = at + _NHDR.size
        desc = name + (namesz + 3 & ~3)
        if desc + descsz > len(data):
            break
        found.append((data[name : name + namesz].rstrip(b"\0"), kind, data[desc : desc + descsz]))
        at = desc + (descsz + 3 & ~3)
    return found


def _prstatus_notes(data: bytes) -> tuple[bytes, ...]:
    return tuple(content for owner, kind, content in _notes(data) if (owner, kind) == (OWNER, NT_PRSTATUS))


def _vmcoreinfo_note(path: str, notes: bytes) -> bytes:
    """VMCOREINFO; a core without it is refused, with what it is instead."""
    found = _notes(notes)
    for owner, _, content in found:
        if owner == b"VMCOREINFO":
            return content
    owners = {(owner, kind) for owner, kind, _ in found}
    if any(owner == b"QEMU" for owner, _ in owners):
        todo = "Start QEMU with -device vmcoreinfo and load qemu_fw_cfg in the guest before dumping"
        raise TargetError("the dump has no VMCOREINFO (QEMU did not get it from the guest)", path, todo)
    if any(owner == b"CORE" and kind in (3, 6, 0x46494C45) for owner, kind in owners):
        # NT_PRPSINFO, NT_AUXV and NT_FILE are written for processes only (fs/binfmt_elf.c).
        raise TargetError("this is a core dump of a process, not of a kernel", path, "Name a vmcore with -c")
    raise TargetError("the dump has no VMCOREINFO", path, "Dump again with a kernel that has CONFIG_VMCORE_INFO")


class _Flattened:
    """A file as it will be when a flattened stream is put together (makedumpfile.h, struct makedumpfile_data_header).

    Args:
        path: The stream: a header, then pieces, each with its place in the file and its size.

    Raises:
        TargetError: It does not end as it should.
    """

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115  (closed by `close`)
        size, at, pieces = os.fstat(self._file.fileno()).st_size, _FLAT_HEADER, []
        while True:
            self._file.seek(at)
            record = self._file.read(_FLAT_PIECE.size)
            offset, length = _FLAT_PIECE.unpack(record) if len(record) == _FLAT_PIECE.size else (0, -1)
            if (offset, length) == (-1, -1):
                break
            at += _FLAT_PIECE.size
            if offset < 0 or length < 0 or at + length > size:
                self._file.close()
                todo = f"Copy it again, or put what there is together with: makedumpfile -R vmcore < {path}"
                raise TargetError("the dump is a flattened makedumpfile stream that is truncated", path, todo)
            pieces.append((offset, length, at))
            at += length
        self._pieces = np.array(pieces, np.int64).reshape(-1, 3)
        self._at = 0

    @property
    def end(self) -> int:
        """Bytes of the file."""
        return int((self._pieces[:, 0] + self._pieces[:, 1]).max(initial=0))

    def seek(self, at: int, /) -> int:
        """Read from there on."""
        self._at = at
        return at

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer at the end; zeros where the stream has none."""
        size = max(min(size, self.end - self._at), 0)
        out = bytearray(size)
        offset, length, place = self._pieces.T
        # Of two pieces of one place the later counts: headers are written again at the end.
        for row in np.flatnonzero((offset < self._at + size) & (offset + length > self._at)).tolist():
            skip = max(self._at - int(offset[row]), 0)
            to = max(int(offset[row]) - self._at, 0)
            nr = min(int(length[row]) - skip, size - to)
            self._file.seek(int(place[row]) + skip)
            out[to : to + nr] = self._file.read(nr)
        self._at += size
        return bytes(out)

    def close(self) -> None:
        """Close the stream."""
        self._file.close()


def _examine_flattened(path: str, *, is_whole: bool) -> CoreFile:
    """Read the headers inside a flattened stream; libkdumpfile, which reads such streams, reads the pages."""
    file = _Flattened(path)
    try:
        head = file.read(4096)
        if not head.startswith(_KDUMP):
            todo = f"Put it together with: makedumpfile -R vmcore < {path}"
            raise TargetError("the flattened stream is of no kdump-compressed dump", path, todo)
        found = _examine_kdump(path, head, file, file.end, is_whole=is_whole)
    finally:
        file.close()
    if found.part is not None:
        raise TargetError("this is a flattened part of a split dump", path, "Put it together first: makedumpfile -R")
    return CoreFile("kdump", found.vmcoreinfo, prstatus=found.prstatus)


def _examine_kdump(path: str, head: bytes, file: ReadableFile, end: int, *, is_whole: bool) -> CoreFile:
    """Read the headers of a kdump-compressed file (makedumpfile's diskdump_mod.h, struct disk_dump_header).

    That every page lies inside the file is checked here, because libkdumpfile maps the file into memory: a page
    behind its end would end this process with a bus error, not with an error message.
    """
    if len(head) < _KDUMP_HEADER.size:
        raise TargetError("the dump is truncated", path, "Copy it again; not even its header is complete")
    fields = _KDUMP_HEADER.unpack_from(head)
    machine = fields[2][65 * 4 : 65 * 5].split(b"\0", 1)[0].decode("ascii", "replace")
    if machine not in ("", "x86_64"):
        raise _unsupported({"aarch64": "arm64"}.get(machine, machine if machine.isprintable() else "unknown"), path)
    block, sub_blocks, bitmap_blocks = fields[6:9]
    if block not in (4096, 16384, 65536) or sub_blocks < 1 or bitmap_blocks < 2:
        raise TargetError("the dump is damaged", path, "Copy it again; its header makes no sense")
    sub_header = _at(file, block, _KDUMP_SUB_HEADER.size)
    bitmap = block * (1 + sub_blocks + bitmap_blocks // 2)
    table = block * (1 + sub_blocks + bitmap_blocks)
    if len(sub_header) < _KDUMP_SUB_HEADER.size or table > end:
        raise TargetError("the dump is truncated", path, "Copy it again; its headers are not complete")
    _, _, is_split, first, last, info_at, info_size, notes_at, notes_size, *wide = _KDUMP_SUB_HEADER.unpack(sub_header)
    vmcoreinfo = _at(file, info_at, info_size)
    notes = _at(file, notes_at, notes_size) if fields[1] >= _KDUMP_WITH_NOTES else b""
    index, part = PagesAt(block, bitmap, table), None
    if is_split:
        nr_pfns = fields[9]
        if fields[1] >= _KDUMP_WITH_WIDE_PFNS:
            first, last, nr_pfns = wide[2:]
        if not first <= last <= nr_pfns <= 8 * (table - bitmap):
            raise TargetError("the dump is damaged", path, "Copy it again; its header makes no sense")
        index = PagesAt(block, bitmap, table, first, last)
        part = PartOf(head[: _KDUMP_HEADER.size] + vmcoreinfo + notes, nr_pfns)
    outside = 0 if is_whole else _pages_outside(file, index, end)
    if outside:
        lost = "1 page is" if outside == 1 else f"{outside} pages are"
        raise TargetError(f"the dump is truncated ({lost} missing)", path, "Copy it again")
    return CoreFile("kdump", vmcoreinfo, prstatus=_prstatus_notes(notes), pages=index, part=part)


def _pages_outside(file: ReadableFile, index: PagesAt, end: int) -> int:
    """How many page descriptors of a kdump-compressed file are not in the file, or point out of it."""

    def has(pfn: int) -> bool:
        return bool(_at(file, index.bitmap + pfn // 8, 1)[0] >> pfn % 8 & 1)

    # Whole bytes of the bitmap first, then the page frames beside them.
    last = 8 * (index.table - index.bitmap) if index.end is None else index.end
    start, stop = -(-index.first // 8), last // 8
    if start > stop:
        count = sum(map(has, range(index.first, last)))
    else:
        count = sum(map(has, [*range(index.first, 8 * start), *range(8 * stop, last)]))
    at, until = index.bitmap + start, index.bitmap + stop
    file.seek(at)
    while at < until and (piece := file.read(min(_PIECE, until - at))):
        count += int(np.bitwise_count(np.frombuffer(piece, np.uint8)).sum(dtype=np.int64))
        at += len(piece)
    outside = max(count - (end - index.table) // DESCRIPTOR.itemsize, 0)
    count -= outside
    file.seek(index.table)
    while count > 0 and (piece := file.read(min(_PIECE // 24, count) * DESCRIPTOR.itemsize)):
        pages = np.frombuffer(piece[: len(piece) // 24 * 24], DESCRIPTOR)
        size = np.uint64(end)
        inside = (pages["offset"] <= size) & (pages["size"] <= size - np.minimum(pages["offset"], size))
        outside += int((~inside).sum())
        count -= len(pages)
    return outside


@dataclass(frozen=True, slots=True)
class SymbolsFile:
    """An ELF file given with -s.

    Attributes:
        is_module: Whether it is a kernel module (relocatable), not a vmlinux.
        build_id: Its build id in hex, empty when it has none.
    """

    is_module: bool
    build_id: str


def examine_symbols(path: str) -> SymbolsFile:
    """Find what a symbols file is.

    Raises:
        TargetError: It is no vmlinux and no module.
    """
    todo = "Name a vmlinux or a module's .ko or .ko.debug with -s"
    head = read_head(path, "symbols file")
    if not head.startswith(_ELF):
        raise TargetError("the symbols file is no ELF file", path, todo)
    kind, *_, shoff, _, _, _, _, shentsize, shnum, _ = _elf_header(path, head, "symbols file")
    if kind == _ET_CORE:
        raise TargetError("the symbols file is a core dump", path, todo)
    with Path(path).open("rb") as file:
        table = _at(file, shoff, shnum * shentsize)
        if shentsize != _SHDR.size or not shnum or len(table) < shnum * shentsize:
            raise TargetError("the symbols file is truncated", path, "Copy it again; its section headers are missing")
        for section in _SHDR.iter_unpack(table):
            if section[1] != _SHT_NOTE:
                continue
            for owner, note, content in _notes(_at(file, section[4], section[5])):
                if owner == b"GNU" and note == _NT_GNU_BUILD_ID:
                    return SymbolsFile(kind == _ET_REL, content.hex())
    return SymbolsFile(kind == _ET_REL, "")


def parse_vmcoreinfo(raw: bytes) -> dict[str, str]:
    """The lines of VMCOREINFO (kernel/vmcore_info.c) by their names."""
    lines = raw.rstrip(b"\0").decode("ascii", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
