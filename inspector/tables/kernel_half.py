"""The kernel's half of top page tables: each mm has a copy of init_mm's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64, U64, Mask, distinct, is_among, rows_of, spans
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.mms import Mms
from inspector.tables.pages import Pages

_AT_ONCE = 256
"""Tables that are read together."""


@dataclass(frozen=True)
class KernelHalves:
    """Where the kernel's half of a top page table is not what it is elsewhere.

    Attributes:
        mm_idx, slot: int64[n]; rows of the mms, and the slot of each entry that differs.
        entry, wanted: uint64[n]; the entry as stored, and what all others have there.
        own_slot: int64[k]; slots in which init_mm's own table differs from those of most mms.
        own_entry, own_wanted: uint64[k]; the same of these.
        right: uint64[m]; the entries that do not differ, each once.
        own_at: Address of init_mm's table, 0 where it is not known.
        nr_tables: How many tables of mms were read.
        unreadable: How many were not.
        is_growing: Whether memory is being added: the kernel's table gets entries then that the others get after it.
    """

    mm_idx: I64
    slot: I64
    entry: U64
    wanted: U64
    own_slot: I64
    own_entry: U64
    own_wanted: U64
    right: U64
    own_at: int
    nr_tables: int
    unreadable: int
    is_growing: bool


def read_kernel_halves(layout: Layout, mms: Mms) -> KernelHalves:
    """Compare the kernel's half of every mm's top table with init_mm's.

    Where init_mm's differs from what most mms have, it is init_mm's that is wrong (arch/x86/mm/pgtable.c, pgd_ctor()
    copies it; arch/x86/mm/init_64.c, sync_global_pgds() adds what is new).
    """
    own_at, own = _own_half(layout)
    rows = np.flatnonzero(mms.pgd_pfn >= 0)
    most = _of_most(layout, mms.pgd_pfn[rows], own)
    wanted = own if most is None else most
    found, right, unreadable = [], [] if wanted is None else [wanted], 0
    for part in spans(len(rows), _AT_ONCE):
        entries, known = _halves(layout, mms.pgd_pfn[rows[part]])
        unreadable += int((~known).sum())
        if wanted is not None:
            differs = layout.arch.kernel_top_differs(entries, wanted)
            right.append(distinct(entries[~differs & known[:, None]]))
            at, slot = np.nonzero(differs & known[:, None])
            found.append((rows[part][at], slot, entries[at, slot]))
    mm_idx, slots, stored = ([each[i] for each in found] for i in range(3))
    slot = np.concatenate([np.empty(0, np.int64), *slots])
    none = np.empty(0, np.uint64)
    first = layout.arch.shapes[0].user_entries
    wrong = np.empty(0, np.int64)
    if own is not None and wanted is not None:
        wrong = np.flatnonzero(layout.arch.kernel_top_differs(own[None], wanted)[0])
    return KernelHalves(
        mm_idx=np.concatenate([np.empty(0, np.int64), *mm_idx]),
        slot=slot + first,
        entry=np.concatenate([none, *stored]),
        wanted=none if wanted is None else wanted[slot],
        own_slot=wrong + first,
        own_entry=none if own is None else own[wrong],
        own_wanted=none if wanted is None else wanted[wrong],
        right=distinct(np.concatenate([none, *right])),
        own_at=own_at,
        nr_tables=len(rows) - unreadable,
        unreadable=unreadable,
        is_growing=bool(len(slot)) and _is_growing(layout),
    )


def with_named_top_tables(layout: Layout, pages: Pages, mms: Mms) -> Mms:
    """The mms, those whose pgd leads to no table of theirs with the one table that is, by its struct page.

    x86 notes the mm there (arch/x86/mm/pgtable.c, pgd_set_mm()), and nothing clears it: of the pages that name an mm
    the top table is the one that is in use and has the kernel's half.
    """
    field = layout.ptdesc.find("pt_mm")
    if field is None:
        return mms

    def named(pfns: I64) -> U64:
        words, known = layout.memory.words(pages.memmap.page_addrs(pfns) + np.uint64(field.offset))
        return np.where(known, words, 0)

    lost = np.flatnonzero((mms.pgd_pfn < 0) | (named(np.maximum(mms.pgd_pfn, 0)) != mms.addr))
    _, own = _own_half(layout) if len(lost) else (0, None)
    if own is None:
        return mms
    words = pages.words
    in_use = (words.refcount > 0) & (words.mapping == 0) & np.isin(words.type_, (0, type_code("table")))
    pfn = pages.memmap.pfns_of_rows(pages.where(in_use))
    pfn = pfn[~is_among(pfn, distinct(mms.pgd_pfn))]
    at = rows_of(mms.addr[lost], named(pfn))
    pfn, at = pfn[at >= 0], at[at >= 0]
    entries, known = _halves(layout, pfn)
    is_top = known & ~layout.arch.kernel_top_differs(entries, own).any(axis=1)
    pfn, at = pfn[is_top], at[is_top]
    alone = np.bincount(at, minlength=len(lost))[at] == 1
    found = mms.pgd_pfn.copy()
    found[lost[at[alone]]] = pfn[alone]
    return replace(mms, pgd_pfn=found)


def _own_half(layout: Layout) -> tuple[int, U64 | None]:
    """Address and entries of init_mm's table, None where they cannot be read."""
    mm, top = layout.target.symbol("init_mm"), layout.arch.shapes[0]
    at = layout.memory.words(
        np.array([mm or 0], np.uint64) + np.uint64(layout.struct("struct mm_struct").field("pgd").offset)
    )[0]
    raw = layout.memory.gather(at + np.uint64(8 * top.user_entries), 8 * (top.entries - top.user_entries))
    return int(at[0]), raw.bytes.view(np.uint64)[0] if mm and raw.valid.all() else None


def _halves(layout: Layout, pfns: I64) -> tuple[U64, Mask]:
    """uint64[n, slots]; the kernel's half of some top tables, and which could be read."""
    top = layout.arch.shapes[0]
    at = (pfns.astype(np.uint64) << np.uint64(layout.memmap.page_shift)) + np.uint64(8 * top.user_entries)
    nr = top.entries - top.user_entries
    raw = layout.memory.gather(at, 8 * nr, physical=True)
    return np.ascontiguousarray(raw.bytes).view(np.uint64).reshape(len(pfns), nr), raw.valid


def _of_most(layout: Layout, pfns: I64, own: U64 | None) -> U64 | None:
    """What most of some tables have in each slot, init_mm's where they have no one entry; None where none is known."""
    entries, known = _halves(layout, pfns[:_AT_ONCE])
    entries = entries[known]
    if not len(entries):
        return own
    middle: U64 = np.sort(entries, axis=0)[len(entries) // 2]
    same = np.count_nonzero(~layout.arch.kernel_top_differs(entries, middle), axis=0)
    return middle if own is None else np.where(2 * same > len(entries) + 1, middle, own)


def _is_growing(layout: Layout) -> bool:
    """Whether mem_hotplug_lock is held for writing (mm/memory_hotplug.c, mem_hotplug_begin())."""
    at, name = layout.target.symbol("mem_hotplug_lock"), "struct percpu_rw_semaphore"
    block = layout.struct(name).find("block.counter") if layout.has_struct(name) else None
    return bool(at and block is not None and any(layout.memory.read(at + block.offset, block.size) or b""))
