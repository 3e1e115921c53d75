"""Dumps opened again and again: symbols and types, which no test changes, are parsed once a dump."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import drgn

from inspector.layout.offsets import Struct
from inspector.target import target
from inspector.target.btf import BtfTypes, Locate, open_btf
from inspector.target.btf_parse import Btf
from inspector.target.kallsyms import Kallsyms

parse_symbols = target._symbol_table
_symbols: dict[tuple[str, int, int, str], tuple[target.Symbols, str]] = {}
_types: dict[tuple[str, int, int], Btf] = {}
_structs: dict[tuple[str, int, int], tuple[drgn.Program, dict[str, Struct]]] = {}
_MOST = 24
"""Dumps whose structs are kept: those of a dump keep the program that they came from, and with it the open file."""


def _file(path: str) -> tuple[str, int, int]:
    """A file as it is now: one that was written anew is another."""
    stat = Path(path).stat()
    return path, stat.st_ino, stat.st_mtime_ns


def _known_symbols(opening: target._Opening, info: dict[str, str], dwarf: str) -> tuple[target.Symbols, str]:
    if opening.kind not in ("core", "kdump") or not opening.prog.core_dump_path:
        return parse_symbols(opening, info, dwarf)
    key = (*_file(opening.path), dwarf)
    if key in _symbols:
        return _symbols[key]
    found = parse_symbols(opening, info, dwarf)
    if isinstance(found[0], Kallsyms):
        # The other table is of one program, and that it was taken is in the notes of each.
        _symbols[key] = found
    return found


def _known_types(prog: drgn.Program, locate: Locate) -> BtfTypes:
    if not prog.core_dump_path:
        return open_btf(prog, locate)
    key = _file(str(prog.core_dump_path))
    if key not in _types:
        parsed = open_btf(prog, locate)
        _types[key] = parsed._btf
        return parsed
    return BtfTypes(prog, _types[key], locate)


def _known_struct(prog: drgn.Program, name: str) -> Struct:
    if not prog.core_dump_path or "btf" not in prog.enabled_type_finders():
        return Struct(prog, name)
    key = _file(str(prog.core_dump_path))
    # Taken out and put back: the last one is the one that was opened last.
    first, known = _structs[key] = _structs.pop(key, (prog, {}))
    if len(_structs) > _MOST:
        del _structs[next(iter(_structs))]
    if name not in known:
        known[name] = Struct(first, name)
    return known[name]


@contextmanager
def parsed_once() -> Iterator[None]:
    """Inside, a dump that was opened before is opened with the symbols, BTF and structs it was found to have.

    They are read before a test can plant anything, and a damaged copy is another file. The first opening of each file
    parses as ever.
    """
    with (
        patch("inspector.target.target._symbol_table", _known_symbols),
        patch("inspector.target.target.open_btf", _known_types),
        patch("inspector.layout.kernel.Struct", _known_struct),
    ):
        yield
