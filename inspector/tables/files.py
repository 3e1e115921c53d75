"""address_spaces with cached pages, and everything their xarrays hold: folios, shadows, swap and DAX entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from typing import cast

import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, UnknownColumn, count_up, distinct, rows_of
from inspector.errors import LayoutError
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.lib.list import walk_lists
from inspector.lib.xarray import XArrayEntries, XArrays, walk_xarrays
from inspector.records import cached_property, dataclass
from inspector.tables.inodes import Inodes, read_inodes
from inspector.tables.locks import held
from inspector.tables.pages import Pages
from inspector.tables.slab_words import in_slabs
from inspector.tables.swap_devices import max_swapfiles
from inspector.tables.vmas import Vmas

FILE, SHMEM, HUGETLB, BLOCK, DAX, SWAP = range(6)
"""Kinds of address_space; SWAP are the kernel's own for the swap cache (before 6.18)."""

ADDRESS_SPACE_KINDS = ("file", "shmem", "hugetlb", "block", "dax", "swap")

FOLIO, SHADOW, SWAP_ENTRY, DAX_ENTRY, OTHER = range(5)
"""Kinds of entry in an i_pages xarray; OTHER is a value that this kernel never puts there."""

ENTRY_KINDS = ("folio", "shadow", "swap", "dax", "other")

_S_DAX = 1 << 13
_S_IFMT, _S_IFBLK = 0o170000, 0o060000
_HUGE_ARRAY = 1 << 16
_SPACE_SHIFT = 14
"""Slots of one swapper address_space (SWAP_ADDRESS_SPACE_SHIFT, mm/swap.h)."""

_VALUE = np.uint64(1)
_TOP = np.uint64(0xFFFFFFFFFFFFF000)
"""From here on are error values, no addresses."""


@dataclass(frozen=True, slots=True)
class AddressSpaces(Table):
    """One row an address_space, ordered by address.

    Attributes:
        addr: uint64.
        kind: uint8; `FILE` ... `SWAP`.
        host: uint64; its inode, 0 for none.
        ino: uint64; number of the inode.
        super_block: uint64; of the inode.
        size: int64; i_size, bytes.
        head: uint64; the xa_head of i_pages.
        nrpages: int64; as stored.
        swapped: int64; pages in swap as shmem counts them, -1 for other kinds.
        swap_type, first_slot: int64; device and first slot of a swapper space, -1 for other kinds.
        in_motion: bool; the inode is locked for writing or being freed, or i_pages is locked.
        is_inode: bool; the inode names the address_space as its own: what a stray pointer finds does not.
        flags: uint64; ``enum mapping_flags``.
        migrate_folio: uint64; the function that its a_ops have for that, 0 for none.
        has_known_operations: bool; a_ops could be read.
        readable: bool.
        broken: bool; nodes of the xarray make no sense.
        whole: bool; all nodes of the xarray were read.
    """

    addr: U64
    kind: U8
    host: U64
    ino: U64
    super_block: U64
    size: I64
    head: U64
    nrpages: I64
    swapped: I64
    swap_type: I64
    first_slot: I64
    in_motion: Mask
    is_inode: Mask
    flags: U64
    migrate_folio: U64
    has_known_operations: Mask
    readable: Mask
    broken: Mask
    whole: Mask


@dataclass(frozen=True, slots=True)
class CacheEntries(Table):
    """One row an entry of an i_pages xarray, ordered by address_space and index.

    Attributes:
        address_space_idx: int32; row of the address_space.
        index: uint64; first index.
        nr: int64; indices it covers.
        value: uint64; as stored.
        kind: uint8; `FOLIO` ... `OTHER`.
        pfn: int64; page frame that a FOLIO entry points to, -1 for none.
    """

    address_space_idx: I32
    index: U64
    nr: I64
    value: U64
    kind: U8
    pfn: I64


