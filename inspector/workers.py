"""Work on many pieces in several processes: forked, so that all share what was read and built before.

Arrays in results come through shared memory: what is pickled does not grow with them.
"""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import pickle
import selectors
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar, cast
from weakref import WeakSet

import numpy as np

from inspector.columns import Table
from inspector.errors import FolioscopeError, TargetError, UsageError
from inspector.interrupts import Allowed, PutOff, end_by_signals

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Part = TypeVar("Part")

_LENGTH = 8
"""Bytes of the length before each result."""

_FEW = 1 << 16
"""Bytes of arrays of a result that go through the pipe with it: to map memory takes longer than to copy those."""

_ALIGNED = 64
"""Bytes at whose multiples arrays begin."""

_PATIENT = 19
"""Priority of what gets only time that nothing else wants: the lowest (setpriority(2))."""

_VARIABLE = "FOLIOSCOPE_WORKERS"

bystanders: WeakSet[threading.Thread] = WeakSet()
"""Threads that hold no lock which a worker could need, so that they do not keep this process from forking."""


class _Setting:
    asked: int | None = None
    """Processes to use at most, None for as many as there are processors."""
    stays_frozen = False
    """Whether what is frozen for the garbage collector stays so."""


def leave_frozen(is_so: bool) -> None:  # noqa: FBT001
    """Say whether what is frozen for the garbage collector while processes work stays so: it is thawed elsewhere."""
    _Setting.stays_frozen = is_so


def use_workers(nr: int | None) -> None:
    """Say how many processes may work on one thing, None for as many as there are processors."""
    _Setting.asked = nr


def default_workers() -> int:
    """As many as `use_workers` or the environment says, else as there are processors that this process may run on.

    Raises:
        UsageError: The environment names no number.
    """
    if _Setting.asked is not None:
        return _Setting.asked
    named = os.environ.get(_VARIABLE, "")
    if not named:
        return len(os.sched_getaffinity(0))
    if not named.isascii() or not named.isdigit() or not int(named):
        raise UsageError("this is no number of processes", f"{_VARIABLE}={named}", "Give 1 or more")
    return int(named)


def may_fork() -> bool:
    """Whether this process can have workers: it is not one of them, and no other thread has locks that forks copy."""
    here = threading.current_thread()
    return not _Workers.busy and all(t is here or t in bystanders for t in threading.enumerate())


def sharing(nr_pieces: int, nr_workers: int, least: int = 2) -> int:
    """In how many processes to work on pieces.

    Args:
        nr_pieces: How many there are.
        nr_workers: Processes at most.
        least: How many pieces take longer than processes to start.

    Returns:
        1 for no process but this one.
    """
    return min(nr_workers, nr_pieces) if nr_pieces >= least and nr_workers > 1 and may_fork() else 1


def work_on(pieces: Sequence[Piece], work: Callable[[Piece], Result], nr_workers: int) -> Iterator[Result]:
    """Do the same work on each piece, in several processes, and give the results in the order of the pieces.

    The workers are forked: they see everything that is in memory, and nothing that they change is seen here but for
    what they write to shared columns (`inspector.scratch.shared_zeros`), and the results.

    With one worker, with one piece, and where `may_fork` says so everything is done here.

    Args:
        pieces: What to work on.
        work: Called once a piece. Whatever it raises is raised here.
        nr_workers: Processes at most.

    Raises:
        TargetError: A worker died.
    """
    nr = sharing(len(pieces), nr_workers)
    if nr == 1:
        yield from map(work, pieces)
        return

    def serve(numbers: Share) -> Iterator[tuple[int, Result]]:
        return ((number, work(pieces[number])) for number in numbers)

    with PutOff(), _Workers(nr, len(pieces), serve) as workers:
        done: dict[int, Result] = {}
        wanted = 0
        for place, result in workers.results():
            done[place] = result
            while wanted in done:
                with Allowed():
                    yield done.pop(wanted)
                wanted += 1
            if wanted == len(pieces):
                break


def share_out(
    nr_pieces: int, here: Callable[[Share], None], there: Callable[[Share], Result], nr_workers: int
) -> Iterator[Result]:
    """Let this process and others each work on a share of the pieces, and give what the others make of theirs.

    As `work_on`, but that each keeps something from piece to piece. This process is one of them: what all of them
    write to while they work is then held once less. Ask `sharing` before.

    Args:
        nr_pieces: How many pieces there are.
        here: Called once in this process with the numbers of the pieces of its share, ascending: who is first takes the
            next.
        there: Called likewise in each of the others.
        nr_workers: Processes, this one included.

    Raises:
        TargetError: A worker died.
    """

    def serve(numbers: Share) -> Iterator[tuple[int, Result]]:
        yield 0, there(numbers)

    with PutOff(), _Workers(nr_workers - 1, nr_pieces, serve) as workers:
        with Allowed(), _at_work():
            here(workers.numbers_here())
        for _, result in workers.results():
            with Allowed():
                yield result


