"""Frozen dataclasses that cost nothing until they are used: a start declares hundreds and makes objects of few."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(field_specifiers=(dataclasses.field,))
def dataclass(
    *, frozen: bool, slots: bool = False, eq: bool = True, kw_only: bool = False
) -> Callable[[type[T]], type[T]]:
    """What ``dataclasses.dataclass(frozen=True)`` makes of a class, for a twentieth of its time.

    That compiles six methods for each class at once, a millisecond a class. Here ``__init__`` is compiled when the
    first object is made, and the others are the same functions for all classes.

    Args:
        frozen: True, written out because type checkers read it.
        slots: Whether attributes that are not declared are out of the question, which frozen sees to.
        eq: Whether objects with equal fields are equal.
        kw_only: Whether fields are given by name only.
    """
    assert frozen, "a record is frozen"

    def declare(cls: type[T]) -> type[T]:
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
        made.__init__ = _compile_first
        made.__setattr__ = _refuse_set
        made.__delattr__ = _refuse_delete
        for name, method in (("__repr__", _repr), *((("__eq__", _eq), ("__hash__", _hash)) if eq else ())):
            if name not in cls.__dict__:
                setattr(made, name, method)
        return cls

    return declare


def _compile_first(self: Any, *args: Any, **kwargs: Any) -> None:
    """The ``__init__`` of a class of which there was no object yet."""
    cls = type(self)
    while cls.__dict__.get("__init__") is not _compile_first:
        # A class that declares nothing takes the method of the one that it derives from.
        cls = cls.__mro__[1]
    cls.__init__ = _init_of(cls)
    cls.__init__(self, *args, **kwargs)


def _init_of(cls: Any) -> Callable[..., None]:
    positional, named, body = ["self"], ["*"], []
    scope: dict[str, Any] = {"put": object.__setattr__}
    for field in dataclasses.fields(cls):
        name, default = field.name, f"default_{field.name}"
        made = name
        parameters = named if field.kw_only else positional
        if field.default is not dataclasses.MISSING:
            scope[default] = field.default
            parameters.append(f"{name}={default}")
        elif field.default_factory is not dataclasses.MISSING:
            scope[default] = field.default_factory
            parameters.append(f"{name}=put")
            made = f"{default}() if {name} is put else {name}"
        else:
            parameters.append(name)
        body.append(f" put(self, {name!r}, {made})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    source = f"def __init__({', '.join(positional + (named if named[1:] else []))}):\n" + "\n".join(body or [" pass"])
    exec(source, scope)  # noqa: S102  (the names of fields, as dataclasses does)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _refuse_set(_self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _values(record: Any) -> tuple[Any, ...]:
    return tuple([getattr(record, field.name) for field in dataclasses.fields(record) if field.compare])


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"
