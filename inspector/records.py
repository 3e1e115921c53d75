"""Frozen dataclasses that cost nothing until they are used: a start declares hundreds and makes objects of few.

And properties that are worked out once, without a lock.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

T = TypeVar("T")

if TYPE_CHECKING:
    from functools import cached_property as cached_property  # noqa: PLC0414  (to import it from here)
else:

    class cached_property(functools.cached_property):  # noqa: N801  (named like what it is)
        """What that is since Python 3.12: without a lock.

        The lock of 3.11 is one for all objects of a class, held while the value is worked out. A check works out most
        of its tables in such properties, and lets the interface have a turn meanwhile, which needs the same ones of
        another snapshot: neither would end.
        """

        def __get__(self, instance: object, owner: type | None = None) -> object:
            """Work the value out, and leave it where the next look-up finds it first."""
            if instance is None:
                return self
            value = vars(instance)[self.attrname] = self.func(instance)
            return value


@dataclass_transform(field_specifiers=(dataclasses.field,))
def dataclass(
    *, frozen: bool, slots: bool = False, eq: bool = True, kw_only: bool = False
) -> Callable[[type[T]], type[T]]:
    """What ``dataclasses.dataclass(frozen=True)`` makes of a class, for a twentieth of its time.

    That compiles six methods for each class at once, a millisecond a class. Here ``__init__`` is compiled when the
    first object is made, the others are the same functions for all classes, and a field is what its annotation says
    in so many words: what dataclasses finds out by looking for the meaning of each (``InitVar``, ``KW_ONLY``) is
    no part of a record.

    Args:
        frozen: True, written out because type checkers read it.
        slots: Whether attributes that are not declared are out of the question, which frozen sees to.
        eq: Whether objects with equal fields are equal.
        kw_only: Whether fields are given by name only.
    """
    assert frozen, "a record is frozen"

    def declare(cls: type[T]) -> type[T]:
        made: Any = cls
        made.__dataclass_fields__ = fields = _fields_of(cls, kw_only)
        made.__dataclass_params__ = _PARAMS
        made.__match_args__ = tuple(name for name, f in fields.items() if not f.kw_only)  # type: ignore[misc]
        made.__init__ = _compile_first
        made.__setattr__ = _refuse_set
        made.__delattr__ = _refuse_delete
        for name, method in (("__repr__", _repr), *((("__eq__", _eq), ("__hash__", _hash)) if eq else ())):
            if name not in cls.__dict__:
                setattr(made, name, method)
        return cls

    return declare


@dataclasses.dataclass(init=False, repr=False, eq=False)
class _Pattern:
    """What dataclasses itself makes of a class with one field, for what it marks its classes and fields with."""

    field: int


_PARAMS: Any = _Pattern.__dataclass_params__  # type: ignore[attr-defined]
_FIELD: Any = _Pattern.__dataclass_fields__["field"]._field_type  # type: ignore[attr-defined]


def _fields_of(cls: Any, kw_only: bool) -> dict[str, Any]:
    """The fields of a class by name, those of the classes that it derives from first, as ``dataclasses.fields``.

    The class keeps of each the default only, as of a dataclass.
    """
    found: dict[str, Any] = {}
    for base in cls.__mro__[-1:0:-1]:
        found.update(base.__dict__.get("__dataclass_fields__", ()))
    own = cls.__dict__
    for name, type_ in own.get("__annotations__", {}).items():
        if isinstance(type_, str) and type_.startswith("ClassVar"):
            continue
        field = own.get(name, dataclasses.MISSING)
        if not isinstance(field, dataclasses.Field):
            field = dataclasses.field(default=field)
        elif field.default is dataclasses.MISSING:
            delattr(cls, name)
        else:
            setattr(cls, name, field.default)
        assert type(field.default).__hash__ is not None, f"{cls.__qualname__}.{name} needs a default_factory"
        field.name, field.type = name, type_
        field._field_type = _FIELD
        if field.kw_only is dataclasses.MISSING:
            field.kw_only = kw_only
        found[name] = field
    return found


def _compile_first(self: Any, *args: Any, **kwargs: Any) -> None:
    """The ``__init__`` of a class of which there was no object yet."""
    cls = type(self)
    while cls.__dict__.get("__init__") is not _compile_first:
        # A class that declares nothing takes the method of the one that it derives from.
        cls = cls.__mro__[1]
    cls.__init__ = _init_of(cls)
    cls.__init__(self, *args, **kwargs)


def _init_of(cls: Any) -> Callable[..., None]:
    positional, named, values = ["self"], ["*"], []
    scope: dict[str, Any] = {"none_given_": object()}
    for field in dataclasses.fields(cls):
        name, default = field.name, f"default_{field.name}"
        made = name
        parameters = named if field.kw_only else positional
        if field.default is not dataclasses.MISSING:
            scope[default] = field.default
            parameters.append(f"{name}={default}")
        elif field.default_factory is not dataclasses.MISSING:
            scope[default] = field.default_factory
            parameters.append(f"{name}=none_given_")
            made = f"{default}() if {name} is none_given_ else {name}"
        else:
            parameters.append(name)
        values.append(f"{name}={made}")
    # One call instead of a statement for each field: compiled in a quarter of the time, called in half of it.
    body = f"self.__dict__.update({', '.join(values)})" + "; self.__post_init__()" * hasattr(cls, "__post_init__")
    source = f"def __init__({', '.join(positional + (named if named[1:] else []))}): {body}"
    exec(source, scope)  # noqa: S102  (the names of fields, as dataclasses does)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _refuse_set(_self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


@functools.cache
def _compared(cls: Any) -> tuple[str, ...]:
    return tuple([field.name for field in dataclasses.fields(cls) if field.compare])


def _values(record: Any) -> tuple[Any, ...]:
    return tuple([getattr(record, name) for name in _compared(record.__class__)])


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"
