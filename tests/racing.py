"""A kernel that runs on, made of dumps: each page read may be that of another moment, whenever it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import drgn
import numpy as np

from inspector.columns import U64
from inspector.layout.kernel import Layout
from inspector.target.target import Target, TargetKind, open_core
from tests.faults.overlay import opened
from tests.opening import parsed_once

_PAGE = 4096
_WORDS = _PAGE // 8
_PHYSICAL = 1 << 46
_KERNEL_HALF = 0xFFFF_8000_0000_0000

Reader = Callable[[int, int, bool], bytes]
"""Bytes at an address, physical or not; raises drgn.FaultError."""

Steady = set[tuple[int, bool]]
"""Numbers of pages that never change, and whether they are physical ones."""


class Racing:
    """A target of which each read of a page may show another moment of it.

    With one dump the other moment is made up: counters a little higher or lower, words that moved, memory freed,
    reused for something else, or gone. With two dumps of one boot each page is read now from one, now from the other,
    and some are changed besides. What the layout is known from, code and constants stay as they are.

    Args:
        path: The dump.
        seed: What changes, and when.
        other: Another dump of the same boot; None for none.
        rate: How many of the pages read are changed.
        kind: What the target passes for.
    """

    def __init__(
        self, path: str, seed: int, *, other: str | None = None, rate: float = 0.02, kind: TargetKind = "live"
    ) -> None:
        still = opened(path)
        self._rng = np.random.default_rng(seed)
        self._rate = rate
        self._first = _reader(still)
        with parsed_once():
            self._second = None if other is None else _reader(open_core(other, types="btf"))
        self._steady = _steady(still)
        self._begin, self._end = (still.symbol(name) or 0 for name in ("_text", "_sdata"))
        self._seen: list[U64] = []
        self.target: Target = replace(opened(path), kind=kind, prstatus=())
        for start, end, physical in ((0, _PHYSICAL, True), (_KERNEL_HALF, (1 << 64) - 1, False)):
            self.target.prog.add_memory_segment(start, end - start, self._read, physical)

    def _read(self, address: int, count: int, _offset: int, physical: bool) -> bytes:
        """What drgn asks for (`drgn.Program.add_memory_segment`)."""
        first, start = divmod(address, _PAGE)
        nr = (start + count - 1) // _PAGE + 1
        data = self._first(address, count, physical)
        changed = np.flatnonzero(self._rng.random(nr) < (0.5 if self._second else self._rate))
        if not len(changed):
            return data
        out = bytearray(start) + data + bytes(nr * _PAGE - start - count)
        for at in changed.tolist():
            number = first + at
            if (number, physical) in self._steady or self._begin <= number * _PAGE < self._end:
                continue
            page = slice(at * _PAGE, (at + 1) * _PAGE)
            out[page] = self._moved(number * _PAGE, bytes(out[page]), physical)
        return bytes(out[start : start + count])

    def _moved(self, address: int, page: bytes, physical: bool) -> bytes:
        """A page as it is at another moment."""
        if self._second is not None:
            try:
                page = self._second(address, _PAGE, physical)
            except drgn.FaultError:
                return page
            if self._rng.random() >= self._rate:
                return page
        words = np.frombuffer(page, np.uint64).copy()
        self._remember(words)
        at, nr = int(self._rng.integers(_WORDS)), int(self._rng.integers(1, 65))
        _CHANGES[int(self._rng.integers(len(_CHANGES)))](self._rng, words, slice(at, at + nr), self._seen, address)
        return words.tobytes()

    def _remember(self, words: U64) -> None:
        """Keep some pages, whose content turns up elsewhere."""
        if len(self._seen) < _KEPT:
            self._seen.append(words.copy())
        else:
            self._seen[int(self._rng.integers(_KEPT))] = words.copy()


_KEPT = 64
"""Pages that are remembered."""

_Change = Callable[[np.random.Generator, U64, slice, list[U64], int], None]


def _count(rng: np.random.Generator, words: U64, at: slice, _seen: list[U64], _address: int) -> None:
    """Counters go up and down."""
    halves = words[at].view(np.int32)
    halves += rng.integers(-1, 2, len(halves), np.int32) * (halves != 0)


def _flip(rng: np.random.Generator, words: U64, at: slice, _seen: list[U64], _address: int) -> None:
    """Flags are set and cleared."""
    words[at] ^= np.uint64(1) << rng.integers(0, 64, len(words[at]), np.uint64) * (words[at] != 0)


def _move(rng: np.random.Generator, words: U64, at: slice, _seen: list[U64], _address: int) -> None:
    """What is in some places is in others: entries of tables, slots, links of lists."""
    words[at] = words[rng.integers(0, _WORDS, len(words[at]))]


def _shift(rng: np.random.Generator, words: U64, at: slice, _seen: list[U64], _address: int) -> None:
    """Everything behind a place moves by one, as in the nodes of trees."""
    words[at.start :] = np.roll(words[at.start :], 1 if rng.integers(2) else -1)


def _free(_rng: np.random.Generator, words: U64, at: slice, _seen: list[U64], _address: int) -> None:
    """What was there is freed and cleared."""
    words[at] = 0


def _reuse(rng: np.random.Generator, words: U64, at: slice, seen: list[U64], _address: int) -> None:
    """Something of the same kind, or of another, is there."""
    words[at] = seen[int(rng.integers(len(seen)))][at]


def _replace(rng: np.random.Generator, words: U64, _at: slice, seen: list[U64], _address: int) -> None:
    """The page is another one."""
    words[:] = seen[int(rng.integers(len(seen)))]


def _go(rng: np.random.Generator, words: U64, at: slice, seen: list[U64], address: int) -> None:
    """The page cannot be read any more, now and then."""
    if rng.integers(8) == 0:
        raise drgn.FaultError("the page is gone", address)
    _move(rng, words, at, seen, address)


_CHANGES: tuple[_Change, ...] = (_count, _flip, _move, _shift, _free, _reuse, _replace, _go)


def _reader(target: Target) -> Reader:
    return lambda address, count, physical: target.prog.read(address, count, physical=physical)


def _steady(target: Target) -> Steady:
    """The pages from which the layout is known."""
    out = Steady()

    def note(address: int, size: int, physical: bool) -> None:
        out.update((number, physical) for number in range(address // _PAGE, (address + size - 1) // _PAGE + 1))

    prog = target.prog
    target = replace(target, prog=_Noting(prog, note))
    layout = Layout.probe(target)
    layout.memory.on_read = note
    _ = (layout.per_cpu_offsets, layout.nr_nodes, layout.zero_pfn, layout.huge_zero_pfn)
    return out


class _Noting:
    """A program whose reads are noted."""

    def __init__(self, prog: drgn.Program, note: Callable[[int, int, bool], None]) -> None:
        self._prog, self._note = prog, note

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        data = self._prog.read(address, size, physical)
        self._note(address, size, physical)
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self._prog, name)
