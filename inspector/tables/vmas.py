"""All VMAs of all mms, out of their maple trees."""

from __future__ import annotations

from functools import partial

import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Stretches, Table, rows_of, rows_of_unordered
from inspector.layout.flags import VM_HUGETLB
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.maple_tree import walk_maple_trees
from inspector.records import dataclass
from inspector.tables.mms import Mms
from inspector.tables.slabs import lead_nowhere

LOCK_WORD = ("vm_refcnt.refs.counter", "vm_refcnt.counter")
"""The member that says whether a VMA is attached and who holds its lock, from 6.15 on."""
_PAGE = 1 << 12
_ANON_HI_SHIFT = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Vmas(Table):
    """One row a VMA, ordered by mm, then by address.

    Attributes:
        addr: uint64; vm_area_struct.
        mm_idx: int32; row of the mm in whose tree it was found.
        start, end: uint64; as stored in the VMA.
        slot_start, slot_end: uint64; its range in the tree ([start, end)).
        vm_mm: uint64; the mm it names itself.
        flags: uint64; VM_ bits.
        page_prot: uint64; vm_page_prot, what its page-table entries are made with.
        pgoff: uint64; vm_pgoff, pages.
        anon_pgoff: uint64; offset that anonymous pages are indexed by: vm_pgoff before 7.3.
        file, ops, anon_vma, private: uint64; vm_file, vm_ops, anon_vma, vm_private_data.
        attached: bool; linked into its mm, by vm_refcnt (6.15 and later) or ``detached`` (6.4 to 6.14).
    """

    addr: U64
    mm_idx: I32
    start: U64
    end: U64
    slot_start: U64
    slot_end: U64
    vm_mm: U64
    flags: U64
    page_prot: U64
    pgoff: U64
    anon_pgoff: U64
    file: U64
    ops: U64
    anon_vma: U64
    private: U64
    attached: Mask

    @property
    def nr_pages(self) -> I64:
        """Base pages that each VMA spans."""
        return ((self.end - self.start) >> np.uint64(12)).astype(np.int64)

    def has(self, flag: int) -> Mask:
        """Which VMAs have all bits of ``flag`` set."""
        return (self.flags & np.uint64(flag)) == flag

    @property
    def is_hugetlb(self) -> Mask:
        """Which VMAs map hugetlb pages."""
        return self.has(VM_HUGETLB)


@dataclass(frozen=True, slots=True)
class VmaTrees:
    """What went wrong in the maple trees.

    Attributes:
        unreadable, broken: int32; mm rows, one for each unreadable or senseless node.
        missing: int32; mm row of each VMA that could not be read.
        foreign: int32; number of entries in each mm's tree that belong to another mm (fork under way), that lead to no
            VMA of that place, or that are reserved.
        stray_mm: int32; mm row of each pointer in a tree that leads to no VMA, though no fork is at work.
        stray: uint64; those pointers.
    """

    unreadable: I32
    broken: I32
    missing: I32
    foreign: I32
    stray_mm: I32
    stray: U64


def vma_rows(vmas: Vmas, addrs: U64) -> I32:
    """Row of each VMA address, -1 for those that are in no tree of VMAs."""
    return rows_of_unordered(vmas.addr, addrs)


def vmas_by_slot(vmas: Vmas, mm_idx: AnyArray, va: U64) -> I64:
    """Row of the VMA whose range in the tree holds each address of an mm, whatever its own bounds say; -1 for none."""
    out = np.full(len(va), -1, np.int64)
    for mm in np.unique(mm_idx).tolist():
        first, end = np.searchsorted(vmas.mm_idx, [mm, mm + 1])
        mine = np.flatnonzero(mm_idx == mm)
        row = first + np.searchsorted(vmas.slot_start[first:end], va[mine], "right") - 1
        inside = row >= first
        inside[inside] = va[mine][inside] < vmas.slot_end[row[inside]]
        out[mine[inside]] = row[inside]
    return out


