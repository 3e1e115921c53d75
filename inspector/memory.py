"""Bulk reads of the target's memory: ranges and gathers, unreadable bytes masked instead of raised."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

import drgn
import numpy as np

from inspector.columns import I64, U8, U64, Mask, expand_runs
from inspector.errors import TargetError
from inspector.records import dataclass

CHUNK = 2 << 20
"""Bytes of one read of a long range: large enough that the cost of a call vanishes, small enough for the L2 cache."""

_RUN = 1 << 18
"""Bytes of pieces that are read together, or a few more: they are copied while they are in the L2 cache."""

_LONG = 2048
"""Bytes of a piece that are copied by themselves: from there on NumPy's call costs less than a second copy."""

WALK_SECONDS = 5.0
"""What following lists or trees of a kernel that runs on may take: they can grow as fast as they are read."""

HOLE = 4096
"""Granularity at which a failing read is retried: dumps drop whole pages."""


class Reader(Protocol):
    """What `Memory` needs of a program: raw bytes by address."""

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        """Read ``size`` bytes; raises drgn.FaultError if any of them cannot be read."""


Nowhere = Callable[[U64], Mask]
"""Which addresses can be none of an object of the kernel: what leads there is damaged."""


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes of n equal-sized things.

    Attributes:
        bytes: uint8[n, size]; rows that could not be read are zero.
        valid: bool[n]; False where any byte of the row could not be read.
        addr: uint64[n]; where each row was read.
    """

    bytes: U8
    valid: Mask
    addr: U64

    def __len__(self) -> int:
        return len(self.valid)


class Memory:
    """Masked bulk reads of one target.

    Virtual addresses inside the direct map are turned into physical ones here, because every kind of target
    can be read physically and only some of them have the kernel's page tables at hand.

    Args:
        prog: The program to read.
    """

    def __init__(self, prog: Reader) -> None:
        self._read = prog.read
        self._direct_map = (0, 0)
        self.runs_on = False
        """Whether the kernel changes what is read here: a list may be left through an entry that moved to another."""
        self.on_read: Callable[[int, int, bool], None] | None = None
        """Called with (address, size, physical) of each read that succeeded; how a capture learns what was used."""
        self.shares_notes = False
        """Whether what forked processes read gets known here, when ``on_read`` is called in them."""
        self.overwritten: tuple[tuple[int, int, bool], ...] = ()
        """Stretches that hold something else than what belongs there, as (address, end, physical): reads of any of
        their bytes fail, as those of bytes that are not in the dump."""
        self.partly_used: dict[int, int] = {}
        """By address of a page that holds a list of the kernel's: how many of its bytes do. What lies behind them is
        left from the page's last use; a capture blanks it."""

    def deadline(self) -> float:
        """When (`time.monotonic`) a walk of lists or trees that begins now must end; never where nothing changes."""
        return time.monotonic() + WALK_SECONDS if self.runs_on else math.inf

    def set_direct_map(self, base: int, size: int) -> None:
        """Set where the direct map of physical memory begins and how many bytes it spans."""
        self._direct_map = (base, base + size)

    @property
    def direct_map_base(self) -> int:
        """Virtual address of physical address 0 in the direct map."""
        return self._direct_map[0]

    def read(self, address: int, size: int, *, physical: bool = False) -> bytes | None:
        """``size`` bytes at ``address``, or None when any of them cannot be read."""
        if not physical and self._direct_map[0] <= address and address + size <= self._direct_map[1]:
            address -= self._direct_map[0]
            physical = True
        if address < 0 or size <= 0 or address + size > 1 << 64:
            return None
        if self.overwritten and self.is_overwritten(address, size, physical=physical):
            return None
        try:
            data = self._read(address, size, physical)
        except (drgn.FaultError, OverflowError, ValueError):
            return None
        except OSError as error:
            reason = error.strerror or str(error)
            raise TargetError(f"the target cannot be read any more ({reason})", "", "Open it again") from None
        if self.on_read is not None:
            self.on_read(address, size, physical)
        return data

    def is_overwritten(self, address: int, size: int, *, physical: bool) -> bool:
        """Whether any of these bytes is in a stretch that holds something else (`overwritten`)."""
        return any(
            start < address + size and address < end and physical == is_physical
            for start, end, is_physical in self.overwritten
        )

    def read_u64(self, address: int) -> int | None:
        """The unsigned 64-bit word at a kernel virtual address, or None."""
        data = self.read(address, 8)
        return None if data is None else int.from_bytes(data, "little")

    def words(self, addresses: U64, *, physical: bool = False) -> tuple[U64, Mask]:
        """The 64-bit words at many addresses, 0 where one cannot be read, and which could be read."""
        raw = self.gather(addresses, 8, physical=physical)
        return raw.bytes.view(np.uint64).reshape(-1), raw.valid

    def read_range(self, address: int, size: int, *, physical: bool = False) -> tuple[U8, Mask]:
        """A contiguous range.

        Returns:
            ``(data, valid)``: uint8[size], zero where unreadable, and bool[ceil(size / 4096)]: for each
            4096-byte step from ``address`` whether it was read.
        """
        data = np.zeros(size, np.uint8)
        valid = np.zeros(-(-size // HOLE), np.bool_)
        for at in range(0, size, CHUNK):
            n = min(CHUNK, size - at)
            piece = self.read(address + at, n, physical=physical)
            if piece is not None:
                data[at : at + n] = np.frombuffer(piece, np.uint8)
                valid[at // HOLE : -(-(at + n) // HOLE)] = True
                continue
            for hole in range(at, at + n, HOLE):
                m = min(HOLE, size - hole)
                piece = self.read(address + hole, m, physical=physical)
                if piece is not None:
                    data[hole : hole + m] = np.frombuffer(piece, np.uint8)
                    valid[hole // HOLE] = True
        return data, valid

    def chunk(self, address: int, size: int, *, physical: bool = False) -> tuple[U8, Mask]:
        """Like `read_range` for at most `CHUNK` bytes: without a copy where all of them can be read."""
        piece = self.read(address, size, physical=physical)
        if piece is None:
            return self.read_range(address, size, physical=physical)
        return np.frombuffer(piece, np.uint8), np.ones(-(-size // HOLE), np.bool_)

    def gather(self, addresses: U64, size: int, *, physical: bool = False) -> Raw:
        """Read ``size`` bytes at each address, neighbours with one read, each distinct address once.

        Args:
            addresses: uint64[n], in any order, repeats allowed.
            size: Bytes of each piece.
            physical: Whether the addresses are physical.

        Returns:
            The pieces in the order asked for.
        """
        n = len(addresses)
        out = np.zeros((n, size), np.uint8)
        valid = np.zeros(n, np.bool_)
        if n == 0:
            return Raw(out, valid, addresses)
        if n == 1:
            # The end of a long list: a step at a time, and sorting one address costs more than reading it.
            data = self.read(int(addresses[0]), size, physical=physical)
            if data is not None:
                out[0], valid[0] = np.frombuffer(data, np.uint8), True
            return Raw(out, valid, addresses)
        order: I64 = np.argsort(addresses, kind="stable").astype(np.int64)
        ordered = addresses[order]
        # Pieces in the same page or in neighbouring ones are one read: a call costs more than the bytes between them,
        # and no page is read that holds none of them.
        page = np.uint64(HOLE)
        gap = ordered[1:] // page > (ordered[:-1] + np.uint64(size - 1)) // page + np.uint64(1)
        edges = np.concatenate([[0], np.flatnonzero(gap) + 1, [n]])
        pieces = _Pieces(ordered, order, out, valid)
        for run in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            todo = [run]
            while todo:
                lo, hi = todo.pop()
                base, last = int(ordered[lo]), int(ordered[hi - 1])
                data = self.read(base, last - base + size, physical=physical) if last - base <= _RUN else None
                if data is not None:
                    pieces.add(lo, hi, base, data)
                elif hi > lo + 1:
                    middle = (lo + hi) // 2
                    todo += [(middle, hi), (lo, middle)]
        pieces.cut()
        return Raw(out, valid, addresses)


class _Pieces:
    """Runs of pieces that were read, cut up many at a time: most runs hold one piece, and NumPy's calls cost more.

    Args:
        ordered: uint64[n]; the addresses asked for, ascending.
        order: int64[n]; where the piece of each address goes.
        out: uint8[n, size]; takes the pieces.
        valid: bool[n]; takes which were read.
    """

    def __init__(self, ordered: U64, order: I64, out: U8, valid: Mask) -> None:
        self._ordered, self._order, self._out, self._valid = ordered, order, out, valid
        self._rows = out.reshape(-1).data if out.shape[1] >= _LONG else None
        self._data: list[bytes] = []
        self._runs: list[tuple[int, int, int]] = []
        self._length = 0

    def add(self, lo: int, hi: int, base: int, data: bytes) -> None:
        """Take the bytes from ``base`` that hold the pieces ``lo`` to ``hi``."""
        if self._rows is not None:
            self._put(self._rows, lo, hi, base, data)
            return
        self._runs.append((lo, hi, self._length - base))
        self._data.append(data)
        self._length += len(data)
        if self._length > _RUN:
            self.cut()

    def _put(self, rows: memoryview, lo: int, hi: int, base: int, data: bytes) -> None:
        """Put long pieces into their places one by one: that copies them once."""
        size, read = self._out.shape[1], memoryview(data)
        for address, place in zip(self._ordered[lo:hi].tolist(), self._order[lo:hi].tolist(), strict=True):
            rows[place * size : (place + 1) * size] = read[address - base : address - base + size]
            self._valid[place] = True

    def cut(self) -> None:
        """Put every piece that was read into its place."""
        if not self._runs:
            return
        buffer = np.frombuffer(b"".join(self._data), np.uint8)
        lo, hi, shift = np.array([(lo, hi, shift % (1 << 64)) for lo, hi, shift in self._runs], np.uint64).T
        which = expand_runs(lo, hi - lo).astype(np.int64)
        # Modulo 2^64, as addresses are: from an address to its place in the buffer.
        place = (self._ordered[which] + np.repeat(shift, (hi - lo).astype(np.int64))).astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(buffer, self._out.shape[1])
        to = self._order[which]
        self._out[to] = windows[place]
        self._valid[to] = True
        self._data, self._runs, self._length = [], [], 0