@dataclass(frozen=True)
class Files:
    """The page cache.

    Its entries, of which there may be one for each page of the machine, are not kept: each pass over them reads them
    again, some at a time (`pieces`). They are numbered in the order of `CacheEntries`.

    Attributes:
        address_spaces: The address_spaces.
        indices: int64[spaces, kinds]; indices that entries of each kind (`FOLIO` ...) take in each.
        strange: int64[spaces]; entries of each that are nothing that this kernel puts there.
        swapped: Entries that are pages in swap (`SWAP_ENTRY`).
        swap_cache: Folios of the swap cache, which has an entry for each of their pages: one row each.
        unreadable: address_spaces, nodes and lists that could not be read.
        arrays: Their xarrays.
        layout: For the entries.
    """

    address_spaces: AddressSpaces
    indices: I64
    strange: I64
    swapped: CacheEntries
    swap_cache: CacheEntries
    unreadable: int
    arrays: XArrays = field(repr=False)
    layout: Layout = field(repr=False)

    @property
    def nr_entries(self) -> int:
        """How many entries there are."""
        return self.arrays.length

    def pieces(self, spaces: AnyArray | None = None) -> Iterator[tuple[int, CacheEntries]]:
        """The entries, some at a time, each time with the number of the first.

        Args:
            spaces: Rows of address_spaces whose entries are wanted; others of the same pieces come with them.
        """
        wanted = range(self.arrays.pieces) if spaces is None else self.arrays.pieces_of(spaces).tolist()
        for number in wanted:
            yield self.arrays.start(number), self._judged(self.arrays.piece(number))

    def of_space(self, row: int) -> CacheEntries:
        """The entries of one address_space, a folio of the swap cache as one."""
        parts = [CacheEntries.empty()]
        for _, entries in self.pieces(np.array([row])):
            parts.append(entries.take(np.flatnonzero(entries.address_space_idx == row)))
        found = CacheEntries.concat(parts)
        return _merged(found) if self.address_spaces.kind[row] == SWAP else found

    def numbered(self, rows: I64) -> CacheEntries:
        """The entries of some numbers, in that order."""
        order = np.argsort(rows, kind="stable")
        ordered, parts = rows[order], [CacheEntries.empty()]
        piece = self.arrays.piece_of(ordered)
        for number in distinct(piece).tolist():
            entries = self._judged(self.arrays.piece(number))
            parts.append(entries.take(ordered[piece == number] - self.arrays.start(number)))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return CacheEntries.concat(parts).take(place)

    @cached_property
    def entries(self) -> CacheEntries:
        """All entries at once. A check sees them some at a time."""
        return CacheEntries.concat([CacheEntries.empty(), *(entries for _, entries in self.pieces())])

    def _judged(self, found: XArrayEntries) -> CacheEntries:
        return _judge_entries(self.layout, self.address_spaces.kind, found)


def build_address_spaces(layout: Layout, pages: Pages, vmas: Vmas) -> tuple[AddressSpaces, int, U64]:
    """Find all address_spaces (include/linux/fs.h); ``broken`` and ``whole`` are not judged yet.

    An address_space is found through the folios that name it, the files that VMAs map, shmem's list of inodes with
    swapped pages, and the array of swapper address_spaces. One with shadows alone is none of the cache's.

    Args:
        layout: The kernel's layout.
        pages: Struct pages.
        vmas: Whose files are wanted.

    Returns:
        The table, how many files, lists and address_spaces could not be read, and the addresses of more that could not:
        folios alone name these, so that they may be none.
    """
    swappers = swapper_spaces(layout)
    swapped, lost = swapped_spaces(layout)
    files = np.unique(vmas.file[vmas.file != 0])
    f_mapping = layout.struct("struct file").field("f_mapping")
    of_files, known = layout.memory.words(files + np.uint64(f_mapping.offset))
    sure = np.concatenate([of_files[known], swapped, swappers.addr])
    addr = np.unique(np.concatenate([_named_by_folios(pages), sure]))
    addr = addr[(addr != 0) & (addr & np.uint64(7) == 0)]
    spaces = _read_spaces(layout, addr, swappers)
    # Folios of drivers keep other things in their mapping word; what lies outside all memory is not missing.
    missing = ~spaces.readable & (addr >= np.uint64(layout.memory.direct_map_base)) & (addr < _TOP)
    named = missing & ~np.isin(addr, sure)
    lost += int((~known).sum()) + int((missing & ~named).sum())
    return spaces, lost, addr[named & in_slabs(layout, pages, addr)]


