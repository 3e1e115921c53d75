"""Which zones span which page frames, and what the flags of their pages say of it."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask, Table, rows_covering
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.layout.memmap import read_sections
from inspector.records import dataclass
from inspector.tables.node_stats import nodes

_ONLINE = np.uint64(1 << 2)
"""SECTION_IS_ONLINE (include/linux/mmzone.h): clear in memory that was taken offline, and in that of drivers."""


@dataclass(frozen=True, slots=True)
class ZoneSpans(Table):
    """One row a zone and stretch of memory in use that it spans; zones may overlap.

    Attributes:
        first_pfn, end_pfn: int64; the page frames.
        links: uint64; node and zone as the flags of its pages hold them.
    """

    first_pfn: I64
    end_pfn: I64
    links: U64


def read_zone_spans(layout: Layout) -> ZoneSpans:
    """The zones of all nodes, without memory that is offline; none where that cannot be read.

    Zones without memory of the allocator are among them: that of drivers (ZONE_DEVICE) has struct pages, too.
    """
    try:
        first, end = _online(layout)
        spans = _spans(layout)
    except LayoutError:
        return ZoneSpans.empty()
    zone, part = (each.ravel() for each in np.indices((len(spans), len(first))))
    start = np.maximum(spans.first_pfn[zone], first[part])
    stop = np.minimum(spans.end_pfn[zone], end[part])
    some = start < stop
    return ZoneSpans(start[some], stop[some], spans.links[zone[some]])


def _spans(layout: Layout) -> ZoneSpans:
    struct, field = layout.struct("struct zone"), layout.struct("struct pglist_data").field("node_zones")
    zones = np.arange(field.length, dtype=np.uint64) * np.uint64(struct.size) + np.uint64(field.offset)
    raw = layout.memory.gather((nodes(layout)[:, None] + zones).ravel(), struct.size)
    if not raw.valid.all() or not layout.zone_bits:
        raise LayoutError("zones are not in the dump")
    number = struct.find("node")
    kind = np.arange(len(raw.bytes)) % field.length
    node = np.zeros(len(kind), np.int64) if number is None else number.column(raw.bytes).astype(np.int64)
    start = struct.field("zone_start_pfn").column(raw.bytes).astype(np.int64)
    nr = struct.field("spanned_pages").column(raw.bytes).astype(np.int64)
    some = nr > 0
    return ZoneSpans(start[some], (start + nr)[some], layout.zone_links(node, kind)[some])


def _online(layout: Layout) -> tuple[I64, I64]:
    """Stretches of page frames in sections that are online."""
    sections = read_sections(layout.prog, layout.memory, layout.symbol("mem_section"), layout.info)
    number = np.sort(sections.number[(sections.mem_map & _ONLINE) != 0])
    first = np.diff(number, prepend=-2) != 1
    last = np.diff(number, append=np.iinfo(np.int64).max) != 1
    return number[first] * sections.pages, (number[last] + 1) * sections.pages


def is_online(layout: Layout, pfn: I64) -> Mask:
    """Which page frames lie in sections that are online; all where that is not known."""
    try:
        first, end = _online(layout)
    except LayoutError:
        return np.ones(len(pfn), np.bool_)
    return rows_covering(first, end, pfn) >= 0


def of_no_zone(spans: ZoneSpans, zone_bits: int, pfn: I64, flags: U64) -> Mask:
    """Which pages name none of the zones that span them (page_zone(), include/linux/mm.h).

    Args:
        spans: The zones.
        zone_bits: Mask of the bits of flags that name node and zone.
        pfn: int64[n]; page frames.
        flags: uint64[n]; the flags of each.
    """
    named = flags & np.uint64(zone_bits)
    spanned, right = np.zeros(len(pfn), np.bool_), np.zeros(len(pfn), np.bool_)
    for first, end, links in zip(spans.first_pfn.tolist(), spans.end_pfn.tolist(), spans.links, strict=True):
        inside = (pfn >= first) & (pfn < end)
        spanned |= inside
        right |= inside & (named == links)
    return spanned & ~right
