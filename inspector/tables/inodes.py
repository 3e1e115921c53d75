"""What the page cache needs to know of inodes."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U32, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.locks import held_for_writing

_GOING = ("I_WILL_FREE", "I_FREEING", "I_CLEAR")


@dataclass(frozen=True, slots=True)
class Inodes(Table):
    """One row an inode, in the order asked for.

    Attributes:
        ino: uint64.
        mode, flags: uint32; i_mode, i_flags (S_ bits).
        size: int64; i_size.
        super_block: uint64.
        mapping: uint64; i_mapping.
        data: uint64; address of i_data, the address_space inside the inode.
        locked: bool; i_rwsem held for writing.
        freeing: bool; on its way out (I_FREEING and its neighbours).
        readable: bool.
    """

    ino: U64
    mode: U32
    flags: U32
    size: I64
    super_block: U64
    mapping: U64
    data: U64
    locked: Mask
    freeing: Mask
    readable: Mask


def read_inodes(layout: Layout, addrs: U64) -> Inodes:
    """Read inodes (struct inode, include/linux/fs.h).

    Args:
        layout: The kernel's layout.
        addrs: uint64[n]; 0 for none.
    """
    struct = layout.struct("struct inode")
    raw = layout.memory.gather(addrs, struct.size)
    data = raw.bytes
    state = struct.field("i_state.__state", "i_state").column(data).astype(np.uint64)
    return Inodes(
        ino=struct.field("i_ino").column(data).astype(np.uint64),
        mode=struct.field("i_mode").column(data).astype(np.uint32),
        flags=struct.field("i_flags").column(data).astype(np.uint32),
        size=struct.field("i_size").column(data).astype(np.int64),
        super_block=struct.field("i_sb").column(data),
        mapping=struct.field("i_mapping").column(data),
        data=addrs + np.uint64(struct.field("i_data").offset),
        locked=held_for_writing(struct, "i_rwsem", data),
        freeing=(state & np.uint64(_going(layout))) != 0,
        readable=raw.valid & (addrs != 0),
    )


def _going(layout: Layout) -> int:
    """The bits of i_state of an inode that is being freed: neighbours of one another since they exist.

    They are in an enum on newer kernels. Before, they were macros, and moved up by two when the bits that tasks wait
    for became numbers from 0 (6.12, with inode_bit_waitqueue()).
    """
    names = layout.enum("enum inode_state_flags_enum")
    if names:
        return sum(names.get(name, 0) for name in _GOING)
    return 0b111 << (6 if layout.target.symbol("inode_bit_waitqueue") is not None else 4)
