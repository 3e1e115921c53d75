"""One address space as a strip of cells: how each stretch of it is mapped, from the whole to single pages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, U64, AnyArray, Mask
from inspector.snapshot import Snapshot
from inspector.text import size
from inspector.walk.counts import EntryClass
from inspector.walk.kinds import KINDS, kind_codes
from inspector.walk.mappings import entry_pages

SMALL, LARGE, HUGE, SWAP, ZERO, SPECIAL, AWAY, POISON, MARKER, BAD = range(10)
"""How a page of the address space is mapped."""

_GLYPHS = "▂▅█~0d>x^!"
_WORDS = (
    *("by PTEs, folios of one page", "by PTEs, large folios", "by huge entries"),
    *(
        "swapped out",
        "zero page",
        "memory without counted pages",
        "migration entries",
        "poisoned",
        "markers",
        "bad entries",
    ),
)
_SHADES = ("", "", "", "swap", "zero", "special", "away", "fail", "away", "fail")
_OF_KIND = {
    **dict.fromkeys((Kind.MIGRATION_READ, Kind.MIGRATION_READ_EXCLUSIVE, Kind.MIGRATION_WRITE), AWAY),
    **dict.fromkeys((Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE), SPECIAL),
    **{Kind.SWAP: SWAP, Kind.HWPOISON: POISON, Kind.SWAPIN_ERROR: POISON, Kind.MARKER: MARKER, Kind.BAD: BAD},
}

LEGEND = (
    *((glyph, "", word) for glyph, word in zip("▂▅█", ("small folios", "large, by PTEs", "huge entries"), strict=True)),
    *(("~", "swap", "swap"), ("0", "zero", "zero"), ("·", "free", "nothing"), ("│", "free", "gap")),
)
"""Glyph, shade and meaning of what is often seen."""


@dataclass(frozen=True)
class _Stretch:
    """Where one way of mapping occurs: intervals of the address space, ascending, and pages before each."""

    way: int
    kind: str
    start: U64
    pages: I64
    before: I64

    def covered(self, address: U64, shift: int) -> I64:
        """Pages mapped this way below each address."""
        at = np.searchsorted(self.start, address, "right") - 1
        inside = (address - self.start[np.maximum(at, 0)]) >> np.uint64(shift)
        part = np.minimum(inside.astype(np.int64), self.pages[np.maximum(at, 0)])
        return np.where(at >= 0, self.before[np.maximum(at, 0)] + part, 0)


@dataclass(frozen=True, eq=False)
class Strip:
    """What the strip of one mm is made of.

    Attributes:
        vma_rows: int64; rows in the VMAs of all VMAs of the mm, by address.
        start: uint64; of each.
        pages: int64; that each spans.
        gap: bool; whether nothing is mapped right before it.
        stretches: How pages are mapped.
        names: What each VMA is called, permissions first.
        page_shift: log2 of the page size.
    """

    vma_rows: I64
    start: U64
    pages: I64
    gap: Mask
    stretches: tuple[_Stretch, ...]
    names: tuple[str, ...]
    page_shift: int


def build_strip(s: Snapshot, mm_idx: int, vma_rows: I64, names: tuple[str, ...]) -> Strip:
    """The strip of an mm or of some of its VMAs (by address)."""
    vmas = s.vmas
    start, end = vmas.start[vma_rows], vmas.end[vma_rows]
    gap = np.zeros(len(vma_rows), np.bool_)
    gap[1:] = start[1:] != end[:-1]
    m, n = s.mappings, s.nonpresent
    rows = np.flatnonzero(m.mm_idx == mm_idx)
    head = np.maximum(s.mappings.head_row[rows], 0).astype(np.int64)
    kind = kind_codes(s.layout, s.pages, s.folios, s.folio_of_page, head).astype(np.int64)
    way = np.where(m.level[rows] != Level.PTE, HUGE, np.where(s.folio_of_page[head] >= 0, LARGE, SMALL))
    classes = s.mappings.entry_class[rows]
    way = np.where(classes == EntryClass.ZERO, ZERO, np.where(classes == EntryClass.NORMAL, way, SPECIAL))
    away = np.flatnonzero(n.mm_idx == mm_idx)
    table = np.array([_OF_KIND.get(Kind(k), BAD) for k in range(len(Kind))], np.int64)
    key = np.concatenate([way * 256 + kind, table[n.kind[away]] * 256])
    va = np.concatenate([m.va[rows], n.va[away]])
    each = entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64)
    pages = np.concatenate([each, entry_pages(s.layout, n.level[away])])
    shift = s.layout.arch.page_shift
    return Strip(vma_rows, start, vmas.nr_pages[vma_rows], gap, _stretches(key, va, pages), names, shift)


def _stretches(key: I64, va: U64, pages: I64) -> tuple[_Stretch, ...]:
    out = []
    for code in np.unique(key).tolist():
        mine = np.flatnonzero(key == code)
        mine = mine[np.argsort(va[mine], kind="stable")]
        total = np.cumsum(pages[mine])
        kind = KINDS[code % 256] if code // 256 <= HUGE else ""
        out.append(_Stretch(code // 256, kind, va[mine], pages[mine], total - pages[mine]))
    return tuple(out)


@dataclass(frozen=True)
class StripView:
    """The strip at one zoom, as cells for the grid.

    Attributes:
        strip: What is shown.
        shift: log2 of the pages of a cell; every VMA begins with a cell of its own.
    """

    strip: Strip
    shift: int

    cell_width = 1
    columns = 0

    @property
    def _first(self) -> I64:
        return _first_cells(self)

    @property
    def count(self) -> int:
        """Cells in all."""
        return int(self._first[-1])

    def _where(self, cells: I64) -> tuple[I64, I64, I64, Mask]:
        """VMA (place in the strip), first page in it, pages, and whether it is the mark of a gap."""
        at = np.searchsorted(self._first, cells, "right") - 1
        nth = cells - self._first[at]
        gap = self.strip.gap[at] & (nth == 0)
        page = (nth - self.strip.gap[at]) << self.shift
        page = np.where(gap, 0, page)
        return at, page, np.minimum(1 << self.shift, self.strip.pages[at] - page), gap

    def _counts(self, at: I64, page: I64, nr: I64) -> AnyArray:
        """int64[cells, stretches]: pages mapped in each way."""
        step = np.uint64(self.strip.page_shift)
        lo = self.strip.start[at] + (page.astype(np.uint64) << step)
        hi = lo + (nr.astype(np.uint64) << step)
        shift = self.strip.page_shift
        parts = [x.covered(hi, shift) - x.covered(lo, shift) for x in self.strip.stretches]
        return np.stack(parts, axis=1) if parts else np.zeros((len(at), 0), np.int64)

    def paint(self, first: int, nr: int) -> list[tuple[str, str]]:
        """Glyph and shade of cells; where at least half of a cell's pages are there, it is a tile."""
        at, page, pages, gap = self._where(np.arange(first, first + nr))
        counts = self._counts(at, page, pages)
        if not counts.shape[1]:
            return [("│" if g else "·", "free") for g in gap.tolist()]
        best, some = counts.argmax(axis=1), counts.sum(axis=1)
        out = []
        for g, i, n, of in zip(gap.tolist(), best.tolist(), some.tolist(), pages.tolist(), strict=True):
            if g or not n:
                out.append(("│" if g else "·", "free"))
                continue
            stretch = self.strip.stretches[i]
            shade = stretch.kind or _SHADES[stretch.way]
            out.append((_GLYPHS[stretch.way], f"{shade}-1" if 2 * n >= of else shade))
        return out

    def label(self, first: int) -> str:
        """The address that a row begins at."""
        return f"{self.address(first):>12x} "

    def address(self, cell: int) -> int:
        """First address of a cell."""
        at, page, _, _ = self._where(np.array([cell]))
        return int(self.strip.start[at[0]]) + (int(page[0]) << self.strip.page_shift)

    def vma(self, cell: int) -> int:
        """Row of the VMA of a cell, in the VMAs."""
        return int(self.strip.vma_rows[self._where(np.array([cell]))[0][0]])

    def pages_of(self, cell: int) -> int:
        """Pages of a cell."""
        return int(self._where(np.array([cell]))[2][0])

    def describe(self, cell: int) -> list[str]:
        """The stretch of a cell, its VMA, and how its pages are mapped, the commonest way first."""
        at, page, nr, gap = self._where(np.array([cell]))
        start, i = self.address(cell), int(at[0])
        if gap[0]:
            before = int(self.strip.start[i - 1]) + (int(self.strip.pages[i - 1]) << self.strip.page_shift)
            return [f"{before:#x}-{start:#x}  {size(start - before)}", "a gap: no VMA"]
        length = int(nr[0]) << self.strip.page_shift
        counts = self._counts(at, page, nr)[0]
        parts = []
        for j in np.argsort(-counts, kind="stable").tolist():
            if counts[j]:
                stretch = self.strip.stretches[j]
                parts.append(f"{counts[j]:,} {f'{stretch.kind} ' if stretch.kind else ''}{_WORDS[stretch.way]}")
        rest = int(nr[0]) - int(counts.sum())
        if rest > 0:
            parts.append(f"{rest:,} with nothing")
        return [f"{start:#x}-{start + length:#x}  {size(length)}  {self.strip.names[i]}", "; ".join(parts)]

    def cell_of(self, address: int) -> int:
        """The cell of an address; of the next VMA where there is none."""
        at = max(0, int(np.searchsorted(self.strip.start, np.uint64(address), "right")) - 1)
        inside = (address - int(self.strip.start[at])) >> self.strip.page_shift
        inside = max(0, min(inside, int(self.strip.pages[at]) - 1))
        return int(self._first[at]) + int(self.strip.gap[at]) + (inside >> self.shift)

    def at(self, shift: int) -> StripView:
        """The same at another zoom."""
        return StripView(self.strip, max(0, min(shift, self.widest)))

    @property
    def widest(self) -> int:
        """The zoom beyond which every VMA is a single cell."""
        return int(self.strip.pages.max()).bit_length() if len(self.strip.pages) else 0

    def fitting(self, cells: int) -> int:
        """The closest zoom at which everything is seen in that many cells; the widest if there is none."""
        for shift in range(self.widest + 1):
            if StripView(self.strip, shift).count <= cells:
                return shift
        return self.widest


@lru_cache(maxsize=64)
def _first_cells(view: StripView) -> I64:
    """First cell of each VMA (its gap's mark included), and one past the last."""
    cells = -(-view.strip.pages >> view.shift) + view.strip.gap
    return np.concatenate([[0], np.cumsum(cells)]).astype(np.int64)
