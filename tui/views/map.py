"""Physical memory as a heat map: one byte a page, and counts of blocks so that any zoom is answered at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U8, U16, AnyArray, take_or
from inspector.findings import Finding
from inspector.layout.memmap import MemMap
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, kind_of, zone_name
from inspector.text import size
from inspector.walk.kinds import KINDS, kind_codes

if TYPE_CHECKING:
    from inspector.check.prepare import Progress

BLOCK_SHIFT = 9
"""log2 of the pages of a block: what is counted once, when a layer is built."""

COARSE_SHIFT = 15
"""The same for cells so large that even the blocks in them are many."""

_PIECE = 1 << 20
"""Pages turned into codes at a time; a multiple of the block."""


@dataclass(frozen=True)
class LayerStyle:
    """What the codes of a layer mean and how they are drawn.

    Attributes:
        name: Of the mode.
        labels: What each code means.
        glyphs: A character for each code.
        shades: A colour's name for each code.
        worst: Whether a cell shows its highest code; else the commonest.
    """

    name: str
    labels: tuple[str, ...]
    glyphs: str
    shades: tuple[str, ...]
    worst: bool = False


@dataclass(frozen=True)
class Layer:
    """One way to show memory: a small code for every page.

    Attributes:
        look: What the codes mean.
        codes: uint8; by page row.
        blocks: uint16[blocks, codes]; pages of each code in each block of ``1 << BLOCK_SHIFT`` pages.
        coarse: int32[blocks, codes]; the same in blocks of ``1 << COARSE_SHIFT`` pages.
    """

    look: LayerStyle
    codes: U8
    blocks: U16
    coarse: I32

    def counts(self, first: int, shift: int, nr: int) -> I64:
        """int64[cells, codes]: pages of each code in ``nr`` cells of ``1 << shift`` pages from cell ``first`` on."""
        lo, hi = first << shift, min((first + nr) << shift, len(self.codes))
        width = len(self.look.labels)
        if lo >= hi:
            return np.zeros((0, width), np.int64)
        for blocks, of in ((self.coarse, COARSE_SHIFT), (self.blocks, BLOCK_SHIFT)):
            if shift >= of:
                part = blocks[lo >> of : -(-hi >> of)]
                return np.add.reduceat(part, np.arange(0, len(part), 1 << (shift - of)), axis=0, dtype=np.int64)
        cell = np.arange(hi - lo) >> shift
        cells = int(cell[-1]) + 1
        return np.bincount(cell * width + self.codes[lo:hi], minlength=cells * width).reshape(cells, width)

    def totals(self) -> list[tuple[str, str, str, int]]:
        """``(label, glyph, shade, pages)`` of each code that occurs, the commonest first."""
        look, sums = self.look, self.coarse.sum(axis=0, dtype=np.int64)
        order = np.arange(len(sums)) if look.worst else np.argsort(-sums, kind="stable")
        return [(look.labels[i], look.glyphs[i], look.shades[i], int(sums[i])) for i in order.tolist() if sums[i]]


_KIND_GLYPHS = {
    **{"kernel": "k", "free": "·", "anon": "a", "ksm": "m", "shmem": "s", "file": "f", "hugetlb": "h", "movable": "v"},
    **{
        "reserved": "r",
        "device": "d",
        "zero": "0",
        "huge zero": "ø",
        "unreadable": "?",
        "broken tail": "x",
        "offline": "-",
    },
    **{"page table": "t", "guard": "g", "slab": "b", "zsmalloc": "z", "unaccepted": "u", "kmalloc": "c"},
}
_MAPCOUNTS = ("0", "1", "2", "3-4", "5-8", "9-16", "17-64", "65+")
_MAPCOUNT_FROM = (0, 1, 2, 3, 5, 9, 17, 65)
_TOP_ORDER = 10
_SEVERITIES = ("none", "info", "warn", "fail")

MODES = ("kind", "order", "mapcount", "findings")


def build_layer(s: Snapshot, mode: str, findings: Sequence[Finding] = (), progress: Progress | None = None) -> Layer:
    """The layer of a mode.

    Args:
        s: The snapshot.
        mode: One of `MODES`.
        findings: Those shown; only for "findings".
        progress: Called for every piece.
    """
    n = len(s.pages)
    if mode == "kind":
        glyphs = "".join(_KIND_GLYPHS[k] for k in KINDS)
        return make_layer(LayerStyle(mode, KINDS, glyphs, tuple(KINDS)), _kinds_of(s), n, progress)
    if mode == "order":
        labels = ("free", *(f"order {i}" for i in range(_TOP_ORDER)), f"order {_TOP_ORDER}+")
        shades = ("free", *(f"heat{i * 6 // _TOP_ORDER}" for i in range(_TOP_ORDER + 1)))
        return make_layer(LayerStyle(mode, labels, "·0123456789+", shades), _orders_of(s), n, progress)
    if mode == "mapcount":
        labels = tuple(f"mapped {m}" for m in _MAPCOUNTS)
        shades = ("free", *(f"heat{i}" for i in range(7)))
        return make_layer(LayerStyle(mode, labels, "·12359#@", shades, worst=True), _mapcounts_of(s), n, progress)
    codes = finding_codes(s.pages.memmap, n, findings)
    look = LayerStyle(mode, _SEVERITIES, "·i!X", ("free", "info", "warn", "fail"), worst=True)
    return make_layer(look, lambda rows: codes[rows], n, progress)


def make_layer(
    look: LayerStyle, code_of: Callable[[I64], U8], nr_pages: int, progress: Progress | None = None
) -> Layer:
    """A layer from a function that gives the codes of consecutive page rows; counted piece by piece."""
    codes = np.empty(nr_pages, np.uint8)
    width, per_block = len(look.labels), 1 << BLOCK_SHIFT
    blocks = np.zeros((-(-nr_pages // per_block), width), np.uint16)
    for at in range(0, nr_pages, _PIECE):
        if progress is not None:
            progress(f"memory by {look.name}", at, nr_pages)
        end = min(at + _PIECE, nr_pages)
        codes[at:end] = code_of(np.arange(at, end))
        block = np.arange(end - at, dtype=np.int32) >> BLOCK_SHIFT
        key = block * np.int32(width) + codes[at:end]
        nr = int(block[-1]) + 1
        first = at >> BLOCK_SHIFT
        blocks[first : first + nr] = np.bincount(key, minlength=nr * width).reshape(nr, width)
    starts = np.arange(0, len(blocks), 1 << (COARSE_SHIFT - BLOCK_SHIFT))
    coarse = np.add.reduceat(blocks, starts, axis=0, dtype=np.int32)
    return Layer(look, codes, blocks, coarse)


def _kinds_of(s: Snapshot) -> Callable[[I64], U8]:
    return lambda rows: kind_codes(s.layout, s.pages, s.folios, s.folio_of_page, rows)


def _orders_of(s: Snapshot) -> Callable[[I64], U8]:
    free = KINDS.index("free")
    kinds = _kinds_of(s)
    order = s.folios.order if len(s.folios) else np.zeros(1, np.uint8)

    def codes(rows: I64) -> U8:
        folio = s.folio_of_page[rows]
        found = np.where(folio >= 0, np.minimum(order[np.maximum(folio, 0)], _TOP_ORDER), 0) + 1
        return np.where(kinds(rows) == free, 0, found).astype(np.uint8)

    return codes


def _mapcounts_of(s: Snapshot) -> Callable[[I64], U8]:
    top = _MAPCOUNT_FROM[-1]
    bucket = (np.searchsorted(_MAPCOUNT_FROM, np.arange(top + 1), "right") - 1).astype(np.uint8)

    def codes(rows: I64) -> U8:
        return bucket[np.minimum(mappings_of_pages(s, rows), top)]

    return codes


def mappings_of_pages(s: Snapshot, rows: I64) -> I64:
    """How often each page is mapped by itself or with its whole folio, by the page tables."""
    mapped = s.counts.page_mappings[rows].astype(np.int64)
    folio = s.folio_of_page[rows]
    if len(s.folios):
        mapped += take_or(s.counts.entire, folio, 0)
    return mapped


def finding_codes(memmap: MemMap, nr_pages: int, findings: Sequence[Finding]) -> U8:
    """The worst finding about each page: 0 for none, then as severities rise."""
    codes = np.zeros(nr_pages, np.uint8)
    for finding in findings:
        pfn = finding.subject.pfn
        if pfn is None or pfn < 0:
            continue
        row = memmap.row(pfn)
        if row >= 0:
            nr = 1 << min(finding.subject.order or 0, 20) if kind_of(finding.subject) is FOLIO else 1
            code = _SEVERITIES.index(finding.severity)
            codes[row : row + nr] = np.maximum(codes[row : row + nr], code)
    return codes


GOES_ON = "_"
"""What is drawn for a cell that lies in the same folio as the one before it."""


@dataclass(frozen=True)
class ZoneSpan:
    """A zone in the map.

    Attributes:
        name: In words.
        letter: Before the rows that begin in it.
        first, end: Page frames that it spans.
    """

    name: str
    letter: str
    first: int
    end: int


def zone_spans(s: Snapshot) -> tuple[ZoneSpan, ...]:
    """The populated zones; those that lie within another's span come first."""
    zones = s.buddy.zones
    spans = []
    for row in range(len(zones)):
        name = zone_name(s, row)
        kind = name.split()[-1]
        letter = {"DMA32": "3"}.get(kind, kind[0].upper())
        spans.append(ZoneSpan(name, letter, int(zones.first_pfn[row]), int(zones.end_pfn[row])))
    return tuple(sorted(spans, key=lambda z: z.end - z.first))


