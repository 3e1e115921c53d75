"""What we rebuilt beside what the kernel's own /proc said, as plain arrays, with the kernel's reason for every gap."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I64, U64, Mask
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, VM_PFNMAP, type_code
from inspector.model.scheme import Scheme
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import entry_pages
from inspector.walk.smaps import VmaFigures, vma_figures
from tests.guests.oracle import Oracle, OracleProcess, OracleVma

PM_SWAP, PM_PRESENT = np.uint64(1 << 62), np.uint64(1 << 63)
PM_UFFD_WP, PM_SOFT_DIRTY = np.uint64(1 << 57), np.uint64(1 << 55)
PM_FRAME = np.uint64((1 << 55) - 1)

KPF = {
    "SLAB": 7,
    "BUDDY": 10,
    "ANON": 12,
    "COMPOUND_HEAD": 15,
    "COMPOUND_TAIL": 16,
    "HUGE": 17,
    "KSM": 21,
    "PGTABLE": 26,
}


@dataclass
class Compared:
    """Counts of a comparison.

    Attributes:
        compared: Things held against each other.
        explained: By the kernel's reason, things that differ by definition.
        wrong: What differs without a reason.
    """

    compared: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def our_mapping_counts(s: Snapshot) -> I64:
    """Mappings of every page: its PTEs, and the huge entries of its folio."""
    folio = s.folio_of_page
    huge = np.where(folio >= 0, s.counts.entire[np.maximum(folio, 0)], 0)
    return s.counts.page_mappings.astype(np.int64) + huge


def compare_kpagecount(s: Snapshot, oracle: Oracle) -> Compared:
    """Every struct page (fs/proc/page.c, kpagecount_read())."""
    pfns = s.pages.memmap.pfns_of_rows(np.arange(len(s.pages)))
    theirs = oracle.kpagecount[pfns].astype(np.int64)
    differ = np.flatnonzero(our_mapping_counts(s) != theirs)
    out = Compared(len(pfns))
    # 6.1: zsmalloc keeps an offset in the word of the mapcount (mm/zsmalloc.c, set_first_obj_offset()), and
    # kpagecount_read() takes it for a count; its pages are movable pages of a driver and mapped by nobody.
    lent = (s.pages.mapping[differ] & np.uint64(MAPPING_TAGS)) == MAPPING_MOVABLE
    if s.scheme is Scheme.OLD:
        out.explained["zsmalloc keeps an offset in the word"] = int(lent.sum())
        differ = differ[~lent]
    out.wrong = [f"pfn {pfns[r]:#x}: ours {our_mapping_counts(s)[r]}, kpagecount {theirs[r]}" for r in differ[:20]]
    return out


def our_page_kinds(s: Snapshot) -> dict[str, Mask]:
    """By the name of a KPF_ flag: the pages we take for such, and where the flag can be told."""
    pages, folios = s.pages, s.folios
    head = np.maximum(pages.head_row, 0).astype(np.int64)
    tail = pages.is_tail
    compound = np.array(tail)
    compound[folios.row] = True
    folio = np.maximum(s.folio_of_page, 0)
    free = np.zeros(len(pages), np.bool_)
    free[s.buddy_pages] = True  # is_free_buddy_page(): every page of a free block
    in_hugetlb = (s.folio_of_page >= 0) & folios.is_hugetlb[folio]
    in_anon = np.where(s.folio_of_page >= 0, folios.is_anon[folio], pages.is_anon(head))
    return {
        "SLAB": (pages.type_ == type_code("slab")) & ~tail,
        "BUDDY": free,
        "ANON": in_anon,
        "COMPOUND_HEAD": compound & ~tail,
        "COMPOUND_TAIL": tail,
        "HUGE": in_hugetlb,
        "KSM": pages.is_ksm(head),
        "PGTABLE": (pages.type_ == type_code("table")) & ~tail,
    }


def compare_kpageflags(s: Snapshot, oracle: Oracle) -> Compared:
    """The kind of every page (fs/proc/page.c, stable_page_flags())."""
    pfns = s.pages.memmap.pfns_of_rows(np.arange(len(s.pages)))
    theirs = oracle.kpageflags[pfns]
    out = Compared(0)
    tail = s.pages.is_tail
    slab = s.pages.type_[np.maximum(s.pages.head_row, 0)] == type_code("slab")
    for name, ours in our_page_kinds(s).items():
        flag = ((theirs >> np.uint64(KPF[name])) & np.uint64(1)) != 0
        wanted = np.ones(len(pfns), np.bool_)
        if name == "KSM" and s.scheme is Scheme.LARGE:
            # 6.12: stable_page_flags() tests for any bit of the tag, so anonymous and movable pages look like KSM.
            tagged = (s.pages.mapping[np.maximum(s.pages.head_row, 0)] & np.uint64(MAPPING_TAGS)) != 0
            out.explained["6.12 says KSM for every tagged mapping"] += int((flag & ~ours & tagged).sum())
            wanted &= ~(flag & ~ours & tagged)
        if name == "BUDDY":
            # Pages that the per-CPU free lists took or gave back between the record and the stop: without an owner,
            # and so without any other flag, before and after.
            moved = (flag != ours) & ((theirs & ~np.uint64(1 << KPF[name])) == 0) & (s.pages.refcount == 0)
            out.explained["free pages that moved between free lists after the record"] += int(moved.sum())
            wanted &= ~moved
        if name == "SLAB":
            # The kernel took some free pages for slabs after the record, and gave empty slabs back: one of the two
            # sees a page of no use, without an owner and without any flag.
            bare = (s.pages.refcount == 0) & np.isin(s.pages.type_, (0, type_code("buddy"))) & (s.pages.mapping == 0)
            taken = ours & ((theirs & ~np.uint64(1 << KPF["BUDDY"])) == 0)
            given = flag & bare & ((theirs & ~np.uint64(1 << KPF["SLAB"])) == 0)
            moved = (flag != ours) & (taken | given)
            out.explained["pages that slabs took or gave back after the record"] += int(moved.sum())
            wanted &= ~moved
        if name in ("SLAB", "PGTABLE"):
            wanted &= ~tail  # whether tails repeat their head's type differs by version
        if name == "ANON":
            wanted &= ~slab  # a slab's words are its own
        out.compared += int(wanted.sum())
        differ = np.flatnonzero(wanted & (flag != ours))
        out.wrong += [f"pfn {pfns[r]:#x}: {name} ours {ours[r]}, kpageflags {flag[r]}" for r in differ[:5]]
    return out


def mm_row(s: Snapshot, process: OracleProcess) -> int:
    """Row of the mm of a process; a dead leader's is that of its threads."""
    of = np.flatnonzero((s.tasks.tgid == process.pid) & (s.tasks.mm != 0))
    at = int(np.searchsorted(s.mms.addr, s.tasks.mm[of[0]])) if len(of) else -1
    return at if 0 <= at < len(s.mms) and s.mms.addr[at] == s.tasks.mm[of[0]] else -1


