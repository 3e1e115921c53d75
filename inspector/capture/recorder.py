"""A target opened a second time through a reader that notes every page that is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import drgn
import numpy as np

from inspector.capture.kdump_writer import PageSpool
from inspector.columns import I64, U8
from inspector.errors import TargetError
from inspector.scratch import shared_zeros
from inspector.target.offer import own_program
from inspector.target.stored_pages import PhysicalReader
from inspector.target.target import Target, from_program

_PIECE = 256
"""Where a page cannot be read whole, pieces of this size are tried: the RAM may end inside it."""

_PHYSICAL = 1 << 52
"""No machine has physical addresses beyond."""

_MAX_PFN = 1 << 32
"""Page frames of 16 TiB: a target that claims more is not believed, and what is read there is noted one by one."""

_RUN = 512
"""Pages read together at most."""


class Recorder:
    """Memory of a program for another one; it notes every page that is read and what it was first read for.

    A stopped kernel does not change: its pages are only noted, in memory that forked processes share, and read again
    when they are written. A live kernel changes while it is read: there a page that was read once keeps its content, so
    that what is kept is what was seen, and every pointer in it that was followed leads to something kept.

    Args:
        prog: The program to read.
        spool: Where pages of a live kernel are kept, and those that were replaced by other content.
        page_size: Bytes of a page.
        is_live: Whether the kernel runs on.
        nr_pfns: Page frames that there are; a page frame beyond is noted all the same.

    Attributes:
        noted: uint8 by page frame number, shared with forked processes: 0 where nothing was read, else one more than
            what it was first read for.
    """

    def __init__(
        self, prog: PhysicalReader, spool: PageSpool, page_size: int, *, is_live: bool, nr_pfns: int = 0
    ) -> None:
        self._prog = prog
        self._spool = spool
        self._page_size = page_size
        self._is_live = is_live
        self.noted = shared_zeros(nr_pfns if 0 < nr_pfns <= _MAX_PFN else 0, np.uint8)
        self._bytes = self.noted.data
        self._beyond: dict[int, int] = {}
        self.kind = 0
        """The mark that pages read from now on get."""

    def __contains__(self, pfn: int) -> bool:
        return bool(self.noted[pfn]) if 0 <= pfn < len(self.noted) else pfn in self._beyond

    @property
    def nr_shared(self) -> int:
        """Page frames below this one are known here also when a forked process reads them."""
        return len(self.noted)

    def pfns(self) -> I64:
        """Page frame numbers of all pages that were read, ascending."""
        beyond = np.array(sorted(self._beyond), np.int64)
        return np.concatenate([np.flatnonzero(self.noted), beyond])

    def kinds(self) -> U8:
        """Their marks, in the order of `pfns`."""
        beyond = np.array([self._beyond[pfn] for pfn in sorted(self._beyond)], np.uint8)
        return np.concatenate([self.noted[self.noted != 0], beyond]) - np.uint8(1)

    def read(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:
        """Answer drgn (`drgn.Program.add_memory_segment`)."""
        size = self._page_size
        first, last = address // size, (address + count - 1) // size
        if self._is_live:
            return self._seen_first(first, last)[address - first * size :][:count]
        try:
            data = bytes(self._prog.read(address, count, True))
        except drgn.FaultError:
            for pfn in range(first, last + 1):
                if pfn not in self and self._source_page(pfn):
                    self._note(pfn, pfn + 1)
            raise
        self._note(first, last + 1)
        return data

    def pages(self, pfns: Sequence[int]) -> list[bytes]:
        """The content of pages that were read, as it is to be written.

        Raises:
            TargetError: One cannot be read any more.
        """
        replaced = self._spool.among(pfns)
        if len(replaced) == len(pfns):
            return self._spool.pages(pfns)
        read = [
            page for start, end in runs([p for p in pfns if p not in replaced]) for page in self._source(start, end)
        ]
        if not replaced:
            return read
        rest = iter(read)
        return [self._spool.page(pfn) if pfn in replaced else next(rest) for pfn in pfns]

    def page(self, pfn: int) -> bytes:
        """The content of one page that was read."""
        return self.pages([pfn])[0]

    def replace(self, pfn: int, page: bytes) -> None:
        """Have other content written in the place of a page that was read."""
        self._spool.add(pfn, page)

    def replaced(self) -> I64:
        """Page frame numbers of pages whose content is not read from the source."""
        return self._spool.pfns()

    def _note(self, first: int, end: int) -> None:
        mark = self.kind + 1
        inside = min(end, len(self.noted))
        if end - first == 1 and inside == end:
            # NumPy takes ten times as long for one element.
            if not self._bytes[first]:
                self._bytes[first] = mark
        elif first < inside:
            noted = self.noted[first:inside]
            noted[noted == 0] = mark
        for pfn in range(max(first, inside), end):
            self._beyond.setdefault(pfn, mark)

    def _seen_first(self, first: int, last: int) -> bytes:
        """Pages [first, last] of a live kernel as they were when they were first read."""
        for start, end in runs([pfn for pfn in range(first, last + 1) if pfn not in self._spool]):
            self._keep(start, end)
        if any(pfn not in self._spool for pfn in range(first, last + 1)):
            raise drgn.FaultError("page cannot be read", first * self._page_size)
        return b"".join([self._spool.page(pfn) for pfn in range(first, last + 1)])

    def _keep(self, first: int, end: int) -> None:
        size = self._page_size
        try:
            data = memoryview(self._prog.read(first * size, (end - first) * size, True))
        except drgn.FaultError:
            if end - first > 1:
                for pfn in range(first, end):
                    self._keep(pfn, pfn + 1)
                return
            data = memoryview(self._pieces(first * size))
            if not data:
                return
        for i in range(end - first):
            self._spool.add(first + i, data[i * size : (i + 1) * size])
        self._note(first, end)

    def _source(self, first: int, end: int) -> list[bytes]:
        """Pages [first, end) of a stopped kernel."""
        size = self._page_size
        try:
            data = self._prog.read(first * size, (end - first) * size, True)
        except drgn.FaultError:
            pages = [self._source_page(pfn) for pfn in range(first, end)]
            if not all(pages):
                raise TargetError("a page cannot be read any more", hex(first), "Open the target again") from None
            return pages
        return [data[at : at + size] for at in range(0, len(data), size)]

    def _source_page(self, pfn: int) -> bytes:
        """One page of a stopped kernel; empty when nothing of it can be read."""
        try:
            return bytes(self._prog.read(pfn * self._page_size, self._page_size, True))
        except drgn.FaultError:
            return self._pieces(pfn * self._page_size)

    def _pieces(self, address: int) -> bytes:
        """A page of which only some can be read, the rest as zeros; empty when nothing can."""
        page, is_any = bytearray(self._page_size), False
        for at in range(0, self._page_size, _PIECE):
            try:
                page[at : at + _PIECE] = self._prog.read(address + at, _PIECE, True)
                is_any = True
            except drgn.FaultError:
                continue
        return bytes(page) if is_any else b""


def runs(pfns: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Page frames, ascending, as runs [start, end) of neighbours, none longer than is read at once."""
    start = end = -1
    for pfn in pfns:
        if pfn == end and end - start < _RUN:
            end += 1
            continue
        if start >= 0:
            yield start, end
        start, end = pfn, pfn + 1
    if start >= 0:
        yield start, end


