"""Types, variables and symbols offered to any drgn session on a kernel without debug information, read when needed."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import drgn

from inspector.errors import FolioscopeError

if TYPE_CHECKING:
    from inspector.target.btf import BtfTypes
    from inspector.target.kallsyms import Kallsyms

NAME = "folioscope"
"""Of the finders, as `drgn.Program.registered_type_finders` lists them, and of the entry in `drgn.Program.cache`."""

_STARTING = "drgn.cli"
"""The module of the caller that looks for debug information before there is a prompt, or a script runs."""

_log = logging.getLogger(f"drgn.{NAME}")


def has_debug_info(prog: drgn.Program) -> bool:
    """Whether drgn has the kernel's debug information by now."""
    try:
        return prog.main_module().debug_file_status == drgn.ModuleFileStatus.HAVE
    except LookupError:
        return False


class Offer:
    """What one program is offered. Nothing is read before drgn first asks for something that it does not find itself.

    Args:
        prog: A program of a kernel.
    """

    def __init__(self, prog: drgn.Program) -> None:
        self._prog = prog
        self._is_read = False
        self._found: tuple[Kallsyms, BtfTypes] | None = None

    def register(self) -> None:
        """Answer what drgn's own ways have no answer to."""
        self._prog.register_type_finder(NAME, self._find_type, enable_index=-1)
        self._prog.register_object_finder(NAME, self._find_object, enable_index=-1)
        self._prog.register_symbol_finder(NAME, self._find_symbols, enable_index=-1)
        self._prog.cache[NAME] = self

    @property
    def found(self) -> tuple[Kallsyms, BtfTypes] | None:
        """Symbols and types; None where the kernel has debug information, or has none of these either."""
        if has_debug_info(self._prog):
            # What DWARF does not know is not there; types of both at once would be strangers to each other.
            return None
        if not self._is_read:
            if sys._getframe(2).f_globals.get("__name__") == _STARTING:
                # To look for debug information of modules: it starts as fast, and finds as many, as without us.
                return None
            # Set first: to read them is to ask drgn for types, such as char, which it then finds by itself.
            self._is_read = True
            try:
                self._found = _read(self._prog)
            except (FolioscopeError, drgn.FaultError, LookupError, OSError, ValueError) as error:
                _log.warning("no types from BTF: %s", error)
        return self._found

    def _find_type(
        self, prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        return self.found[1].find_type(prog, kinds, name, filename) if self.found else None

    def _find_object(
        self, prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None
    ) -> drgn.Object | None:
        return self.found[1].find_object(prog, name, flags, filename) if self.found else None

    def _find_symbols(self, prog: drgn.Program, name: str | None, address: int | None, one: bool) -> list[drgn.Symbol]:
        return self.found[0].finder(prog, name, address, one) if self.found else []


def own_program(platform: drgn.Platform | None = None) -> drgn.Program:
    """A program that is given its types here, from what is kept of earlier times, too: it is offered nothing."""
    prog = drgn.Program(platform)
    prog.cache[NAME] = None
    return prog


def is_new(prog: drgn.Program) -> bool:
    """Whether a program was neither offered anything nor made here."""
    return NAME not in prog.cache


def offer_of(prog: drgn.Program) -> Offer | None:
    """What a program is offered; None where nothing was."""
    found = prog.cache.get(NAME)
    return found if isinstance(found, Offer) else None


def _read(prog: drgn.Program) -> tuple[Kallsyms, BtfTypes]:
    from inspector.target.btf import open_btf  # noqa: PLC0415  (NumPy, in sessions that need it)
    from inspector.target.corefile import examine_core, parse_vmcoreinfo  # noqa: PLC0415
    from inspector.target.kallsyms import Kallsyms  # noqa: PLC0415

    raw = examine_core(str(prog.core_dump_path)).vmcoreinfo if prog.core_dump_path else b""
    info = parse_vmcoreinfo(raw or prog["VMCOREINFO"].string_())
    table = Kallsyms.read(lambda address, size: bytes(prog.read(address, size)), info)
    return table, open_btf(prog, table.locate)
