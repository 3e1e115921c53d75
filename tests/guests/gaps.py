"""Silence between two stores: a guest's CPU stopped after each call that a function of mm/ makes, and checked there.

A random moment rarely falls between the first and the last store of a function that changes VMAs, page tables or
counters. A breakpoint at its beginning, steps, and a breakpoint behind each call lead to all of these gaps.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import drgn

from inspector.check.run import run_check
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.target.target import Target, open_core
from tests.faults.overlay import add, planted
from tests.faults.plants import mapcount_at, page_at_rest

from .cache import guests_folder
from .gdb import Gdb
from .kernels import Kernel
from .packages import fetch_kernel
from .qemu import booted
from .qmp import Qmp
from .silence import keep_capture, told
from .zoo import await_kind, prepare

FUNCTIONS = (
    # VMAs (mm/mmap.c, from 6.12 on mm/vma.c) and mms (kernel/fork.c, fs/exec.c).
    *("__split_vma", "__vma_adjust", "vma_merge", "vma_merge_existing_range", "vma_merge_new_range", "commit_merge"),
    *("vma_expand", "vma_shrink", "vma_complete", "vma_link", "mprotect_fixup", "mlock_fixup", "madvise_vma_behavior"),
    *("do_vmi_align_munmap", "do_mas_align_munmap", "vms_gather_munmap_vmas", "vms_complete_munmap_vmas"),
    *("mmap_region", "__mmap_region", "do_brk_flags", "expand_downwards", "copy_vma", "move_vma", "move_page_tables"),
    *("move_ptes", "dup_mm", "dup_mmap", "copy_process", "anon_vma_clone", "anon_vma_fork", "__anon_vma_prepare"),
    *("unlink_anon_vmas", "free_pgtables", "unmap_region", "exit_mmap", "__mmput", "mmput", "begin_new_exec"),
    # Page tables (mm/memory.c, mm/huge_memory.c, mm/mprotect.c).
    *("copy_page_range", "copy_pte_range", "copy_huge_pmd", "zap_pte_range", "__zap_vma_range", "zap_huge_pmd"),
    *("unmap_page_range", "tlb_finish_mmu", "change_pte_range", "change_huge_pmd", "do_wp_page", "wp_page_copy"),
    *("do_anonymous_page", "do_swap_page", "finish_fault", "do_set_pmd", "do_huge_pmd_anonymous_page"),
    *("do_huge_pmd_wp_page", "__split_huge_pmd", "__split_huge_pmd_locked", "move_huge_pmd", "__pte_alloc"),
    # Folios (mm/huge_memory.c, mm/khugepaged.c, mm/migrate.c, mm/rmap.c, mm/vmscan.c, mm/swap_state.c, mm/ksm.c).
    *("split_huge_page_to_list", "split_huge_page_to_list_to_order", "__folio_split", "deferred_split_scan"),
    *(
        "collapse_huge_page",
        "collapse_file",
        "collapse_pte_mapped_thp",
        "retract_page_tables",
        "try_collapse_pte_mapped_thp",
    ),
    *("try_to_unmap_one", "try_to_migrate_one", "remove_migration_pte", "migrate_pages", "migrate_pages_batch"),
    *(
        "folio_migrate_mapping",
        "__folio_migrate_mapping",
        "migrate_folio_move",
        "shrink_folio_list",
        "__remove_mapping",
    ),
    *("add_to_swap", "folio_alloc_swap", "free_swap_cache", "folio_free_swap", "try_to_merge_one_page"),
    *("cmp_and_merge_page", "replace_page", "write_protect_page", "break_ksm", "stable_tree_append", "__ksm_exit"),
    # hugetlb, shmem, the page cache, userfaultfd.
    *("hugetlb_fault", "hugetlb_wp", "copy_hugetlb_page_range", "__unmap_hugepage_range", "hugetlb_change_protection"),
    *("move_hugetlb_page_tables", "huge_pmd_unshare", "shmem_undo_range", "shmem_get_folio_gfp", "shmem_swapin_folio"),
    *("truncate_inode_pages_range", "filemap_map_pages", "mfill_atomic_install_pte", "move_pages", "uffd_wp_range"),
)
"""Functions between whose stores a rule may look; each kernel has some of them, and inlines others."""

_PLANTED = "mapcount-too-high"

_STEPS = 20_000
_CALL_SECONDS = 10.0


@dataclass(frozen=True)
class Gap:
    """One place in a function at which the guest stood.

    Attributes:
        kernel, function: Where.
        offset: Of the next instruction, in bytes from the beginning of the function.
        after: The function whose call has returned.
        report: What a check says.
        found: The rules of findings once a counter of a page of another mm is wrong; None where none is at rest.
    """

    kernel: str
    function: str
    offset: int
    after: str
    report: Report
    found: list[str] | None

    @property
    def is_deaf(self) -> bool:
        """Whether the counter that was really wrong was not found, or not named for what it is."""
        return self.found is not None and self.found.count(_PLANTED) != 1

    @property
    def wrong(self) -> list[str]:
        """The findings that are none."""
        return [told(f) for f in self.report.findings if f.severity != "info"]


class _Function:
    """Where a function lies, its cold part included."""

    def __init__(self, target: Target, name: str) -> None:
        self._ranges = [_extent(target.prog, symbol) for symbol in (name, f"{name}.cold")]
        self.start = self._ranges[0][0]

    @property
    def is_known(self) -> bool:
        return self.start > 0

    def __contains__(self, address: int) -> bool:
        return any(start <= address < end for start, end in self._ranges)


def _extent(prog: drgn.Program, name: str) -> tuple[int, int]:
    try:
        symbol = prog.symbol(name)
    except LookupError:
        return 0, 0
    return symbol.address, symbol.address + max(symbol.size, 1)


def _name_at(prog: drgn.Program, address: int) -> str:
    try:
        return str(prog.symbol(address).name)
    except LookupError:
        return hex(address)


def _stops(gdb: Gdb, prog: drgn.Program, function: _Function, cpu: int) -> Iterator[tuple[int, str]]:
    """From the beginning of a function to its end: each place behind a call, and what was called."""
    _, top = gdb.registers(cpu)
    for _ in range(_STEPS):
        gdb.step(cpu)
        rip, rsp = gdb.registers(cpu)
        if rip in function:
            continue
        back = gdb.word(cpu, rsp)
        if rsp >= top or back not in function:
            # It returned, or jumped to the function that it ends with.
            return
        callee = _name_at(prog, rip)
        if not _run_to(gdb, cpu, back, rsp + 8):
            return
        yield back - function.start, callee


def _run_to(gdb: Gdb, cpu: int, address: int, stack: int) -> bool:
    """Let all CPUs run until this one is back from a call; whether it came back in time."""
    gdb.set_breakpoint(address)
    try:
        for _ in range(100):
            met = gdb.resume(_CALL_SECONDS)
            if met is None:
                return False
            # A task may come back on another CPU: the stack says whose call has returned.
            if met == cpu and gdb.registers(met) == (address, stack):
                return True
            gdb.clear_breakpoint(address)
            gdb.step(met)
            gdb.set_breakpoint(address)
    finally:
        gdb.clear_breakpoint(address)
    return False


def gaps(
    kernel: Kernel, kind: str, functions: Sequence[str], most: int, keep: Path | None, seconds: float
) -> Iterator[Gap | str]:
    """Boot one guest and check it in the gaps of some functions.

    Args:
        kernel: Which kernel.
        kind: busy or zoo-races.
        functions: Their names.
        most: Gaps of each function at most.
        keep: Where captures of dumps that are not as they must be are kept; None keeps none.
        seconds: How long each function is waited for.

    Yields:
        Each gap; of a function that was never called in that time, or that this kernel lacks, a sentence.
    """
    with _racing(kernel, kind) as (qmp, folder, gdb, target):
        for called in functions:
            function = _Function(target, called)
            if not function.is_known:
                yield f"{called}: no function of this kernel"
                continue
            seen: set[int] = set()
            for _ in range(3):
                cpu = _entered(gdb, function, seconds)
                if cpu is None:
                    break
                for offset, after in _stops(gdb, target.prog, function, cpu):
                    if offset in seen:
                        continue
                    seen.add(offset)
                    s = Snapshot(_dumped(qmp, folder))
                    gap = Gap(kernel.name, called, offset, after, run_check(s), _planted_elsewhere(s))
                    if keep and (gap.wrong or gap.is_deaf):
                        keep_capture(folder / "dump", keep / f"{kernel.name}-{called}+{offset:#x}.kdump")
                    yield gap
                    if len(seen) >= most:
                        break
                if len(seen) >= most:
                    break
            if not seen:
                yield f"{called}: not called within {seconds:.0f} s, or it calls nothing"


def stopped_in(
    kernel: Kernel, kind: str, functions: Sequence[str], turns: int, seconds: float = 20
) -> Iterator[Snapshot]:
    """A guest stopped at the beginning of functions, one after the other; those that the kernel lacks are left out.

    Args:
        kernel: Which kernel.
        kind: busy or zoo-races.
        functions: Their names.
        turns: How often each is waited for.
        seconds: How long.
    """
    with _racing(kernel, kind) as (qmp, folder, gdb, target):
        known = [f for f in (_Function(target, name) for name in functions) if f.is_known]
        for function in known * turns:
            cpu = _entered(gdb, function, seconds)
            if cpu is None:
                continue
            yield Snapshot(_dumped(qmp, folder))
            gdb.step(cpu)


@contextmanager
def _racing(kernel: Kernel, kind: str) -> Iterator[tuple[Qmp, Path, Gdb, Target]]:
    """Boot a guest and take hold of it: its monitor, a folder for dumps, the debugger, and the first dump, opened."""
    unpacked = fetch_kernel(kernel, guests_folder())
    with tempfile.TemporaryDirectory(prefix=".gaps-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare(kernel, unpacked, kind, folder)
        with booted(prepared.boot, lambda guest: await_kind(guest, kind)) as guest, guest.qmp() as qmp:
            qmp.stop()
            target = _dumped(qmp, folder)
            with Gdb(qmp, folder / "gdb") as gdb:
                yield qmp, folder, gdb, target


def _dumped(qmp: Qmp, folder: Path) -> Target:
    dump = folder / "dump"
    dump.unlink(missing_ok=True)
    qmp.dump(dump)
    return open_core(str(dump), types="btf")


def _planted_elsewhere(s: Snapshot) -> list[str] | None:
    """The rules of the findings above info when the mapcount of a page of an mm that nobody works on is wrong."""
    page = page_at_rest(s)
    if page is None:
        return None
    found = run_check(planted(s.target.path, add(s, mapcount_at(s, page), 1, 4))).findings
    return [f.rule for f in found if f.severity != "info"]


def _entered(gdb: Gdb, function: _Function, seconds: float) -> int | None:
    gdb.set_breakpoint(function.start)
    try:
        return gdb.resume(seconds)
    finally:
        gdb.clear_breakpoint(function.start)


def check_gaps(  # noqa: PLR0913, PLR0917  (the options of the command)
    kernels: Sequence[Kernel],
    kinds: Sequence[str],
    functions: Sequence[str],
    most: int,
    keep: Path | None,
    results: Path | None,
    seconds: float,
) -> int:
    """Print a line for each gap, and every finding that is none below it; return the exit code.

    With a file of results a run that was ended goes on: functions that the file has are left out.
    """
    total = bad = deaf = 0
    lines = results.read_text().splitlines() if results and results.is_file() else []
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    done = {(line["kernel"], line["guest"], line["function"]) for line in map(json.loads, lines)}
    for kernel in kernels:
        for kind in kinds:
            left = [f for f in functions or FUNCTIONS if (kernel.name, kind, f) not in done]
            for gap in gaps(kernel, kind, left, most, keep, seconds) if left else ():
                if isinstance(gap, str):
                    print(f"{kernel.name:<6} {gap}", flush=True)
                    called, _, why = gap.partition(": ")
                    _note(results, {"kernel": kernel.name, "guest": kind, "function": called, "lacking": why})
                    continue
                total += 1
                bad += bool(gap.wrong)
                deaf += gap.is_deaf
                info = sum(f.severity == "info" for f in gap.report.findings)
                print(
                    f"{gap.kernel:<6} {gap.function}+{gap.offset:#x} after {gap.after}(): "
                    f"{len(gap.wrong)} wrong, {info} info; planted elsewhere: {gap.found}",
                    flush=True,
                )
                for line in gap.wrong:
                    print(f"         {line}", flush=True)
                place = {"kernel": gap.kernel, "guest": kind, "function": gap.function}
                said = {"wrong": gap.wrong, "info": info, "planted": gap.found}
                _note(results, {**place, "offset": gap.offset, "after": gap.after, **said})
    print(f"{total} gaps, {bad} not silent; {deaf} in which a wrong counter of another mm was not found")
    return 1 if bad or deaf else 0


def _note(results: Path | None, row: dict[str, object]) -> None:
    if results:
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
