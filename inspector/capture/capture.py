"""A minimal vmcore out of a large one: the kernel memory that the inspector reads, and nothing of any process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import drgn
import msgspec
import numpy as np

from inspector.arch.base import Level
from inspector.capture.blanking import blank_dead_stacks, blank_leftovers
from inspector.capture.kdump_writer import DumpHeader, Effort, PageSpool, write_kdump
from inspector.capture.packing import Packer
from inspector.capture.private_pages import PRIVATE, CoveredPages, judge_pages
from inspector.capture.proof import VirtualReads, Written, same_reads
from inspector.capture.recorder import Recorder, debug_files, open_recording, recording_program
from inspector.check.prepare import Progress
from inspector.check.run import run_check
from inspector.columns import I64, U8
from inspector.deflate import LEVEL
from inspector.errors import FolioscopeError, TargetError, UsageError
from inspector.findings import Report
from inspector.interrupts import Allowed, PutOff
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.new_file import new_file
from inspector.records import cached_property, dataclass
from inspector.snapshot import Snapshot
from inspector.target.prstatus import maps_for_user, stripped
from inspector.target.target import RAN_ON, Target
from inspector.walk.lost_tables import KERNEL_MAP_DISTANCE
from inspector.walk.names import vma_names
from inspector.walk.smaps import shmem_entries
from inspector.walk.swap_view import swap_devices
from inspector.workers import default_workers, may_fork

KINDS = ("BTF", "kallsyms", "memory map", "processes", "page tables", "other")
"""What captured pages are counted by: what they were first read for."""

_MAX_BTF = 1 << 28
_MAX_MODULES = 10_000
_UNREADABLE = (FolioscopeError, drgn.FaultError, LookupError, ValueError, AttributeError, TypeError)
"""What reading a damaged or filtered target may raise."""


Proof = Literal["reads", "report"]

CAPTURE_SCHEMA: Literal["folioscope.capture/1"] = "folioscope.capture/1"


class CaptureReport(msgspec.Struct, frozen=True):
    """What was written."""

    schema: Literal["folioscope.capture/1"]
    path: str
    bytes: int
    """Size of the file."""
    page_size: int
    pages: dict[str, int]
    """Captured pages by what they were first read for."""
    left_out: dict[str, int]
    """Pages that were read but may hold users' data, by reason; only damage or a running kernel leads to them."""
    ran_on: bool
    """Whether the kernel ran on while it was captured: its pages are of different moments. A capture of such
    a capture is one, too."""
    same_answers: bool | None
    """Whether the capture, opened again, gives the same report of a check as its source. None of a running
    source: no two reads of it are the same, so the capture was opened and checked but not compared."""
    notes: list[str]
    """What could not be done, in sentences."""
    proof: Proof | None
    """How that is known. ``reads``: the capture answers every read of its source's check with the same bytes, and
    what a check makes of kernel stacks, which are in it in part, is the same. ``report``: that was not so, as where
    pages were left out, and the capture was checked and the reports compared. None where nothing was compared."""

    @property
    def nr_pages(self) -> int:
        """Captured pages of all kinds."""
        return sum(self.pages.values())


@dataclass(frozen=True)
class _Recorded:
    """What a recording gives."""

    header: DumpHeader
    recorder: Recorder
    snapshot: Snapshot
    virtual: VirtualReads
    pfns: I64
    kinds: U8
    left_out: dict[str, int]
    report: Report
    symbols: list[str]
    notes: list[str]


