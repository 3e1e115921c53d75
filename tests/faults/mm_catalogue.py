"""Faults of address spaces and VMAs: who uses an mm, on which lists it is, and what its VMAs say of themselves."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind
from inspector.columns import I64, rows_of
from inspector.layout.flags import VM_WIPEONFORK
from inspector.snapshot import Snapshot
from inspector.tables.mm_holders import KHUGEPAGED, KSM, LAZY, UFFD
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, add, entry_xor, pfn_of, put, word
from tests.faults.plants import MissingError, Planted, pick, small_anon, small_file
from tests.faults.state_catalogue import quiet_mms, vma_word

_SPECIAL = 1 << 9


def _mm_field(s: Snapshot, mm: int, name: str) -> int:
    return int(s.mms.addr[mm]) + s.layout.struct("struct mm_struct").field(name).offset


def _task_field(s: Snapshot, task: int, name: str) -> int:
    return int(s.tasks.addr[task]) + s.layout.struct("struct task_struct").field(name).offset


def _sleepers(s: Snapshot) -> I64:
    return np.flatnonzero((s.tasks.mm != 0) & ~s.tasks.on_cpu)


@fault
def mm_of_a_task_points_elsewhere(s: Snapshot) -> Planted:
    """A use after free overwrote task->mm: it leads into the middle of its object."""
    task = pick(_sleepers(s), "a sleeping process", 9)
    return Planted((add(s, _task_field(s, task, "mm"), 64),), ("task-mm-invalid",), None)


@fault
def borrowed_mm_of_a_kernel_thread_points_elsewhere(s: Snapshot) -> Planted:
    """A kernel thread kept active_mm of a slab object that is no mm."""
    tasks = s.tasks
    kernel = np.flatnonzero((tasks.mm == 0) & ~tasks.on_cpu & (tasks.active_mm == 0))
    task = pick(kernel, "a sleeping kernel thread", 4)
    return Planted((put(s, _task_field(s, task, "active_mm"), int(tasks.addr[task])),), ("task-mm-invalid",), None)


def _quiet_mm(s: Snapshot, nth: int) -> int:
    return pick(np.flatnonzero(quiet_mms(s) & (s.mms.users > 0) & (s.mms.pgd_pfn >= 0)), "a quiet process", nth)


@fault
def bit_of_a_pgd_pointer_flipped(s: Snapshot) -> Planted:
    """mm->pgd names no page any more: all of the process's page tables hang in the air."""
    at = _mm_field(s, _quiet_mm(s, 5), "pgd")
    return Planted((put(s, at, word(s, at) ^ 1 << 3),), ("mm-top-table-invalid",), None)


@fault
def top_bit_of_a_pgd_pointer_lost(s: Snapshot) -> Planted:
    at = _mm_field(s, _quiet_mm(s, 3), "pgd")
    return Planted((put(s, at, word(s, at) ^ 1 << 63),), ("mm-top-table-invalid",), None)


@fault
def pgd_pointer_cleared(s: Snapshot) -> Planted:
    """The top table was freed under a process that runs on."""
    return Planted((put(s, _mm_field(s, _quiet_mm(s, 7), "pgd"), 0),), ("mm-top-table-invalid",), None)


