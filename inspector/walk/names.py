"""What each VMA is called in /proc/PID/maps: the path of its file, or [heap], [stack], [vdso], [anon:...]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, Mask
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.mms import Mms
from inspector.tables.vmas import Vmas
from inspector.text import clean_bytes

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_MAX_DEPTH = 64
"""Directories above a file that are named; deeper ones are left out."""

_MAX_NAME = 256
_GONE = "?"


def vma_names(layout: Layout, mms: Mms, vmas: Vmas, rows: I64) -> list[str]:
    """The names of the given VMAs, safe to show; empty for anonymous memory without a name."""
    files = vmas.file[rows]
    distinct, which = np.unique(files, return_inverse=True)
    paths = file_paths(layout, distinct)
    names = [paths[i] if file else "" for i, file in zip(which.tolist(), files.tolist(), strict=True)]
    special = _special_names(layout, vmas, rows)
    given = _anon_names(layout, vmas, rows)
    marks = _marks(layout, mms, vmas, rows)
    return [a or b or c or d for a, b, c, d in zip(names, special, marks, given, strict=True)]


def file_paths(layout: Layout, files: U64) -> list[str]:
    """Path of each struct file from the root of its namespace (fs/d_path.c, d_path() and prepend_path()).

    Directories are followed for all files together. What cannot be read becomes ``?``.
    """
    file, mount = layout.struct("struct file"), layout.struct("struct mount")
    raw = layout.memory.gather(files, file.size)
    dentry: U64 = file.field("f_path.dentry").column(raw.bytes).copy()
    mount_at: U64 = file.field("f_path.mnt").column(raw.bytes) - np.uint64(mount.field("mnt").offset)
    parts: list[list[str]] = [[] for _ in files]
    live = raw.valid & (dentry != 0)
    gone = ~live
    ends = [""] * len(files)
    for depth in range(_MAX_DEPTH):
        rows = np.flatnonzero(live)
        if not len(rows):
            break
        level = _read_level(layout, dentry[rows], mount_at[rows])
        gone[rows] |= ~level.ok
        live[rows] = level.ok & ~level.at_top & ~level.detached
        for i, row in enumerate(rows.tolist()):
            if depth == 0 and level.ok[i] and (level.detached[i] or level.unhashed[i]):
                ends[row] = " (deleted)"
            if depth == 0 and level.detached[i]:
                # Sockets and the like have their file system give them a name (d_op->d_dname()).
                parts[row].append(_dname(layout, int(dentry[row]), level.name[i]))
            elif level.ok[i] and level.is_name[i]:
                parts[row].append(level.name[i])
        dentry[rows], mount_at[rows] = level.dentry, level.mount
    return [_join(parts[i], bool(gone[i]), ends[i]) for i in range(len(files))]


def may_be_named(layout: Layout, files: U64, path: str) -> Mask:
    """Which struct files have a last name that the path ends with: a few of many, before all names are read.

    Sockets and the like are named by their file system, and may all be.
    """
    if not path.startswith("/"):
        return np.ones(len(files), np.bool_)
    struct = layout.struct("struct dentry")
    dentries, _ = layout.memory.words(files + np.uint64(layout.struct("struct file").field("f_path.dentry").offset))
    distinct, which = np.unique(dentries, return_inverse=True)
    raw = layout.memory.gather(distinct, struct.size)
    at = struct.field("d_name.name", "__d_name.name").column(raw.bytes)
    length = struct.field("d_name.len", "__d_name.len").column(raw.bytes)
    asked = path.removesuffix(" (deleted)")
    ends = [asked.endswith(_read_name(layout, int(a), int(n))) for a, n in zip(at, length, strict=True)]
    return np.array(ends, np.bool_)[which]


def _join(parts: list[str], gone: bool, end: str) -> str:
    if not parts:
        return _GONE if gone else "/"
    if ":" in parts[0] and len(parts) == 1 and parts[0].startswith(("socket:", "anon_inode:")):
        return parts[0]
    return ("?/" if gone else "/") + "/".join(reversed(parts)) + end


def _dname(layout: Layout, dentry: int, name: str) -> str:
    struct = layout.struct("struct dentry")
    operations = layout.memory.read_u64(dentry + struct.field("d_op").offset) or 0
    label = layout.target.symbol_name(operations) or ""
    if label.startswith("anon_inode"):
        return f"anon_inode:{name}"
    if label.startswith("sockfs"):
        inode = layout.memory.read_u64(dentry + struct.field("d_inode").offset) or 0
        number = layout.memory.read_u64(inode + layout.struct("struct inode").field("i_ino").offset)
        return f"socket:[{number}]"
    return name


@dataclass(frozen=True)
class _PathParts:
    """One step up for each file.

    Attributes:
        name: Of the dentry.
        ok: Whether it could be read.
        is_name: Whether the name is part of the path; False when the step only crosses a mount point.
        at_top: The root of the namespace: nothing is above.
        detached: A dentry that is in no directory and is no mount's root.
        unhashed: Unlinked.
        dentry, mount: Where to go on.
    """

    name: list[str]
    ok: Mask
    is_name: Mask
    at_top: Mask
    detached: Mask
    unhashed: Mask
    dentry: U64
    mount: U64


def _read_level(layout: Layout, dentry: U64, mount: U64) -> _PathParts:
    """One step up: a name, or the crossing from a mount's root to where it is mounted."""
    struct, mount_struct = layout.struct("struct dentry"), layout.struct("struct mount")
    raw = layout.memory.gather(dentry, struct.size)
    mounts = layout.memory.gather(mount, mount_struct.size)
    parent: U64 = struct.field("d_parent").column(raw.bytes)
    name_at: U64 = struct.field("d_name.name", "__d_name.name").column(raw.bytes)
    length = struct.field("d_name.len", "__d_name.len").column(raw.bytes)
    above: U64 = mount_struct.field("mnt_parent").column(mounts.bytes)
    point: U64 = mount_struct.field("mnt_mountpoint").column(mounts.bytes)
    at_root = mounts.valid & (dentry == mount_struct.field("mnt.mnt_root").column(mounts.bytes))
    crosses = at_root & (above != mount)
    return _PathParts(
        [_read_name(layout, int(a), int(n)) for a, n in zip(name_at, length, strict=True)],
        raw.valid,
        ~at_root & (parent != dentry),
        at_root & ~crosses,
        ~at_root & (parent == dentry),
        raw.valid & (struct.field("d_hash.pprev").column(raw.bytes) == 0) & (parent != dentry),
        np.where(crosses, point, parent),
        np.where(crosses, above, mount),
    )


