"""Whether a written capture gives its source's report: every read of the source's check, made again.

A check is a function of what it reads. Where a capture has the same bytes in every page that was read, and the same
pages behind every virtual address, its report is the same, and running every rule a second time would add nothing. The
parts of kernel stacks and of half-filled pages that a capture blanks are the exception: what the check made of these is
made again.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import fields, is_dataclass
from itertools import compress
from pathlib import Path

import drgn
import numpy as np

from inspector.capture.kdump_writer import PIECE
from inspector.capture.recorder import Recorder, runs
from inspector.columns import I64, U64
from inspector.records import cached_property
from inspector.scratch import nameless_file
from inspector.snapshot import Snapshot
from inspector.tables.mmu_gather import read_gathers
from inspector.tables.stacks import build_stacks, stack_words
from inspector.tables.vmalloc import vmalloc_pfns
from inspector.target.stored_pages import StoredPages
from inspector.target.target import open_core, open_pages
from inspector.workers import work_on

_WORD = 8


class VirtualReads:
    """Which pages the check reads by an address that the kernel's page tables translate.

    Those of the memory map are left out: they are known, and many. Forked processes note theirs in the same file.

    Args:
        s: Of the source; its layout is at hand.

    Attributes:
        is_shared: Whether what a forked process notes is known here.
    """

    def __init__(self, s: Snapshot) -> None:
        memmap = s.layout.memmap
        self._shift = memmap.page_shift
        self._memmap = range(memmap.page_addr(0), memmap.page_addr(memmap.max_pfn))
        self._seen: set[int] = set()
        file = nameless_file(os.O_APPEND)
        self.is_shared = file is not None
        if file is not None:
            weakref.finalize(self, os.close, file)
        self._file = file

    def note(self, address: int, size: int, physical: bool) -> None:
        """One read (`Memory.on_read`)."""
        if physical or address in self._memmap:
            return
        pages = range(address >> self._shift, ((address + size - 1) >> self._shift) + 1)
        fresh = [page for page in pages if page not in self._seen]
        if fresh:
            self._seen.update(fresh)
            if self._file is not None:
                os.write(self._file, np.array(fresh, np.uint64).tobytes())

    def pages(self, s: Snapshot) -> U64:
        """Virtual addresses of all these pages, and of those of the memory map."""
        memmap = s.layout.memmap
        ranges = zip(memmap.page_addrs(memmap.starts).tolist(), memmap.page_addrs(memmap.ends).tolist(), strict=True)
        parts = [np.arange(start >> self._shift, -(-end >> self._shift), dtype=np.uint64) for start, end in ranges]
        seen = np.array(sorted(self._seen), np.uint64)
        if self._file is not None:
            seen = np.frombuffer(os.pread(self._file, os.fstat(self._file).st_size, 0), np.uint64)
        return np.unique(np.concatenate([*parts, seen])) << np.uint64(self._shift)


class Written:
    """A capture that has been written.

    Args:
        path: Where it is.
        symbols: Files with DWARF to open it with; the BTF inside it where there are none.
    """

    def __init__(self, path: Path, symbols: Sequence[str]) -> None:
        self.path = str(path)
        self._symbols = symbols

    @cached_property
    def snapshot(self) -> Snapshot:
        """Of it, opened like any dump.

        Raises:
            TargetError: It cannot be opened.
        """
        return Snapshot(open_core(self.path, self._symbols, types="dwarf" if self._symbols else "btf"))


def same_reads(
    recorder: Recorder, s: Snapshot, again: Written, pfns: I64, virtual: VirtualReads, nr_workers: int
) -> bool:
    """Whether a capture answers all reads that the check of its source made as the source did.

    Args:
        recorder: Noted what was read of the source, and has it.
        s: Of the source, checked.
        again: The capture.
        pfns: The pages in the capture, ascending.
        virtual: What was read by virtual address.
        nr_workers: Processes that read at most.

    Raises:
        TargetError: The capture cannot be opened.
    """
    if len(pfns) != len(recorder.pfns()):
        return False
    with closing(_same_pages(recorder, again.path, pfns, nr_workers)) as pages:
        # Whatever differs in one piece, the others need not be read. While workers read them, it is opened here.
        return (
            next(pages, True)
            and _same_kernel(s, again.snapshot)
            and _same_translation(s, again.snapshot, pfns, virtual)
            and _same_stacks(s, again.snapshot)
            and all(pages)
        )


def _same_pages(recorder: Recorder, path: str, pfns: I64, nr_workers: int) -> Generator[bool, None, None]:
    """Whether the pages of a capture are those of its source, a piece at a time."""
    stored = open_pages(path)
    first = _first_of_equal(stored, pfns)

    def same(at: int) -> bool:
        """Pages stored once are unpacked once: the others of them are compared with the source's of the first."""
        here, of = pfns[at : at + PIECE], first[at : at + PIECE]
        wanted = recorder.pages(here.tolist())
        own = of == here
        if _read(stored, here[own].tolist()) != list(compress(wanted, own.tolist())):
            return False
        others, which = np.unique(of[~own], return_inverse=True)
        equal = recorder.pages(others.tolist())
        rest = zip(compress(wanted, (~own).tolist()), which.tolist(), strict=True)
        return all(page == equal[place] for page, place in rest)

    yield from work_on(range(0, len(pfns), PIECE), same, nr_workers)