def build_files(layout: Layout, spaces: AddressSpaces, only: tuple[int, int] | None = None) -> Files:
    """Walk the xarrays of some address_spaces together (lib/xarray.c).

    Args:
        layout: The kernel's layout.
        spaces: The address_spaces.
        only: First and last index whose entries are wanted; None for all.
    """
    # An array is only followed where the rest is what it should be: everything else is some other struct's bytes.
    heads = np.where(spaces.is_inode | (spaces.kind == SWAP), spaces.head, 0)
    indices, strange = np.zeros((len(spaces), len(ENTRY_KINDS)), np.int64), np.zeros(len(spaces), np.int64)
    swapped, swap_cache = [CacheEntries.empty()], [CacheEntries.empty()]

    def look(found: XArrayEntries) -> None:
        e = _judge_entries(layout, spaces.kind, found)
        np.add.at(indices, (e.address_space_idx, e.kind), e.nr)
        odd = (e.kind > DAX_ENTRY) | ((e.kind == FOLIO) & (e.pfn < 0))
        np.add.at(strange, e.address_space_idx[odd], 1)
        swapped.append(e.take(np.flatnonzero(e.kind == SWAP_ENTRY)))
        swap_cache.append(e.take(np.flatnonzero((e.kind == FOLIO) & (spaces.kind[e.address_space_idx] == SWAP))))

    arrays = walk_xarrays(layout.prog, layout.memory, heads, only, look)
    broken, whole = spaces.broken.copy(), spaces.whole.copy()
    broken[arrays.broken] = True
    whole[np.concatenate([arrays.broken, arrays.unreadable])] = False
    return Files(
        replace(spaces, broken=broken, whole=whole),
        indices,
        strange,
        _in_order(swapped),
        _merged(_in_order(swap_cache)),
        len(arrays.unreadable),
        arrays,
        layout,
    )


def read_files(layout: Layout, addrs: U64, only: tuple[int, int] | None = None) -> Files:
    """The given address_spaces alone, and what their xarrays hold.

    Args:
        layout: The kernel's layout.
        addrs: uint64; of address_spaces, in any order.
        only: First and last index whose entries are wanted; None for all.
    """
    addr = distinct(addrs[(addrs != 0) & (addrs & np.uint64(7) == 0)])
    return build_files(layout, _read_spaces(layout, addr, swapper_spaces(layout)), only)


def not_in_cache(pages: Pages, files: Files, addrs: U64) -> int:
    """How many of some addresses a folio names that no array of the page cache holds.

    A folio that an array holds is of that array's address_space, whatever it names itself.
    """
    if not len(addrs):
        return 0
    rows = pages.heads_where(np.isin(pages.words.mapping, addrs))
    pfn = pages.memmap.pfns_of_rows(rows)
    held = np.zeros(len(rows), np.bool_)
    for _, entries in files.pieces():
        held |= np.isin(pfn, entries.pfn)
    return len(np.unique(pages.mapping[rows[~held]]))


def _named_by_folios(pages: Pages) -> U64:
    """The ``mapping`` words of heads and small pages that may point to an address_space; typed pages have others."""
    words = pages.words
    plain = (words.type_ == 0) | (words.type_ == type_code("hugetlb"))
    pointer = (words.mapping != 0) & ((words.mapping & np.uint64(7)) == 0)
    wanted = plain & pointer & words.readable & (words.refcount > 0)
    # Some sets are of tails alone, whose word is no mapping.
    owned = np.zeros(len(words), np.bool_)
    for rows in pages.pieces_where(wanted):
        owned[pages.number[rows]] = True
    return distinct(words.mapping[owned])