def _read_name(layout: Layout, address: int, length: int) -> str:
    data = layout.memory.read(address, min(max(length, 1), _MAX_NAME))
    return _GONE if data is None else clean_bytes(data)


def _special_names(layout: Layout, vmas: Vmas, rows: I64) -> list[str]:
    """[vdso], [vvar] and the like: the name in the VMA's vm_special_mapping (mm/mmap.c, special_mapping_name())."""
    ops = [layout.target.symbol(n) for n in ("special_mapping_vmops", "legacy_special_mapping_vmops")]
    mine = np.isin(vmas.ops[rows], np.array([o for o in ops if o], np.uint64)) & (vmas.private[rows] != 0)
    out = [""] * len(rows)
    if mine.any():
        field = layout.struct("struct vm_special_mapping").field("name")
        for i in np.flatnonzero(mine).tolist():
            at = layout.memory.read_u64(int(vmas.private[rows[i]]) + field.offset)
            data = layout.memory.read(at, 32) if at else None
            out[i] = clean_bytes(data) if data else ""
    return out


def _anon_names(layout: Layout, vmas: Vmas, rows: I64) -> list[str]:
    """Names given with prctl(PR_SET_VMA_ANON_NAME)."""
    out = [""] * len(rows)
    field = layout.struct("struct vm_area_struct").find("anon_name")
    if field is None:
        return out
    bare = np.flatnonzero(vmas.file[rows] == 0)
    named, _ = layout.memory.words(vmas.addr[rows[bare]] + np.uint64(field.offset))
    offset = layout.struct("struct anon_vma_name").field("name").offset
    for i, at in zip(bare.tolist(), named.tolist(), strict=True):
        data = layout.memory.read(at + offset, 80) if at else None
        if data:
            out[i] = f"[anon:{clean_bytes(data)}]"
    return out


def _marks(layout: Layout, mms: Mms, vmas: Vmas, rows: I64) -> list[str]:
    """[heap] and [stack] (fs/proc/task_mmu.c, get_vma_name()), [vdso] where no special mapping names it."""
    struct = layout.struct("struct mm_struct")
    raw = layout.memory.gather(mms.addr[vmas.mm_idx[rows]], struct.size)

    def column(*names: str) -> U64:
        field = struct.find(*names)
        column: U64 = field.column(raw.bytes) if field else np.zeros(len(rows), np.uint64)
        return column

    start, end = vmas.start[rows], vmas.end[rows]
    bare = (vmas.file[rows] == 0) & raw.valid
    heap = bare & (start < np.maximum(column("brk"), column("start_brk") + np.uint64(1))) & (end > column("start_brk"))
    heap &= column("start_brk") != 0
    stack = bare & (start <= column("start_stack")) & (end >= column("start_stack"))
    vdso = bare & (start == column("context.vdso")) & (start != 0)
    masks = zip(heap, stack, vdso, strict=True)
    return ["[heap]" if h else "[stack]" if s else "[vdso]" if v else "" for h, s, v in masks]


def owner_of(s: Snapshot, mm_idx: int) -> tuple[int, int | None, str | None]:
    """Address of an mm, and pid and name of its first task when it has one."""
    mms = s.mms
    pid = int(mms.pid[mm_idx])
    comm = clean_bytes(bytes(mms.comm[mm_idx]))
    return int(mms.addr[mm_idx]), pid if pid >= 0 else None, comm if pid >= 0 else None


def owners_of(s: Snapshot, mm_idx: I32) -> list[tuple[int, int | None, str | None]]:
    """`owner_of` each of many rows, each mm looked up once."""
    known, which = np.unique(mm_idx, return_inverse=True)
    owners = [owner_of(s, mm) for mm in known.tolist()]
    return [owners[at] for at in which.tolist()]
