"""Garbage is collected when no key waits, and none of it is forgotten."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tui.garbage import Garbage


class Circle:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.other = self


@pytest.fixture
def ours() -> Iterator[Garbage]:
    before = gc.get_threshold()
    found = Garbage()
    found.begin()
    found.key(100.0)
    yield found
    found.end()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def young(monkeypatch: pytest.MonkeyPatch, nr: int) -> None:
    """Let Python have collected young objects so often since the last full collection."""
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, nr))


def left() -> weakref.ref[Circle]:
    return weakref.ref(Circle())


def test_python_looks_at_young_objects_only(ours: Garbage) -> None:
    assert gc.get_threshold()[2] > 1 << 20
    assert gc.isenabled()


def test_while_keys_are_pressed_nothing_is_collected(ours: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = left()
    for nr in (0, 5, 12):
        young(monkeypatch, nr)
        ours.at(100.1)
    assert circle() is not None


def test_a_moment_without_keys_is_used(ours: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = left()
    young(monkeypatch, 5)
    ours.at(101.0)
    assert circle() is None


def test_little_is_not_worth_it(ours: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = left()
    young(monkeypatch, 1)
    ours.at(200.0)
    assert circle() is not None


@pytest.mark.parametrize("now", [100.1, 101.0])
def test_much_is_put_by_until_there_is_time(now: float, ours: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = left()
    young(monkeypatch, 50)
    ours.at(now)
    gc.collect()
    assert circle() is not None
    young(monkeypatch, 0)
    ours.at(now + 20)
    assert circle() is not None
    ours.at(now + 60)
    assert circle() is None


def test_a_key_that_is_held_down_does_not_fill_memory(ours: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = left()
    young(monkeypatch, 50)
    for _ in range(10):
        ours.at(100.1)
    assert circle() is None