def swapped_spaces(layout: Layout) -> tuple[U64, int]:
    """address_spaces of shmem inodes that have pages in swap (shmem_swaplist, mm/shmem.c)."""
    head = layout.target.symbol("shmem_swaplist")
    if head is None or not layout.has_struct("struct shmem_inode_info"):
        return np.empty(0, np.uint64), 0
    info, inode = layout.struct("struct shmem_inode_info"), layout.struct("struct inode")
    link = info.field("swaplist").offset
    found = walk_lists(layout.memory, np.array([head], np.uint64), link + 16, link)
    data = info.field("vfs_inode").offset + inode.field("i_data").offset
    return found.addr + np.uint64(data), len(found.unreadable) + len(found.broken)


@dataclass(frozen=True, slots=True)
class SwapperSpaces(Table):
    """One row an address_space of the swap cache (mm/swap_state.c, swapper_spaces); none from 6.18 on.

    Attributes:
        addr: uint64; ascending within a device.
        swap_type: int64; of the device.
        first_slot: int64; its first slot.
    """

    addr: U64
    swap_type: I64
    first_slot: I64


def swapper_spaces(layout: Layout) -> SwapperSpaces:
    """The address_spaces of the swap cache of all devices."""
    start, sizes = layout.target.symbol("swapper_spaces"), layout.target.symbol("nr_swapper_spaces")
    if start is None and sizes is None:
        return SwapperSpaces.empty()
    if start is None or sizes is None:
        raise LayoutError("the kernel has no symbol swapper_spaces or nr_swapper_spaces")
    nr_types = max_swapfiles(layout)
    bases, _ = layout.memory.read_range(start, 8 * nr_types)
    counts, _ = layout.memory.read_range(sizes, 4 * nr_types)
    nr = np.minimum(counts.view(np.uint32).astype(np.int64), _HUGE_ARRAY)
    nr[bases.view(np.uint64) == 0] = 0
    types = np.repeat(np.arange(nr_types), nr)
    place = count_up(nr)
    size = np.uint64(layout.struct("struct address_space").size)
    addr = bases.view(np.uint64)[types] + place.astype(np.uint64) * size
    return SwapperSpaces(addr, types.astype(np.int64), place << _SPACE_SHIFT)


def _read_spaces(layout: Layout, addr: U64, swappers: SwapperSpaces) -> AddressSpaces:
    """The address_spaces at some addresses, ascending."""
    struct = layout.struct("struct address_space")
    raw = layout.memory.gather(addr, struct.size)
    host = struct.field("host").column(raw.bytes)
    inodes = read_inodes(layout, host)
    own = inodes.readable & ((inodes.mapping == addr) | (inodes.data == addr))
    a_ops = struct.field("a_ops").column(raw.bytes)
    kind = _kinds(layout, a_ops, inodes)
    migrate_folio, has_known_operations = _migrate_folio(layout, a_ops)
    locked = held(struct, "i_pages.xa_lock", raw.bytes)
    at = rows_of(addr, swappers.addr)
    mine = at >= 0
    swap_type, first_slot = np.full((2, len(addr)), -1, np.int64)
    kind[at[mine]], swap_type[at[mine]], first_slot[at[mine]] = (
        SWAP,
        swappers.swap_type[mine],
        swappers.first_slot[mine],
    )
    return AddressSpaces(
        addr=addr,
        kind=kind,
        host=host,
        ino=inodes.ino,
        super_block=inodes.super_block,
        size=inodes.size,
        head=struct.field("i_pages.xa_head").column(raw.bytes),
        nrpages=struct.field("nrpages").column(raw.bytes).astype(np.int64),
        swapped=shmem_swapped_pages(layout, host, own & (kind == SHMEM)),
        swap_type=swap_type,
        first_slot=first_slot,
        in_motion=locked | (own & (inodes.locked | inodes.freeing)),
        is_inode=own & raw.valid,
        flags=struct.field("flags").column(raw.bytes).astype(np.uint64),
        migrate_folio=migrate_folio,
        has_known_operations=has_known_operations & raw.valid,
        readable=raw.valid,
        broken=np.zeros(len(addr), np.bool_),
        whole=raw.valid.copy(),
    )


