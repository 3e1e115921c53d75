"""Every way to be wrong gives one line on stderr, nothing on stdout, and the right exit code."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import inspector.cli.opening
import inspector.target.target
from tests.cli.conftest import Run

PREFIX = "folioscope: error: "


def elf_core(machine: int, elf_class: int = 2, data: int = 1) -> bytes:
    """A small ELF core dump of any architecture with a VMCOREINFO note."""
    note = struct.pack("<III", 11, 8, 0) + b"VMCOREINFO\0\0" + b"PAGESIZE"
    ident = b"\x7fELF" + bytes([elf_class, data, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    phdr = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 0)
    return ident + header + phdr + note


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


BAD_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "text": (lambda _: b"hello, this is a text file\n", "this is a text file, not a vmcore"),
    "empty": (lambda _: b"", "the dump is empty"),
    "zeros": (lambda _: bytes(8192), "the dump begins with zeros"),
    "noise": (lambda _: bytes(range(1, 256)) * 40, "this is no dump of a known format"),
    "truncated-header": (lambda core: core[:100], "the dump is truncated"),
    "truncated-kdump": (lambda core: core[: len(core) // 2], "the dump is truncated"),
    "truncated-elf": (lambda _: elf_core(62)[:90], "the dump is truncated"),
    "gzip": (lambda _: b"\x1f\x8b\x08" + bytes(range(100)), "the dump is packed with gzip"),
    "arm64": (lambda _: elf_core(183), "the kernel is of an architecture that is not supported (arm64)"),
    "32-bit": (lambda _: elf_core(3, elf_class=1), "the kernel is of an architecture that is not supported (32-bit)"),
    "no-kernel": (lambda _: elf_core(62), "the dump"),
    "flattened": (lambda _: b"makedumpfile\0" + bytes(range(1, 100)), "the dump is a flattened makedumpfile stream"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("command", ["check", "info"])
def test_bad_core(name: str, command: str, run: Run, core: Callable[[str], str], tmp_path: Path) -> None:
    make, message = BAD_FILES[name]
    path = write(tmp_path / "core", make(Path(core("6.1")).read_bytes()))
    result = run(command, "-c", path)
    assert result.code == 3
    assert result.error.startswith(f"{PREFIX}{message}"), result.error
    assert path in result.error
    assert result.error.endswith(".")


def test_directory_and_absent(run: Run, tmp_path: Path) -> None:
    assert run("check", str(tmp_path)).error == f"{PREFIX}the dump is a directory: {tmp_path}. Name the file inside it."
    result = run("check", str(tmp_path / "none"))
    assert (result.code, result.error) == (3, f"{PREFIX}no such dump: {tmp_path / 'none'}. Check the path.")


def test_no_permission(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "core", b"x")
    real = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if str(self) == path:
            raise PermissionError(13, "Permission denied", path)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so that a mode of 0 would not do
    result = run("info", "-c", path)
    assert (result.code, result.error) == (3, f"{PREFIX}the dump may not be read: {path}. Run as its owner or as root.")


def test_control_characters_of_a_path_are_escaped(run: Run) -> None:
    result = run("info", "-c", "/no\x1b[31m\nsuch")
    assert result.error == f"{PREFIX}no such dump: /no\\x1b[31m\\nsuch. Check the path."


def test_no_target_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = str(tmp_path / "kcore")
    monkeypatch.setattr(inspector.cli.opening, "_KCORE", absent)
    monkeypatch.setattr(inspector.target.target, "_KCORE", absent)
    result = run("info")
    assert result.code == 3
    assert result.error == (
        f"{PREFIX}no target was named and the running kernel cannot be read (no such file or directory): {absent}. "
        "Name a vmcore with -c CORE, or run as root."
    )
    result = run("-k", "info")
    assert result.code == 3
    assert result.error.startswith(f"{PREFIX}the running kernel has no core file: {absent}")


def test_qemu(run: Run, tmp_path: Path) -> None:
    result = run("--qemu", str(tmp_path / "socket"), "info")
    assert result.code == 3
    assert result.error.startswith(f"{PREFIX}no such QMP socket: ")


def test_wrong_symbols(run: Run, core: Callable[[str], str], tmp_path: Path) -> None:
    text = write(tmp_path / "vmlinux", b"hello\n")
    for symbols, message in (
        (text, "the symbols file is no ELF file"),
        (str(tmp_path / "none"), "no such symbols file"),
        (sys.executable, "the symbols are of another kernel"),
        (core("6.1"), "the symbols file is no ELF file"),
    ):
        result = run("info", "-c", core("6.12"), "-s", symbols)
        assert result.code == 3
        assert result.error.startswith(PREFIX + message), result.error
    result = run("info", "-c", core("6.12"), "--types", "dwarf")
    assert result.code == 3
    assert result.error.startswith(f"{PREFIX}no DWARF debug information for this kernel: 6.12")


def test_several_kinds_of_target(run: Run) -> None:
    result = run("-c", "a", "check", "-k")
    assert (result.code, result.error) == (2, f"{PREFIX}-c and -k name different targets. Give one of them.")
    result = run("-c", "a", "ps", "--core", "b")
    assert (result.code, result.error) == (2, f"{PREFIX}this command takes one target: a, b. Give one -c.")


USAGE = {
    ("chekc",): "there is no such command: chekc. Did you mean check?",
    ("zzz",): "there is no such command: zzz. See folioscope --help.",
    ("check", "--rul"): "there is no such option: --rul. Did you mean --rule?",
    ("info", "--zzzzz"): "there is no such option: --zzzzz. See folioscope info --help.",
    ("info", "extra"): "got unexpected extra argument (extra). See folioscope info --help.",
    ("-c",): "option '-c' requires an argument. See folioscope --help.",
    ("folio",): "missing argument 'PLACE'. See folioscope folio --help.",
    ("explain",): "missing argument 'PLACE'. See folioscope explain --help.",
    ("page",): "missing argument 'PLACE...'. See folioscope page --help.",
    ("va", "1"): "an address is missing: 1. Give PID ADDRESS, or PID:ADDRESS; see folioscope vmas.",
    ("vmas",): "missing argument 'PID'. See folioscope vmas --help.",
    ("va", "1", "0xzz"): "this is no number: 0xzz. Give decimal, or hex that begins with 0x.",
    ("--format", "xml", "info"): "invalid value for '--format': 'xml' is not one of 'text', 'json'.",
    ("rules", "mapcount-too-lo"): "there is no rule of that name: mapcount-too-lo. Did you mean mapcount-too-low",
    ("check", "-r", "nothing-like-it"): "there is no rule of that name: nothing-like-it.",
    (
        "manual",
        "zzz",
    ): "there is no such page: zzz. There are findings, references, schemes, windows, targets, drgn, python, fleet, "
    "json.",
}


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_usage(words: tuple[str, ...], run: Run) -> None:
    result = run(*words)
    assert result.code == 2
    assert result.error.startswith(PREFIX + USAGE[words]), result.error


ON_A_CORE = {
    ("vmas", "4000000"): "there is no task of that pid: 4000000. See folioscope ps.",
    ("va", "4000000", "0x1000"): "there is no task of that pid: 4000000. See folioscope ps.",
    ("vmas", "2"): "kthreadd is a kernel thread and has no address space: 2. See folioscope ps.",
    ("va", "1", "0xffff888000000000"): "this is not a user address: 0xffff888000000000.",
    ("folio", "zzz"): "this is no number: zzz. Give decimal, or hex that begins with 0x; PID:ADDRESS for memory of a",
    ("explain", "zzz"): "this is no number: zzz. Give decimal, or hex that begins with 0x; PID:ADDRESS for memory of",
    ("vmas", "xyz"): "there is no process of that name: xyz. See folioscope ps.",
    ("explain", "0xfffffffffff"): "no memory of this target has that page frame number or address",
    ("folio", "-1x"): "there is no such option: -1",
    ("folio", "0xfffffffffff"): "no memory of this target has that page frame number or address",
    ("page", "--as", "pfn", "0xffff888000000000"): "no memory of this target has that page frame number",
    ("page", "9-5"): "this is no range: 9-5.",
    ("page", "9+0"): "this is no range: 9+0. Give FIRST+COUNT or FIRST-LAST.",
    ("page", "0+999999999999"): "this is no range: 0+999999999999.",
    ("page", "1-z"): "this is no number: z.",
}


@pytest.mark.parametrize("words", ON_A_CORE, ids=" ".join)
def test_usage_on_a_core(words: tuple[str, ...], run: Run, core: Callable[[str], str]) -> None:
    result = run(words[0], "-c", core("6.12"), *words[1:])
    assert result.code == 2
    assert result.error.startswith(PREFIX + ON_A_CORE[words]), result.error


def test_error_object(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    result = run("--format", "json", "info", "-c", path)
    assert result.code == 3
    assert result.object == {
        "schema": "folioscope.error/1",
        "target": path,
        "error": "no such dump",
        "where": path,
        "todo": "Check the path",
        "exit_code": 3,
    }
    assert result.err == f"{PREFIX}no such dump: {path}. Check the path.\n"


def test_unexpected(run: Run, core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import inspector.report.info

    def fail(_snapshot: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(inspector.report.info, "build_info", fail)
    result = run("info", "-c", core("6.12"))
    assert result.code == 3
    assert result.error == (
        f"{PREFIX}unexpected KeyError: 'surprise'. Please report this; --log-level debug shows where it happened."
    )
    result = run("info", "-c", core("6.12"), "--log-level", "debug")
    assert result.code == 3
    assert "Traceback (most recent call last):" in result.err
    assert "KeyError: 'surprise'" in result.err.splitlines()[-1]
    assert result.out == ""


def test_out_of_memory(run: Run, core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import inspector.report.info

    def fail(_snapshot: object) -> None:
        raise MemoryError

    monkeypatch.setattr(inspector.report.info, "build_info", fail)
    result = run("info", "-c", core("6.12"))
    assert (result.code, result.error) == (
        3,
        f"{PREFIX}there is not enough memory for this target. Give the process more.",
    )
