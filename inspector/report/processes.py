"""Address spaces and the VMAs of one, with their memory by kind, in KiB, which /proc calls kB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.aimed.snapshot import AimedSnapshot
from inspector.columns import I64, AnyArray
from inspector.coverage import lost_words
from inspector.hex_json import Hex, Wide
from inspector.layout.flags import (
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    unknown_vm_flags,
)
from inspector.report.screen import Screen, TableColumn, render_facts, render_table, wrong_words
from inspector.snapshot import Snapshot
from inspector.subjects import MM, VMA
from inspector.tables.mms import MMF_HAS_PINNED, RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.text import clean_bytes, counted
from inspector.walk.names import vma_names
from inspector.walk.rss import rss_differs
from inspector.walk.smaps import VmaFigures, vma_figures

if TYPE_CHECKING:
    from inspector.check.marks import Marks

_VM_NAMES = {
    VM_LOCKED: "locked",
    VM_IO: "io",
    VM_PFNMAP: "pfnmap",
    VM_MIXEDMAP: "mixedmap",
    VM_HUGETLB: "hugetlb",
    VM_GROWSDOWN: "growsdown",
}


class Process(msgspec.Struct, frozen=True):
    """One address space. Sizes in KiB."""

    pid: int | None
    """The lowest pid of its tasks; null when no task uses it."""
    comm: str | None
    mm: Hex
    tasks: int
    users: int
    """mm_users."""
    other_pids: list[int]
    """Other processes (not threads) that share the address space."""
    rss_kb: Wide
    anon_kb: Wide
    file_kb: Wide
    shmem_kb: Wide
    swap_kb: Wide
    """The kernel's own counters, exact."""
    counters_readable: bool
    pmd_mapped_kb: int
    """Of the rss, mapped by PMDs; rebuilt from the page tables."""
    hugetlb_kb: int
    pgtables_kb: Wide
    vmas: int
    wrong: list[str]
    """What the rules find about it: which of its values are not as they must be."""
    ever_pinned: bool
    """Whether it ever pinned pages (MMF_HAS_PINNED): fork copies what may be pinned only then."""
    tlb_pending: int
    """Generation of the last unmapping whose TLB flush was put off (mm->tlb_flush_batched)."""
    tlb_flushed: int
    """Generation that was flushed last; lower where the process still has to flush before it changes its memory."""


class PsReport(msgspec.Struct, frozen=True):
    """The object that ``ps --format json`` prints."""

    schema: Literal["folioscope.ps/2"]
    processes: list[Process]
    missing: dict[str, int]
    """Unreadable things by kind."""


def build_ps(s: Snapshot) -> PsReport:
    """One row an mm, processes first by pid, those without a task last."""
    mms, tasks, kb = s.mms, s.tasks, 1 << (s.layout.arch.page_shift - 10)
    figures = vma_figures(s)
    n = len(mms)

    def per_mm(*columns: I64) -> I64:
        return np.bincount(s.vmas.mm_idx, weights=sum(columns), minlength=n).astype(np.int64) * kb

    pmd = per_mm(figures.anon_pmd, figures.shmem_pmd, figures.file_pmd)
    hugetlb = per_mm(figures.hugetlb_private, figures.hugetlb_shared)
    vmas = np.bincount(s.vmas.mm_idx, minlength=n)
    leaders = np.flatnonzero((tasks.pid == tasks.tgid) & (tasks.mm != 0))
    others: dict[int, list[int]] = {}
    for row in leaders.tolist():
        others.setdefault(int(tasks.mm[row]), []).append(int(tasks.pid[row]))
    rss, marks, batches = mms.rss * kb, _marks_of_mms(s), s.tlb_batches
    made = []
    for i in np.lexsort((mms.pid, mms.pid < 0)).tolist():
        pid, mm = int(mms.pid[i]), int(mms.addr[i])
        made.append(
            Process(
                pid if pid >= 0 else None,
                clean_bytes(bytes(mms.comm[i])) if pid >= 0 else None,
                mm,
                int(mms.nr_tasks[i]),
                int(mms.users[i]),
                [p for p in others.get(mm, []) if p != pid],
                int(rss[i, RSS_ANON] + rss[i, RSS_FILE] + rss[i, RSS_SHMEM]),
                int(rss[i, RSS_ANON]),
                int(rss[i, RSS_FILE]),
                int(rss[i, RSS_SHMEM]),
                int(rss[i, RSS_SWAP]),
                bool(mms.rss_valid[i]),
                int(pmd[i]),
                int(hugetlb[i]),
                int(mms.pgtables_bytes[i]) >> 10,
                int(vmas[i]),
                marks.get(i, []),
                bool(mms.flags[i] & MMF_HAS_PINNED),
                int(batches.pending[i]),
                int(batches.flushed[i]),
            )
        )
    return PsReport("folioscope.ps/2", made, dict(s.missing.counts))


