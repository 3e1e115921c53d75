"""Work on many pieces in several processes: forked, so that all share what was read and built before."""

from __future__ import annotations

import mmap
import os
import pickle
import selectors
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import ClassVar, Generic, NoReturn, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from inspector.errors import FolioscopeError, TargetError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
S = TypeVar("S", bound=np.generic)

_LENGTH = 8
"""Bytes of the length before each result."""


def default_workers() -> int:
    """As many as there are processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def shared_zeros(n: int, dtype: type[S]) -> npt.NDArray[S]:
    """A column of zeros that processes forked from this one write to as well.

    Two workers must not write to the same element: nothing orders their writes.
    """
    size = max(n * np.dtype(dtype).itemsize, 1)
    return np.frombuffer(mmap.mmap(-1, size), dtype=dtype, count=n)


def work_on(pieces: Sequence[Piece], work: Callable[[Piece], Result], nr_workers: int) -> Iterator[Result]:
    """Do the same work on each piece, in several processes, and give the results in the order of the pieces.

    The workers are forked: they see everything that is in memory, and nothing that they change is seen here but for
    what they write to `shared_zeros` columns, and the results. A result is pickled, so it must be small.

    With one worker, with one piece, and inside a worker everything is done here. A process with other threads must not
    ask for more than one: a fork copies the locks that they hold.

    Args:
        pieces: What to work on.
        work: Called once a piece. Whatever it raises is raised here.
        nr_workers: Processes at most.

    Raises:
        TargetError: A worker died.
    """
    nr = min(nr_workers, len(pieces))
    if nr <= 1 or _Workers.inside:
        yield from map(work, pieces)
        return
    with _Workers(nr, pieces, work) as workers:
        yield from workers.results(len(pieces))


class _Workers(Generic[Piece, Result]):
    """Processes that take the next piece each and write results to a pipe each."""

    inside: ClassVar = False
    """Whether this process is a worker."""

    def __init__(self, nr: int, pieces: Sequence[Piece], work: Callable[[Piece], Result]) -> None:
        self._pids: dict[int, int] = {}
        self._next = _Counter(len(pieces))
        sys.stdout.flush()
        sys.stderr.flush()
        for _ in range(nr):
            here, there = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(here)
                _serve(there, self._next, pieces, work)
            os.close(there)
            self._pids[here] = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, pid in self._pids.items():
            os.close(pipe)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()
        self._next.close()

    def results(self, nr_pieces: int) -> Iterator[Result]:
        """The result of each piece, in order, as soon as it and all before it are there."""
        done: dict[int, Result] = {}
        wanted = 0
        data = {pipe: bytearray() for pipe in self._pids}
        with selectors.DefaultSelector() as ready:
            for pipe in self._pids:
                ready.register(pipe, selectors.EVENT_READ)
            while wanted < nr_pieces:
                for key, _ in ready.select():
                    more = os.read(key.fd, 1 << 20)
                    data[key.fd] += more
                    if not more:
                        ready.unregister(key.fd)
                        self._ended(key.fd)
                    for place, result in _complete(data[key.fd]):
                        if isinstance(result, BaseException):
                            raise result
                        done[place] = cast("Result", result)
                while wanted in done:
                    yield done.pop(wanted)
                    wanted += 1

    def _ended(self, pipe: int) -> None:
        """A worker whose pipe is closed has done its part, or is dead."""
        pid = self._pids.pop(pipe)
        os.close(pipe)
        _, status = os.waitpid(pid, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            raise TargetError(f"a worker process {how}", "", "Give it more memory, or --workers 1")


class _Counter:
    """Numbers from 0 up, each given to one process only."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._read, self._write = os.pipe()
        os.write(self._write, (0).to_bytes(_LENGTH, "little"))

    def take(self) -> int | None:
        """The next number, None after the last."""
        # The number itself is the token: while one process has it, the others wait for it.
        number = int.from_bytes(os.read(self._read, _LENGTH), "little")
        os.write(self._write, (number + 1).to_bytes(_LENGTH, "little"))
        return number if number < self._end else None

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


def _serve(pipe: int, counter: _Counter, pieces: Sequence[Piece], work: Callable[[Piece], Result]) -> NoReturn:
    """Be a worker: never returns."""
    code = 1
    _Workers.inside = True
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while (place := counter.take()) is not None:
            try:
                result: object = work(pieces[place])
            except FolioscopeError as error:
                result = error
            except Exception as error:  # noqa: BLE001  (whatever it is, it is raised where the work was asked for)
                result = RuntimeError(f"in a worker: {error!r}")
            _send(pipe, place, result)
        code = 0
    finally:
        # Nothing of this copy of the process may be cleaned up or flushed: it is not ours.
        os._exit(code)


def _send(pipe: int, place: int, result: object) -> None:
    data = pickle.dumps((place, result), protocol=pickle.HIGHEST_PROTOCOL)
    view = memoryview(len(data).to_bytes(_LENGTH, "little") + data)
    while view:
        view = view[os.write(pipe, view) :]


def _complete(data: bytearray) -> Iterator[tuple[int, object]]:
    """Take the results that have come whole out of what a worker has written."""
    while len(data) >= _LENGTH:
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
        if len(data) < end:
            return
        place, result = pickle.loads(bytes(data[_LENGTH:end]))  # noqa: S301  (written by a fork of this process)
        del data[:end]
        yield place, result
