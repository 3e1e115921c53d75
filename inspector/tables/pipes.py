"""Pages in the buffers of pipes: vmsplice() and splice() put pages of processes and files there by reference."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Table, count_up
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.open_files import OpenFiles

_OPERATIONS = ("pipefifo_fops", "pipeanon_fops")
"""fs/pipe.c; anonymous pipes have operations of their own from 6.14 on."""

_MAX_RING = 1 << 20
"""Slots of a pipe at most: fs.pipe-max-size is far below that."""


@dataclass(frozen=True, slots=True)
class PipeBuffers(Table):
    """One row a filled slot of a pipe.

    Attributes:
        pipe: uint64; struct pipe_inode_info.
        open_idx: int64; row of one of the descriptors that hold the pipe open.
        slot: int64; place in the ring.
        pfn: int64; the page in it, -1 where the pointer leads to no struct page.
    """

    pipe: U64
    open_idx: I64
    slot: I64
    pfn: I64


def read_pipes(layout: Layout, opened: OpenFiles) -> tuple[PipeBuffers, int]:
    """Read the filled slots of all pipes that a process has open (fs/pipe.c, pipe_buf()).

    Returns:
        The slots, and how many pipes and slots could not be read.
    """
    addresses = [layout.target.symbol(name) for name in _OPERATIONS]
    symbols = np.array([a for a in addresses if a is not None], np.uint64)
    rows = np.flatnonzero(np.isin(opened.f_op, symbols) & (opened.private_data != 0))
    pipes, first = np.unique(opened.private_data[rows], return_index=True)
    info, buffer = layout.struct("struct pipe_inode_info"), layout.struct("struct pipe_buffer")
    raw = layout.memory.gather(pipes, info.size)
    head = info.field("head").column(raw.bytes).astype(np.uint32)
    tail = info.field("tail").column(raw.bytes).astype(np.uint32)
    size = info.field("ring_size").column(raw.bytes).astype(np.int64)
    # The indices only grow and wrap; a ring's size is a power of two.
    filled = (head - tail).astype(np.uint32).astype(np.int64)
    good = raw.valid & (size > 0) & (size <= _MAX_RING) & (size & (size - 1) == 0) & (filled <= size)
    nr = np.where(good, filled, 0)
    of = np.repeat(np.arange(len(pipes)), nr)
    slot = (tail[of].astype(np.int64) + count_up(nr)) & (size[of] - 1)
    base = info.field("bufs").column(raw.bytes)[of]
    where = base + slot.astype(np.uint64) * np.uint64(buffer.size) + np.uint64(buffer.field("page").offset)
    pages, known = layout.memory.words(where)
    pfn = np.where(known, layout.memmap.pfns(pages), -1)
    missing = int((~good).sum()) + int((~known).sum())
    return PipeBuffers(pipes[of], rows[first[of]].astype(np.int64), slot, pfn), missing
