"""VMAs that reverse maps lead to although their mm no longer knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Mask, Table, distinct, rows_of, take_or
from inspector.records import dataclass
from inspector.tables.anon_vmas import read_anon_trees

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class LostVmas(Table):
    """One row a VMA found through an anon_vma's or a file's tree, in no mm's tree of VMAs; ordered by address.

    Attributes:
        addr: uint64; the vm_area_struct.
        mm_idx: int32; row of the mm it names.
        start, end: uint64; its bounds as stored.
    """

    addr: U64
    mm_idx: I32
    start: U64
    end: U64


def find_lost_vmas(s: Snapshot) -> LostVmas:
    """VMAs of living mms that are in a reverse map but not in the mm's maple tree.

    A VMA leaves the tree of its mm first and the reverse maps later, under mmap_lock (mm/vma.c,
    vms_complete_munmap_vmas()); whether that is what happens here is for the caller to judge.
    What does not look like a VMA of a known mm (freed and used anew) is left out.
    """
    avcs, nodes = s.anon_rmap.avcs, s.file_rmap.nodes
    return _read(s, np.concatenate([avcs.vma[(avcs.vma_idx < 0) & (avcs.tree_idx >= 0)], nodes.vma[nodes.vma_idx < 0]]))


def lead_to_lost_vmas(s: Snapshot, anon_vmas: U64, mms: Mask) -> Mask:
    """Of anon_vmas that no VMA of an mm's tree is linked to: those whose own tree holds a VMA of a marked mm.

    munmap() of all VMAs of an anon_vma takes them out of the tree of their mm before it clears their entries: until
    then only pages lead to the anon_vma.

    Args:
        s: The snapshot.
        anon_vmas: uint64; their addresses.
        mms: bool by row of the mms.
    """
    found = read_anon_trees(s.layout, s.vmas, distinct(anon_vmas))
    avcs, vmas = found.avcs, _read(s, found.avcs.vma)
    mm = take_or(vmas.mm_idx, rows_of(vmas.addr, avcs.vma), -1)
    marked = np.zeros(len(found.anon_vmas), np.bool_)
    marked[avcs.tree_idx[take_or(mms, mm, False) & (avcs.tree_idx >= 0)]] = True
    return take_or(marked, rows_of(found.anon_vmas.addr, anon_vmas), False)


def _read(s: Snapshot, unknown: U64) -> LostVmas:
    """Those of some addresses that hold a VMA of a known mm."""
    struct = s.layout.struct("struct vm_area_struct")
    raw = s.layout.memory.gather(distinct(unknown[unknown != 0]), struct.size)
    data, addr = raw.bytes[raw.valid], raw.addr[raw.valid]
    mm = rows_of(s.mms.addr, struct.field("vm_mm").column(data))
    start, end = struct.field("vm_start").column(data), struct.field("vm_end").column(data)
    good = (mm >= 0) & (start < end) & (end <= np.uint64(1) << np.uint64(56)) & ((start | end) & np.uint64(4095) == 0)
    return LostVmas(addr[good], mm[good], start[good], end[good])


def lost_vma_at(lost: LostVmas, mm_idx: AnyArray, va: AnyArray) -> I64:
    """Row of the lost VMA that would hold each address, -1 for none; there are few lost VMAs."""
    out = np.full(len(va), -1, np.int64)
    for row in range(min(len(lost), 4096)):
        out[(mm_idx == lost.mm_idx[row]) & (va >= lost.start[row]) & (va < lost.end[row])] = row
    return out
