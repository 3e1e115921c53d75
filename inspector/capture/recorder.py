"""A target opened a second time through a reader that keeps every page that is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import drgn

from inspector.capture.kdump_writer import PageSpool
from inspector.errors import TargetError
from inspector.target.target import Target, from_program

_PIECE = 256
"""Where a page cannot be read whole, pieces of this size are tried: the RAM may end inside it."""

_PHYSICAL = 1 << 52
"""No machine has physical addresses beyond."""


class Recorder:
    """Memory of a program for another one, kept page by page as it is first read.

    A live kernel changes while it is read: there a page that was read once keeps its content, so that what is kept is
    what was seen, and every pointer in it that was followed leads to something kept.

    Args:
        prog: The program to read.
        spool: Where pages are kept.
        page_size: Bytes of a page.
        is_live: Whether the kernel runs on.
    """

    def __init__(self, prog: drgn.Program, spool: PageSpool, page_size: int, *, is_live: bool) -> None:
        self._prog = prog
        self._spool = spool
        self._page_size = page_size
        self._is_live = is_live
        self.kind = 0
        """The mark that pages kept from now on get."""

    def read(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:
        """Answer drgn (`drgn.Program.add_memory_segment`)."""
        size = self._page_size
        first, last = address // size, (address + count - 1) // size
        for start, end in self._unkept(first, last + 1):
            self._keep(start, end)
        if not self._is_live:
            return bytes(self._prog.read(address, count, True))
        if any(pfn not in self._spool for pfn in range(first, last + 1)):
            raise drgn.FaultError("page cannot be read", address)
        whole = b"".join([self._spool.page(pfn) for pfn in range(first, last + 1)])
        return whole[address - first * size :][:count]

    def _unkept(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs of page frames in [first, end) that are not kept yet."""
        start = None
        for pfn in range(first, end):
            if pfn in self._spool:
                if start is not None:
                    yield start, pfn
                start = None
            elif start is None:
                start = pfn
        if start is not None:
            yield start, end

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
            self._spool.add(first + i, data[i * size : (i + 1) * size], self.kind)

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
    return replace(recording, kind=target.kind, path=target.path, prstatus=target.prstatus)


def recording_program(target: Target, recorder: Recorder, vmcoreinfo: bytes) -> drgn.Program:
    """A program without types whose memory is read through the recorder."""
    prog = drgn.Program(target.prog.platform)
    prog.add_memory_segment(0, _PHYSICAL, recorder.read, True)
    prog.set_linux_kernel_custom(vmcoreinfo, target.is_live)
    return prog


def debug_files(prog: drgn.Program) -> list[str]:
    """Files that the program has DWARF from, the kernel's first."""
    return [str(m.debug_file_path) for m in prog.modules() if m.debug_file_path]