_PS = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("tasks", right=True),
    TableColumn("rss KiB", right=True),
    TableColumn("anon KiB", right=True),
    TableColumn("file KiB", right=True),
    TableColumn("shmem KiB", right=True),
    TableColumn("swap KiB", right=True),
    TableColumn("pmd-mapped KiB", right=True),
    TableColumn("hugetlb KiB", right=True),
    TableColumn("tables KiB", right=True),
    TableColumn("vmas", right=True),
    TableColumn("", style="fail"),
    TableColumn("note"),
)


def render_ps(screen: Screen, report: PsReport) -> Iterator[str]:
    """The report for people; sizes in KiB."""
    rows = [
        (
            "-" if p.pid is None else str(p.pid),
            p.comm or "(no task)",
            str(p.tasks),
            *_counters(p),
            str(p.pmd_mapped_kb),
            str(p.hugetlb_kb or ""),
            str(p.pgtables_kb),
            str(p.vmas),
            wrong_words(p.wrong),
            _note(p),
        )
        for p in report.processes
    ]
    yield from render_table(screen, _PS, rows)
    yield ""
    yield f"{counted(len(report.processes), 'address space')}; sizes in KiB" + _missing(report.missing)


def _counters(p: Process) -> tuple[str, ...]:
    if not p.counters_readable:
        return ("?",) * 5
    return str(p.rss_kb), str(p.anon_kb), str(p.file_kb), str(p.shmem_kb), str(p.swap_kb)


def _note(p: Process) -> str:
    words = [f"mm {p.mm:#x}"] if p.pid is None else []
    if p.other_pids:
        words.append(f"shared with {', '.join(map(str, p.other_pids))}")
    if p.users <= 0:
        words.append("being torn down")
    if p.ever_pinned:
        words.append("has pinned")
    if p.tlb_pending != p.tlb_flushed:
        words.append(f"TLB flush put off ({p.tlb_pending}, {p.tlb_flushed} flushed)")
    return ", ".join(words)


def _missing(missing: dict[str, int]) -> str:
    return "; not in the dump: " + ", ".join(lost_words(missing)) if missing else ""


class VmaRow(msgspec.Struct, frozen=True):
    """One VMA. Sizes in KiB, defined as in /proc/PID/smaps, rebuilt from the page tables."""

    start: Hex
    end: Hex
    perms: str
    name: str
    vma: Hex
    pgoff: Wide
    vm_flags: Hex
    flags: list[str]
    size_kb: Wide
    rss_kb: Wide
    anon_kb: Wide
    file_kb: Wide
    shmem_kb: Wide
    anon_pmd_kb: int
    shmem_pmd_kb: int
    file_pmd_kb: int
    hugetlb_private_kb: int
    hugetlb_shared_kb: int
    swap_kb: Wide
    locked_kb: int
    wrong: list[str]
    """What the rules find about it that decide from what was read: which of its values are not as they must be."""
    lock: str
    """Who holds the VMA's own lock, or waits for it, "" for no one: ``1 reader``, ``writer, 2 readers``; and how many
    of these no task can be."""


class VmasReport(msgspec.Struct, frozen=True):
    """The object that ``vmas --format json`` prints."""

    schema: Literal["folioscope.vmas/2"]
    mm: Hex
    pid: int | None
    comm: str | None
    vmas: list[VmaRow]
    searched: Literal["own page tables", "all page tables"]
    """Which page tables were walked: those of this process, or of all. How often others map a page, which decides
    what hugetlb memory is shared and how locked memory is shared out, is then taken from the kernel's own counts, or
    from the page tables."""
    complete: bool
    """False when VMAs, page tables or struct pages are missing; of this process where no others were walked."""


