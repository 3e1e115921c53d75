"""Work on pieces in forked processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inspector.errors import TargetError
from inspector.scratch import shared_zeros
from inspector.workers import default_workers, work_on


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No process and no open file outlives the work."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("workers", [1, 2, 5, 100])
def test_results_come_in_the_order_of_the_pieces(workers: int) -> None:
    assert list(work_on(range(40), lambda n: n * n, workers)) == [n * n for n in range(40)]


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
