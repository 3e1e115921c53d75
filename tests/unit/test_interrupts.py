"""Interrupts wait where something must not be left half done, and none is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from inspector.interrupts import Allowed, PutOff


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), PutOff():
        interrupt()
        done.append("rest")
    assert done == ["rest"]


def test_an_interrupt_that_waits_is_raised_at_the_next_place_that_allows_it() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), PutOff():
        interrupt()
        done.append("before")
        with Allowed():
            done.append("inside")
    assert done == ["before"]


def test_an_interrupt_is_raised_at_once_where_it_is_allowed() -> None:
    with pytest.raises(KeyboardInterrupt), PutOff(), Allowed():
        interrupt()
        pytest.fail("not raised")


def test_what_cleans_up_behind_an_interrupt_is_not_interrupted_by_the_next() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), PutOff():
        try:
            with Allowed():
                interrupt()
        finally:
            done.append("begin")
            interrupt()
            done.append("end")
    assert done == ["begin", "end"]


def test_one_inside_another_waits_for_the_outer_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), PutOff():
        with PutOff():
            interrupt()
        done.append("outer")
    assert done == ["outer"]


def test_another_may_begin_where_it_is_allowed() -> None:
    """As when a piece of work is done by the one who takes the results of another."""
    done = []
    with pytest.raises(KeyboardInterrupt), PutOff(), Allowed():
        with PutOff():
            interrupt()
            done.append("inner")
        pytest.fail("not raised behind the inner one")
    assert done == ["inner"]


def test_a_handler_that_raises_nothing_may_be_called_again() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: calls.append(number))
    try:
        with PutOff():
            interrupt()
            assert calls == []
            with Allowed():
                assert len(calls) == 1
                interrupt()
                interrupt()
                assert len(calls) == 3
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) == 3


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with PutOff():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_put_nothing_off() -> None:
    def work() -> None:
        with PutOff():
            found.append(signal.getsignal(signal.SIGINT))
            with Allowed():
                pass

    found: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
