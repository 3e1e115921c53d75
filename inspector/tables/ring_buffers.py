"""Buffers registered with io_uring: user pages that it keeps pinned for direct I/O."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Table, count_up
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.open_files import OpenFiles

_MAX_BUFFERS = 1 << 14
"""IORING_MAX_REG_BUFFERS, io_uring/rsrc.c."""
_MAX_PARTS = 1 << 18
"""Pages of one buffer: it may be 1 GiB long (io_buffer_validate())."""


@dataclass(frozen=True, slots=True)
class RingBuffers(Table):
    """One row a pinned part of a buffer: a page, or from 6.10 on a whole folio where its pages were joined.

    Attributes:
        open_idx: int64; row of one of the descriptors that hold the ring open.
        buffer: int64; number that it was registered under.
        pfn: int64; the page pinned, -1 where the pointer leads to no struct page.
    """

    open_idx: I64
    buffer: I64
    pfn: I64


def read_ring_buffers(layout: Layout, opened: OpenFiles) -> tuple[RingBuffers, int]:
    """Read the buffers of all rings that a process has open (io_uring/rsrc.c, io_sqe_buffer_register()).

    Returns:
        The pinned parts, and how many structs could not be read. A kernel without io_uring, or one that keeps its
        buffers in a way not known here, gives none.
    """
    operations = layout.target.symbol("io_uring_fops")
    try:
        if operations is None:
            return RingBuffers.empty(), 0
        return _read(layout, opened, operations)
    except LayoutError:
        return RingBuffers.empty(), 0


def _read(layout: Layout, opened: OpenFiles, operations: int) -> tuple[RingBuffers, int]:
    memory, ring = layout.memory, layout.struct("struct io_ring_ctx")
    rows = np.flatnonzero((opened.f_op == np.uint64(operations)) & (opened.private_data != 0))
    rings, first = np.unique(opened.private_data[rows], return_index=True)
    raw = memory.gather(rings, ring.size)
    # Up to 6.12 an array of buffers, then one of nodes that lead to them.
    nodes = ring.find("buf_table.nodes")
    array = (nodes or ring.field("user_bufs")).column(raw.bytes)
    count = ring.field("buf_table.nr", "nr_user_bufs").column(raw.bytes).astype(np.int64)
    good = raw.valid & (array != 0) & (count >= 0) & (count <= _MAX_BUFFERS)
    count = np.where(good, count, 0)
    number, of = count_up(count), np.repeat(np.arange(len(rings)), count)
    pointer, known = memory.words(array[of] + number.astype(np.uint64) * np.uint64(8))
    missing = int((~raw.valid).sum()) + int((~known).sum())
    of, number, pointer = of[pointer != 0], number[pointer != 0], pointer[pointer != 0]
    if nodes is not None:
        pointer, known = memory.words(pointer + np.uint64(layout.struct("struct io_rsrc_node").field("buf").offset))
        missing += int((~known).sum())
        of, number, pointer = of[pointer != 0], number[pointer != 0], pointer[pointer != 0]
    buffer, vector = layout.struct("struct io_mapped_ubuf"), layout.struct("struct bio_vec")
    raw = memory.gather(pointer, buffer.size)
    parts = buffer.field("nr_bvecs").column(raw.bytes).astype(np.int64)
    parts = np.where(raw.valid & (parts <= _MAX_PARTS), parts, 0)
    missing += int((~raw.valid).sum())
    place = count_up(parts).astype(np.uint64)
    which = np.repeat(np.arange(len(parts)), parts)
    start = pointer[which] + np.uint64(buffer.field("bvec").offset + vector.field("bv_page").offset)
    page, known = memory.words(start + place * np.uint64(vector.size))
    pfn: I64 = layout.memmap.pfns(page)
    return RingBuffers(rows[first[of[which]]].astype(np.int64), number[which], pfn), missing + int((~known).sum())
