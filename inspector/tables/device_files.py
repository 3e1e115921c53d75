"""Which files are fronts of a driver: what they map are the driver's own pages, not the page cache."""

from __future__ import annotations

import numpy as np

from inspector.columns import U64, Mask
from inspector.layout.kernel import Layout
from inspector.tables.inodes import read_inodes

_S_IFMT, _S_IFREG, _S_IFBLK = 0o170000, 0o100000, 0o060000
_ANON_INODE_FS_MAGIC = 0x09041934
"""include/uapi/linux/magic.h. Its one inode is that of BPF maps, io_uring, perf events and the like; since 6.16 its
mode is that of a regular file (fs/anon_inodes.c)."""


def is_driver_file(layout: Layout, inodes: U64) -> Mask:
    """Inodes of character devices, sockets and anonymous files; they map pages without a ``mapping``.

    Args:
        layout: The kernel's layout.
        inodes: uint64[n]; addresses, 0 for none.
    """
    found = read_inodes(layout, inodes)
    kind = found.mode & _S_IFMT
    struct = layout.struct("struct super_block")
    raw = layout.memory.gather(found.super_block, struct.size)
    magic = struct.field("s_magic").column(raw.bytes).astype(np.uint64)
    anonymous = raw.valid & (magic == np.uint64(_ANON_INODE_FS_MAGIC))
    return found.readable & (((kind != _S_IFREG) & (kind != _S_IFBLK)) | anonymous)