@dataclass(frozen=True)
class MapBorders:
    """What lies across the cells of the map.

    Attributes:
        head_row: Row of the head of the compound page that each page belongs to, by row; None for no edges of folios.
        largest: Order of the largest folio.
        zones: The zones.
    """

    head_row: Callable[[I64], AnyArray] | None = None
    largest: int = 0
    zones: tuple[ZoneSpan, ...] = ()

    def going_on(self, first: I64, last: I64) -> AnyArray:
        """bool; whether all pages from one row to another are of a folio that begins before them."""
        if self.head_row is None:
            return np.zeros(len(first), np.bool_)
        head = self.head_row(first)
        return (head >= 0) & (head < first) & (head == self.head_row(last))

    def zone_of(self, pfn: int) -> ZoneSpan | None:
        """The zone of a page frame."""
        return next((zone for zone in self.zones if zone.first <= pfn < zone.end), None)


@dataclass(frozen=True)
class HeatView:
    """A layer at one zoom, as cells for the grid.

    Attributes:
        layer: What is shown.
        marks: The layer of findings: a cell with one is marked in every mode.
        memmap: Turns rows into page frame numbers.
        shift: log2 of the pages of a cell.
        borders: Edges of folios, and zones.
    """

    layer: Layer
    marks: Layer
    memmap: MemMap
    shift: int
    borders: MapBorders = MapBorders()

    cell_width = 1
    columns = 0

    @property
    def count(self) -> int:
        """Cells in all."""
        return -(-len(self.layer.codes) >> self.shift)

    def paint(self, first: int, nr: int) -> list[tuple[str, str]]:
        """Text and shade of cells; the shade's last digit is how much of the cell is so, 1 to 3."""
        counts = self.layer.counts(first, self.shift, nr)
        shown, share = _shown(self.layer, counts)
        look = self.layer.look
        marked: AnyArray = self.marks.counts(first, self.shift, nr)[:, 2:].sum(axis=1) > 0
        goes_on = self._going_on(first, len(shown))
        out = []
        for code, part, mark, same in zip(
            shown.tolist(), share.tolist(), marked.tolist(), goes_on.tolist(), strict=True
        ):
            glyph, shade = look.glyphs[code], look.shades[code]
            level = 3 if part >= 0.75 or look.worst else 2 if part >= 0.5 else 1
            if mark:
                out.append(("!", "fail-3"))
            elif same:
                out.append((GOES_ON, f"{shade}-3"))
            else:
                out.append((glyph.upper() if level == 3 else glyph, f"{shade}-{level}"))
        return out

    def _going_on(self, first: int, nr: int) -> AnyArray:
        """bool; cells that lie in the same folio as the one before."""
        if self.layer.look.worst:
            return np.zeros(nr, np.bool_)
        start = np.arange(first, first + nr) << self.shift
        last = np.minimum(start + (1 << self.shift), len(self.layer.codes)) - 1
        return self.borders.going_on(start, last)

    @property
    def has_edges(self) -> bool:
        """Whether a folio may go on from one cell into the next."""
        return not self.layer.look.worst and self.shift < self.borders.largest

    def pfns(self, cell: int) -> tuple[int, int]:
        """First and last page frame of a cell."""
        lo = cell << self.shift
        hi = min((cell + 1) << self.shift, len(self.layer.codes)) - 1
        first, last = self.memmap.pfns_of_rows(np.array([lo, hi])).tolist()
        return first, last

    def describe(self, cell: int) -> list[str]:
        """What lies in a cell: its range, then each code with its pages, the most first."""
        first, last = self.pfns(cell)
        counts = self.layer.counts(cell, self.shift, 1)[0]
        pages = int(counts.sum())
        where = f"pfn {first:#x}" if pages == 1 else f"pfn {first:#x}-{last:#x}"
        order = np.argsort(-counts, kind="stable")
        parts = [f"{self.layer.look.labels[i]} {counts[i]:,}" for i in order.tolist() if counts[i]]
        if pages == 1:
            parts = [self.layer.look.labels[int(order[0])]]
        found = self.marks.counts(cell, self.shift, 1)[0]
        if self.layer.look.name != "findings":
            parts += [f"{found[i]:,} with {_SEVERITIES[i]} findings" for i in (3, 2, 1) if found[i]]
        zone = self.borders.zone_of(first)
        within = f"  {zone.name}" if zone is not None else ""
        return [f"{where}  {size(pages << 12)}{within}", ", ".join(parts)]

    def cell_of(self, pfn: int) -> int:
        """The cell of a page frame, -1 when it has no struct page."""
        row = self.memmap.row(pfn)
        return row >> self.shift if row >= 0 else -1

    def next_mark(self, cell: int) -> int:
        """The next cell with a finding that is more than a remark, round the end; -1 when there is none."""
        rows = np.flatnonzero(self.marks.codes >= _SEVERITIES.index("warn"))
        if not len(rows):
            return -1
        at = int(np.searchsorted(rows, (cell + 1) << self.shift))
        return int(rows[at % len(rows)]) >> self.shift

    def shown_pfn(self, cell: int) -> int:
        """The page to open for a cell: one with a finding, else of the code shown, else the first."""
        lo, hi = cell << self.shift, min((cell + 1) << self.shift, len(self.layer.codes))
        marks, codes = self.marks.codes[lo:hi], self.layer.codes[lo:hi]
        row = int(marks.argmax())
        if not marks[row]:
            shown, _ = _shown(self.layer, self.layer.counts(cell, self.shift, 1))
            row = int((codes == shown[0]).argmax())
        return int(self.memmap.pfns_of_rows(np.array([lo + row]))[0])

    def label(self, first: int) -> str:
        """The page frame that a row begins with, and the letter of its zone."""
        pfn = self.pfns(first)[0]
        zone = self.borders.zone_of(pfn)
        width = max(7, len(f"{self.memmap.max_pfn:#x}"))
        return f"{pfn:>#{width}x} {zone.letter if zone is not None else ' '} "

    def at(self, layer: Layer, shift: int) -> HeatView:
        """The same memory in another mode or zoom."""
        return replace(self, layer=layer, shift=shift)

    def fitting(self, cells: int) -> int:
        """The zoom at which all memory is seen in that many cells."""
        n = len(self.layer.codes)
        shift = 0
        while -(-n >> shift) > max(cells, 1):
            shift += 1
        return shift


def _shown(layer: Layer, counts: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The code that each cell shows, and its share of the cell."""
    total = np.maximum(counts.sum(axis=1), 1)
    if layer.look.worst:
        width = counts.shape[1]
        shown = width - 1 - np.argmax(counts[:, ::-1] > 0, axis=1)
    else:
        shown = np.argmax(counts, axis=1)
    return shown, counts[np.arange(len(counts)), shown] / total
