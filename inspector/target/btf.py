"""Types, variables and constants of the kernel from the BTF in its own memory, as drgn finders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import drgn
from drgn import FindObjectFlags, Qualifiers, TypeKind

from inspector.errors import TargetError
from inspector.target.btf_parse import Btf, BtfKind, damaged
from inspector.target.btf_variables import TYPE_OF

Locate = Callable[[str], tuple[int, int] | None]
"""Address and size of a symbol, None when the kernel has none of that name."""

_MAX_CHAIN = 64
"""More pointers, qualifiers, typedefs and array levels on one another than C code has: a cycle."""

_WANTED = {
    TypeKind.INT: (BtfKind.INT,),
    TypeKind.BOOL: (BtfKind.INT,),
    TypeKind.FLOAT: (BtfKind.FLOAT,),
    TypeKind.STRUCT: (BtfKind.STRUCT, BtfKind.FWD),
    TypeKind.UNION: (BtfKind.UNION, BtfKind.FWD),
    TypeKind.ENUM: (BtfKind.ENUM, BtfKind.ENUM64),
    TypeKind.TYPEDEF: (BtfKind.TYPEDEF,),
}

_QUALIFIERS = {
    BtfKind.CONST: Qualifiers.CONST,
    BtfKind.VOLATILE: Qualifiers.VOLATILE,
    BtfKind.RESTRICT: Qualifiers.RESTRICT,
}

_CHAIN = {BtfKind.PTR, BtfKind.ARRAY, BtfKind.TYPEDEF, BtfKind.FUNC_PROTO, BtfKind.TYPE_TAG, *_QUALIFIERS}
"""Kinds that are made of exactly one other type, which has to exist first."""

_INT_CHAR_BOOL = 4
_INT_SIGNED = 1


class BtfTypes:
    """Makes drgn types out of BTF records, each when it is first asked for.

    Args:
        prog: The program to make types for.
        btf: The parsed blob.
        locate: Looks up symbols.
    """

    def __init__(self, prog: drgn.Program, btf: Btf, locate: Locate) -> None:
        self._prog = prog
        self._btf = btf
        self._locate = locate
        self._types: dict[int, drgn.Type] = {0: prog.void_type()}
        self._found_types: dict[tuple[str, str | None, drgn.TypeKindSet], drgn.Type | None] = {}
        self._found_objects: dict[tuple[str, FindObjectFlags], drgn.Object | None] = {}

    def register(self) -> None:
        """Let drgn look types and objects up here, before its own ways."""
        self._prog.register_type_finder("btf", self.find_type, enable_index=0)
        self._prog.register_object_finder("btf", self.find_object, enable_index=0)

    def find_type(
        self, _prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        """Answer drgn's type look-ups (`drgn.Program.register_type_finder`), each searched for once.

        Of several types of one name the first complete one is given; when a file is named, only an unambiguous
        one, because BTF does not name files.
        """
        # drgn keeps no answer, and its helpers ask anew in every call, mostly for what the kernel lacks.
        key = (name, filename, kinds)
        try:
            return self._found_types[key]
        except KeyError:
            made = self._found_types[key] = self._search_type(kinds, name, filename)
            return made

    def _search_type(self, kinds: drgn.TypeKindSet, name: str, filename: str | None) -> drgn.Type | None:
        wanted = {k for kind in kinds for k in _WANTED.get(kind, ())}
        found = [i for i in self._btf.find(name) if self._btf.kind[i] in wanted]
        complete = [i for i in found if self._btf.kind[i] != BtfKind.FWD]
        if filename and len(complete) > 1:
            return None
        for index in complete or found:
            made = self.type(index)
            if made.kind in kinds:
                return made
        return None

    def find_object(
        self, prog: drgn.Program, name: str, flags: FindObjectFlags, _filename: str | None
    ) -> drgn.Object | None:
        """Answer drgn's object look-ups (`drgn.Program.register_object_finder`), each searched for once.

        An object is a type and an address, or an enumerator's value: neither changes, even where the kernel runs on.
        """
        key = (name, flags)
        try:
            return self._found_objects[key]
        except KeyError:
            made = self._found_objects[key] = self._search_object(prog, name, flags)
            return made

    def _search_object(self, prog: drgn.Program, name: str, flags: FindObjectFlags) -> drgn.Object | None:
        if flags & FindObjectFlags.VARIABLE:
            variable = self._variable(prog, name)
            if variable is not None:
                return variable
        if flags & FindObjectFlags.CONSTANT:
            found = self._btf.find_enumerator(name)
            if found is not None:
                made = self.type(found[0])
                return drgn.Object(prog, made, (made.enumerators or ())[found[1]].value)
        if flags & FindObjectFlags.FUNCTION:
            located = self._locate(name)
            for index in self._btf.find(name):
                if located is not None and self._btf.kind[index] == BtfKind.FUNC:
                    return drgn.Object(prog, self.type(int(self._btf.word[index])), address=located[0])
        return None

    def _variable(self, prog: drgn.Program, name: str) -> drgn.Object | None:
        record = next((i for i in self._btf.find(name) if self._btf.kind[i] == BtfKind.VAR), None)
        declared = TYPE_OF.get(name)
        if record is None and declared is None:
            return None
        if self._is_function(name):
            # From 7.0 zero_pfn() is a function: its code must not be taken for a variable.
            return None
        located = self._locate(name)
        if located is None:
            return None
        if record is not None:
            return drgn.Object(prog, self.type(int(self._btf.word[record])), address=located[0])
        assert declared is not None
        try:
            made = prog.type(declared.removesuffix("[]"))
        except LookupError:
            return None
        if declared.endswith("[]"):
            # An array ends before the next symbol at the latest; padding may make that one element too many.
            made = prog.array_type(made, located[1] // max(drgn.sizeof(made), 1))
        return drgn.Object(prog, made, address=located[0])

    def _is_function(self, name: str) -> bool:
        return any(self._btf.kind[i] == BtfKind.FUNC for i in self._btf.find(name))

    def type(self, index: int) -> drgn.Type:
        """The type of record ``index``; the same object each time.

        Raises:
            TargetError: The record, or one it is made of, breaks the format.
        """
        chain: list[int] = []
        while index not in self._types:
            if not 0 <= index < len(self._btf) or len(chain) > _MAX_CHAIN:
                raise damaged(f"type {index}")
            kind = self._btf.kind[index]
            if kind not in _CHAIN:
                self._types[index] = self._make(self._base, index)
                break
            chain.append(index)
            index = self._btf.extra(index, 1)[0] if kind == BtfKind.ARRAY else int(self._btf.word[index])
        made = self._types[index]
        for link in reversed(chain):
            made = self._types[link] = self._make(partial(self._on_top, made), link)
        return made

    def _make(self, build: Callable[[int], drgn.Type], index: int) -> drgn.Type:
        try:
            return build(index)
        except (ValueError, TypeError, OverflowError) as error:
            raise damaged(f"type {index}: {error}") from error

    def _on_top(self, inner: drgn.Type, index: int) -> drgn.Type:
        """A pointer to, array of, qualified, or otherwise derived from ``inner``."""
        prog, btf = self._prog, self._btf
        kind = BtfKind(int(btf.kind[index]))
        if kind == BtfKind.PTR:
            return prog.pointer_type(inner)
        if kind == BtfKind.TYPEDEF:
            return prog.typedef_type(btf.name(index), inner)
        if kind == BtfKind.ARRAY:
            return prog.array_type(inner, btf.extra(index, 3)[2])
        if kind == BtfKind.FUNC_PROTO:
            return self._function(inner, index)
        if kind == BtfKind.TYPE_TAG:
            return inner
        return inner.qualified(inner.qualifiers | _QUALIFIERS[kind])

    def _function(self, returned: drgn.Type, index: int) -> drgn.Type:
        rows = self._btf.rows(index, 2)
        variadic = bool(rows) and rows[-1] == [0, 0]
        parameters = [
            drgn.TypeParameter(partial(self.type, kind), self._btf.string(name) or None)
            for name, kind in (rows[:-1] if variadic else rows)
        ]
        return self._prog.function_type(returned, parameters, variadic)

    def _base(self, index: int) -> drgn.Type:
        """A type that needs no other one yet; members are made when they are asked for."""
        btf = self._btf
        kind = btf.kind[index]
        name, size = btf.name(index), int(btf.word[index])
        if kind == BtfKind.INT:
            encoding = btf.extra(index, 1)[0] >> 24
            if encoding & _INT_CHAR_BOOL:
                return self._prog.bool_type(name, size)
            return self._prog.int_type(name, size, bool(encoding & _INT_SIGNED))
        if kind == BtfKind.FLOAT:
            return self._prog.float_type(name, size)
        if kind in (BtfKind.STRUCT, BtfKind.UNION):
            make = self._prog.struct_type if kind == BtfKind.STRUCT else self._prog.union_type
            return make(name or None, size, self._members(index))
        if kind == BtfKind.FWD:
            return self._forward(name, is_union=bool(btf.flag[index]))
        if kind in (BtfKind.ENUM, BtfKind.ENUM64):
            return self._enum(index, name, size)
        raise damaged(f"type {index} is of kind {kind}, which is no type")

    def _forward(self, name: str, *, is_union: bool) -> drgn.Type:
        """The full type that a forward declaration declares, where the blob has exactly one."""
        kind = BtfKind.UNION if is_union else BtfKind.STRUCT
        full = [i for i in self._btf.find(name) if self._btf.kind[i] == kind]
        if len(full) == 1:
            return self.type(full[0])
        return self._prog.union_type(name) if is_union else self._prog.struct_type(name)

    def _members(self, index: int) -> list[drgn.TypeMember]:
        btf, with_bits = self._btf, bool(self._btf.flag[index])
        btf.check_nesting(index)
        members: list[drgn.TypeMember] = []
        rows = btf.rows(index, 3)
        for name, kind, offset in rows:
            bits = offset >> 24 if with_bits else 0
            at = offset & 0xFFFFFF if with_bits else offset
            if not with_bits:
                # Encoders before kind_flag put a bit field's place and width into an integer type of its own.
                shift, bits = self._narrow(kind)
                at += shift
            # An array of no elements at the end of a struct is a flexible one, which DWARF marks.
            is_last = len(members) + 1 == len(rows) or btf.kind[index] == BtfKind.UNION
            thunk = partial(self._member, kind, bits, is_last)
            members.append(drgn.TypeMember(thunk, btf.string(name) or None, at))
        return members

    def _member(self, index: int, bits: int, is_last: bool) -> drgn.Object:
        """What a member holds, as an absent object, which is where drgn finds out that it cannot be a member."""
        made = self.type(index)
        if is_last and made.kind == TypeKind.ARRAY and made.length == 0:
            made = self._prog.array_type(made.type)
        try:
            return drgn.Object(self._prog, made, bit_field_size=bits or None)
        except (ValueError, TypeError) as error:
            raise damaged(f"member of type {index}: {error}") from error

    def _narrow(self, index: int) -> tuple[int, int]:
        """Bit shift and width of an integer record that is narrower than its size; (0, 0) otherwise."""
        if not 0 < index < len(self._btf) or self._btf.kind[index] != BtfKind.INT:
            return 0, 0
        word = self._btf.extra(index, 1)[0]
        bits = word & 0xFF
        return ((word >> 16) & 0xFF, bits) if 0 < bits < 8 * int(self._btf.word[index]) else (0, 0)

    def _enum(self, index: int, name: str, size: int) -> drgn.Type:
        btf = self._btf
        if not btf.vlen[index]:
            return self._prog.enum_type(name or None)
        width = 2 if btf.kind[index] == BtfKind.ENUM else 3
        rows = btf.rows(index, width)
        values = [(row[0], row[1] | (row[2] << 32 if width == 3 else 0)) for row in rows]
        top = 1 << (31 if width == 2 else 63)
        signed = bool(btf.flag[index]) or (not btf.has_signed_enums and any(v & top for _, v in values))
        if signed:
            values = [(n, v - 2 * top if v & top else v) for n, v in values]
        base = {1: "char", 2: "short", 4: "int", 8: "long"}.get(size)
        if base is None:
            raise TypeError(f"enum of {size} bytes")
        sign = "signed " if signed and size == 1 else "" if signed else "unsigned "
        compatible = self._prog.int_type(sign + base, size, signed)
        enumerators = [drgn.TypeEnumerator(btf.string(n), v) for n, v in values]
        return self._prog.enum_type(name or None, compatible, enumerators)


def open_btf(
    prog: drgn.Program, locate: Locate, size_limit: int = 1 << 28, parse: Callable[[bytes], Btf] = Btf
) -> BtfTypes:
    """Find, read and parse the BTF of the kernel that ``prog`` reads.

    The kernel's linker script keeps it between two symbols (include/asm-generic/vmlinux.lds.h, BTF).

    Raises:
        TargetError: The kernel has none, or it cannot be read or is damaged.
    """
    start, stop = locate("__start_BTF"), locate("__stop_BTF")
    if start is None or stop is None:
        raise TargetError("the kernel has no type information (BTF)", "__start_BTF", "Give its vmlinux with -s")
    size = stop[0] - start[0]
    if not 0 < size <= size_limit:
        raise damaged(f"{size} bytes")
    try:
        blob = prog.read(start[0], size)
    except drgn.FaultError as error:
        raise TargetError(
            "the kernel's type information (BTF) is not in the dump", f"{error.address:#x}", "Give its vmlinux with -s"
        ) from error
    return BtfTypes(prog, parse(blob), locate)
