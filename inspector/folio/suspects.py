"""References that nothing explains: who may hold them, the likeliest first, by what can be seen of this folio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import Mask, take_or
from inspector.folio.holders import not_sought
from inspector.folio.numbers import OneFolio, stored_mapcount
from inspector.layout.flags import VM_GROWSDOWN
from inspector.text import clean_bytes, counted

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_HOLDERS = ("page tables", "page cache trees", "per-CPU batches", "kernel stacks", "open files", "pipes")
"""What holds references and may not have been read, as `inspector.coverage.Missing` counts it."""


def suspects(s: Snapshot, f: OneFolio, remainder: int) -> list[str]:
    """Sentences about who may hold the references left over.

    Args:
        s: The snapshot.
        f: The folio.
        remainder: References beyond the explained ones; negative when more holders were found than references.
    """
    if remainder < 0:
        return [
            "a per-CPU batch that is being emptied (references are dropped before its count)",
            "the reference count was lowered once too often: the folio may be freed while it is in use",
        ]
    out = [*_lost(s, f, remainder), *_dumping(s, f), *_executing(s, f)]
    if not_sought(s):
        out.append(f"{', '.join(not_sought(s))}: not looked for; --all does")
    unread = [what for what in _HOLDERS if s.missing.counts.get(what)]
    if unread:
        out.append(f"{' or '.join(unread)}: some are not in the dump")
    flags, word = s.layout.flags, s.pages.flags[f.head : f.head + 1]
    if flags.test(word, "writeback")[0]:
        out.append("writeback under way")
    if flags.test(word, "locked")[0]:
        out.append("the folio is locked: by the task that works on it (reading, migration, reclaim, collapse, split)")
    out += _gathering(s)
    if f.is_anon and not flags.test(word, "lru")[0]:
        out.append("isolated from the LRU by reclaim, migration, compaction or collapse")
    if f.is_anon or f.is_file:
        out.append("get_user_pages() without FOLL_PIN (ptrace, KVM, a core dump, O_DIRECT of some file systems)")
        out.append("a walker caught half way (gup_fast, compaction, page_idle, a page-cache look-up)")
    else:
        out.append("the driver that allocated it")
    if remainder >= 1:
        out.append("a reference that was never dropped: a leak")
    return out


def _mapping_mms(s: Snapshot, f: OneFolio) -> Mask:
    """Which mms map the folio."""
    out = np.zeros(len(s.mms), np.bool_)
    out[s.mappings.mm_idx[f.mapping_rows]] = True
    return out


def _lost(s: Snapshot, f: OneFolio, remainder: int) -> list[str]:
    """Mappings that the folio counts and no page table holds: each took a reference (mm/rmap.c, mm/memory.c)."""
    if not_sought(s) or not s.tables_complete:
        return []
    extra = stored_mapcount(s, f) - f.total
    if extra <= 0 or remainder < extra:
        return []
    return [
        f"{counted(extra, 'mapping')} that the folio counts and no page table holds: the reference of each was never "
        "dropped"
    ]


def _dumping(s: Snapshot, f: OneFolio) -> list[str]:
    """Processes that map it and are being dumped: fs/coredump.c, dump_user_range() holds the page it writes out."""
    mms = s.mms.addr[_mapping_mms(s, f)]
    leader = s.being_dumped & (s.tasks.mm != 0) & (s.tasks.pid == s.tasks.tgid)
    busy = np.flatnonzero(leader & np.isin(s.tasks.mm, mms))
    return [
        f"pid {int(s.tasks.pid[t])} {clean_bytes(bytes(s.tasks.comm[t]))} is being dumped: the writer of the core "
        "holds the page it is at (dump_user_range())"
        for t in busy.tolist()
    ]


def _executing(s: Snapshot, f: OneFolio) -> list[str]:
    """The stack of a process that does not run yet: fs/exec.c, copy_strings() holds the page that it fills."""
    m = s.mappings
    vma = m.vma_idx[f.mapping_rows]
    young = (s.mms.nr_tasks[m.mm_idx[f.mapping_rows]] == 0) & (vma >= 0)
    stack = young & ((take_or(s.vmas.flags, vma, 0) & np.uint64(VM_GROWSDOWN)) != 0)
    if not stack.any():
        return []
    mm = int(s.mms.addr[m.mm_idx[f.mapping_rows[np.flatnonzero(stack)[0]]]])
    return [
        f"it is in the stack of mm {mm:#x}, which has no task yet: an execve() under way holds the page that it copies "
        "arguments into (copy_strings())"
    ]


def _gathering(s: Snapshot) -> list[str]:
    """Mms with zapped pages that wait for their TLB flush: mm/mmu_gather.c keeps a reference to each."""
    busy = np.flatnonzero(s.mms.tlb_flush_pending > 0)
    if not len(busy):
        return []
    names = [f"pid {int(s.mms.pid[i])} {clean_bytes(bytes(s.mms.comm[i]))}" for i in busy[:3].tolist()]
    more = f" and {len(busy) - 3} more" if len(busy) > 3 else ""
    return [f"an mmu_gather: unmapped, but kept until the TLB is flushed; {', '.join(names)}{more} unmap just now"]
