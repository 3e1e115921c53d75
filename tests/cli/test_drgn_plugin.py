"""The plugin for drgn, in its real prompt on a pseudo-terminal: commands, and types without debug information."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import drgn
import numpy as np
import pytest
from drgn.commands import CommandArgumentError, CommandError, CommandNotFoundError, run_command

from inspector.drgn_plugin import COMMANDS, PromptCommand, drgn_prog_set
from inspector.errors import TargetError
from inspector.target import offer
from inspector.target.target import open_core
from tests.faults.overlay import sound
from tests.opening import parse_symbols
from tests.unit.test_target import guest

DRGN = Path(sys.executable).with_name("drgn")
ROOT = Path(__file__).resolve().parents[2]
MARK = ">>> "
SECONDS = 120
MODULES = ("numpy", "click", "inspector.cli", "inspector.target.kallsyms")
"""What a start of drgn does without."""


def environment(folder: Path) -> dict[str, str]:
    """The plugin loaded from here, whatever is installed; nothing of the user's."""
    plain = {"TERM": "dumb", "PAGER": "cat", "PYTHON_BASIC_REPL": "1", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    dropped = ("DRGN_", "DEBUGINFOD", "XDG_", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **plain, "DRGN_PLUGINS": "folioscope=inspector.drgn_plugin"}


class Prompt:
    """drgn on a pseudo-terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def read(self) -> str:
        """What is printed up to the next prompt."""
        text, end = b"", time.monotonic() + SECONDS
        while not text.endswith(MARK.encode()):
            ready = select.select([self._terminal], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, text
            text += os.read(self._terminal, 1 << 16)
        return text.decode().replace("\r\n", "\n").removesuffix(MARK)

    def ask(self, line: str) -> str:
        """What a line prints."""
        os.write(self._terminal, line.encode() + b"\n")
        return self.read().partition("\n")[2]


@contextmanager
def prompt(core: str, folder: Path) -> Iterator[tuple[Prompt, str]]:
    """drgn on a dump, and what it begins with."""
    ours, theirs = pty.openpty()
    # Wide enough for each line typed.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 300, 0, 0))
    command = [str(DRGN), "-c", core]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(folder)) as running:
        os.close(theirs)
        try:
            asked = Prompt(ours)
            yield asked, asked.read()
            os.write(ours, b"\x04")
            assert running.wait(SECONDS) == 0
        finally:
            running.kill()
            os.close(ours)


def test_commands_and_types_at_the_prompt(any_core: str, tmp_path: Path) -> None:
    s = sound(any_core)
    folio = int(np.flatnonzero(s.folios.is_anon & (s.counts.entire > 0))[0])
    pfn, address = int(s.folios.pfn[folio]), int(s.mms.addr[0])
    with prompt(any_core, tmp_path) as (at, banner):
        assert "Traceback" not in banner
        assert "missing debugging symbols for kernel" in banner
        for name in MODULES:
            assert at.ask(f'import sys; "{name}" in sys.modules') == "False\n"

        assert int(at.ask('prog.type("struct folio").size')) == s.layout.struct("struct folio").size
        assert int(at.ask("sum(1 for _ in for_each_task(prog))")) == len(s.tasks)
        assert at.ask('prog.symbol("init_mm").name') == "'init_mm'\n"
        assert at.ask("prog.symbol(prog['init_mm'].address_ + 8).name") == "'init_mm'\n"

        shown = at.ask(f"%folio {pfn:#x}")
        assert f"\nfolio {pfn:#x}, order 9: 512 pages, 2 MiB, anon" in shown
        assert "WRONG" not in shown
        assert re.search(r"\nPMD|  PMD ", at.ask(f"%rmap {pfn:#x}"))
        assert "what the kernel would do now" in at.ask(f"%explain {pfn:#x}")
        assert at.ask("%mthp").startswith("kind ")
        assert re.search(r"\nmm +(mm|\+0x0 in mm) ", at.ask(f"%what {address:#x}"))
        assert re.search(r"\nsymbol +init_mm\n", at.ask("%what init_mm"))
        assert re.search(r"\nverdict +consistent\n$", at.ask("%mmcheck"))

        assert at.ask("%rmap --help").startswith("Usage: %rmap [OPTIONS] PLACE\n")
        assert at.ask("%mthp | head -n 1").startswith("kind ")
        assert at.ask(f"%mthp --format json > {tmp_path}/mthp.json") == ""
        assert (tmp_path / "mthp.json").read_text().startswith('{"schema":"folioscope.mthp/')
        for line, error in ERRORS.items():
            assert at.ask(line) == f"drgn: {error}\n"


ERRORS = {
    "%folio": "missing argument 'PLACE'. See %folio --help.",
    "%folio nonsense": "this is no number: nonsense. Give decimal, or hex that begins with 0x; PID:ADDRESS for memory "
    "of a process.",
    "%folio 1 --nonsense": "there is no such option: --nonsense. See %folio --help.",
    "%mmcheck -c other": "the target is what drgn has open. Give no options of the target here.",
    "%what nonsense": "nothing of this target is called so: nonsense. Give hex that begins with 0x, PID:ADDRESS, the "
    "name of a process, or the path of a file.",
}
"""By line, what it prints, in one line."""


def plugged(core: str) -> drgn.Program:
    """A dump opened as drgn does, and offered to the plugin."""
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.set_core_dump(core)
    drgn_prog_set(prog)
    drgn_prog_set(prog)
    return prog


def test_commands_are_there_for_kernels_alone(core: Callable[[str], str]) -> None:
    prog, user = plugged(core("6.12")), drgn.Program(drgn.host_platform)
    drgn_prog_set(user)
    assert user.registered_type_finders() == {"dwarf"}
    for name in COMMANDS:
        with pytest.raises(CommandNotFoundError):
            run_command(user, name)
    assert {"folioscope"} < prog.registered_type_finders()


def test_help_is_drgns_too() -> None:
    for name, command in COMMANDS.items():
        known = PromptCommand(name, command)
        assert known.description().endswith(".")
        assert known.format_usage().startswith(f"%{name} [OPTIONS]")
        text = known.format_help(indent="  ")
        assert f"\n    {'Show' if name != 'mmcheck' else 'Rebuild'} " in text or "Account" in text
        assert all(line.startswith("  ") for line in text.splitlines() if line)
        assert not re.search(r"--(core|kernel|qemu|symbols|types|pause)\b|vmcore", text)


def test_errors_are_one_line_in_scripts_too(core: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    prog = plugged(core("7.3"))
    with pytest.raises(CommandArgumentError, match=r"^no memory of this target has [^\n]*$"):
        run_command(prog, "folio 0x99999999999")
    prog.cache["folioscope.target"] = None
    prog.cache[offer.NAME] = None
    assert run_command(prog, "folio 0x7200") is None
    assert "order 9" in capsys.readouterr().out


def test_a_kernel_without_btf_is_as_before(
    core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nothing(_prog: drgn.Program) -> None:
        raise TargetError("the kernel has no type information (BTF)")

    monkeypatch.setattr(offer, "_read", nothing)
    prog = plugged(core("6.1"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(LookupError):
                prog.type("struct folio")
            with pytest.raises(LookupError):
                prog.symbol("init_mm")
    assert [record.getMessage() for record in caplog.records] == [
        "no types from BTF: the kernel has no type information (BTF)"
    ]
    assert prog.type("int").size == 4


def test_what_is_opened_here_is_offered_nothing(core: Callable[[str], str]) -> None:
    """Its types come from what is kept of earlier times: the plugin is loaded in every process that uses drgn."""
    prog = open_core(core("7.3"), types="btf").prog
    drgn_prog_set(prog)
    assert offer.offer_of(prog) is None
    assert offer.NAME not in {*prog.registered_type_finders(), *prog.registered_symbol_finders()}


def test_types_are_read_once_and_are_those_of_the_commands(core: Callable[[str], str]) -> None:
    prog = plugged(core("6.12"))
    before = prog.type("struct folio")
    with patch("inspector.target.target._symbol_table", parse_symbols):
        run_command(prog, "folio 0x2200 --no-mappings | cat > /dev/null")
    assert prog.enabled_type_finders() == ["dwarf", "folioscope"]
    assert repr(prog.type("struct folio")) == repr(before)
    found = offer.offer_of(prog)
    assert found is not None and found.found is not None
    assert prog.cache["folioscope.target"][1].symbols is found.found[0]


@pytest.mark.guest
@pytest.mark.parametrize("version", ["6.1", "6.12", "7.3"])
def test_debug_information_goes_first(version: str) -> None:
    prog = plugged(guest(version))
    assert prog.type("struct folio").kind == drgn.TypeKind.STRUCT
    prog.load_debug_info([guest(version, "vmlinux")])
    assert offer.has_debug_info(prog)
    # Macros and files are what BTF lacks.
    assert prog.type("struct folio", "mm_types.h").members is not None
    with pytest.raises(LookupError):
        prog.type("struct nothing_of_that_name")
    assert len(prog.symbols("init_mm")) == 1
    with pytest.raises(CommandError, match="no memory of this target"):
        run_command(prog, "folio 0x99999999999")
    assert prog.cache["folioscope.target"][1].types_from == "DWARF"