def build_vmas(s: Snapshot, mm_idx: int) -> VmasReport:
    """The VMAs of one mm."""
    rows = np.flatnonzero(s.vmas.mm_idx == mm_idx).astype(np.int64)
    aimed = isinstance(s, AimedSnapshot)
    figures = vma_figures(s, stored=aimed).take(rows)
    names = vma_names(s.layout, s.mms, s.vmas, rows)
    pid, locks, marks = int(s.mms.pid[mm_idx]), _locks(s, rows), _marks_of_vmas(s, rows)
    return VmasReport(
        "folioscope.vmas/2",
        int(s.mms.addr[mm_idx]),
        pid if pid >= 0 else None,
        clean_bytes(bytes(s.mms.comm[mm_idx])) if pid >= 0 else None,
        [_vma_row(s, row, figures, i, names[i], (locks[i], marks.get(row, []))) for i, row in enumerate(rows.tolist())],
        "own page tables" if aimed else "all page tables",
        s.missing.complete and s.mappings_whole,
    )


def _marks_of_mms(s: Snapshot) -> Marks:
    """What is wrong with each mm; rules are run where a sum is not that of its page tables, or two share its words."""
    words = s.mms.rss_words
    if len(np.unique(words[words != 0])) == int((words != 0).sum()) and not _sums_differ(s):
        return {}
    from inspector.check.marks import marks_of  # noqa: PLC0415  (all rules, which sound values do not need)

    return marks_of(s, MM)


def _sums_differ(s: Snapshot) -> bool:
    """Whether rss of an mm is not what its page tables map, more than one execve() under way accounts for."""
    rebuilt, odd = s.rss[0], rss_differs(s)
    excess = s.mms.rss - rebuilt
    # The argument pages of an mm that no task has yet are charged to the one of its task too (acct_arg_size()).
    arguments = int(rebuilt[s.mms.nr_tasks == 0, RSS_ANON].sum())
    return int(odd.sum()) > (1 if arguments and int(excess[odd].sum()) == arguments else 0)


def _marks_of_vmas(s: Snapshot, rows: I64) -> Marks:
    """What is wrong with each VMA; of one process, rules are run where its words are not as its mm's tree has them."""
    v = s.vmas
    odd = (v.start[rows] != v.slot_start[rows]) | (v.end[rows] != v.slot_end[rows])
    odd |= v.vm_mm[rows] != s.mms.addr[v.mm_idx[rows]]
    odd |= (v.flags[rows] & np.uint64(unknown_vm_flags(s.layout.version))) != 0
    if isinstance(s, AimedSnapshot) and not odd.any():
        return {}
    from inspector.check.marks import marks_of  # noqa: PLC0415  (all rules, which sound values do not need)

    return marks_of(s, VMA)


def _locks(s: Snapshot, rows: I64) -> list[str]:
    """The locks of some VMAs in words."""
    locks, out = s.vma_locks, [""] * len(rows)
    if locks is None:
        return out
    for i in np.flatnonzero(locks.held[rows]).tolist():
        row = rows[i]
        nr, found = int(locks.readers[row]), int(locks.named_by[row])
        holders = ["writer"] * bool(locks.written[row]) + [counted(nr, "reader")] * bool(nr)
        lost = nr + int(locks.written[row]) - found
        if lost > 0:
            holders.append(f"{lost} not found" if found else "no such task")
        out[i] = ", ".join(holders)
    return out


