"""The words of the table of flipped bits: page-table entries, words of struct pages and of VMAs, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, Mask
from inspector.layout.flags import type_code
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from tests.faults.overlay import Patch, page_word, pfn_of, put, word
from tests.faults.plants import (
    MissingError,
    entry_address,
    mapping_of_page,
    pick,
    pmd_mapped,
    small_anon,
    small_file,
)
from tests.faults.state_catalogue import quiet_mms, vma_word
from tests.faults.table_catalogue import entry_of, table_at_rest


@dataclass(frozen=True)
class Place:
    """Where a word of a dump is.

    Attributes:
        address: Its first byte.
        physical: Whether that is a physical address.
        size: Its bytes.
    """

    address: int
    physical: bool = False
    size: int = 8

    def flipped(self, s: Snapshot, bit: int) -> Patch:
        """The word with one bit turned over."""
        if not self.physical:
            return put(s, self.address, word(s, self.address, self.size) ^ (1 << bit), self.size)
        data = s.layout.memory.read(self.address, self.size, physical=True)
        assert data is not None
        value = int.from_bytes(data, "little") ^ (1 << bit)
        return Patch(self.address, value.to_bytes(self.size, "little"), True)


Find = Callable[[Snapshot], Place]


def _third(rows: I64, what: str) -> int:
    return pick(rows, what, len(rows) // 3)


def _pte(rows: Callable[[Snapshot], I64], what: str, s: Snapshot) -> Place:
    return Place(entry_address(s, *mapping_of_page(s, _third(rows(s), what))), physical=True)


def _huge_leaf(s: Snapshot) -> Place:
    m, folio = s.mappings, _third(pmd_mapped(s, anon=True), "an anonymous folio with a huge entry")
    still = (m.level == Level.PMD) & (m.entry_class == EntryClass.NORMAL) & ~s.mm_in_motion[m.mm_idx] & m.counted
    return Place(entry_address(s, pick(np.flatnonzero(still & (m.pfn == s.folios.pfn[folio])), "its entry")), True)


def _table(level: Level, s: Snapshot) -> Place:
    return Place(entry_of(s, table_at_rest(s, level)), physical=True)


def _swap_entry(s: Snapshot) -> Place:
    n = s.nonpresent
    still = (n.kind == Kind.SWAP) & (n.level == Level.PTE) & n.counted & ~s.mm_in_motion[n.mm_idx] & (n.vma_idx >= 0)
    row = _third(np.flatnonzero(still), "a swap entry")
    return Place((int(s.tables.pfn[n.table_idx[row]]) << 12) + 8 * int(n.slot[row]), physical=True)


def _small_anon(s: Snapshot) -> int:
    return pfn_of(s, _third(small_anon(s, 1), "an anonymous page"))


def _small_file(s: Snapshot) -> int:
    return pfn_of(s, _third(small_file(s, 2), "a page of the page cache"))


def _thp(s: Snapshot) -> int:
    return int(s.folios.pfn[_third(pmd_mapped(s, anon=True), "an anonymous folio with a huge entry")])


def _thp_tail(s: Snapshot) -> int:
    return _thp(s) + 9


def _hugetlb(s: Snapshot) -> int:
    return int(s.folios.pfn[_third(pmd_mapped(s, hugetlb=True), "a mapped hugetlb folio")])


def _plain(s: Snapshot) -> Mask:
    return s.pages.readable & (s.pages.head_row == np.arange(len(s.pages)))


def _slab(s: Snapshot) -> int:
    if s.layout.flags.has("slab"):
        is_slab = s.layout.flags.test(s.pages.flags, "slab")
    else:
        is_slab = s.pages.type_ == type_code("slab")
    return pfn_of(s, _third(np.flatnonzero(_plain(s) & is_slab), "a slab"))


def _free(s: Snapshot) -> int:
    is_free = s.pages.type_ == type_code("buddy")
    return pfn_of(s, _third(np.flatnonzero(_plain(s) & is_free), "a free block"))


def _page(find: Callable[[Snapshot], int], names: tuple[str, ...], size: int, s: Snapshot) -> Place:
    if s.layout.struct("struct page").find(*names) is None:
        raise MissingError(f"{names} in this kernel")
    return Place(page_word(s, find(s), *names), size=size)


def _anon_vma(s: Snapshot) -> int:
    v = s.vmas
    per = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(v))
    wanted = (v.file == 0) & (v.anon_vma != 0) & (per > 1) & quiet_mms(s)[v.mm_idx]
    return _third(np.flatnonzero(wanted), "a VMA with anonymous pages")


def _file_vma(s: Snapshot) -> int:
    v = s.vmas
    per = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(v))
    wanted = (v.file != 0) & (v.anon_vma == 0) & (per > 1) & quiet_mms(s)[v.mm_idx]
    return _third(np.flatnonzero(wanted), "a VMA with pages of a file")


def _vma(find: Callable[[Snapshot], int], names: tuple[str, ...], s: Snapshot) -> Place:
    return Place(vma_word(s, find(s), *names))


_PAGES: dict[str, Callable[[Snapshot], int]] = {
    "anonymous page": _small_anon,
    "file page": _small_file,
    "THP head": _thp,
    "THP tail": _thp_tail,
    "hugetlb head": _hugetlb,
    "slab": _slab,
    "free block": _free,
}

_PAGE_WORDS: dict[str, tuple[tuple[str, ...], int]] = {
    "flags": (("flags.f", "flags"), 8),
    "mapping": (("mapping",), 8),
    "index": (("__folio_index", "index"), 8),
    "_mapcount": (("_mapcount.counter", "_mapcount"), 4),
    "_refcount": (("_refcount.counter", "_refcount"), 4),
    "memcg_data": (("memcg_data",), 8),
}

_VMAS: dict[str, Callable[[Snapshot], int]] = {"anonymous VMA": _anon_vma, "file VMA": _file_vma}

_VMA_WORDS: dict[str, tuple[str, ...]] = {
    "vm_start": ("vm_start",),
    "vm_end": ("vm_end",),
    "vm_flags": ("vm_flags", "flags.__vma_flags[0]", "flags"),
    "vm_pgoff": ("vm_pgoff",),
    "vm_mm": ("vm_mm",),
    "anon_vma": ("anon_vma",),
}

WORDS: dict[str, Find] = {
    "PTE of an anonymous page": partial(_pte, partial(small_anon, mapped=1), "an anonymous page"),
    "PTE of a file page": partial(_pte, partial(small_file, mapped=2), "a page of the page cache"),
    "PMD leaf": _huge_leaf,
    "PMD entry of a table": partial(_table, Level.PTE),
    "PUD entry of a table": partial(_table, Level.PMD),
    "swap entry": _swap_entry,
    **{
        f"{what}: {word_}": partial(_page, find, names, size)
        for what, find in _PAGES.items()
        for word_, (names, size) in _PAGE_WORDS.items()
    },
    **{
        f"{what}: {word_}": partial(_vma, find, names)
        for what, find in _VMAS.items()
        for word_, names in _VMA_WORDS.items()
    },
}
"""Each word by its name, and how it is found in a dump."""