def capture(
    target: Target,
    out: str | os.PathLike[str],
    *,
    compression: int = LEVEL,
    is_forced: bool = False,
    progress: Progress | None = None,
    nr_workers: int | None = None,
) -> CaptureReport:
    """Write everything that the inspector reads of a target to a new kdump-compressed vmcore.

    Args:
        target: As opened; only read.
        out: The file to write. It appears whole or not at all.
        compression: Of `inspector.deflate.deflated`, 1 (quick) to 9 (small).
        is_forced: Whether an existing file may be replaced.
        progress: Called at each step.
        nr_workers: Processes that compress and compare at most; None for as many as there are processors. What is
            written does not depend on it.

    Raises:
        UsageError: ``out`` exists, or is what is being captured.
        TargetError: The target cannot be read far enough, or the file cannot be written.
    """
    path = Path(out)
    _require_free(path, target, is_forced=is_forced)
    progress = progress or (lambda _what, _done, _all: None)
    page_size = target.identity.page_size or 4096
    try:
        with closing(PageSpool(path.parent, page_size)) as spool:
            recorder = Recorder(target.prog, spool, page_size, is_live=target.is_live, nr_pfns=_nr_pfns(target))
            # What was read of a kernel that runs on is in the spool; a stopped guest is read again.
            is_read_here = target.has_one_reader and not target.is_live
            nr = default_workers() if nr_workers is None else nr_workers
            effort = Effort(compression, 1 if is_read_here else nr)
            return _capture(target, path, recorder, effort, progress)
    except OSError as error:
        todo = "Free some space or name another place" if error.errno in (28, 122) else "Name another place"
        raise TargetError(f"the capture cannot be written ({error.strerror or error})", str(path), todo) from error


def _require_free(path: Path, target: Target, *, is_forced: bool) -> None:
    if not path.exists():
        return
    files = (target.path, *target.more_parts) if target.kind in ("core", "kdump") else ()
    if any(file and path.samefile(file) for file in files):
        raise UsageError("a dump cannot be captured into itself", str(path), "Name another file")
    if path.is_dir():
        raise UsageError("this is a directory", str(path), "Name a file in it")
    if not path.is_file():
        raise UsageError("this is no regular file", str(path), "Name another file")
    if not is_forced:
        raise UsageError("the file exists already", str(path), "Add --force to replace it")


def _nr_pfns(target: Target) -> int:
    """One more than the last page frame of RAM, as the kernel has it (max_pfn, mm/mm_init.c); 0 if unknown."""
    address = target.symbol("max_pfn")
    try:
        return int.from_bytes(target.prog.read(address, 8), "little") if address is not None else 0
    except drgn.FaultError:
        return 0


def _capture(target: Target, path: Path, recorder: Recorder, effort: Effort, progress: Progress) -> CaptureReport:
    packer = Packer(recorder, recorder.noted, effort.level)
    is_ahead = effort.nr_workers > 1 and not target.is_live and recorder.nr_shared > 0 and may_fork()
    # While the check keeps one processor busy, the other compresses what has been read.
    with PutOff(), packer.beside() if is_ahead else nullcontext(), Allowed():
        found = _record(target, recorder, progress)
    memmap = found.snapshot.layout.memmap
    ram = list(zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True))
    progress("writing", _STEPS - 2, _STEPS)
    with new_file(path) as (file, part):
        effort = replace(effort, ahead=packer.ahead().without(recorder.replaced()))
        write_kdump(file, found.header, recorder, found.pfns, ram, effort)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        progress("opening it again", _STEPS - 1, _STEPS)
        try:
            is_same, proof = _prove(found, part, is_live=target.is_live, nr_workers=effort.nr_workers)
        except TargetError as error:
            what = f"the capture cannot be used ({error.what})"
            raise TargetError(what, str(path), "Please report this") from error
    progress("done", _STEPS, _STEPS)
    counts = np.bincount(found.kinds, minlength=len(KINDS)).tolist()
    pages = dict(zip(KINDS, counts, strict=True))
    return CaptureReport(
        CAPTURE_SCHEMA,
        str(path),
        size,
        found.header.page_size,
        pages,
        found.left_out,
        target.ran_on,
        is_same,
        found.notes,
        proof,
    )


def _prove(found: _Recorded, part: Path, *, is_live: bool, nr_workers: int) -> tuple[bool | None, Proof | None]:
    """Whether the written file gives the same report as its source, and how that is known."""
    written = Written(part, found.symbols)
    if not is_live and same_reads(found.recorder, found.snapshot, written, found.pfns, found.virtual, nr_workers):
        return True, "reads"
    s = written.snapshot
    # As in the recording: a table that is built notes what it lacks, wanted by a rule or not.
    report = run_check(s)
    _read_all(s)
    return (None, None) if is_live else (_answers(report) == _answers(found.report), "report")


