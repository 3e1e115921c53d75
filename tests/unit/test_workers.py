"""Work on pieces in forked processes."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from inspector import workers
from inspector.columns import Table
from inspector.errors import TargetError, UsageError
from inspector.records import dataclass
from inspector.scratch import shared_zeros
from inspector.workers import InOrder, bystanders, default_workers, may_fork, share_out, sharing, use_workers, work_on


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No process and no open file outlives the work."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("nr", [1, 2, 5, 100])
def test_results_come_in_the_order_of_the_pieces(nr: int) -> None:
    assert list(work_on(range(40), lambda n: n * n, nr)) == [n * n for n in range(40)]


def test_results_longer_than_a_pipe_holds_come_whole() -> None:
    found = list(work_on(range(6), lambda n: bytes([n]) * 3_000_000, 2))
    assert found == [bytes([n]) * 3_000_000 for n in range(6)]


def test_workers_fill_a_shared_column() -> None:
    column = shared_zeros(1000, np.int32)

    def fill(start: int) -> int:
        column[start : start + 10] = os.getpid()
        return os.getpid()

    pids = list(work_on(range(0, 1000, 10), fill, 2))
    assert (column == np.repeat(pids, 10)).all()
    assert os.getpid() not in pids


def test_work_inside_a_worker_is_done_there() -> None:
    def inner(n: int) -> list[int]:
        return list(work_on(range(n), lambda _: os.getpid(), 4))

    assert all(len(set(pids)) == 1 for pids in work_on([3, 4], inner, 2))


def test_an_error_of_a_piece_is_raised_where_the_work_was_asked_for() -> None:
    def fail(n: int) -> int:
        if n == 7:
            raise TargetError("the target cannot be read any more", "x", "Open it again")
        return n

    with pytest.raises(TargetError, match="cannot be read any more: x. Open it again"):
        list(work_on(range(20), fail, 2))


def test_a_worker_that_is_killed_is_one_clear_error() -> None:
    def die(n: int) -> int:
        if n == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    with pytest.raises(TargetError, match=r"a worker process was killed by SIGKILL\. Give it more memory, or"):
        list(work_on(range(20), die, 2))


def test_work_may_be_left_half_done() -> None:
    assert next(iter(work_on(range(1000), lambda n: n, 2))) == 0


def test_as_many_workers_as_processors() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


def test_as_many_workers_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLIOSCOPE_WORKERS", "7")
    assert default_workers() == 7
    use_workers(3)
    assert default_workers() == 3
    use_workers(None)
    for wrong in ("0", "-1", "two", "\u0663"):
        monkeypatch.setenv("FOLIOSCOPE_WORKERS", wrong)
        with pytest.raises(UsageError, match="this is no number of processes: FOLIOSCOPE_WORKERS="):
            default_workers()


def test_each_piece_is_in_one_share() -> None:
    shares: list[list[int]] = []
    shares += share_out(100, lambda numbers: shares.append(list(numbers)), list, 3)
    assert len(shares) == 3
    assert sorted(n for share in shares for n in share) == list(range(100))
    assert all(share == sorted(share) for share in shares)


def test_arrays_come_through_shared_memory() -> None:
    def arrays(numbers: Iterator[int]) -> list[npt.NDArray[np.uint64]]:
        return [np.full(n, n, np.uint64) for n in (*numbers, 0, 3_000_001, 0, 5, 1_000_000)]

    for found in share_out(2, _leave_all, arrays, 2):
        assert sum(len(column) for column in found) >= 4_000_006
        for column in found:
            assert (column == len(column)).all()
            # Whoever has them may change them.
            column[:] = 0
    here, there = os.pipe()
    store = os.memfd_create("test")
    workers._Outlet(there, store).send(0, np.zeros(1 << 22))
    assert len(os.read(here, 1 << 16)) < 500
    assert os.fstat(store).st_size == 1 << 25
    for opened in (here, there, store):
        os.close(opened)


def _leave_all(_: Iterator[int]) -> None:
    """The others take all pieces."""


def test_errors_of_shares_are_raised_here() -> None:
    def fail(numbers: Iterator[int]) -> int:
        for n in numbers:
            if n == 7:
                raise TargetError("the target cannot be read any more")
        return 0

    with pytest.raises(TargetError, match="cannot be read any more"):
        list(share_out(20, _leave_all, fail, 2))
    with pytest.raises(RuntimeError, match=r"in a worker: ZeroDivisionError"):
        list(share_out(20, _leave_all, lambda numbers: [1 // n for n in numbers], 2))


def test_an_error_of_the_own_share_ends_the_others() -> None:
    def fail(numbers: Iterator[int]) -> None:
        assert next(numbers) >= 0
        raise TargetError("the target cannot be read any more")

    def slow(numbers: Iterator[int]) -> None:
        for _ in numbers:
            time.sleep(60)

    began = time.monotonic()
    with pytest.raises(TargetError, match="cannot be read any more"):
        list(share_out(20, fail, slow, 3))
    assert time.monotonic() - began < 50
    assert may_fork()


def test_nothing_of_the_own_share_is_given_to_others_again() -> None:
    inner: list[int] = []

    def here(numbers: Iterator[int]) -> None:
        for n in numbers:
            assert not may_fork()
            inner.extend(work_on([n, n], lambda _: os.getpid(), 2))

    list(share_out(20, here, lambda _: None, 2))
    assert inner == [os.getpid()] * 40
    assert may_fork()


def test_a_worker_that_dies_with_a_number_in_hand_keeps_none_waiting() -> None:
    """Where the next piece is noted is given back, however a process ends."""

    def die(numbers: Iterator[int]) -> None:
        next(numbers)
        os.kill(os.getpid(), signal.SIGKILL)

    done: list[int] = []
    with pytest.raises(TargetError, match="was killed by SIGKILL"):
        list(share_out(2000, done.extend, die, 4))
    assert len(done) >= 1997


@dataclass(frozen=True)
class _Rows(Table):
    number: npt.NDArray[np.int64]


def test_what_is_found_is_in_the_order_of_the_pieces() -> None:
    def look(numbers: Iterator[int]) -> tuple[InOrder[_Rows], InOrder[npt.NDArray[np.int64]], InOrder[str]]:
        tables, columns, words = InOrder[_Rows](), InOrder[npt.NDArray[np.int64]](), InOrder[str]()
        for n in numbers:
            if n % 3:
                tables.add(n, _Rows(np.arange(n, n + n % 4)))
                columns.add(n, np.full(n % 4, n))
            words.add(n, str(n))
        return tables, columns, words

    expected = look(iter(range(50)))
    assert sum(1 for _ in pickle.loads(pickle.dumps(InOrder[str]()))) == 0
    first = look(iter(()))
    shares = [first]
    shares += share_out(50, lambda numbers: shares.append(look(numbers)), look, 3)
    assert len(shares) == 4
    for other in shares[1:]:
        first[0].merge(other[0])
        first[1].merge(other[1])
        first[2].merge(other[2])
    assert [part.number.tolist() for part in first[0]] == [part.number.tolist() for part in expected[0]]
    assert [part.tolist() for part in first[1]] == [part.tolist() for part in expected[1]]
    assert list(first[2]) == list(expected[2])


def test_a_process_with_other_threads_has_no_workers() -> None:
    assert sharing(10, 2) == 2
    assert [sharing(10, 1), sharing(10, 2, least=11), sharing(1, 2), sharing(2, 5)] == [1, 1, 1, 2]
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert not may_fork()
        assert sharing(10, 2) == 1
        assert set(work_on(range(9), lambda _: os.getpid(), 2)) == {os.getpid()}
        bystanders.add(thread)
        assert may_fork()
        assert os.getpid() not in set(work_on(range(9), lambda _: os.getpid(), 2))
    finally:
        over.set()
        thread.join()


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork
    started: list[int] = []

    def once() -> int:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        pid = fork()
        started.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", once)
    with pytest.raises(
        TargetError, match=r"no worker process can be started \(Resource temporarily unavailable\)\. Use"
    ):
        list(work_on(range(20), lambda n: n, 2))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_leaves_no_process() -> None:
    """Whenever it comes: while workers are started, work or end."""
    until = time.monotonic() + 60
    for milliseconds in range(1, 60, 4):
        # Again and again: Python loses an interrupt that comes inside a destructor.
        signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000, 5)
        handler = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            with pytest.raises(KeyboardInterrupt):
                while time.monotonic() < until:
                    list(work_on(range(50), lambda n: n, 2))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Even where that has no time to end them."""
    counts = tmp_path / "pieces"

    def slow(_: int) -> None:
        with counts.open("a") as file:
            file.write("x")
        time.sleep(0.01)

    pid = os.fork()
    if not pid:
        list(work_on(range(3000), slow, 2))
        os._exit(1)
    while not counts.exists() or counts.stat().st_size < 5:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.3)
    done = counts.stat().st_size
    time.sleep(0.3)
    assert counts.stat().st_size == done < 3000