def build_vmas(layout: Layout, mms: Mms, only: Stretches | None = None) -> tuple[Vmas, VmaTrees]:
    """Read the VMAs of all mms (mm/mmap.c; the tree of each is mm->mm_mt).

    Entries whose ``vm_mm`` is another mm are left out where no task has the mm yet: while a fork runs, the child's tree
    begins as a copy of the parent's (kernel/fork.c, dup_mmap()). In the tree of any other mm they are VMAs all the same
    as long as they lie where the tree has them.

    Args:
        layout: The kernel's layout.
        mms: Whose.
        only: Addresses, by row of the mm, whose VMAs are wanted; None for all.
    """
    struct = layout.struct("struct vm_area_struct")
    nowhere = partial(lead_nowhere, layout)
    trees = walk_maple_trees(layout.prog, layout.memory, mms.ma_root, only, nowhere)
    pointer = (trees.value & np.uint64(3)) == 0
    root, slot_start = trees.root[pointer], trees.first[pointer]
    slot_end = trees.last[pointer] + np.uint64(1)
    raw = layout.memory.gather(trees.value[pointer], struct.size)
    vm_mm = struct.field("vm_mm").column(raw.bytes)
    here = (struct.field("vm_start").column(raw.bytes) < slot_end) & (
        struct.field("vm_end").column(raw.bytes) > slot_start
    )
    own = raw.valid & ((vm_mm == mms.addr[root]) | ((mms.nr_tasks[root] > 0) & here))
    foreign = np.bincount(root[raw.valid & ~own], minlength=len(mms)) + np.bincount(
        trees.root[~pointer], minlength=len(mms)
    )
    lost = ~raw.valid
    broken = trees.broken
    if lost.any():
        lost[lost] = ~nowhere(raw.addr[lost])
        broken = np.concatenate([broken, root[~raw.valid & ~lost].astype(np.int32)])
    # A tree that leads to what is no VMA of it, where no fork is at work.
    stray = raw.valid & ~own & (mms.nr_tasks[root] > 0)
    broken = np.concatenate([broken, root[stray].astype(np.int32)])
    stray |= ~raw.valid & ~lost
    place = _Place(root[own].astype(np.int32), slot_start[own], slot_end[own])
    vmas = _decode(struct, raw.addr[own], raw.bytes[own], place)
    return vmas, VmaTrees(trees.unreadable, broken, root[lost], foreign.astype(np.int32), root[stray], raw.addr[stray])


def no_vmas(mms: Mms) -> tuple[Vmas, VmaTrees]:
    """The tables where no VMA of the mms can be read."""
    every, none = np.arange(len(mms), dtype=np.int32), np.empty(0, np.int32)
    return Vmas.empty(), VmaTrees(every, none, every, np.zeros(len(mms), np.int32), none, np.empty(0, np.uint64))


def with_vmas_of_slab(layout: Layout, mms: Mms, vmas: Vmas, trees: VmaTrees, slots: U64) -> Vmas:
    """Add VMAs that lost nodes of maple trees lead to, as far as the VMAs are there themselves.

    Before 6.4 a freed vm_area_struct cannot be known from one in use: none is added there.

    Args:
        layout: The kernel's layout.
        mms: All that the VMAs may be of.
        vmas: Those that the trees lead to.
        trees: What the trees lack.
        slots: uint64; all object slots, in use or free, of the slab cache of VMAs.
    """
    struct = layout.struct("struct vm_area_struct")
    if struct.find(*LOCK_WORD) is None and struct.find("detached") is None:
        return vmas
    raw = layout.memory.gather(np.setdiff1d(slots, vmas.addr), struct.size)
    addr, data = raw.addr[raw.valid], raw.bytes[raw.valid]
    mm_idx = rows_of(mms.addr, struct.field("vm_mm").column(data))
    start, end = (struct.field(name).column(data) for name in ("vm_start", "vm_end"))
    wanted = np.isin(mm_idx, trees.unreadable) & (start < end) & ((start | end) & np.uint64(_PAGE - 1) == 0)
    found = _decode(struct, addr[wanted], data[wanted], _Place(mm_idx[wanted], start[wanted], end[wanted]))
    both = Vmas.concat([vmas, found.take(found.attached)])
    both = both.take(np.lexsort((both.slot_start, both.mm_idx)))
    # What a tree leads to counts: of two that overlap the other is left from earlier use.
    from_tree = np.isin(both.addr, vmas.addr)
    same = both.mm_idx[1:] == both.mm_idx[:-1]
    clash = same & (both.slot_start[1:] < both.slot_end[:-1])
    bad = np.zeros(len(both), np.bool_)
    bad[1:] |= clash & ~from_tree[1:]
    bad[:-1] |= clash & ~from_tree[:-1]
    return both.take(~bad)