def vma_row(s: Snapshot, mm: int, vma: OracleVma) -> int:
    """Row of a VMA of smaps, -1 when we have none that begins there."""
    rows = np.flatnonzero((s.vmas.mm_idx == mm) & (s.vmas.start == np.uint64(vma.start)))
    return int(rows[0]) if len(rows) else -1


def compare_smaps(s: Snapshot, oracle: Oracle) -> Compared:
    """Every figure of every VMA of every process (fs/proc/task_mmu.c, show_smap())."""
    out, figures, hidden = Compared(), vma_figures(s), _hidden_from_smaps(s)
    for process in oracle.processes:
        mm = mm_row(s, process)
        if mm < 0:
            out.wrong.append(f"pid {process.pid} {process.comm}: no mm")
            continue
        for vma in process.vmas:
            row = vma_row(s, mm, vma)
            if row < 0:
                out.wrong.append(f"pid {process.pid} {process.comm}: no VMA at {vma.start:#x}")
                continue
            out.compared += 1
            for name, ours in _our_figures(s, figures, row).items():
                theirs = vma.kb.get(name)
                if theirs is None or theirs == ours:
                    continue
                reason = hidden[row]
                if reason and theirs == ours - 4 * int(_hidden_pages(s, row, name)):
                    out.explained[reason] += 1
                    continue
                where = f"pid {process.pid} {process.comm} {vma.start:#x} {vma.name}"
                out.wrong.append(f"{where}: {name} ours {ours} kB, smaps {theirs} kB")
    return out


def _our_figures(s: Snapshot, f: VmaFigures, row: int) -> dict[str, int]:
    pages = {
        "Size": s.vmas.nr_pages,
        "Rss": f.rss,
        "Anonymous": f.anon,
        "AnonHugePages": f.anon_pmd,
        "ShmemPmdMapped": f.shmem_pmd,
        "FilePmdMapped": f.file_pmd,
        "Private_Hugetlb": f.hugetlb_private,
        "Shared_Hugetlb": f.hugetlb_shared,
        "Swap": f.swap + f.shmem_swap,
    }
    return {**{name: 4 * int(column[row]) for name, column in pages.items()}, "Locked": int(f.locked_bytes[row]) >> 10}


def _hidden_from_smaps(s: Snapshot) -> list[str]:
    """The reason why smaps of 6.1 says less about a VMA than its page tables hold, "" for none."""
    out = [""] * len(s.vmas)
    if s.scheme is not Scheme.OLD:
        return out
    for row in np.flatnonzero(s.vmas.has(VM_PFNMAP)).tolist():
        out[row] = "6.1 skips VM_PFNMAP VMAs (walk_page_test())"
    for row in np.flatnonzero(_protnone_pmds(s) > 0).tolist():
        out[row] = "6.1 skips huge PMDs that are PROT_NONE (follow_trans_huge_pmd())"
    return out


