"""Random edits of a vmcore's memory, and which of them a check must find."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import I64
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from tests.faults.overlay import Patch, page_word
from tests.faults.plants import LARGE, WORD, calm, entry_address, head_field

PAGE = 4096
_HEADER = struct.Struct("<8si390s6xqqI")
_LOUD_BITS = (0, *range(12, 30))
"""Bits of a present PTE whose change no bookkeeping survives: present, and the page frame's number.

Accessed, dirty, cache and protection-key bits may be anything, and whether an entry may be writable, watched or special
depends on its page and VMA.
"""


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        kind: ``anywhere``, ``counter`` or ``entry``.
        what: Of what, in words.
        patches: The edit.
        must_find: Whether a check must find it.
    """

    kind: str
    what: str
    patches: tuple[Patch, ...]
    must_find: bool


def pages_of_kdump(path: str) -> I64:
    """Page frames that a kdump-compressed vmcore holds, from its second bitmap (makedumpfile's format)."""
    data = Path(path).read_bytes()
    assert data[:8] == b"KDUMP   "
    # struct disk_dump_header: signature, version, six names of 65 bytes and padding, time of the stop, status.
    block, sub, nr_bitmap = struct.unpack_from("<iiI", data, _HEADER.size)
    start = (1 + sub) * block + nr_bitmap * block // 2
    bits = np.frombuffer(data, np.uint8, nr_bitmap * block // 2, start)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little")).astype(np.int64)


class Editor:
    """Makes random edits of one dump.

    Args:
        s: The sound dump.
        pages: Page frames that the inspector reads.
    """

    def __init__(self, s: Snapshot, pages: I64) -> None:
        self._s = s
        self._pages = pages
        rows = np.flatnonzero((s.counts.page_mappings > 0) & calm(s) & (s.folio_of_page < 0))
        self._small = rows
        f = s.folios
        able = f.readable & (s.folio_totals > 0) & (calm(s)[f.row] | f.is_hugetlb)
        self._large = np.flatnonzero(able)
        m = s.mappings
        quiet = (m.entry_class == EntryClass.NORMAL) & (m.level == Level.PTE) & ~s.mm_in_motion[m.mm_idx] & m.counted
        self._entries = np.flatnonzero(quiet & ((m.bits & Bit.PROT_NONE) == 0))

    def edit(self, rng: np.random.Generator) -> Edit:
        """One edit: half of them anywhere, a quarter of counters, a quarter of entries."""
        return (self._anywhere, self._anywhere, self._counter, self._entry)[int(rng.integers(4))](rng)

    def _anywhere(self, rng: np.random.Generator) -> Edit:
        pfn = int(rng.choice(self._pages))
        count = int(rng.integers(1, 9))
        offset = int(rng.integers(0, PAGE - count))
        style = int(rng.integers(3))
        old = self._s.layout.memory.read((pfn << 12) + offset, count, physical=True) or bytes(count)
        new = (rng.bytes(count), bytes(count), bytes(b ^ 1 << int(rng.integers(8)) for b in old))[style]
        return Edit(
            "anywhere", f"{count} bytes of page {pfn:#x}+{offset:#x}", (Patch((pfn << 12) + offset, new, True),), False
        )

    def _counter(self, rng: np.random.Generator) -> Edit:
        """A count of a mapped folio turned into another number."""
        s = self._s
        if len(self._large) and rng.integers(2):
            folio = int(rng.choice(self._large))
            names: list[tuple[str, ...]] = [("_entire_mapcount.counter", "_compound_mapcount.counter")]
            if s.scheme in LARGE:
                names.append(("_large_mapcount.counter",))
            if s.scheme in WORD:
                names.append(("_nr_pages_mapped.counter",))
            chosen = names[int(rng.integers(len(names)))]
            field = head_field(s, *chosen, tail=("compound_mapcount.counter",))
            address = s.layout.memmap.page_addr(int(s.folios.pfn[folio])) + field.offset
            what = f"{chosen[0]} of folio {int(s.folios.pfn[folio]):#x}"
        else:
            row = int(rng.choice(self._small))
            pfn = int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
            address, what = page_word(s, pfn, "_mapcount.counter", "_mapcount"), f"_mapcount of page {pfn:#x}"
        data = s.layout.memory.read(address, 4)
        assert data is not None
        at = int(rng.integers(4))
        new = bytearray(data)
        new[at] = (new[at] + int(rng.integers(1, 256))) & 0xFF
        patch = _physical(s, address, bytes(new))
        return Edit("counter", f"{what}: {data.hex()} -> {bytes(new).hex()}", (patch,), True)

    def _entry(self, rng: np.random.Generator) -> Edit:
        """One bit of a PTE of a mapped folio turned over."""
        s = self._s
        row = int(rng.choice(self._entries))
        skip = int(rng.integers(int(s.mappings.nr[row])))
        bit = int(rng.choice(_LOUD_BITS))
        address = entry_address(s, row, skip)
        data = s.layout.memory.read(address, 8, physical=True)
        assert data is not None
        new = int.from_bytes(data, "little") ^ 1 << bit
        what = f"bit {bit} of the PTE at {address:#x}"
        return Edit("entry", what, (Patch(address, new.to_bytes(8, "little"), True),), True)


def _physical(s: Snapshot, address: int, data: bytes) -> Patch:
    """A patch of kernel virtual memory; the memory map is patched where it is read."""
    base = s.layout.memory.direct_map_base
    if base <= address < base + (s.layout.memmap.max_pfn << 12):
        return Patch(address - base, data, True)
    return Patch(address, data)