def _migrate_folio(layout: Layout, a_ops: U64) -> tuple[U64, Mask]:
    """``migrate_folio`` of each address_space's operations, and where it could be read."""
    field_ = layout.struct("struct address_space_operations").find("migrate_folio", "migratepage")
    if field_ is None:
        return np.zeros(len(a_ops), np.uint64), np.zeros(len(a_ops), np.bool_)
    tables, back = np.unique(a_ops, return_inverse=True)
    words, known = layout.memory.words(tables + np.uint64(field_.offset))
    back = back.reshape(-1)
    return words[back], (known & (tables != 0))[back]


def _kinds(layout: Layout, a_ops: U64, inodes: Inodes) -> U8:
    kind = np.full(len(a_ops), FILE, np.uint8)
    kind[(inodes.mode & _S_IFMT) == _S_IFBLK] = BLOCK
    kind[(inodes.flags & _S_DAX) != 0] = DAX
    for symbol, code in (("shmem_aops", SHMEM), ("hugetlbfs_aops", HUGETLB)):
        address = layout.target.symbol(symbol)
        if address is not None:
            kind[a_ops == np.uint64(address)] = code
        elif code == SHMEM or layout.config.has("HUGETLB_PAGE"):
            return cast("U8", UnknownColumn(f"the kernel has no symbol {symbol}"))
    return kind


def shmem_swapped_pages(layout: Layout, host: U64, shmem: Mask) -> I64:
    """``swapped`` of each shmem inode (struct shmem_inode_info around it), -1 elsewhere."""
    out = np.full(len(host), -1, np.int64)
    rows = np.flatnonzero(shmem)
    if len(rows):
        info = layout.struct("struct shmem_inode_info")
        skip = np.uint64(info.field("vfs_inode").offset - info.field("swapped").offset)
        words, known = layout.memory.words(host[rows] - skip)
        out[rows] = np.where(known, words.view(np.int64), -1)
    return out


def _judge_entries(layout: Layout, space_kind: U8, found: XArrayEntries) -> CacheEntries:
    """What some entries are.

    In the page cache siblings follow the one entry of a folio (lib/xarray.c, xas_store()): two entries of one folio
    side by side are two rows, of which one leads to a folio of another index.
    """
    word, of = found.value, space_kind[found.root]
    kind = np.full(len(word), FOLIO, np.uint8)
    value = (word & _VALUE) != 0
    kind[value] = SHADOW
    kind[value & (of == SHMEM)] = SWAP_ENTRY
    kind[value & (of == DAX)] = DAX_ENTRY
    kind[~value & (word & np.uint64(3) != 0)] = OTHER
    kind[value & (of == HUGETLB)] = OTHER
    pfn = np.where(kind == FOLIO, layout.memmap.pfns(word), -1)
    return CacheEntries(found.root, found.index, found.nr.view(np.int64), word, kind, pfn)


def _in_order(parts: list[CacheEntries]) -> CacheEntries:
    e = CacheEntries.concat(parts)
    return e.take(np.lexsort((e.index, e.address_space_idx)))


def _merged(e: CacheEntries) -> CacheEntries:
    """The entries of the swap cache, those that are neighbours and of one folio as one."""
    if not len(e):
        return e
    same: AnyArray = (e.address_space_idx[1:] == e.address_space_idx[:-1]) & (e.value[1:] == e.value[:-1])
    same &= (e.kind[1:] == FOLIO) & (e.index[1:] == e.index[:-1] + e.nr[:-1].astype(np.uint64))
    first = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(~same) + 1])
    return replace(e.take(first), nr=np.add.reduceat(e.nr, first))
