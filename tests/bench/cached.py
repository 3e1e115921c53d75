"""Page cache for enlarged dumps: a file of the dump, of which no page is cached, gets as many as are asked for.

The nodes of its xarray are objects in pages of the kernel's own; each page has a struct page of its own, since all have
another index.
"""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U8, U64
from inspector.snapshot import Snapshot
from inspector.tables.files import FILE
from tests.bench.listed import Listed
from tests.bench.patching import PAGE, Patched, put
from tests.bench.writers import Writer

_SLOTS = 64
_MAP_PAGES = PAGE // 64
_AT_ONCE = 1 << 18
_BLOCK = 1 << 10


class Cached:
    """Adds page cache to a dump that is being enlarged.

    Args:
        s: The dump.
        patched: It with changes; gives out page frames for objects of the kernel, the last that are reserved.
        nr_pages: How many pages are to be cached.

    Attributes:
        start, end: The page frames of the cached pages, and a few of the kernel's own behind them.
    """

    def __init__(self, s: Snapshot, patched: Patched, nr_pages: int) -> None:
        self._layout, self._patched, self._nr = s.layout, patched, nr_pages
        spaces = s.files.address_spaces
        fits = (spaces.kind == FILE) & spaces.is_inode & ~spaces.in_motion & (spaces.nrpages == 0) & (spaces.head == 0)
        # Drivers let pages of their own name their file, whose cache stays empty.
        found = np.flatnonzero(fits & ~np.isin(spaces.addr, s.pages.words.mapping))
        if not len(found):
            raise SystemExit("the dump has no file of which no page is cached")
        self._space, self._host = int(spaces.addr[found[0]]), int(spaces.host[found[0]])
        self._node = s.layout.struct("struct xa_node")
        counts = [-(-nr_pages // _SLOTS)]
        while counts[-1] > 1:
            counts.append(-(-counts[-1] // _SLOTS))
        self._counts, self._a_page = counts, PAGE // self._node.size
        self._listed = Listed(s, patched, file=True)
        self._nodes = patched.take(-(-sum(counts) // self._a_page))
        self.start = -(-patched.next_free // _BLOCK) * _BLOCK
        self.end = -(-(self.start + nr_pages) // _BLOCK) * _BLOCK

    def _addresses(self, level: int) -> U64:
        """Of the nodes of a level, 0 for the lowest."""
        number = sum(self._counts[:level]) + np.arange(self._counts[level])
        page, slot = np.divmod(number, self._a_page)
        return np.uint64(self._patched.address(self._nodes)) + (page * PAGE + slot * self._node.size).astype(np.uint64)

    def write(self, writer: Writer, added: int, own_map: int, blank: U8, reserved: U8) -> None:
        """Write everything, the memory map of it included.

        Args:
            writer: Of the dump.
            added: The first page frame that is added.
            own_map: Where its struct page lies: a page frame.
            blank: uint8[1, 64]; a struct page of the same zone.
            reserved: The same of the kernel's own memory.
        """
        self._write_nodes(writer)
        layout = self._layout
        page = layout.struct("struct page")
        field = page.field("flags.f", "flags")
        word = int(field.column(blank)[0]) | int(layout.flags.mask("uptodate")) | int(layout.flags.mask("lru"))
        word |= self._listed.flags
        like = blank.copy()
        put(like, field, word)
        put(like, page.field("_refcount.counter"), 1)
        put(like, page.field("mapping"), self._space)
        index, link = page.field("__folio_index", "index"), page.field("lru").offset
        following, before = self._listed.links(self.start, self._nr)
        for first in range(0, self.end - self.start, _AT_ONCE):
            number: I64 = np.arange(first, min(first + _AT_ONCE, self.end - self.start))
            pages = np.tile(like, (len(number), 1))
            put(pages, index, number)
            here = pages[number < self._nr]
            for at, words in ((link, following), (link + 8, before)):
                here[:, at : at + 8] = words[first : first + len(here)].view(np.uint8).reshape(-1, 8)
            pages[number < self._nr] = here
            pages[number >= self._nr] = reserved
            writer.place(own_map + (self.start + first - added) // _MAP_PAGES, writer.store(pages), len(pages) // 64)
        self._listed.count("NR_FILE_PAGES", self._nr)

    def _write_nodes(self, writer: Writer) -> None:
        space = self._layout.struct("struct address_space")
        array = self._space + space.field("i_pages").offset
        pfns = np.arange(self.start, self.start + self._nr, dtype=np.uint64)
        below = np.uint64(self._layout.memmap.vmemmap) + pfns * np.uint64(64)
        parts = []
        for level in range(len(self._counts)):
            nodes = np.zeros((self._counts[level], self._node.size), np.uint8)
            number = np.arange(len(nodes))
            slots = np.zeros(len(nodes) * _SLOTS, np.uint64)
            slots[: len(below)] = below
            at = self._node.field("slots").offset
            nodes[:, at : at + 8 * _SLOTS] = slots.view(np.uint8).reshape(len(nodes), -1)
            put(nodes, self._node.field("shift"), 6 * level)
            put(nodes, self._node.field("offset"), number % _SLOTS)
            put(nodes, self._node.field("count"), np.minimum(len(below) - number * _SLOTS, _SLOTS))
            put(nodes, self._node.field("array"), array)
            if level + 1 < len(self._counts):
                put(nodes, self._node.field("parent"), self._addresses(level + 1)[number // _SLOTS])
            parts.append(nodes)
            below = self._addresses(level) | np.uint64(2)
        every = np.concatenate(parts)
        pages = np.zeros((-(-len(every) // self._a_page), PAGE), np.uint8)
        padded = np.zeros((len(pages) * self._a_page, self._node.size), np.uint8)
        padded[: len(every)] = every
        pages[:, : self._a_page * self._node.size] = padded.reshape(len(pages), -1)
        writer.place(self._nodes, writer.store(pages), len(pages))
        self._patched.set_word(array + self._layout.struct("struct xarray").field("xa_head").offset, int(below[0]))
        self._patched.set_word(self._space + space.field("nrpages").offset, self._nr)
        size = self._layout.struct("struct inode").field("i_size").offset
        self._patched.set_word(self._host + size, self._nr * PAGE)