def _vma_row(  # noqa: PLR0913, PLR0917
    s: Snapshot, row: int, f: VmaFigures, i: int, name: str, found: tuple[str, list[str]]
) -> VmaRow:
    vmas, kb = s.vmas, 1 << (s.layout.arch.page_shift - 10)
    flags = int(vmas.flags[row])

    def size(column: AnyArray) -> int:
        return int(column[i]) * kb

    return VmaRow(
        int(vmas.start[row]),
        int(vmas.end[row]),
        perms(flags),
        name,
        int(vmas.addr[row]),
        int(vmas.pgoff[row]),
        flags,
        [word for bit, word in _VM_NAMES.items() if flags & bit],
        int(vmas.nr_pages[row]) * kb,
        size(f.rss),
        size(f.anon),
        size(f.file),
        size(f.shmem),
        size(f.anon_pmd),
        size(f.shmem_pmd),
        size(f.file_pmd),
        size(f.hugetlb_private),
        size(f.hugetlb_shared),
        size(f.swap + f.shmem_swap),
        int(f.locked_bytes[i]) >> 10,
        found[1],
        found[0],
    )


def perms(flags: int) -> str:
    """``rw-p`` as /proc/PID/maps has it."""
    letters = [(VM_READ, "r"), (VM_WRITE, "w"), (VM_EXEC, "x")]
    share = "s" if flags & VM_MAYSHARE else "S" if flags & VM_SHARED else "p"
    return "".join(letter if flags & bit else "-" for bit, letter in letters) + share


_VMAS = (
    TableColumn("start", right=True),
    TableColumn("end", right=True),
    TableColumn("perm"),
    TableColumn("size KiB", right=True),
    TableColumn("rss KiB", right=True),
    TableColumn("anon KiB", right=True),
    TableColumn("file KiB", right=True),
    TableColumn("shmem KiB", right=True),
    TableColumn("pmd-mapped KiB", right=True),
    TableColumn("hugetlb KiB", right=True),
    TableColumn("swap KiB", right=True),
    TableColumn("locked KiB", right=True),
    TableColumn("lock"),
    TableColumn("name"),
    TableColumn("flags"),
    TableColumn("", style="fail"),
)


def render_vmas(screen: Screen, report: VmasReport) -> Iterator[str]:
    """The report for people; sizes in KiB."""
    yield from render_facts(screen, [("process", _who(report)), ("mm", f"{report.mm:#x}")])
    yield ""
    rows = [_vma_cells(v) for v in report.vmas]
    rows.append(("", "", "sum", *_sums(report.vmas), "", "", "", ""))
    yield from render_table(screen, _VMAS, rows)
    yield ""
    note = "" if report.complete else "; some page tables, VMAs or struct pages are not in the dump"
    if report.searched == "own page tables":
        note += "; how often others map a page is the kernel's own count (--all counts in all page tables)"
    yield from screen.wrap(f"{counted(len(report.vmas), 'VMA')}; sizes in KiB (kB in smaps){note}")


def _who(report: VmasReport) -> str:
    return f"pid {report.pid} {report.comm}" if report.pid is not None else "no task"


def _vma_cells(v: VmaRow) -> tuple[str, ...]:
    sizes = (
        v.size_kb,
        v.rss_kb,
        v.anon_kb,
        v.file_kb,
        v.shmem_kb,
        v.anon_pmd_kb + v.shmem_pmd_kb + v.file_pmd_kb,
        v.hugetlb_private_kb + v.hugetlb_shared_kb,
        v.swap_kb,
        v.locked_kb,
    )
    shown = [str(sizes[0]), str(sizes[1]), *(str(n) if n else "" for n in sizes[2:])]
    return f"{v.start:x}", f"{v.end:x}", v.perms, *shown, v.lock, v.name, " ".join(v.flags), wrong_words(v.wrong)


def _sums(vmas: list[VmaRow]) -> tuple[str, ...]:
    sums = [
        sum(v.size_kb for v in vmas),
        sum(v.rss_kb for v in vmas),
        sum(v.anon_kb for v in vmas),
        sum(v.file_kb for v in vmas),
        sum(v.shmem_kb for v in vmas),
        sum(v.anon_pmd_kb + v.shmem_pmd_kb + v.file_pmd_kb for v in vmas),
        sum(v.hugetlb_private_kb + v.hugetlb_shared_kb for v in vmas),
        sum(v.swap_kb for v in vmas),
        sum(v.locked_kb for v in vmas),
    ]
    return (str(sums[0]), str(sums[1]), *(str(n) if n else "" for n in sums[2:]))
