"""Parts of the memory map: some stretches, one folio, a sample; and snapshots of the struct pages there alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64
from inspector.layout.kernel import Layout
from inspector.layout.memmap import GRAIN, MemMap
from inspector.snapshot import PartialSnapshot, Snapshot
from inspector.tables.folios import HEAD_PAGES
from inspector.tables.pages import heads_beside
from inspector.walk.page_numbers import read_head_pfn

_SAMPLES = 64
"""Stretches that a sample of the memory map is made of."""


def _clipped(memmap: MemMap, starts: I64, ends: I64) -> MemMap:
    """The memory map of several stretches [start, end), ascending and apart, as far as it exists there."""
    lo = np.maximum(memmap.starts[:, None], starts[None, :]).ravel()
    hi = np.minimum(memmap.ends[:, None], ends[None, :]).ravel()
    keep = np.flatnonzero(lo < hi)
    keep = keep[np.argsort(lo[keep])]
    return replace(memmap, starts=lo[keep], ends=hi[keep])


def memmap_with_heads(layout: Layout, first: I64, nr: I64) -> MemMap:
    """The memory map of runs of ``nr`` page frames from ``first`` on, and of the heads of the folios they are in."""
    part = layout.memmap.around(first, nr)
    heads = heads_beside(layout, part)
    return layout.memmap.and_around(part, np.concatenate([heads, heads + HEAD_PAGES - 1]))


def partial_of_pages(s: Snapshot, first: int, last: int) -> PartialSnapshot:
    """A partial snapshot of the struct pages [first, last] and of the compound page that ``first`` is in."""
    head = read_head_pfn(s.layout, first)
    begin = min(head, first) if head >= 0 else first
    begin -= begin % GRAIN
    end = last + HEAD_PAGES
    end += GRAIN - end % GRAIN
    return PartialSnapshot(s, _clipped(s.layout.memmap, np.array([begin], np.int64), np.array([end], np.int64)))


def partial_of_folio(s: Snapshot, pfn: int) -> PartialSnapshot:
    """A partial snapshot of all struct pages of the folio that a page belongs to."""
    part = partial_of_pages(s, pfn, pfn)
    row = part.pages.memmap.row(pfn)
    folio = int(part.folio_of_page[row]) if row >= 0 else -1
    if folio < 0:
        return part
    head = int(part.folios.pfn[folio])
    nr = 1 << min(int(part.folios.order[folio]), 20)
    return partial_of_pages(s, head, max(head + nr - 1, pfn))


def sample_of(s: Snapshot, max_pages: int) -> tuple[Snapshot, int]:
    """A snapshot of at most about ``max_pages`` struct pages, spread evenly over the memory map.

    Returns:
        The snapshot and how many struct pages it reads; the whole memory map when it is not larger.
    """
    memmap = s.layout.memmap
    if memmap.nr_pages <= max_pages:
        return s, memmap.nr_pages
    each = max_pages // _SAMPLES // GRAIN * GRAIN
    at = np.linspace(0, memmap.nr_pages - each, _SAMPLES).astype(np.int64)
    starts = memmap.pfns_of_rows(at) // 512 * 512
    sampled = _clipped(memmap, starts, starts + each)
    return PartialSnapshot(s, sampled), sampled.nr_pages