@contextmanager
def _at_work() -> Iterator[None]:
    """This process has a share itself: it starts no others for parts of that."""
    _Workers.busy = True
    _leave_garbage()
    try:
        yield
    finally:
        if not _Setting.stays_frozen:
            gc.unfreeze()
        _Workers.busy = False


def _leave_garbage() -> None:
    """What is there by now is not looked through for garbage: that would copy the pages that it is in."""
    gc.freeze()


class Beside:
    """A process that does something beside this one, on what processor time is left over, until it is wanted no more.

    It is ended in the middle of what it does: what it gives is what it has written to files or to shared columns by
    then. Its own end, whatever the reason, is no error. To be used inside `PutOff`, what is done beside it inside
    `Allowed`.

    Args:
        steps: Each step of the work; called in that process.
    """

    def __init__(self, steps: Callable[[], Iterator[None]]) -> None:
        self._steps = steps
        self._pid = 0

    def __enter__(self) -> Self:
        parent = os.getpid()
        _flush()
        with suppress(OSError):
            self._pid = _fork()
            if not self._pid:
                self._be(parent)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _be(self, parent: int) -> NoReturn:
        """Never returns."""
        try:
            _begin_as_worker()
            os.nice(_PATIENT)
            for _ in self._steps():
                if os.getppid() != parent:
                    break
        except Exception:  # noqa: BLE001, S110  (what it has not done is done, and fails, where it is wanted)
            pass
        finally:
            os._exit(0)


class InOrder(Generic[Part]):
    """What was found in pieces of a table, in the order of the pieces, whichever was looked through first."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, Part]] = []

    def __iter__(self) -> Iterator[Part]:
        return (part for _, part in self._parts)

    def add(self, piece: int, part: Part) -> None:
        """Keep what was found in a piece of that number; here the numbers ascend."""
        self._parts.append((piece, part))

    def merge(self, other: Self) -> None:
        """Take in what was found in other pieces."""
        self._parts = sorted(self._parts + other._parts, key=lambda part: part[0])

    def __getstate__(self) -> tuple[Any, ...]:
        """Of rows of a table or column one of these: what a worker sends has no object for each piece."""
        parts: list[Any] = [part for _, part in self._parts]
        kind = parts[0] if parts else None
        if isinstance(kind, Table):
            joined: Any = kind.concat(parts)
        elif isinstance(kind, np.ndarray) and kind.ndim == 1:
            joined = np.concatenate(parts)
        else:
            return (self._parts,)
        return np.array([piece for piece, _ in self._parts]), np.cumsum([len(part) for part in parts]), joined

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 1:
            self._parts = state[0]
            return
        pieces, ends, rows = state
        cut: Callable[[slice], Any] = rows.take if isinstance(rows, Table) else rows.__getitem__
        starts = [0, *ends.tolist()[:-1]]
        self._parts = [
            (piece, cut(slice(a, b))) for piece, a, b in zip(pieces.tolist(), starts, ends.tolist(), strict=True)
        ]


@dataclass
class _Worker:
    """A process, what it has written so far, and the memory in which it leaves the arrays of its results."""

    pid: int
    store: int
    data: bytearray = field(default_factory=bytearray)


class _Workers(Generic[Result]):
    """Processes that take the next piece each and write results to a pipe each.

    They start and end with interrupts put off (`PutOff`): one between a fork and the note of it would leave a process.
    """

    busy: ClassVar = False
    """Whether this process is a worker, or has a share itself while others work."""

    def __init__(self, nr: int, nr_pieces: int, serve: Callable[[Share], Iterator[tuple[int, Result]]]) -> None:
        self._workers: dict[int, _Worker] = {}
        self._nr, self._nr_pieces, self._serve = nr, nr_pieces, serve

    def _start(self) -> None:
        here, there = os.pipe()
        store, parent = os.memfd_create("folioscope"), os.getpid()
        try:
            pid = _fork()
        except OSError as error:
            for opened in (here, there, store):
                os.close(opened)
            raise TargetError(f"no worker process can be started ({error.strerror})", "", "Use --workers 1") from None
        if not pid:
            _be_worker(_Outlet(there, store), self._next.numbers(lambda: os.getppid() == parent), self._serve)
        os.close(there)
        self._workers[here] = _Worker(pid, store)

    def __enter__(self) -> Self:
        self._next = Numbers(self._nr_pieces)
        try:
            _flush()
            for _ in range(self._nr):
                self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, worker in self._workers.items():
            os.close(pipe)
            os.close(worker.store)
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
        self._workers.clear()
        self._next.close()

    def numbers_here(self) -> Share:
        """Those of the pieces that this process takes itself."""
        return self._next.numbers()

    def results(self) -> Iterator[tuple[int, Result]]:
        """What the workers give, as it comes, until all have ended."""
        with selectors.DefaultSelector() as ready:
            for pipe in self._workers:
                ready.register(pipe, selectors.EVENT_READ)
            while self._workers:
                with Allowed():
                    events = ready.select()
                for key, _ in events:
                    worker = self._workers[key.fd]
                    more = os.read(key.fd, 1 << 20)
                    worker.data += more
                    for place, result in _complete(worker):
                        if isinstance(result, BaseException):
                            raise result
                        yield place, cast("Result", result)
                    if not more:
                        ready.unregister(key.fd)
                        self._ended(key.fd)

    def _ended(self, pipe: int) -> None:
        """A worker whose pipe is closed has done its part, or is dead."""
        worker = self._workers.pop(pipe)
        os.close(pipe)
        os.close(worker.store)
        _, status = os.waitpid(worker.pid, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            raise TargetError(f"a worker process {how}", "", "Give it more memory, or --workers 1")


class Numbers:
    """Numbers from 0 up, each given to one process only.

    The next one is in a file in memory, under a lock that the end of a process gives back, however it ends.
    """

    def __init__(self, end: int) -> None:
        self._end = end
        self._file = os.memfd_create("folioscope")

    def numbers(self, is_wanted: Callable[[], bool] = lambda: True) -> Share:
        """Those that this process takes, as long as they are wanted."""
        return Share(self, is_wanted)

    @property
    def some_left(self) -> bool:
        """Whether some were not taken yet."""
        return int.from_bytes(os.pread(self._file, _LENGTH, 0), "little") < self._end

    def take(self) -> int | None:
        """The next one, None when there is none."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            number = int.from_bytes(os.pread(self._file, _LENGTH, 0), "little")
            os.pwrite(self._file, (number + 1).to_bytes(_LENGTH, "little"), 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return number if number < self._end else None

    def close(self) -> None:
        """No process takes another; each has its own copy to close, or ends."""
        os.close(self._file)


class Share:
    """The numbers that one process takes; an iterator."""

    def __init__(self, numbers: Numbers, is_wanted: Callable[[], bool]) -> None:
        self._numbers, self._is_wanted = numbers, is_wanted

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        number = self._numbers.take()
        if number is None or not self._is_wanted():
            raise StopIteration
        return number

    def some_left(self) -> bool:
        """Whether there are more, which this process or another will take."""
        return self._numbers.some_left


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns where there are other threads, whose locks a fork copies: `may_fork` knows them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _begin_as_worker() -> None:
    """What a process does first that was forked to work for its parent."""
    _Workers.busy = True
    end_by_signals()
    _leave_garbage()


def _be_worker(outlet: _Outlet, numbers: Share, serve: Callable[[Share], Iterator[tuple[int, Result]]]) -> NoReturn:
    """Never returns."""
    code = 1
    try:
        _begin_as_worker()
        try:
            for place, result in serve(numbers):
                outlet.send(place, result)
        except FolioscopeError as error:
            outlet.send(0, error)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised where the work was asked for)
            outlet.send(0, RuntimeError(f"in a worker: {error!r}"))
        code = 0
    finally:
        # Nothing of this copy of the process may be cleaned up or flushed: it is not ours.
        os._exit(code)