def open_recording(target: Target, recorder: Recorder, vmcoreinfo: bytes) -> Target:
    """The same target once more, every read going through the recorder, with the types that make it record more.

    Args:
        target: As opened.
        recorder: Reads it.
        vmcoreinfo: VMCOREINFO as the kernel wrote it.

    Raises:
        TargetError: The kernel holds neither BTF nor did the target come with DWARF.
    """
    try:
        recording = from_program(recording_program(target, recorder, vmcoreinfo), types="btf", vmcoreinfo=vmcoreinfo)
    except TargetError:
        if target.types_from != "DWARF":
            raise
        prog = recording_program(target, recorder, vmcoreinfo)
        recording = from_program(prog, debug_files(target.prog), types="dwarf", vmcoreinfo=vmcoreinfo)
    return replace(
        recording,
        kind=target.kind,
        path=target.path,
        more_parts=target.more_parts,
        prstatus=target.prstatus,
        is_paused=target.is_paused,
    )


def recording_program(target: Target, recorder: Recorder, vmcoreinfo: bytes) -> drgn.Program:
    """A program without types whose memory is read through the recorder."""
    prog = own_program(target.prog.platform)
    prog.add_memory_segment(0, _PHYSICAL, recorder.read, True)
    prog.set_linux_kernel_custom(vmcoreinfo, target.is_live)
    return prog


def debug_files(prog: drgn.Program) -> list[str]:
    """Files that the program has DWARF from, the kernel's first."""
    return [str(m.debug_file_path) for m in prog.modules() if m.debug_file_path]
