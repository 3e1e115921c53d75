"""Struct members by name: where each lies, how wide it is, and how to take it out of many structs at once."""

from __future__ import annotations

from typing import Any, cast

import drgn
import numpy as np

from inspector.columns import U8, AnyArray, UnknownColumn
from inspector.errors import LayoutError
from inspector.records import dataclass

_DTYPES: dict[tuple[int, bool], np.dtype[Any]] = {
    (size, signed): np.dtype(f"<{'i' if signed else 'u'}{size}") for size in (1, 2, 4, 8) for signed in (False, True)
}


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct.

    Attributes:
        offset: Bytes from the beginning of the struct.
        size: Bytes.
        signed: Whether the member is a signed integer.
        length: Elements, if the member is an array; else 1. ``size`` is then the whole array's.
    """

    offset: int
    size: int
    signed: bool = False
    length: int = 1

    def column(self, raw: U8) -> AnyArray:
        """The member of each row of ``raw`` (uint8[n, at least offset + size]) as an integer column."""
        dtype = _DTYPES[self.size, self.signed]
        cut = raw[:, self.offset : self.offset + self.size]
        return np.ascontiguousarray(cut).view(dtype)[:, 0]

    def matrix(self, raw: U8) -> AnyArray:
        """An array member of each row: [n, length]."""
        dtype = _DTYPES[self.size // self.length, self.signed]
        cut = raw[:, self.offset : self.offset + self.size]
        return np.ascontiguousarray(cut).view(dtype)

    def text(self, raw: U8) -> AnyArray:
        """A char array of each row as bytes (``S<size>``), up to its terminator and as stored."""
        cut = raw[:, self.offset : self.offset + self.size]
        return np.ascontiguousarray(cut).view(f"S{self.size}")[:, 0]

    def element(self, index: int) -> Field:
        """One element of an array member."""
        each = self.size // self.length
        return Field(self.offset + index * each, each, self.signed)


class UnknownField(Field):
    """A member that the struct of this kernel does not have under any name that we know.

    Args:
        why: Says so, a sentence without a full stop.
    """

    def __init__(self, why: str) -> None:
        object.__setattr__(self, "why", why)

    def _refuse(self) -> int:
        raise LayoutError(str(vars(self)["why"]), "", _NEW_TO_US)

    offset = property(_refuse)
    size = property(_refuse)
    length = property(_refuse)
    signed = property(_refuse)

    def column(self, raw: U8) -> AnyArray:  # noqa: ARG002  (as of a member that is known)
        """The member of each row is unknown."""
        return cast("AnyArray", UnknownColumn(str(vars(self)["why"])))

    matrix = text = column

    def element(self, index: int) -> Field:  # noqa: ARG002
        """Of an array that is not known."""
        return self


_NEW_TO_US = "This kernel is laid out in a way this version does not know; please report its release"


@dataclass(frozen=True, slots=True)
class Bits:
    """A bit-field member.

    Attributes:
        offset: Bytes from the beginning of the struct to the word that holds it.
        size: Bytes of that word.
        shift: Bits of the word below it.
        width: Bits of it.
    """

    offset: int
    size: int
    shift: int
    width: int

    def column(self, raw: U8) -> AnyArray:
        """The member of each row of ``raw`` (uint8[n, at least offset + size]): int64."""
        cut = np.ascontiguousarray(raw[:, self.offset : self.offset + self.size]).view(_DTYPES[self.size, False])[:, 0]
        return ((cut >> self.shift) & ((1 << self.width) - 1)).astype(np.int64)


def _strip(type_: drgn.Type) -> drgn.Type:
    while type_.kind == drgn.TypeKind.TYPEDEF:
        type_ = type_.type
    return type_


def _signed(type_: drgn.Type) -> bool:
    type_ = _strip(type_)
    if type_.kind == drgn.TypeKind.ENUM:
        return bool(type_.type is not None and type_.type.is_signed)
    return bool(type_.kind == drgn.TypeKind.INT and type_.is_signed)


class Struct:
    """A struct type of the target.

    Args:
        prog: The program that knows the type.
        name: With its keyword, such as ``struct page``.

    Raises:
        LayoutError: The kernel has no such type.
    """

    def __init__(self, prog: drgn.Program, name: str) -> None:
        try:
            self._type = _strip(prog.type(name))
        except LookupError:
            raise LayoutError(
                f"this kernel has no type {name}", "", "Give the right symbols with -s, or report the kernel"
            ) from None
        self.name = name
        self.size: int = self._type.size or 0
        self._known: dict[str, Field | None] = {}

    def find(self, *paths: str) -> Field | None:
        """The first of several spellings (newest first) that exists, such as ``"flags.f", "flags"``; or None.

        A path steps through members of structs and unions with dots and through array elements with ``[i]``.
        """
        for path in paths:
            if path not in self._known:
                self._known[path] = self._resolve(path)
            field = self._known[path]
            if field is not None:
                return field
        return None

    def field(self, *paths: str) -> Field:
        """Like `find`, for a member that every supported kernel has.

        Returns:
            The member; an `UnknownField` where none of the spellings exists: its columns are unknown, and to ask for
            its place is a `LayoutError`.
        """
        return self.find(*paths) or UnknownField(f"{self.name} has no member {' or '.join(paths)} in this kernel")

    def has(self, *paths: str) -> bool:
        """Whether any of the spellings exists."""
        return self.find(*paths) is not None

    def bits(self, name: str) -> Bits | None:
        """A bit-field member of the struct itself; None when it has none of that name."""
        if not self._type.has_member(name):
            return None
        member = self._type.member(name)
        if member.bit_field_size is None:
            return None
        size = drgn.sizeof(member.type)
        word = member.bit_offset // (8 * size) * size
        return Bits(word, size, member.bit_offset - 8 * word, member.bit_field_size)

    def _resolve(self, path: str) -> Field | None:
        type_, offset = self._type, 0
        for step in path.replace("[", ".[").split("."):
            type_ = _strip(type_)
            if step.startswith("["):
                if type_.kind != drgn.TypeKind.ARRAY:
                    return None
                index = int(step[1:-1])
                element = _strip(type_.type)
                offset += index * drgn.sizeof(element)
                type_ = element
                continue
            if type_.kind not in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION) or not type_.has_member(step):
                return None
            member = type_.member(step)
            if member.bit_field_size is not None:
                return None
            offset += member.bit_offset // 8
            type_ = member.type
        type_ = _strip(type_)
        if type_.kind == drgn.TypeKind.ARRAY:
            # A flexible array has a place but no size.
            size = 0 if type_.length is None else drgn.sizeof(type_)
            return Field(offset, size, _signed(type_.type), type_.length or 1)
        try:
            size = drgn.sizeof(type_)
        except TypeError:
            return None
        return Field(offset, size, _signed(type_))


def enumerators(prog: drgn.Program, name: str) -> dict[str, int]:
    """Name to value of an enum; empty when this kernel has no such enum."""
    try:
        type_ = prog.type(name)
    except LookupError:
        return {}
    return {e.name: int(e.value) for e in (type_.enumerators or ())}