@fault
def pgd_pointer_of_a_neighbour(s: Snapshot) -> Planted:
    """mm->pgd names the next process's top table."""
    quiet = np.flatnonzero(quiet_mms(s) & (s.mms.users > 0) & (s.mms.pgd_pfn >= 0))
    mm, other = quiet[len(quiet) // 2 : len(quiet) // 2 + 2].tolist()
    return Planted((put(s, _mm_field(s, mm, "pgd"), int(s.mms.pgd[other])),), ("mm-top-table-invalid",), None)


@fault
def pgd_pointer_to_a_page_of_a_process(s: Snapshot) -> Planted:
    """mm->pgd names a page of the process itself."""
    page = pfn_of(s, pick(small_anon(s, 1), "a private page", 6)) << s.layout.memmap.page_shift
    at = _mm_field(s, _quiet_mm(s, 9), "pgd")
    return Planted((put(s, at, s.layout.memory.direct_map_base + page),), ("mm-top-table-invalid",), None)


def kernel_slot(s: Snapshot, top: int, slot: int) -> Patch:
    """A bit of an address turned over in an entry of the kernel's half of some top table, by the table's address."""
    at = top + 8 * slot
    return put(s, at, word(s, at) ^ 1 << 27)


def direct_map_slot(s: Snapshot) -> int:
    """The first slot of the kernel's half that leads to the direct map."""
    top = s.layout.arch.shapes[0]
    return s.layout.memory.direct_map_base >> top.shift & top.entries - 1


@fault
def direct_map_of_one_process_led_astray(s: Snapshot) -> Planted:
    """One bit turned over in the entry of the direct map in the top table of one process."""
    top = int(s.mms.pgd[_quiet_mm(s, 4)])
    return Planted((kernel_slot(s, top, direct_map_slot(s)),), ("kernel-half-mismatch",), None)


@fault
def kernel_text_unmapped_in_one_process(s: Snapshot) -> Planted:
    """The last entry of a top table, the kernel's image, wiped."""
    top = int(s.mms.pgd[_quiet_mm(s, 8)])
    return Planted((put(s, top + 8 * 511, 0),), ("kernel-half-mismatch",), None)


@fault
def direct_map_of_the_kernel_led_astray(s: Snapshot) -> Planted:
    """The same bit in init_mm's own top table, while all processes have the right entry."""
    patch = kernel_slot(s, s.kernel_halves.own_at, direct_map_slot(s))
    return Planted((patch,), ("kernel-top-table-mismatch",), None)


@fault
def users_of_a_threaded_mm_dropped_once_too_often(s: Snapshot) -> Planted:
    several = (s.mms.nr_tasks > 1) & (s.mms.users == s.mms.nr_tasks)
    mm = pick(np.flatnonzero(several), "a process of several threads")
    return Planted((add(s, _mm_field(s, mm, "mm_users.counter"), -1, 4),), ("mm-users-low",), None)


@fault
def last_user_of_an_mm_dropped_while_it_runs(s: Snapshot) -> Planted:
    mm = pick(np.flatnonzero(quiet_mms(s) & (s.mms.users == 1)), "a quiet process", 6)
    return Planted((put(s, _mm_field(s, mm, "mm_users.counter"), 0, 4),), ("mm-users-low",), None)


def _exactly_held(s: Snapshot, *kinds: int) -> I64:
    """Mms with no reference beyond those of their users and holders, among these one of each kind."""
    of = rows_of(s.mms.addr, s.mm_holders.mm)
    held = np.bincount(of[of >= 0], minlength=len(s.mms))
    wanted = (s.mms.users > 0) & (s.mms.count == held + 1)
    for kind in kinds:
        wanted &= np.bincount(of[(of >= 0) & (s.mm_holders.kind == kind)], minlength=len(s.mms)) > 0
    return np.flatnonzero(wanted)


@fault
def reference_of_khugepaged_lost(s: Snapshot) -> Planted:
    mm = pick(_exactly_held(s, KHUGEPAGED), "a process that khugepaged scans", 3)
    return Planted((add(s, _mm_field(s, mm, "mm_count.counter"), -1, 4),), ("mm-count-low",), None)


@fault
def reference_of_ksm_lost(s: Snapshot) -> Planted:
    mm = pick(_exactly_held(s, KSM), "a process that KSM scans", 2)
    return Planted((add(s, _mm_field(s, mm, "mm_count.counter"), -1, 4),), ("mm-count-low",), None)


@fault
def reference_of_a_userfaultfd_lost(s: Snapshot) -> Planted:
    mm = pick(_exactly_held(s, UFFD), "a process that a userfaultfd watches", 1)
    return Planted((add(s, _mm_field(s, mm, "mm_count.counter"), -1, 4),), ("mm-count-low",), None)


@fault
def mm_that_a_cpu_idles_on_dropped(s: Snapshot) -> Planted:
    mm = pick(_exactly_held(s, LAZY), "a process whose page tables a CPU idles on")
    return Planted((put(s, _mm_field(s, mm, "mm_count.counter"), 1, 4),), ("mm-count-low",), None)


@fault
def last_reference_of_a_running_mm_dropped(s: Snapshot) -> Planted:
    mm = pick(_exactly_held(s), "a process", 12)
    return Planted((put(s, _mm_field(s, mm, "mm_count.counter"), 0, 4),), ("mm-count-low",), None)


@fault
def mm_with_swap_fell_off_the_list(s: Snapshot) -> Planted:
    """The list of mms with swap lost one: swapoff goes past it."""
    swapped = np.unique(s.nonpresent.mm_idx[s.nonpresent.kind == Kind.SWAP])
    mm = pick(swapped[s.mms.users[swapped] > 0], "a process with swap entries", 1)
    link = _mm_field(s, mm, "mmlist")
    return Planted((put(s, link, link), put(s, link + 8, link)), ("mmlist-entry-missing",), None)


def _vmas_with_pages(s: Snapshot, *, anon: bool) -> I64:
    mapped = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(s.vmas)) > 0
    return np.flatnonzero(mapped & quiet_mms(s)[s.vmas.mm_idx] & ((s.vmas.anon_vma != 0) == anon))


