"""Records are frozen dataclasses in everything but the time at which their methods are compiled."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Any

import pytest

from inspector.records import cached_property, dataclass


def declared(decorate: Any) -> Any:
    """One class with everything that fields may have, made by one of the two decorators."""

    @decorate
    class Thing:
        name: str
        nr: int = 3
        notes: list[str] = field(default_factory=list, compare=False)
        secret: str = field(default="", repr=False)

        def __post_init__(self) -> None:
            if self.nr < 0:
                raise ValueError(self.name)

    return Thing


KINDS = (declared(dataclass(frozen=True)), declared(dataclasses.dataclass(frozen=True)))


@pytest.mark.parametrize("thing", KINDS)
def test_records_are_dataclasses(thing: Any) -> None:
    one, two = thing("a", 4), thing(name="a", nr=4, notes=["x"])
    assert one == two
    assert hash(one) == hash(two)
    assert one != thing("a")
    assert one != ("a", 4)
    assert repr(one).endswith("Thing(name='a', nr=4, notes=[])")
    assert [f.name for f in fields(one)] == ["name", "nr", "notes", "secret"]
    assert replace(one, nr=5) == thing("a", 5)
    assert thing("b").notes is not thing("b").notes
    with pytest.raises(ValueError, match="c"):
        thing("c", -1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        thing()
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        thing("a", other=1)
    with pytest.raises(FrozenInstanceError):
        one.nr = 5
    with pytest.raises(FrozenInstanceError):
        one.unknown = 5
    with pytest.raises(FrozenInstanceError):
        del one.nr


@dataclass(frozen=True)
class Base:
    first: int


@dataclass(frozen=True)
class Derived(Base):
    second: int = 2


class Plain(Base):
    """Declares nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Named:
    first: int
    second: int = 0


def test_derived_records() -> None:
    assert (Derived(1).first, Derived(1).second) == (1, 2)
    assert Derived(1, 5) == Derived(1, 5)
    assert Derived(1) != Base(1)
    assert Plain(7).first == 7
    assert Base(8).first == 8


def test_fields_by_name_and_objects_by_identity() -> None:
    one = Named(first=1)
    assert one != Named(first=1)
    assert one == one  # noqa: PLR0124  (itself only)
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        Named(1)  # type: ignore[call-arg]


class _Waiting:
    def __init__(self, until: threading.Event, done: threading.Event) -> None:
        self._until, self._done = until, done

    @cached_property
    def value(self) -> bool:
        """Worked out while the same of another object is."""
        self._done.set()
        return self._until.wait(30)


def test_a_property_of_one_object_does_not_wait_for_that_of_another() -> None:
    one, other = threading.Event(), threading.Event()
    first, second = _Waiting(one, other), _Waiting(other, one)
    thread = threading.Thread(target=lambda: first.value)
    thread.start()
    assert other.wait(30)
    assert second.value
    thread.join()
    assert vars(first)["value"] and vars(second)["value"]
