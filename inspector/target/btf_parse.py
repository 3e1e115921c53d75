"""A BTF blob as columns: what kinds of types it holds and where, found by name without an index."""

from __future__ import annotations

import struct
from bisect import bisect_left
from enum import IntEnum

import numpy as np

from inspector.columns import I32, I64, U8, U32, AnyArray, Mask
from inspector.errors import TargetError
from inspector.records import cached_property


class BtfKind(IntEnum):
    """Kinds of records (include/uapi/linux/btf.h)."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_LAYOUT = struct.Struct("<II")

_FIXED = {BtfKind.INT: 1, BtfKind.ARRAY: 3, BtfKind.VAR: 1, BtfKind.DECL_TAG: 1}
"""Words that follow the three common ones, by kind."""

_PER_ELEMENT = {
    BtfKind.STRUCT: 3,
    BtfKind.UNION: 3,
    BtfKind.ENUM: 2,
    BtfKind.FUNC_PROTO: 2,
    BtfKind.DATASEC: 3,
    BtfKind.ENUM64: 3,
}
"""Words for each member, enumerator or parameter, by kind."""

_MAX_NESTING = 32
"""Levels of anonymous structs in one another at most."""

_TODO = "Give the kernel's vmlinux with -s"


def damaged(why: str) -> TargetError:
    """The error for a blob that breaks the format."""
    return TargetError("the kernel's type information (BTF) is damaged", why, _TODO)


class Btf:
    """The records of one blob; record 0 is ``void``, which is not stored.

    Args:
        blob: Everything between ``__start_BTF`` and ``__stop_BTF``.
        starts: Where its records begin, where that is known.

    Raises:
        TargetError: The blob breaks the format. What the records refer to is checked when they are used.
    """

    def __init__(self, blob: bytes | memoryview, starts: I32 | None = None) -> None:
        self._words, self._strings, layout = _sections(blob)
        if starts is None:
            starts = _walk(self._words, layout)
        self.starts = starts
        """Word index of each record."""
        if not len(starts):
            raise damaged("no types")
        info = self._words[starts + 1]
        self.kind: U8 = _with_void(((info >> 24) & 0x7F).astype(np.uint8))
        self.vlen: U32 = _with_void(info & 0xFFFFFF)
        """Number of members, enumerators or parameters."""
        self.flag: Mask = _with_void(info >> 31) != 0
        self.name_off: U32 = _with_void(self._words[starts])
        self.word: U32 = _with_void(self._words[starts + 2])
        """Size in bytes or id of the type referred to, as the kind has it."""
        self._extra: I64 = _with_void(starts.astype(np.int64) + 3)
        self._by_name: dict[str, list[int]] = {}
        self._nested: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.kind)

    def string(self, offset: int) -> str:
        """The string at an offset into the string section.

        Raises:
            TargetError: There is none.
        """
        if not 0 <= offset < len(self._strings):
            raise damaged(f"string at {offset}")
        return self._strings[offset : self._strings.index(b"\0", offset)].decode("utf-8", "replace")

    def name(self, index: int) -> str:
        """Name of a record, empty when it has none."""
        return self.string(int(self.name_off[index]))

    def rows(self, index: int, width: int) -> list[list[int]]:
        """The ``vlen`` rows of ``width`` words behind a record: members, enumerators or parameters."""
        at = int(self._extra[index])
        rows: list[list[int]] = self._words[at : at + width * int(self.vlen[index])].reshape(-1, width).tolist()
        return rows

    def extra(self, index: int, count: int) -> list[int]:
        """The ``count`` words behind a record."""
        at = int(self._extra[index])
        words: list[int] = self._words[at : at + count].tolist()
        return words

    def check_nesting(self, index: int, level: int = 0) -> int:
        """Depth of the anonymous structs and unions inside a record.

        Raises:
            TargetError: A struct contains itself, or they are nested deeper than C code has them.
        """
        if index not in self._nested:
            # Until it is known it counts as too deep, which is what meeting it again on the way down means.
            self._nested[index] = _MAX_NESTING
            depth = 0 if level < _MAX_NESTING else _MAX_NESTING
            for name, kind, _ in self.rows(index, 3) if not depth else ():
                if not name and kind < len(self) and self.kind[kind] in (BtfKind.STRUCT, BtfKind.UNION):
                    depth = max(depth, 1 + self.check_nesting(kind, level + 1))
            self._nested[index] = min(depth, _MAX_NESTING)
        if self._nested[index] >= _MAX_NESTING:
            raise damaged(f"type {index} contains itself")
        return self._nested[index]

    def find(self, name: str) -> list[int]:
        """Ids of all records of that name, of any kind, lowest first."""
        if name not in self._by_name:
            offsets = self._offsets(name)
            named = np.isin(self.name_off, offsets) if offsets else np.zeros(len(self), np.bool_)
            self._by_name[name] = np.flatnonzero(named).tolist()
        return self._by_name[name]

    def find_enumerator(self, name: str) -> tuple[int, int] | None:
        """The first enum that has an enumerator of that name, and the enumerator's place in it."""
        offsets = self._offsets(name)
        if not offsets:
            return None
        name_offs, owners, places = self._enumerators
        found = np.flatnonzero(np.isin(name_offs, offsets))
        return (int(owners[found[0]]), int(places[found[0]])) if len(found) else None

    @cached_property
    def has_signed_enums(self) -> bool:
        """Whether the encoder marked signed enums; before pahole 1.24 it did not."""
        enums = (self.kind == BtfKind.ENUM) | (self.kind == BtfKind.ENUM64)
        return bool(self.flag[enums].any())

    def _offsets(self, name: str) -> list[int]:
        """Every place in the string section where exactly ``name`` can be read; also as the end of a longer string."""
        raw = name.encode("utf-8", "surrogateescape")
        if not raw or b"\0" in raw:
            return []
        whole = self._strings.find(b"\0" + raw + b"\0")
        if whole >= 0:
            # Encoders store a string once, so the first whole one is nearly always the only one in use.
            return [whole + 1]
        found, at = [], self._strings.find(raw + b"\0")
        while at >= 0:
            found.append(at)
            at = self._strings.find(raw + b"\0", at + 1)
        return found

    @cached_property
    def _enumerators(self) -> tuple[U32, I64, I64]:
        """Name offset, enum and place of every enumerator of the blob."""
        names, owners, places = [], [], []
        for kind, width in ((BtfKind.ENUM, 2), (BtfKind.ENUM64, 3)):
            enums = np.flatnonzero(self.kind == kind)
            counts = self.vlen[enums].astype(np.int64)
            first = np.repeat(np.cumsum(counts) - counts, counts)
            place = np.arange(int(counts.sum()), dtype=np.int64) - first
            names.append(self._words[np.repeat(self._extra[enums], counts) + place * width])
            owners.append(np.repeat(enums, counts))
            places.append(place)
        return np.concatenate(names), np.concatenate(owners), np.concatenate(places)