def _protnone_pmds(s: Snapshot) -> I64:
    """Huge PMDs of each VMA that the hardware does not see."""
    m = s.mappings
    mine = (m.level == Level.PMD) & ((s.mappings.bits & Bit.PROT_NONE) != 0) & (m.vma_idx >= 0)
    return np.bincount(m.vma_idx[mine], minlength=len(s.vmas))


def _hidden_pages(s: Snapshot, row: int, name: str) -> int:
    """Pages of a VMA that smaps of 6.1 leaves out of a figure."""
    if s.vmas.has(VM_PFNMAP)[row]:
        figures = vma_figures(s)
        return int({"Rss": figures.rss, "Anonymous": figures.anon}.get(name, np.zeros(len(s.vmas)))[row])
    return int(_protnone_pmds(s)[row]) << s.layout.pmd_order


def our_pagemap(s: Snapshot, row: int) -> tuple[U64, U64, U64]:
    """For each page of a VMA: what is mapped (pfn + 1, 0 for nothing), the swap entry as pagemap encodes it, bits."""
    n = int(s.vmas.nr_pages[row])
    frame, swap, bits = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    m = s.mappings
    mine = np.flatnonzero(m.vma_idx == row)
    first = ((m.va[mine] - s.vmas.start[row]) >> np.uint64(12)).astype(np.int64)
    each = entry_pages(s.layout, m.level[mine]) * m.nr[mine]
    soft, uffd = (s.mappings.bits[mine] & Bit.SOFT_DIRTY) != 0, (s.mappings.bits[mine] & Bit.UFFD_WP) != 0
    for i in range(len(mine)):
        spots = slice(int(first[i]), int(first[i] + each[i]))
        size = spots.stop - spots.start
        frame[spots] = np.uint64(m.pfn[mine[i]]) + np.arange(size, dtype=np.uint64) + np.uint64(1)
        bits[spots] = (PM_SOFT_DIRTY if soft[i] else np.uint64(0)) | (PM_UFFD_WP if uffd[i] else np.uint64(0))
    away = np.flatnonzero((s.nonpresent.vma_idx == row) & (s.nonpresent.kind == Kind.SWAP))
    at = ((s.nonpresent.va[away] - s.vmas.start[row]) >> np.uint64(12)).astype(np.int64)
    swap[at] = s.nonpresent.swap_type[away] | (s.nonpresent.swap_offset[away] << np.uint64(5))
    return frame, swap, bits


def compare_pagemap(s: Snapshot, oracle: Oracle) -> Compared:
    """Every entry of every process's pagemap: what is mapped or swapped where (fs/proc/task_mmu.c, pagemap_read())."""
    out = Compared()
    swap_kinds = s.nonpresent.kind == Kind.SWAP
    for process in oracle.processes:
        mm = mm_row(s, process)
        for vma in process.vmas if mm >= 0 else ():
            row = vma_row(s, mm, vma)
            if row < 0 or not len(vma.pagemap):
                continue
            if s.vmas.has(VM_PFNMAP)[row]:
                # walk_page_test(): page walks of /proc leave VM_PFNMAP VMAs out, copied pages included.
                out.explained["pagemap leaves out VM_PFNMAP VMAs"] += len(vma.pagemap)
                continue
            frame, swap, bits = our_pagemap(s, row)
            theirs = vma.pagemap
            out.compared += len(theirs)
            present = (theirs & PM_PRESENT) != 0
            wrong = present != (frame != 0)
            wrong |= present & ((theirs & PM_FRAME) != frame - np.uint64(1))
            wrong |= present & (((theirs ^ bits) & PM_UFFD_WP) != 0)
            swapped = swap != 0
            wrong |= swapped & (((theirs & PM_SWAP) == 0) | ((theirs & PM_FRAME) != swap))
            if not swap_kinds.any():
                wrong |= swapped
            hidden = _hidden_entries(s, row, out)
            where = f"pid {process.pid} {process.comm} {vma.start:#x} {vma.name}"
            rows = np.flatnonzero(wrong & ~hidden)
            if len(rows):
                r = rows[0]
                out.wrong.append(
                    f"{where}: {len(rows)} entries, page {r}: {theirs[r]:#x}, ours {frame[r]:#x} {swap[r]:#x}"
                )
    return out


def _hidden_entries(s: Snapshot, row: int, out: Compared) -> Mask:
    """Pages of a VMA whose entries pagemap reports in another form."""
    hidden = np.zeros(int(s.vmas.nr_pages[row]), np.bool_)
    m = s.mappings
    mine = np.flatnonzero((m.vma_idx == row) & (s.mappings.entry_class == EntryClass.UNREADABLE))
    for i in mine.tolist():
        at = int((m.va[i] - s.vmas.start[row]) >> np.uint64(12))
        hidden[at : at + int(m.nr[i])] = True
        out.explained["struct page not in the dump"] += int(m.nr[i])
    return hidden
