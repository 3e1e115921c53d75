"""From a path or an inode's number to its address_space, by the kernel's own dentries and inode hash."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64
from inspector.layout.kernel import Layout
from inspector.lib.list import walk_lists
from inspector.text import clean_bytes

_MAX_NAME = 256
_MAX_PARTS = 64
_MAX_CROSSINGS = 32
"""Mounts on top of one another at one place."""

_GOLDEN_RATIO = 0x61C8864680B583EB
"""GOLDEN_RATIO_64, include/linux/hash.h."""

_CACHE_LINE = 64
"""L1_CACHE_BYTES of x86-64."""

_WORD = (1 << 64) - 1
_LOW = np.uint64(1)


def inode_of_path(layout: Layout, path: str) -> int:
    """Address of the inode that a path leads to in the first mount namespace; 0 when no dentry does.

    The kernel keeps dentries of what is open or was looked up lately: a path that leads nowhere here may exist on disk.
    Symbolic links are not followed (fs/namei.c, path_lookupat()).
    """
    parts = path.split("/")
    if parts[0] or len(parts) > _MAX_PARTS:
        return 0
    mount, dentry = _first_root(layout)
    if not mount:
        return 0
    mount, dentry = _cross(layout, mount, dentry)
    for name in filter(None, parts):
        dentry = _child(layout, dentry, name)
        if not dentry:
            return 0
        mount, dentry = _cross(layout, mount, dentry)
    return layout.memory.read_u64(dentry + layout.struct("struct dentry").field("d_inode").offset) or 0


def _first_root(layout: Layout) -> tuple[int, int]:
    """The mount at the root of the first namespace, and the root of what is mounted there."""
    at = layout.target.symbol("init_task")
    for struct, field in (("task_struct", "nsproxy"), ("nsproxy", "mnt_ns"), ("mnt_namespace", "root")):
        if not at:
            return 0, 0
        at = layout.memory.read_u64(at + layout.struct(f"struct {struct}").field(field).offset)
    root = layout.memory.read_u64(at + layout.struct("struct mount").field("mnt.mnt_root").offset) if at else None
    return (at or 0, root) if root else (0, 0)


def _cross(layout: Layout, mount: int, dentry: int) -> tuple[int, int]:
    """What is mounted on a dentry, and its root; the same again where nothing is (fs/namespace.c, lookup_mnt())."""
    struct = layout.struct("struct mount")
    point, root = struct.field("mnt_mountpoint"), struct.field("mnt.mnt_root")
    for _ in range(_MAX_CROSSINGS):
        heads = np.array([mount + struct.field("mnt_mounts").offset], np.uint64)
        found = walk_lists(layout.memory, heads, struct.size, struct.field("mnt_child").offset)
        here = np.flatnonzero(point.column(found.raw) == np.uint64(dentry))
        if not len(here):
            break
        # The one mounted last is in front and hides the others (attach_mnt()).
        mount, dentry = int(found.addr[here[0]]), int(root.column(found.raw)[here[0]])
    return mount, dentry


def _child(layout: Layout, dentry: int, name: str) -> int:
    """The dentry of a name in a directory, 0 for none; unlinked ones and those without an inode do not count."""
    struct, memory = layout.struct("struct dentry"), layout.memory
    new = struct.find("d_children")
    head, link = (new, struct.field("d_sib")) if new else (struct.field("d_subdirs"), struct.field("d_child"))
    heads = np.array([dentry + head.offset], np.uint64)
    found = walk_lists(memory, heads, struct.size, link.offset, hash_chain=new is not None)
    length = struct.field("d_name.len", "__d_name.len").column(found.raw)
    fits = (length == len(name.encode())) & (struct.field("d_inode").column(found.raw) != 0)
    fits &= struct.field("d_hash.pprev").column(found.raw) != 0
    names = struct.field("d_name.name", "__d_name.name").column(found.raw)
    for row in np.flatnonzero(fits).tolist():
        data = memory.read(int(names[row]), min(int(length[row]), _MAX_NAME))
        if data is not None and clean_bytes(data) == name:
            return int(found.addr[row])
    return 0


def inodes_of_number(layout: Layout, ino: int) -> U64:
    """Inodes of a number in the hash that the kernel keeps, one bucket a file system (fs/inode.c, find_inode_fast()).

    File systems without a disk (shmem, procfs) and XFS do not keep their inodes there.
    """
    table, mask = layout.variable("inode_hashtable"), layout.variable("i_hash_mask", size=4)
    shift, head = layout.variable("i_hash_shift", size=4), layout.target.symbol("super_blocks")
    if not table or mask is None or shift is None or head is None:
        return np.empty(0, np.uint64)
    block, inode = layout.struct("struct super_block"), layout.struct("struct inode")
    link = block.field("s_list").offset
    blocks = walk_lists(layout.memory, np.array([head], np.uint64), link + 16, link).addr
    buckets = np.array([table + 8 * (_hash(int(b), ino, shift) & mask) for b in blocks.tolist()], np.uint64)
    found = walk_lists(
        layout.memory, np.unique(buckets), inode.size, inode.field("i_hash").offset, hash_chain=True, max_length=1 << 12
    )
    mine: I64 = np.flatnonzero(inode.field("i_ino").column(found.raw) == np.uint64(ino))
    return np.unique(found.addr[mine])


def _hash(super_block: int, ino: int, shift: int) -> int:
    """hash() of fs/inode.c."""
    mixed = (ino * super_block & _WORD) ^ ((_GOLDEN_RATIO + ino & _WORD) // _CACHE_LINE)
    return mixed ^ ((mixed ^ _GOLDEN_RATIO) >> shift)


def address_space_of_inode(layout: Layout, inode: int) -> int:
    """Where an inode's pages are (i_mapping), 0 where it cannot be read."""
    return layout.memory.read_u64(inode + layout.struct("struct inode").field("i_mapping").offset) or 0