def _with_void(column: AnyArray) -> AnyArray:
    return np.concatenate([np.zeros(1, column.dtype), column])


def _sections(blob: bytes | memoryview) -> tuple[U32, bytes, bytes]:
    """The type words, the strings and the layout section of a blob."""
    if len(blob) < _HEADER.size:
        raise damaged("shorter than its header")
    magic, version, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != 1:
        raise damaged(f"magic {magic:#x}, version {version}")
    sections = [(type_off, type_len), (str_off, str_len)]
    if header >= _HEADER.size + _LAYOUT.size and len(blob) >= _HEADER.size + _LAYOUT.size:
        sections.append(_LAYOUT.unpack_from(blob, _HEADER.size))
    if header < _HEADER.size or any(header + off + size > len(blob) for off, size in sections):
        raise damaged("a section ends behind the blob")
    if type_off % 4 or type_len % 4 or header % 4:
        raise damaged("types are not aligned")
    # Copied, so that the blob, half of which is neither words nor strings, need not be kept.
    words: U32 = np.frombuffer(blob, "<u4", type_len // 4, header + type_off).astype(np.uint32)
    strings = bytes(blob[header + str_off : header + str_off + str_len])
    if not strings or strings[0] or strings[-1]:
        raise damaged("strings have no end")
    layout = [bytes(blob[header + off : header + off + size]) for off, size in sections[2:]]
    return words, strings, layout[0] if layout else b""


def _walk(words: U32, layout: bytes) -> I32:
    """Word index of every record.

    A record's second word names its kind, which is never 0 (void), so a record can begin only where the next word's
    kind bits hold a known kind. Hardly any other word looks so: the length of each candidate gives its successor, and
    where that is the next candidate the two are neighbours. Only from the others the walk goes on by itself.

    Raises:
        TargetError: A record is of a kind whose length is not known, or the last one ends behind the section.
    """
    fixed, each = np.zeros(128, np.int64), np.zeros(128, np.int64)
    fixed[[*_FIXED.keys()]] = [*_FIXED.values()]
    each[[*_PER_ELEMENT.keys()]] = [*_PER_ELEMENT.values()]
    # Kinds younger than this file are stepped over with the sizes that the blob itself states (struct btf_layout).
    stated = np.frombuffer(layout[: min(len(layout) // 4, 128) * 4], np.uint8).reshape(-1, 4)
    young = slice(max(BtfKind) + 1, len(stated))
    fixed[young], each[young] = stated[young, 0] // 4, stated[young, 1] // 4
    known = np.arange(128) < max(len(stated), max(BtfKind) + 1)
    known[BtfKind.VOID] = False
    count = len(words)
    if count < 3:
        return np.empty(0, np.int32)
    kinds = ((words[1:] >> 24) & 0x7F).astype(np.uint8)
    maybe = np.flatnonzero(known[kinds]).astype(np.int32)
    kinds = kinds[maybe]
    behind = fixed[kinds] + each[kinds] * (words[1:][maybe] & 0xFFFFFF) + maybe + 3
    # A candidate whose successor is not the next candidate ends a stretch of neighbours.
    ends = np.append(np.flatnonzero(behind[:-1] != maybe[1:]), len(maybe) - 1).tolist()
    places = maybe.data
    parts: list[I32] = []
    row, at = 0, 0
    while at < count - 1 and row < len(maybe) and places[row] == at:
        last = ends[bisect_left(ends, row)]
        parts.append(maybe[row : last + 1])
        at = int(behind[last])
        row = bisect_left(places, at)
    if at != count:
        raise damaged(f"record {sum(map(len, parts))} does not fit")
    return np.concatenate(parts)