def _record(target: Target, recorder: Recorder, progress: Progress) -> _Recorded:
    """Read everything once, through a recorder."""
    vmcoreinfo = target.prog["VMCOREINFO"].string_()
    notes: list[str] = []
    progress("types and symbols", 0, _STEPS)
    _read_btf(target, recorder, vmcoreinfo)
    recorder.kind = KINDS.index("kallsyms")
    s = Snapshot(open_recording(target, recorder, vmcoreinfo))
    virtual = VirtualReads(s)
    s.layout.memory.on_read = virtual.note
    s.layout.memory.shares_notes = virtual.is_shared and recorder.nr_shared >= s.layout.memmap.max_pfn

    def checking(what: str, done: int, steps: int) -> None:
        recorder.kind = KINDS.index(what if what in KINDS else "other")
        progress(what, done, steps)

    report = run_check(s, progress=checking, collects=[CoveredPages])
    for done, (what, read) in enumerate(_STAGES, _STEPS - 2 - len(_STAGES)):
        progress(what, done, _STEPS)
        try:
            read(s)
        except _UNREADABLE as error:
            notes.append(f"{what}: {str(error).rstrip('.')}.")
    with suppress(*_UNREADABLE):
        blank_dead_stacks(s, recorder)
        blank_leftovers(s, recorder)
    recorder.kind = KINDS.index("page tables")
    _read_direct_map(s, recorder)
    pfns, kinds, left_out = _choose(s, recorder)
    header = header_of(s.target, vmcoreinfo, _names_a_page(s.layout))
    symbols = debug_files(s.target.prog) if s.target.types_from == "DWARF" else []
    return _Recorded(header, recorder, s, virtual, pfns, kinds, left_out, report, symbols, notes)


def _read_btf(target: Target, recorder: Recorder, vmcoreinfo: bytes) -> None:
    """Read the kernel's BTF, also where the types of the target came from DWARF."""
    start, stop = target.symbol("__start_BTF"), target.symbol("__stop_BTF")
    if start is None or stop is None or not 0 < stop - start <= _MAX_BTF:
        return
    recorder.kind = KINDS.index("BTF")
    with suppress(drgn.FaultError):
        recording_program(target, recorder, vmcoreinfo).read(start, stop - start)


_LEFT_OUT = ("gathered", "reference_terms")
"""Facts of a snapshot that are drawn from kernel stacks: these keep registers and remains of what processes passed to
the kernel, and have no place in a capture."""


_MADE_OF_TABLES = ("mappings", "links", "ksm_entries", "page_index")
"""Facts of a snapshot that are made of what it has read already, and are as large as all page tables or the memory
map."""


def _read_all(s: Snapshot) -> None:
    """Have every table and every lazily found fact built: what is added to the snapshot later is in without a word."""
    for owner in (s, s.layout, s.target):
        for name in dir(type(owner)):
            if name.startswith("_") or name in (*_LEFT_OUT, *_MADE_OF_TABLES):
                continue
            if isinstance(getattr(type(owner), name), (property, cached_property)):
                with suppress(*_UNREADABLE):
                    getattr(owner, name)


def _read_vmas(s: Snapshot) -> None:
    """Read what listings show of VMAs: files' paths and other names, swapped shmem."""
    shmem_entries(s.layout, s.vmas)
    vma_names(s.layout, s.mms, s.vmas, np.arange(len(s.vmas)))


def _read_as_drgn(s: Snapshot) -> None:
    """Read what plain drgn reads when it opens a dump and walks the tasks."""
    # The whole of drgn's command line comes with it: that takes long, and is done while pages are compressed.
    from drgn.helpers.linux.pid import for_each_task  # noqa: PLC0415

    prog, limit = s.target.prog, 2 * len(s.tasks) + 64
    for task in itertools.islice(for_each_task(prog), limit):
        task.comm.string_()
        task.mm.value_()
    for _module in itertools.islice(prog.loaded_modules(), _MAX_MODULES):
        pass


