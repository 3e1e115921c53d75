"""Random damage of realistic shape: bits, bytes, words, cache lines and pages of tables, struct pages and slabs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import drgn
import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.layout.flags import type_code
from inspector.snapshot import Snapshot
from tests.faults.overlay import Patch

PAGE = 4096
PLACES = ("page table", "memory map", "slab")
SHAPES = {"bit": 1, "byte": 1, "word": 8, "line": 64, "page": PAGE}
"""Shapes of damage and how many bytes they cover; a bit is turned over in one byte."""

_SHAPES, _WEIGHTS = ("bit", "byte", "word", "line", "page"), (0.35, 0.1, 0.25, 0.2, 0.1)
_CONTENTS = ("zeros", "text", "pointers", "neighbour", "pattern", "random")
_TEXT = b"Nov 27 08:46:17 guest systemd[1]: Started Daily apt download activities.\n" * 64
_MOST_TRIES = 64


@dataclass(frozen=True)
class Touched:
    """What some damage may have to do with.

    Attributes:
        mms: Rows of the mms.
        pfns: Page frames, by their folios' heads.
        pages: Page frames of the memory that is written.
    """

    mms: frozenset[int]
    pfns: frozenset[int]
    pages: frozenset[int]

    def meets(self, other: Touched) -> bool:
        """Whether two have something in common."""
        return bool(self.mms & other.mms or self.pfns & other.pfns or self.pages & other.pages)


@dataclass(frozen=True)
class Damage:
    """One piece of damage.

    Attributes:
        place: One of `PLACES`.
        kind: What is there: the level of a table, the kind of a page, the type of an object.
        shape: One of `SHAPES`.
        contents: What is written.
        members: Members of a struct, or bits of an entry, that it changes; "" where these are many.
        patch: It.
        touched: What it may have to do with.
    """

    place: str
    kind: str
    shape: str
    contents: str
    members: str
    patch: Patch
    touched: Touched


class Damages:
    """Makes random damage of one dump.

    Args:
        s: The sound dump.
    """

    def __init__(self, s: Snapshot) -> None:
        self._s = s
        self._members: dict[str, list[tuple[int, int, str]]] = {}

    def some(self, rng: np.random.Generator) -> Damage:
        """One piece."""
        for _ in range(_MOST_TRIES):
            place = PLACES[int(rng.integers(len(PLACES)))]
            shape = str(rng.choice(_SHAPES, p=_WEIGHTS))
            make = {"page table": self._table, "memory map": self._struct_page, "slab": self._object}[place]
            if (made := make(rng, shape)) is not None:
                return made
        raise AssertionError("nothing in this dump can be damaged")

    # -- places ------------------------------------------------------------------------------------------------------

    def _table(self, rng: np.random.Generator, shape: str) -> Damage | None:
        s, t = self._s, self._s.tables
        row = int(rng.choice(self._table_rows[str(rng.choice(list(self._table_rows)))]))
        start = int(t.pfn[row]) << 12
        data = s.layout.memory.read(start, PAGE, physical=True)
        used = np.flatnonzero(np.frombuffer(data or b"", np.uint64))
        if not len(used):
            return None
        slot = int(rng.choice(used))
        address = start if shape == "page" else start + 8 * (slot // 8 * 8 if shape == "line" else slot)
        if shape in ("bit", "byte"):
            address += int(rng.integers(8))
        made = self._damaged(rng, shape, address, physical=True)
        if made is None:
            return None
        contents, patch, bits = made
        members = f"bits {bits}" if shape in ("bit", "byte") else ""
        return Damage("page table", level_of(s, row), shape, contents, members, patch, self.touched(patch))

    def _struct_page(self, rng: np.random.Generator, shape: str) -> Damage | None:
        memmap = self._s.layout.memmap
        kind = str(rng.choice(list(self._page_rows)))
        pfn = int(memmap.pfns_of_rows(np.array([rng.choice(self._page_rows[kind])]))[0])
        page = memmap.page_addr(pfn)
        made = self._within(rng, shape, page, memmap.page_size)
        if made is None:
            return None
        contents, patch, bits = made
        members = self._named("struct page", patch, page, bits) if shape in ("bit", "byte", "word") else ""
        return Damage("memory map", kind, shape, contents, members, patch, self.touched(patch))

    def _object(self, rng: np.random.Generator, shape: str) -> Damage | None:
        s = self._s
        kind = str(rng.choice(list(self._objects)))
        addresses = self._objects[kind]
        address = int(rng.choice(addresses))
        made = self._within(rng, shape, address, s.layout.struct(f"struct {kind}").size)
        if made is None:
            return None
        contents, patch, bits = made
        start = patch.address + (s.layout.memory.direct_map_base if patch.physical else 0)
        members = (
            self._named(f"struct {kind}", Patch(start, patch.data), address, bits)
            if shape in ("bit", "byte", "word")
            else ""
        )
        return Damage("slab", kind, shape, contents, members, patch, self.touched(patch))

    def _within(self, rng: np.random.Generator, shape: str, address: int, size: int) -> tuple[str, Patch, str] | None:
        """Damage of a shape that has bytes in an object."""
        width = SHAPES[shape]
        at = address + int(rng.integers(size))
        at -= at % width
        return self._damaged(rng, shape, max(at, address) if width <= 8 else at)

    # -- contents ----------------------------------------------------------------------------------------------------

    def _damaged(
        self, rng: np.random.Generator, shape: str, address: int, *, physical: bool = False
    ) -> tuple[str, Patch, str] | None:
        base = self._s.layout.memory.direct_map_base
        if not physical and base <= address < base + (self._s.layout.memmap.max_pfn << 12):
            address, physical = address - base, True
        size = SHAPES[shape]
        old = self._s.layout.memory.read(address, size, physical=physical)
        if old is None:
            return None
        if shape == "bit":
            bit = int(rng.integers(8))
            contents, new = "turned over", bytes([old[0] ^ 1 << bit])
        else:
            contents = str(rng.choice(_CONTENTS))
            new = self._contents(rng, contents, address, size, physical=physical)
        if new == old:
            return None
        turned = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        bits = " ".join(str(bit + 8 * (address % 8)) for bit in range(8) if turned >> bit & 1) if size == 1 else ""
        return contents, Patch(address, new, physical), bits

    def _contents(self, rng: np.random.Generator, what: str, address: int, size: int, *, physical: bool) -> bytes:
        if what == "zeros":
            return bytes(size)
        if what == "text":
            start = int(rng.integers(len(_TEXT) - size + 1)) if size < PAGE else 0
            return _TEXT[start : start + size]
        if what == "pattern":
            return bytes([int(rng.choice([0x6B, 0xFF, 0xAA, 0xCC]))]) * size
        if what == "pointers":
            words = np.concatenate([rng.choice(self._pointers, -(-size // 8))]).astype("<u8").tobytes()
            return words[:size]
        if what == "neighbour":
            other = self._s.layout.memory.read(address - size, size, physical=physical)
            return bytes(size) if other is None else other
        return rng.bytes(size)

    @cached_property
    def _pointers(self) -> U64:
        s = self._s
        return np.concatenate([s.vmas.addr, s.mms.addr, s.anon_rmap.anon_vmas.addr, s.file_rmap.address_spaces.addr])

    # -- what there is -----------------------------------------------------------------------------------------------

    @cached_property
    def _table_rows(self) -> dict[str, I64]:
        t, s = self._s.tables, self._s
        own = t.first & (s.mms.users[t.mm_idx] > 0) & ~s.mm_in_motion[t.mm_idx]
        levels = np.array([level_of(s, row) for row in range(len(t))])
        return {name: rows for name in np.unique(levels) if len(rows := np.flatnonzero(own & (levels == name)))}

    @cached_property
    def _page_rows(self) -> dict[str, I64]:
        s, p = self._s, self._s.pages
        flags, rows = s.layout.flags, np.arange(len(p))
        head = np.maximum(p.head_row, 0)
        is_large = s.folio_of_page >= 0
        is_hugetlb: Mask = np.zeros(len(p), np.bool_)
        is_hugetlb[is_large] = s.folios.is_hugetlb[s.folio_of_page[is_large]]
        is_mapped, is_anon = s.counts.page_mappings > 0, p.is_anon(rows)
        is_slab = flags.test(p.flags[head], "slab") if flags.has("slab") else p.type_[head] == type_code("slab")
        kinds = {
            "anonymous page": is_mapped & ~is_large & is_anon,
            "file page": is_mapped & ~is_large & ~is_anon & (p.mapping != 0),
            "page of a large folio": is_large
            & ~is_hugetlb
            & ~is_slab
            & (s.folio_totals[np.maximum(s.folio_of_page, 0)] > 0),
            "hugetlb page": is_hugetlb,
            "slab page": is_slab & (p.head_row >= 0),
            "free block": p.type_ == type_code("buddy"),
            "page table's page": p.type_ == type_code("table"),
            "other page": ~is_mapped & ~is_large & ~is_slab & (p.type_ == 0),
        }
        return {name: found for name, mask in kinds.items() if len(found := np.flatnonzero(mask & p.readable))}

    @cached_property
    def _objects(self) -> dict[str, U64]:
        s = self._s
        spaces = s.file_rmap.address_spaces
        data = s.layout.struct("struct inode").field("i_data").offset
        objects = {
            "vm_area_struct": s.vmas.addr,
            "anon_vma": s.anon_rmap.anon_vmas.addr,
            "anon_vma_chain": s.anon_rmap.avcs.addr,
            "mm_struct": s.mms.addr[s.mms.users > 0],
            "inode": spaces.addr - np.uint64(data),
        }
        base = np.uint64(s.layout.memory.direct_map_base)
        return {name: some for name, where in objects.items() if len(some := np.unique(where[where >= base]))}

    # -- what belongs together ---------------------------------------------------------------------------------------

    @cached_property
    def _root_of_vma(self) -> I64:
        s = self._s
        a = s.anon_rmap.anon_vmas
        at = np.minimum(np.searchsorted(a.addr, s.vmas.anon_vma), len(a) - 1)
        return np.where(a.addr[at] == s.vmas.anon_vma, a.root[at], np.uint64(0)).astype(np.uint64).view(np.int64)

    def mms_of_root(self, root: int) -> set[int]:
        """Rows of mms with VMAs of a family of anon_vmas."""
        of = self._root_of_vma.view(np.uint64) == np.uint64(root)
        return set(self._s.vmas.mm_idx[of & (root != 0)].tolist())

    def mms_of_space(self, space: int) -> set[int]:
        """Rows of mms that map a file."""
        s = self._s
        return set(s.vmas.mm_idx[(s.mapping_of_vma == np.uint64(space)) & (space != 0)].tolist())

    def touched(self, patch: Patch) -> Touched:
        """What is at the place of a patch: tables, struct pages, objects, and what these belong to."""
        s, memmap = self._s, self._s.layout.memmap
        last = patch.address + len(patch.data) - 1
        pages = frozenset(range(patch.address >> 12, (last >> 12) + 1))
        mms: set[int] = set()
        pfns: set[int] = set()
        if not patch.physical:
            first, end = memmap.pfns(np.array([patch.address & ~63, last & ~63], np.uint64)).tolist()
            rows = memmap.rows(np.arange(first, end + 1)) if first >= 0 and end >= 0 else np.empty(0, np.int64)
            rows = rows[rows >= 0]
            pfns |= self._heads(rows)
            for pfn in memmap.pfns_of_rows(rows).tolist():
                mms |= self._mms_of_table(pfn)
            return Touched(frozenset(mms), frozenset(pfns), pages)
        for page in pages:
            mms |= self._mms_of_table(page)
        start = patch.address + s.layout.memory.direct_map_base
        for kind, where in self._objects.items():
            size = s.layout.struct(f"struct {kind}").size
            inside = (where < np.uint64(start + len(patch.data))) & (where + np.uint64(size) > np.uint64(start))
            for each in where[inside].tolist():
                mms |= self.mms_of_object(kind, each)
                pfns |= self._pfns_of_object(kind, each)
        return Touched(frozenset(mms), frozenset(pfns), pages)

    def _mms_of_table(self, pfn: int) -> frozenset[int]:
        return frozenset(self._s.tables.mm_idx[self._s.tables.pfn == pfn].tolist())

    def _heads(self, rows: I64) -> frozenset[int]:
        memmap, heads = self._s.layout.memmap, self._s.pages.head_row[rows]
        return frozenset(memmap.pfns_of_rows(np.where(heads >= 0, heads, rows)).tolist())

    def mms_of_page(self, pfn: int) -> set[int]:
        """Rows of mms that may map a page."""
        s = self._s
        row = s.pages.memmap.row(pfn)
        head = max(int(s.pages.head_row[row]), row if s.pages.head_row[row] < 0 else 0)
        mapping = int(s.pages.mapping[head])
        a = s.anon_rmap.anon_vmas
        if mapping & 3 == 1:
            at = np.flatnonzero(a.addr == np.uint64(mapping & ~3))
            mms = self.mms_of_root(int(a.root[at[0]])) if len(at) else set()
        else:
            mms = self.mms_of_space(mapping & ~3)
        return mms | set(s.mappings.mm_idx[s.mappings_of(pfn)].tolist())

    def mms_of_object(self, kind: str, address: int) -> set[int]:
        """Rows of the mms that an object of the kernel belongs to."""
        s = self._s
        where = np.uint64(address)
        a, chains = s.anon_rmap.anon_vmas, s.anon_rmap.avcs
        if kind == "mm_struct":
            return set(np.flatnonzero(s.mms.addr == where).tolist())
        if kind == "vm_area_struct":
            vma = np.flatnonzero(s.vmas.addr == where)
            return set(s.vmas.mm_idx[vma].tolist()).union(
                *(self.mms_of_root(int(r)) for r in self._root_of_vma.view(np.uint64)[vma])
            )
        if kind == "anon_vma":
            return set().union(*(self.mms_of_root(int(root)) for root in a.root[a.addr == where]))
        if kind == "anon_vma_chain":
            av = chains.anon_vma[chains.addr == where]
            return set().union(*(self.mms_of_object("anon_vma", int(each)) for each in av))
        return self.mms_of_space(address + s.layout.struct("struct inode").field("i_data").offset)

    def _pfns_of_object(self, kind: str, address: int) -> set[int]:
        s = self._s
        if kind != "inode":
            return set()
        space = address + s.layout.struct("struct inode").field("i_data").offset
        rows = np.flatnonzero(s.pages.mapping == np.uint64(space))
        return set(s.pages.memmap.pfns_of_rows(rows).tolist())

    # -- names -------------------------------------------------------------------------------------------------------

    def _named(self, type_name: str, patch: Patch, start: int, bits: str) -> str:
        """The members that a patch covers, and the bits of the word that it changes where these are few."""
        if type_name not in self._members:
            self._members[type_name] = list(_members(self._s.target.prog.type(type_name), 0, ""))
        first, last = patch.address - start, patch.address - start + len(patch.data)
        names = [name for offset, size, name in self._members[type_name] if offset < last and offset + size > first]
        return " ".join(dict.fromkeys(names)) + (f" bits {bits}" if bits else "")


def level_of(s: Snapshot, row: int) -> str:
    """The level of a page table by name."""
    return str(next(each for each in s.layout.arch.shapes if each.level == s.tables.level[row]).level.name)


def _members(type_: drgn.Type, offset: int, prefix: str) -> Iterator[tuple[int, int, str]]:
    """Offset, size and name of the members of a struct, two levels deep, those of nameless ones beside the others."""
    for member in type_.members or ():
        inner = member.type
        while inner.kind == drgn.TypeKind.TYPEDEF:
            inner = inner.type
        at = offset + member.bit_offset // 8
        name = f"{prefix}{member.name or ''}"
        is_nested = inner.kind in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION) and inner.is_complete()
        if is_nested and prefix.count(".") < 2:
            yield from _members(inner, at, f"{name}." if member.name else prefix)
        else:
            yield (
                at,
                max(drgn.sizeof(inner) if inner.is_complete() or inner.kind == drgn.TypeKind.POINTER else 0, 1),
                name,
            )
