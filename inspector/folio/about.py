"""What a page is, in sentences, and which of the ledger applies to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Kind
from inspector.columns import distinct
from inspector.folio.numbers import OneFolio
from inspector.text import counted
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import entry_pages

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_KINDS = {
    "anon": "Anonymous memory of processes, found again through an anon_vma.",
    "ksm": "A KSM page: equal anonymous pages of several processes merged into one, read-only.",
    "file": "A page of a file, found again through its address_space.",
    "shmem": "Shared memory (shmem, tmpfs, memfd): a file without a disk, swapped like anonymous memory.",
    "hugetlb": "A hugetlb folio: mapped and counted only as a whole, in a pool of its own, never swapped.",
    "kernel": "Memory that the kernel allocated for itself; if it is mapped, a driver did that (vm_insert_page()).",
    "reserved": "Reserved: part of the kernel's image or of firmware, not from the page allocator.",
    "device": "Memory of a driver (ZONE_DEVICE), such as persistent memory; never in the page allocator.",
    "movable": "Memory of a driver that can move it (movable_operations), such as zsmalloc or a balloon.",
    "zero": "The shared zero page: mapped read-only wherever nothing was written yet; its mappings count nothing.",
    "huge zero": "The huge zero folio: mapped read-only by PMDs where nothing was written; its mappings count nothing.",
    "free": "It has no references: free, on its way there or from there, or behind the first page of an allocation.",
    "slab": "A slab of the kernel's object allocator: never mapped by user space, no mapcount.",
    "page table": "A page table: never mapped by user space, no mapcount.",
    "zsmalloc": "Compressed memory of zsmalloc: never mapped by user space, no mapcount.",
    "kmalloc": "A large allocation of kmalloc(): never mapped by user space, no mapcount.",
    "offline": "Offline: given away by a balloon or by hotplug.",
    "guard": "A guard page of debug_pagealloc.",
    "unaccepted": "Memory that the hypervisor has not given yet.",
    "broken tail": "A tail page whose head cannot be found: nothing about its folio is known.",
    "unreadable": "The struct page is not in the dump: nothing is known of the page.",
}


def about(s: Snapshot, f: OneFolio, pfn: int) -> list[str]:
    """Sentences about the page asked for.

    Args:
        s: The snapshot.
        f: The folio it belongs to.
        pfn: The page.
    """
    out = [_KINDS.get(f.kind, f"A page of type {f.page_type or f.kind}.")]
    if pfn != f.pfn:
        out.insert(
            0,
            f"Page +{pfn - f.pfn} of the folio at {f.pfn:#x}, a tail page: only _mapcount and PG_anon_exclusive are "
            "its own, all other counters are kept in the head.",
        )
    if f.kind in ("zero", "huge zero") and s.search == "all page tables":
        rows = s.mappings_of(f.pfn, f.nr_pages)
        out.append(f"{counted(int(s.mappings.nr[rows].sum()), 'entry', 'entries')} show it; none is counted.")
    out += _absent_entries(s, f)
    if len(f.rejected):
        out.append(_rejected(s, f))
    if f.is_hugetlb:
        out.append("Of the counters of large folios it uses the entire and the large mapcount alone.")
    elif f.page_type:
        out.append("The word of _mapcount holds the page type.")
    return out


_WHY = {
    EntryClass.FREE: "it was freed with mappings left, or mapped after it was freed, and its next owner shares it with"
    " them (early free)",
    EntryClass.TYPED: "no process may map a page of this type, whose owner does not know of it",
    EntryClass.BROKEN: "the folio is damaged, or smaller than what a huge entry maps",
}


def _rejected(s: Snapshot, f: OneFolio) -> str:
    """Entries that map it and may not."""
    whose = s.mappings.mm_idx[f.rejected]
    pids = [pid for pid in distinct(s.mms.pid[whose]).tolist() if pid >= 0]
    owners = f" (pid {', '.join(map(str, pids[:_FEW]))}{' ...' if len(pids) > _FEW else ''})" if pids else ""
    why = _WHY[EntryClass(int(s.mappings.entry_class[f.rejected[0]]))]
    return f"{_entries(s, f)} all the same{owners}, and no count has that: {why}."


_FEW = 4
"""So many processes are named."""


def _entries(s: Snapshot, f: OneFolio) -> str:
    number = int(s.mappings.nr[f.rejected].sum())
    return f"{counted(number, 'entry', 'entries')} {'maps' if number == 1 else 'map'} it"


def _absent_entries(s: Snapshot, f: OneFolio) -> list[str]:
    """Non-present entries that name the folio: migration, poison, device."""
    n = s.nonpresent
    here = np.flatnonzero(
        (n.pfn >= 0) & (n.pfn < f.pfn + f.nr_pages) & (n.pfn + entry_pages(s.layout, n.level) > f.pfn)
    )
    kinds, counts = np.unique(n.kind[here], return_counts=True)
    words = [
        f"{c} {Kind(k).name.lower().replace('_', ' ')}" for k, c in zip(kinds.tolist(), counts.tolist(), strict=True)
    ]
    if not words:
        return []
    return [f"Non-present entries name it ({', '.join(words)}): only those of devices are counted."]
