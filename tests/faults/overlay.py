"""Words of an opened dump replaced, without touching the file, and what a check then finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import drgn
import numpy as np

from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.rules import find_rule
from inspector.snapshot import Snapshot
from inspector.tables.stacks import StackState
from inspector.target.target import Target, open_core
from tests.fixtures import fixture_path
from tests.guests import dump_path
from tests.opening import parsed_once

KERNELS = ("6.1", "6.12", "7.3")
RW = 1 << 1
DIRTY = 1 << 6
SAVED_DIRTY = 1 << 58
_KERNEL_HALF = 0xFFFF_8000_0000_0000


@dataclass(frozen=True)
class Patch:
    """Bytes to be read at an address instead of what the dump holds."""

    address: int
    data: bytes
    physical: bool = False


def core_path(kind: str, kernel: str) -> str:
    """Path of a dump: ``fixture`` from the repository, ``rest`` or ``busy`` of the guests."""
    path = fixture_path(kernel) if kind == "fixture" else dump_path(kernel, kind)
    assert path.is_file(), f"{path} is missing"
    return str(path)


@lru_cache(maxsize=8)
def sound(path: str) -> Snapshot:
    """The dump as it is."""
    return Snapshot(opened(path))


def opened(path: str) -> Target:
    """The dump opened anew, with memory of its own to plant in.

    Its symbols and types are not parsed again, and no page of a compressed dump is unpacked twice.
    """
    with parsed_once():
        target = open_core(path, types="btf")
    if target.kind == "kdump":
        pages = _Unpacked.of(path)
        target.prog.add_memory_segment(0, 1 << 46, pages.read, True)
        target.prog.add_memory_segment(_KERNEL_HALF, (1 << 64) - 1 - _KERNEL_HALF, pages.read, False)
    return target


class _Unpacked:
    """Memory of a compressed dump, each page found and unpacked once.

    Args:
        prog: Reads the dump.
    """

    def __init__(self, prog: drgn.Program) -> None:
        self._prog = prog
        self._pages: dict[tuple[int, bool], bytes] = {}

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, path: str) -> _Unpacked:
        """Of a dump in this process."""
        with parsed_once():
            return cls(open_core(path, types="btf").prog)

    def read(self, address: int, count: int, _offset: int, physical: bool) -> bytes:
        """What drgn asks for (`drgn.Program.add_memory_segment`)."""
        first, start = divmod(address, 4096)
        pages = [self._page(number, physical) for number in range(first, (address + count - 1) // 4096 + 1)]
        return (pages[0] if len(pages) == 1 else b"".join(pages))[start : start + count]

    def _page(self, number: int, physical: bool) -> bytes:
        if (number, physical) not in self._pages:
            self._pages[number, physical] = self._prog.read(number * 4096, 4096, physical=physical)
        return self._pages[number, physical]


def plant(target: Target, patch: Patch) -> None:
    """Let the target read the patch."""

    def read(_address: int, count: int, offset: int, _physical: bool) -> bytes:
        return patch.data[offset : offset + count]

    target.prog.add_memory_segment(patch.address, len(patch.data), read, patch.physical)


def planted(path: str, *patches: Patch) -> Snapshot:
    """The dump with the patches."""
    target = opened(path)
    for patch in patches:
        plant(target, patch)
    return Snapshot(target)


def without_stacks(path: str, *patches: Patch) -> Snapshot:
    """The dump with the patches and without kernel stacks: locks are all there is to tell what was in flight."""
    s = planted(path, *patches)
    s.stacks.state[0] = StackState.UNREADABLE
    return s


def findings(path: str, *patches: Patch) -> list[Finding]:
    """What a whole check of the patched dump says."""
    return run_check(planted(path, *patches)).findings


def only_finding(path: str, expected: str, *patches: Patch) -> Finding:
    """The one finding of the patched dump; it must be that rule's, graded as the rule says."""
    found = findings(path, *patches)
    assert [f.rule for f in found] == [expected]
    assert found[0].severity == find_rule(expected).severity
    return found[0]


def also_broken(path: str, expected: str, *patches: Patch) -> list[str]:
    """The other rules that the one finding of the patched dump names."""
    return only_finding(path, expected, *patches).evidence.also


def slugs(path: str, *patches: Patch) -> list[str]:
    """The rules of these findings."""
    return [f.rule for f in findings(path, *patches)]


def word(s: Snapshot, address: int, size: int = 8) -> int:
    """The unsigned number at a kernel virtual address."""
    data = s.layout.memory.read(address, size)
    assert data is not None
    return int.from_bytes(data, "little")


def put(s: Snapshot, address: int, value: int, size: int = 8) -> Patch:
    """A number at a kernel virtual address; the direct map is patched where it is read, in physical memory."""
    data = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    base = s.layout.memory.direct_map_base
    if base <= address < base + (s.layout.memmap.max_pfn << 12):
        return Patch(address - base, data, True)
    return Patch(address, data)


def add(s: Snapshot, address: int, delta: int, size: int = 8) -> Patch:
    """The number there, changed by ``delta``."""
    return put(s, address, word(s, address, size) + delta, size)


def page_word(s: Snapshot, pfn: int, *names: str) -> int:
    """Address of a member of a struct page."""
    return s.layout.memmap.page_addr(pfn) + s.layout.struct("struct page").field(*names).offset


def flags_xor(s: Snapshot, pfn: int, *flags: str) -> Patch:
    """Some flags of a page turned over."""
    address = page_word(s, pfn, "flags.f", "flags")
    return put(s, address, word(s, address) ^ sum(int(s.layout.flags.mask(flag)) for flag in flags))


def entry_xor(s: Snapshot, row: int, bits: int, skip: int = 0) -> Patch:
    """Bits of one entry of a mapping turned over."""
    m = s.mappings
    address = (int(s.tables.pfn[m.table_idx[row]]) << 12) + 8 * (int(m.slot[row]) + skip)
    data = s.layout.memory.read(address, 8, physical=True)
    assert data is not None
    return Patch(address, (int.from_bytes(data, "little") ^ bits).to_bytes(8, "little"), True)


def entry_writable(s: Snapshot, row: int) -> Patch:
    """An entry made writable and dirty as pte_mkwrite() does: the saved dirty bit goes back to its place."""
    m = s.mappings
    entry = int(m.entry[row]) | RW | DIRTY
    if getattr(s.layout.arch, "saved_dirty", False):
        entry &= ~SAVED_DIRTY
    return entry_xor(s, row, entry ^ int(m.entry[row]))


def pfn_of(s: Snapshot, row: int) -> int:
    """Page frame of a row of the page table."""
    return int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