class _Outlet:
    """Where a worker's results go.

    Args:
        pipe: Takes the results.
        store: An empty file in memory; takes their arrays.
    """

    def __init__(self, pipe: int, store: int) -> None:
        self._pipe, self._store = pipe, store
        self._stored = 0

    def send(self, place: int, result: object) -> None:
        """Give a result to the process that asked for it."""
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps((place, result), pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
        arrays = [buffer.raw() for buffer in buffers]
        if sum(array.nbytes for array in arrays) <= _FEW:
            data, arrays = pickle.dumps((place, result), pickle.HIGHEST_PROTOCOL), []
        start = self._stored = _up(self._stored, mmap.PAGESIZE)
        for array in arrays:
            os.lseek(self._store, self._stored, os.SEEK_SET)
            _write(self._store, array)
            self._stored = _up(self._stored + array.nbytes, _ALIGNED)
        os.ftruncate(self._store, self._stored)
        head = pickle.dumps((data, start, [array.nbytes for array in arrays]), pickle.HIGHEST_PROTOCOL)
        _write(self._pipe, memoryview(len(head).to_bytes(_LENGTH, "little") + head))


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def _complete(worker: _Worker) -> Iterator[tuple[int, object]]:
    """Take the results that have come whole out of what a worker has written."""
    data = worker.data
    while len(data) >= _LENGTH:
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
        if len(data) < end:
            return
        body, start, sizes = pickle.loads(bytes(data[_LENGTH:end]))  # noqa: S301  (written by a fork of this process)
        del data[:end]
        place, result = pickle.loads(body, buffers=_stored(worker.store, start, sizes))  # noqa: S301
        yield place, result


def _stored(store: int, start: int, sizes: list[int]) -> list[memoryview]:
    """The arrays of a result; the memory that they are in goes when the last of them does."""
    room = sum(_up(size, _ALIGNED) for size in sizes)
    if not room:
        return [memoryview(bytearray()) for _ in sizes]
    whole, out = memoryview(mmap.mmap(store, room, offset=start)), []
    for size in sizes:
        out.append(whole[:size])
        whole = whole[_up(size, _ALIGNED) :]
    return out


def _flush() -> None:
    """What is not written yet would be written by each process; a stream that was closed at the start is None."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