def read_vmas(layout: Layout, addrs: U64) -> tuple[Vmas, Mask]:
    """The VMAs at some addresses as a reverse map leads to them, whether or not an mm's tree has them.

    Returns:
        The VMAs that could be read, their ``mm_idx`` -1, and which of the addresses those are.
    """
    struct = layout.struct("struct vm_area_struct")
    raw = layout.memory.gather(addrs, struct.size)
    nr = int(raw.valid.sum())
    nowhere = _Place(np.full(nr, -1, np.int32), np.zeros(nr, np.uint64), np.zeros(nr, np.uint64))
    return _decode(struct, addrs[raw.valid], raw.bytes[raw.valid], nowhere), raw.valid


@dataclass(frozen=True)
class _Place:
    """Where the trees have VMAs: row of the mm and range."""

    mm_idx: I32
    start: U64
    end: U64


def _decode(struct: Struct, addr: U64, data: U8, place: _Place) -> Vmas:
    """The members of VMAs."""
    n = len(data)
    pgoff = struct.field("vm_pgoff").column(data)
    low, high = struct.find("__vm_anon_pgoff_lo"), struct.find("__vm_anon_pgoff_hi")
    anon_pgoff = pgoff
    if low is not None or high is not None:
        parts = [struct.field(f"__vm_anon_pgoff_{part}").column(data).astype(np.uint64) for part in ("lo", "hi")]
        anon_pgoff = parts[0] | (parts[1] << _ANON_HI_SHIFT)
    refcnt, detached = struct.find(*LOCK_WORD), struct.find("detached")
    attached = np.ones(n, np.bool_)
    if refcnt is not None:
        attached = refcnt.column(data) != 0
    elif detached is not None:
        attached = detached.column(data) == 0
    return Vmas(
        addr=addr,
        mm_idx=place.mm_idx,
        start=struct.field("vm_start").column(data),
        end=struct.field("vm_end").column(data),
        slot_start=place.start,
        slot_end=place.end,
        vm_mm=struct.field("vm_mm").column(data),
        flags=struct.field("vm_flags", "flags.__vma_flags[0]", "flags").column(data).astype(np.uint64),
        page_prot=struct.field("vm_page_prot.pgprot", "vm_page_prot").column(data),
        pgoff=pgoff,
        anon_pgoff=anon_pgoff,
        file=struct.field("vm_file").column(data),
        ops=struct.field("vm_ops").column(data),
        anon_vma=struct.field("anon_vma").column(data),
        private=struct.field("vm_private_data").column(data),
        attached=attached,
    )


def read_page_finders(layout: Layout, ops: U64) -> Mask:
    """Which vm_operations_structs translate special entries themselves (find_normal_page(), find_special_page())."""
    field = layout.struct("struct vm_operations_struct").find("find_normal_page", "find_special_page")
    if field is None or not len(ops):
        return np.zeros(len(ops), np.bool_)
    found, _ = layout.memory.words(ops + np.uint64(field.offset))
    return (ops != 0) & (found != 0)