@fault
def vma_given_to_another_process(s: Snapshot) -> Planted:
    """vm_mm leads to the mm of somebody else: the object was freed and is in use again."""
    vma = pick(_vmas_with_pages(s, anon=True), "a VMA with anonymous pages", 8)
    other = int(s.mms.addr[(s.vmas.mm_idx[vma] + 1) % len(s.mms)])
    return Planted((put(s, vma_word(s, vma, "vm_mm"), other),), ("vma-mm-mismatch",), None)


@fault
def vma_of_no_process(s: Snapshot) -> Planted:
    vma = pick(_vmas_with_pages(s, anon=False), "a VMA of a file", 14)
    return Planted((put(s, vma_word(s, vma, "vm_mm"), 0),), ("vma-mm-mismatch",), None)


def _mark_special(s: Snapshot, page: int) -> Patch:
    m = s.mappings
    row = pick(np.flatnonzero((s.pages.memmap.rows(m.pfn) == page) & (m.nr == 1)), "an entry of its own")
    return entry_xor(s, row, _SPECIAL)


def _alone(s: Snapshot, pages: I64) -> I64:
    """Pages that an entry with no neighbour in its run maps."""
    single = s.mappings.nr == 1
    return pages[np.isin(pages, s.pages.memmap.rows(s.mappings.pfn[single]))]


@fault
def entry_of_an_anonymous_page_marked_special(s: Snapshot) -> Planted:
    page = pick(_alone(s, small_anon(s, 1)), "a private page", 17)
    return Planted((_mark_special(s, page),), ("special-entry-unexpected",), pfn_of(s, page))


@fault
def entry_of_a_file_page_marked_special(s: Snapshot) -> Planted:
    page = pick(_alone(s, small_file(s, 2)), "a shared file page", 11)
    return Planted((_mark_special(s, page),), ("special-entry-unexpected",), pfn_of(s, page))


def _anon_pgoff(s: Snapshot, vma: int) -> int:
    if not s.layout.struct("struct vm_area_struct").has("__vm_anon_pgoff_lo"):
        raise MissingError("an offset for anonymous pages of its own")
    return vma_word(s, vma, "__vm_anon_pgoff_lo")


@fault
def anonymous_offset_of_an_unfaulted_vma_shifted(s: Snapshot) -> Planted:
    """mremap moved a VMA that nobody had touched and left its offset behind."""
    v = s.vmas
    able = (v.anon_vma == 0) & quiet_mms(s)[v.mm_idx] & ~v.has(VM_WIPEONFORK) & (v.file != 0)
    vma = pick(np.flatnonzero(able), "a VMA without anonymous pages", 20)
    return Planted((add(s, _anon_pgoff(s, vma), 3, 4),), ("vma-anon-pgoff-mismatch",), None)


@fault
def two_offsets_of_an_anonymous_vma_apart(s: Snapshot) -> Planted:
    v = s.vmas
    vma = pick(np.flatnonzero((v.anon_vma != 0) & quiet_mms(s)[v.mm_idx] & (v.file == 0) & (v.ops == 0)), "a VMA", 9)
    assert _anon_pgoff(s, vma)
    return Planted((add(s, vma_word(s, vma, "vm_pgoff"), 1),), ("vma-anon-pgoff-mismatch",), None)


@fault
def flushed_tlb_generation_above_the_pending_one(s: Snapshot) -> Planted:
    mm = pick(np.flatnonzero(quiet_mms(s)), "a quiet process", 3)
    return Planted(
        (put(s, _mm_field(s, mm, "tlb_flush_batched.counter"), 2 | 5 << 16, 4),), ("tlb-batch-invalid",), None
    )


@fault
def pending_tlb_generation_beyond_its_end(s: Snapshot) -> Planted:
    mm = pick(np.flatnonzero(quiet_mms(s)), "a quiet process", 4)
    return Planted((put(s, _mm_field(s, mm, "tlb_flush_batched.counter"), 0x4001, 4),), ("tlb-batch-invalid",), None)


@fault
def tlb_generation_with_a_stray_bit(s: Snapshot) -> Planted:
    mm = pick(np.flatnonzero(quiet_mms(s)), "a quiet process", 5)
    return Planted((put(s, _mm_field(s, mm, "tlb_flush_batched.counter"), 1 << 15, 4),), ("tlb-batch-invalid",), None)


@fault
def task_that_forgot_a_tlb_flush(s: Snapshot) -> Planted:
    """Cleared too early: a page that it unmapped may still be written to."""
    task = pick(_sleepers(s), "a sleeping process", 5)
    return Planted((put(s, _task_field(s, task, "tlb_ubc.writable"), 1, 1),), ("tlb-flush-missing",), None)
