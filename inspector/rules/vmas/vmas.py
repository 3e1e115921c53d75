"""Rules of VMAs and of the counters that an mm keeps about them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.columns import I64, AnyArray, Mask, expand_runs
from inspector.layout.flags import (
    MMF_VM_MERGEABLE,
    VM_ACCOUNT,
    VM_ALLOW_ANY_UNCACHED,
    VM_ARCH_1,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_DROPPABLE,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_READ,
    VM_SHADOW_STACK,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
    unknown_vm_flags,
)
from inspector.rules.registry import Phase, rule
from inspector.rules.vmas.lost_vmas import lost_vmas_of, mms_changing_vmas
from inspector.snapshot import Snapshot
from inspector.subjects import MM, VMA
from inspector.violations import Things, Violations, cannot_check, holds, one, several, violations
from inspector.windows.window import Effect


def _vma_violations(s: Snapshot, bad: Mask, observed: dict[str, AnyArray], expected: dict[str, AnyArray]) -> Violations:
    rows = np.flatnonzero(bad)
    return violations(
        rows,
        observed={name: column[rows] for name, column in observed.items()},
        expected={name: column[rows] for name, column in expected.items()},
        checked=len(s.vmas),
        claims=one("vma", rows),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )


@rule(
    "vma-range-mismatch",
    VMA,
    "vma",
    Phase.WORDS,
    effect=Effect.VMAS,
    decides="73",
)
def vma_range_mismatch(s: Snapshot) -> Violations:
    """vm_start and vm_end of a VMA differ from its range in the maple tree.

    Invariant: the tree stores each VMA at [vm_start, vm_end); both are page-aligned, and the range is not empty.
    Why: mm/vma.c, vma_iter_store(); lib/maple_tree.c.
    Consequence: faults at the edge find the wrong VMA; entries are outside every VMA.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope vmas PID
    """
    v = s.vmas
    mask = np.uint64((1 << s.layout.memmap.page_shift) - 1)
    bad = (v.start != v.slot_start) | (v.end != v.slot_end) | (v.start >= v.end) | (((v.start | v.end) & mask) != 0)
    return _vma_violations(
        s, bad, {"vm_start": v.start, "vm_end": v.end}, {"vm_start": v.slot_start, "vm_end": v.slot_end}
    )


@rule(
    "vma-attached-mark-missing",
    VMA,
    "vma",
    Phase.STRUCTURES,
    effect=Effect.VMAS,
    decides="77",
    was="vma-detached",
)
def vma_attached_mark_missing(s: Snapshot) -> Violations:
    """A VMA in an mm's maple tree is marked as detached.

    Invariant: a VMA that can be found in its mm's tree is attached: vm_refcnt at least 1 (6.15 and later), ``detached``
        clear (6.4 to 6.14).
    Why: include/linux/mmap_lock.h, vma_mark_attached(): lock-free page faults rely on it.
    Consequence: faults under the VMA's own lock fail or use a freed VMA.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope vmas PID
    """
    attached = s.vmas.attached
    return _vma_violations(s, ~attached, {"attached": attached}, {"attached": np.ones(len(attached), np.bool_)})


@rule(
    "vma-flags-invalid",
    VMA,
    "vma",
    Phase.STRUCTURES,
    after=("vma-anon-pgoff-mismatch",),
    effect=Effect.VMAS,
    decides="79",
    was="vma-flags-impossible",
)
def vma_flags_invalid(s: Snapshot) -> Violations:
    """A VMA has vm_flags that exclude each other, or a bit that means nothing.

    Invariant: VM_SHARED implies VM_MAYSHARE, VM_MAYSHARE without VM_SHARED forbids VM_MAYWRITE; VM_READ, VM_WRITE and
        VM_EXEC imply their VM_MAY* counterparts, and anonymous memory (no file, no operations) has all of these, is not
        shared and no driver's (VM_IO, VM_PFNMAP, VM_MIXEDMAP, VM_DONTEXPAND). VM_HUGETLB implies a file, VM_WIPEONFORK
        and VM_SHADOW_STACK none, VM_LOCKONFAULT implies VM_LOCKED, VM_DROPPABLE implies VM_NORESERVE, VM_WIPEONFORK and
        VM_DONTDUMP. VM_MERGEABLE implies MMF_VM_MERGEABLE of the mm, which KSM then knows.
        VM_HUGEPAGE and VM_NOHUGEPAGE exclude each other, and so do VM_ACCOUNT and each of VM_NORESERVE and
        VM_SHARED; one of VM_ACCOUNT and VM_NORESERVE is set where private memory is writable. On x86 VM_ARCH_1 (VM_PAT)
        and VM_ALLOW_ANY_UNCACHED imply VM_PFNMAP. Bits that the kernel does not define are 0.
    Why: mm/mmap.c, do_mmap(); mm/mprotect.c, mprotect_fixup(); mm/vma.c, accountable_mapping(); mm/mlock.c,
        apply_vma_lock_flags(); mm/madvise.c, madvise_vma_behavior(); mm/khugepaged.c, hugepage_madvise();
        include/linux/mm.h.
    Consequence: a mapping can be used in a way its file or its owner forbade.
    Exceptions: the mm is being built, changed or torn down. What is charged is not asked of drivers' and hugetlb's
        VMAs.
    See also: folioscope vmas PID
    """
    v = s.vmas
    why = np.full(len(v), "", dtype="<U64")
    for bad, what in _odd_flags(s):
        why[bad & (why == "")] = what
    return _vma_violations(s, why != "", {"vm_flags": v.flags}, {"vm_flags": why})


def _odd_flags(s: Snapshot) -> Iterator[tuple[Mask, str]]:
    """Which VMAs have flags that do not go together, and what would."""
    v = s.vmas
    shared, may_share = v.has(VM_SHARED), v.has(VM_MAYSHARE)
    yield shared & ~may_share, "no VM_SHARED without VM_MAYSHARE"
    for name, now, may in (
        ("READ", VM_READ, VM_MAYREAD),
        ("WRITE", VM_WRITE, VM_MAYWRITE),
        ("EXEC", VM_EXEC, VM_MAYEXEC),
    ):
        yield v.has(now) & ~v.has(may), f"no VM_{name} without VM_MAY{name}"
    no_file = v.file == 0
    yield v.has(VM_HUGETLB) & no_file, "no VM_HUGETLB without a file"
    if unknown := unknown_vm_flags(s.layout.version) if s.layout.arch.name == "x86_64" else 0:
        yield (v.flags & np.uint64(unknown)) != 0, f"no bits of {unknown:#x}"
        yield v.has(VM_ARCH_1) & ~v.has(VM_PFNMAP), "no VM_PAT without VM_PFNMAP"
        if (s.layout.version or (0, 0)) >= _DROPPABLE_SINCE:
            yield v.has(VM_ALLOW_ANY_UNCACHED) & ~v.has(VM_PFNMAP), "no VM_ALLOW_ANY_UNCACHED without VM_PFNMAP"
            whole = v.has(VM_NORESERVE) & v.has(VM_WIPEONFORK) & v.has(VM_DONTDUMP) & no_file
            yield v.has(VM_DROPPABLE) & ~whole, "no VM_DROPPABLE without what it implies"
            yield v.has(VM_SHADOW_STACK) & ~no_file, "no VM_SHADOW_STACK with a file"
    yield may_share & ~shared & v.has(VM_MAYWRITE), "no VM_MAYSHARE with VM_MAYWRITE alone"
    special = (v.flags & np.uint64(VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_DONTEXPAND)) != 0
    plain = no_file & (v.ops == 0)
    every = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    yield plain & (may_share | ~v.has(every)), "VM_MAYREAD, VM_MAYWRITE and VM_MAYEXEC, no VM_MAYSHARE"
    yield plain & special, "none of VM_IO, VM_PFNMAP, VM_MIXEDMAP, VM_DONTEXPAND"
    yield v.has(VM_WIPEONFORK) & ~no_file, "no VM_WIPEONFORK with a file"
    yield v.has(VM_LOCKONFAULT) & ~v.has(VM_LOCKED), "no VM_LOCKONFAULT without VM_LOCKED"
    yield v.has(VM_HUGEPAGE) & v.has(VM_NOHUGEPAGE), "not both VM_HUGEPAGE and VM_NOHUGEPAGE"
    listed = ((s.mms.flags & np.uint64(1 << MMF_VM_MERGEABLE)) != 0) | (s.mms.users <= 0)
    yield v.has(VM_MERGEABLE) & ~listed[v.mm_idx], "no VM_MERGEABLE in an mm without MMF_VM_MERGEABLE"
    charged, free = v.has(VM_ACCOUNT), v.has(VM_NORESERVE)
    yield charged & (free | shared), "no VM_ACCOUNT with VM_NORESERVE or VM_SHARED"
    ordinary = ~special & ~v.has(VM_HUGETLB) & ~shared
    yield ordinary & v.has(VM_WRITE) & ~charged & ~free, "VM_ACCOUNT or VM_NORESERVE"


_DROPPABLE_SINCE = (6, 11)


@rule(
    "vma-page-prot-mismatch",
    VMA,
    "vma",
    Phase.STRUCTURES,
    after=("vma-flags-invalid",),
    effect=Effect.VMAS,
)
def vma_page_prot_mismatch(s: Snapshot) -> Violations:
    """A VMA's vm_page_prot is not what its vm_flags give.

    Invariant: vm_page_prot is the protection of vm_flags (VM_READ, VM_WRITE, VM_EXEC, VM_SHARED, protection key).
    Why: arch/x86/mm/pgprot.c, vm_get_page_prot(); mm/mmap.c, vma_set_page_prot() computes it whenever the flags change.
    Consequence: the next page faults make entries that allow more or less than the VMA does.
    Exceptions: the RW bit of a shared VMA (without it while the file tracks writes); caching, encryption and the RW
        bit in a driver's VMA (VM_IO, VM_PFNMAP, VM_MIXEDMAP, VM_DONTEXPAND). NX on a machine where no VMA has it. The
        mm is being built, changed or torn down.
    See also: folioscope vmas PID
    """
    v, arch = s.vmas, s.layout.arch
    expected = arch.page_prot(v.flags)
    strict = (v.flags & np.uint64(VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_DONTEXPAND)) == 0
    bad = arch.page_prot_differs(v.page_prot, expected, strict=strict)
    return _vma_violations(s, bad, {"vm_page_prot": v.page_prot, "vm_flags": v.flags}, {"vm_page_prot": expected})


@rule(
    "vma-anon-pgoff-mismatch",
    VMA,
    "vma",
    Phase.STRUCTURES,
    after=("i-mmap-vma-missing",),
    effect=Effect.VMAS,
    decides="80",
    was="vma-anon-offset-wrong",
)
def vma_anon_pgoff_mismatch(s: Snapshot) -> Violations:
    """A VMA's page offset for anonymous folios is wrong.

    Invariant: a VMA without anon_vma has the anonymous offset vm_start >> PAGE_SHIFT; an anonymous VMA (no operations,
        no file) has the same offset in vm_pgoff, faulted or not.
    Why: mm/vma.c, __mmap_region(), insert_vm_struct() and copy_vma(); mm/mremap.c, dontunmap_complete() calls it an
        invariant; mm/vma.h, assert_sane_pgoff().
    Consequence: the first page fault indexes pages by the wrong offset: neighbours cannot be merged, and rmap walks of
        an anon_vma shared with them find other pages than the VMA's.
    Exceptions: the kernel keeps no offset for anonymous folios beside vm_pgoff (before 7.3: there MREMAP_DONTUNMAP
        leaves a VMA without anon_vma at the offset it was moved with); the VMA is VM_WIPEONFORK, which a child inherits
        without its anon_vma; the mm is being built, changed or torn down.
    See also: folioscope vmas PID
    """
    v = s.vmas
    if not s.layout.struct("struct vm_area_struct").has("__vm_anon_pgoff_lo"):
        return holds(0)
    place = v.start >> np.uint64(s.layout.memmap.page_shift)
    # exit_mmap() unlinks the anon_vma of every VMA and leaves the VMA in the tree for a while.
    unfaulted = (v.anon_vma == 0) & ~v.has(VM_WIPEONFORK) & (s.mms.users[v.mm_idx] > 0)
    expected = np.where(unfaulted, place, v.anon_pgoff)
    plain = (v.ops == 0) & (v.file == 0)
    bad = (v.anon_pgoff != expected) | (plain & (v.pgoff != expected))
    pgoff = np.where(plain, expected, v.pgoff)
    return _vma_violations(
        s, bad, {"anon_pgoff": v.anon_pgoff, "vm_pgoff": v.pgoff}, {"anon_pgoff": expected, "vm_pgoff": pgoff}
    )


@rule(
    "vm-counters-mismatch",
    MM,
    "vma",
    Phase.TOTALS,
    effect=Effect.VMAS,
    decides="75 76",
)
def vm_counters_mismatch(s: Snapshot) -> Violations:
    """An mm's map_count, total_vm or a like counter differs from the sum over its VMAs.

    Invariant: map_count is the number of VMAs; total_vm their pages; exec_vm, stack_vm and data_vm the pages of
        executable, stack and private writable ones; locked_vm the pages of VM_LOCKED ones.
    Why: mm/mmap.c, vm_stat_account(); mm/mlock.c, apply_vma_lock_flags().
    Consequence: limits (RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, max_map_count) act on wrong numbers; a VMA was lost.
    Exceptions: the mm is being built, changed or torn down (munmap counts at its end, when it holds mmap_lock for
        reading only), or some of its VMAs could not be read.
    See also: folioscope vmas PID
    """
    v, mms, n = s.vmas, s.mms, len(s.mms)
    pages = v.nr_pages

    def add(which: Mask) -> I64:
        return np.bincount(v.mm_idx[which], weights=pages[which], minlength=n).astype(np.int64)

    stack = v.has(VM_GROWSDOWN)
    code = v.has(VM_EXEC) & ~v.has(VM_WRITE) & ~stack
    data = v.has(VM_WRITE) & ~v.has(VM_SHARED) & ~stack
    expected = {
        "map_count": np.bincount(v.mm_idx, minlength=n),
        "total_vm": add(np.ones(len(v), np.bool_)),
        "exec_vm": add(code),
        "stack_vm": add(stack),
        "data_vm": add(data),
        "locked_vm": add(v.has(VM_LOCKED)),
    }
    stored = {name: getattr(mms, name) for name in expected}
    known = np.ones(n, np.bool_)
    for damaged in (s.vma_trees.unreadable, s.vma_trees.missing):
        known[damaged] = False
    bad = known & (mms.users > 0) & np.any([stored[name] != expected[name] for name in expected], axis=0)
    rows = np.flatnonzero(bad)
    shown = [name for name in expected if len(rows) and (stored[name][rows] != expected[name][rows]).any()]
    return violations(
        rows,
        observed={name: stored[name][rows] for name in shown},
        expected={name: expected[name][rows] for name in shown},
        checked=known,
        unread=cannot_check(int((~known).sum()), "VMAs of some processes are missing"),
        depends=one("mm", rows) + _vmas_of(s, rows) + lost_vmas_of(s, rows),
        transient=mms_changing_vmas(s)[rows],
    )


def _vmas_of(s: Snapshot, mms: I64) -> Things:
    """The VMAs of each of the given mms: one that is at fault already explains them."""
    first, end = np.searchsorted(s.vmas.mm_idx, mms, "left"), np.searchsorted(s.vmas.mm_idx, mms, "right")
    return several("vma", np.repeat(np.arange(len(mms)), end - first), expand_runs(first, end - first))