_STAGES: tuple[tuple[str, Callable[[Snapshot], object]], ...] = (
    ("reverse maps and other tables", _read_all),
    ("names and sizes of VMAs", _read_vmas),
    ("names of swap devices", swap_devices),
    ("tasks and modules as drgn reads them", _read_as_drgn),
)
"""What is read beside what a check reads, and how. The snapshot's tables are in by themselves; what reads the target
without the snapshot keeping it needs a line here."""

_STEPS = len(_STAGES) + 3


def _read_direct_map(s: Snapshot, recorder: Recorder) -> None:
    """Read the kernel's page tables over every kept page, which the inspector reads by physical address.

    drgn has libkdumpfile translate addresses of the direct map, too, and that takes the tables.
    """
    base, shift = s.layout.memory.direct_map_base, s.layout.memmap.page_shift
    per_table = 1 << s.layout.pmd_order
    done = np.empty(0, np.int64)
    while True:
        # One kept page in what a lowest table covers; its tables may lie where nothing was kept before.
        kept = recorder.pfns()
        regions, first = np.unique(kept // per_table, return_index=True)
        new = ~np.isin(regions, done)
        if not new.any():
            return
        for pfn in kept[first[new]].tolist():
            with suppress(drgn.FaultError):
                s.target.prog.read(base + (pfn << shift), 1)
        done = regions


def _choose(s: Snapshot, recorder: Recorder) -> tuple[I64, U8, dict[str, int]]:
    """The pages to write, ascending, their kinds, and how many were left out for which reason."""
    pfns, kinds = recorder.pfns(), recorder.kinds()
    reasons = judge_pages(s, pfns)
    left_out = {name: int((reasons == i).sum()) for i, name in enumerate(PRIVATE, 1) if (reasons == i).any()}
    keep = reasons == 0
    pfns, kinds = pfns[keep], kinds[keep]
    kinds[s.pages.type_[s.pages.memmap.rows(pfns)] == type_code("table")] = KINDS.index("page tables")
    return pfns, kinds, left_out


def _names_a_page(layout: Layout) -> Callable[[int], bool]:
    """Which words in a register name a page of memory: its struct page, its address, an entry that maps it for a user.

    A task that is about to write an entry has it, or the page, in a register
    (`inspector.windows.window.FoliosWorkedOn`).
    """
    memmap = layout.memmap
    pages = range(memmap.page_addr(0), memmap.page_addr(memmap.max_pfn))
    base = layout.memory.direct_map_base
    ram = range(base, base + (memmap.max_pfn << memmap.page_shift))

    def names(word: int) -> bool:
        if word in pages or word in ram or word - KERNEL_MAP_DISTANCE in ram:
            return True
        entry = np.array([word], np.uint64)
        pfn = int(layout.arch.leaf_pfn(Level.PTE, entry)[0])
        return bool(maps_for_user(entry)[0]) and 0 < pfn < memmap.max_pfn

    return names


def header_of(target: Target, vmcoreinfo: bytes, is_kept: Callable[[int], bool] = lambda _word: False) -> DumpHeader:
    """What the headers of a dump of this target hold, given VMCOREINFO as it is in its notes.

    Args:
        target: Of which a dump is written.
        vmcoreinfo: As in its notes.
        is_kept: Which values of registers stay beside those that unwinding needs.
    """
    identity, info = target.identity, target.vmcoreinfo
    if target.is_live:
        vmcoreinfo = vmcoreinfo.rstrip(b"\0\n") + f"\n{RAN_ON}=1\n".encode()
    return DumpHeader(
        machine=identity.architecture or "x86_64",
        release=identity.release or "",
        version=identity.version or "",
        page_size=identity.page_size or 4096,
        phys_base=int(info.get("NUMBER(phys_base)", "0"), 0) & (1 << 64) - 1,
        stopped_at=identity.stopped_at or 0,
        vmcoreinfo=vmcoreinfo,
        nr_cpus=identity.nr_cpus or 1,
        prstatus=tuple(stripped(note, is_kept) for note in target.prstatus),
    )


def _answers(report: Report) -> object:
    """What a report says about the kernel, without how and whence it was opened."""
    plain = msgspec.to_builtins(report)
    for name in ("path", "kind", "types_from", "symbols_from"):
        plain["target"].pop(name, None)
    for finding in plain["findings"]:
        finding.pop("look", None)
    return plain