def _first_of_equal(stored: StoredPages, pfns: I64) -> I64:
    """For each page frame, ascending, the first of those that are stored at the same place of the file."""
    places = [place for start, end in runs(pfns.tolist()) for place in stored.places(start, end)]
    _, first, which = np.unique(places, return_index=True, return_inverse=True)
    return pfns[first[which]]


def _read(stored: StoredPages, pfns: list[int]) -> list[bytes] | None:
    """Pages of the capture; None where one cannot be read."""
    try:
        return [page for start, end in runs(pfns) for page in stored.unpacked(start, end)]
    except (drgn.FaultError, OSError):
        return None


def _same_translation(s: Snapshot, again: Snapshot, pfns: I64, virtual: VirtualReads) -> bool:
    """Whether the capture has the same page frames behind all virtual addresses that the check read.

    By its page tables, by which drgn translates them, too: that it does is tried once for each of the lowest.
    """
    found = virtual.pages(s)
    pfn = vmalloc_pfns(s.layout, found)
    is_in = np.isin(pfn, pfns)
    found, pfn = found[is_in], pfn[is_in]
    if not np.array_equal(pfn, vmalloc_pfns(again.layout, found)):
        return False
    shift = again.layout.memmap.page_shift
    _, tried = np.unique(found >> np.uint64(shift + again.layout.pmd_order), return_index=True)
    return all(
        again.layout.memory.read(address, _WORD) == again.layout.memory.read(frame << shift, _WORD, physical=True)
        for address, frame in zip(found[tried].tolist(), pfn[tried].tolist(), strict=True)
    )


def _same_kernel(s: Snapshot, again: Snapshot) -> bool:
    """Whether what is known of the target beside its memory is the same."""
    if s.target.prstatus != again.target.prstatus and s.tasks.on_cpu[s.table_holders].any():
        return False  # registers are searched for page tables, and a capture has few of them
    return (
        s.target.identity == again.target.identity
        and s.layout.scheme == again.layout.scheme
        and s.target.missing_bytes == again.target.missing_bytes
    )


def _same_stacks(s: Snapshot, again: Snapshot) -> bool:
    """Whether kernel stacks, of which a capture has the live parts only, give the same frames, words and gathers."""
    stacks = build_stacks(again.layout, s.tasks)
    if not _equal(stacks, s.stacks) or not _equal(read_gathers(again.layout, s.mms, stacks), s.gathers):
        return False
    return all(
        _equal(stack_words(again.layout, stacks, task), stack_words(s.layout, stacks, task))
        for task in np.unique(stacks.frames.task_idx).tolist()
    )


def _equal(a: object, b: object) -> bool:
    """Whether two tables, or what tables are made of, hold the same."""
    if is_dataclass(a):
        return type(a) is type(b) and all(_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    return a == b
