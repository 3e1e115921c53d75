"""Before a command is chosen: first steps, files, completion, streams that are closed, the width of help."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.cli import COMMANDS
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]


def test_alone_it_shows_where_to_begin(run: Run) -> None:
    for words in ((), ("-q",)):
        result = run(*words)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert len(lines) == 10
        assert all(len(line) <= 80 for line in lines)
        for word in ("check", "tui", "folio", "--help", "manual"):
            assert f"folioscope {word}" in result.out


def test_a_file_offers_what_can_be_done_with_it(run: Run, core: Callable[[str], str], tmp_path: Path) -> None:
    path = core("7.3")
    result = run(path)
    assert (result.code, result.err) == (0, "")
    assert f"folioscope check {path}\n" in result.out
    assert f"folioscope tui -c {path}\n" in result.out
    assert run("-c", path).out == result.out
    odd = tmp_path / "a b"
    odd.write_text("")
    assert f"folioscope check '{odd}'" in run(str(odd)).out
    turned = run(path, "ps")
    assert (turned.code, turned.error) == (
        2,
        f"folioscope: error: the command comes before the file: {path} ps. Try folioscope ps -c {path}.",
    )
    assert run("./none").error == (
        "folioscope: error: there is no such file or command: ./none. See folioscope --help."
    )


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_of_80_columns(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in run(*command.split(), "--help").out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_streams_that_are_closed(closed: str, folioscope: dict[str, str], core: Callable[[str], str]) -> None:
    def code_of(words: str) -> tuple[int, str]:
        line = f"folioscope {words} {closed}"
        done = subprocess.run(["sh", "-c", line], env=folioscope, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    wanted = 3 if closed.startswith(">") else 0
    code, said = code_of(f"check {core('6.1')} --workers 2")
    assert (code, "unexpected" in said) == (wanted, False)
    assert code_of("nonsense")[0] == 2


@pytest.fixture
def folioscope(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``folioscope`` is a command."""
    script = tmp_path / "bin" / "folioscope"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m inspector "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TERM": "dumb"}


def installed(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def source(shell: str, environment: dict[str, str]) -> str:
    env = {**environment, "_FOLIOSCOPE_COMPLETE": f"{shell}_source"}
    done = subprocess.run(["folioscope"], env=env, capture_output=True, text=True, check=True)
    return done.stdout


BEGUN = {
    "folioscope chec": "check",
    "folioscope check --form": "--format",
    "folioscope check --format js": "json",
    "folioscope check -r mapcount-too-h": "mapcount-too-high",
    "folioscope rules mapcount-too-h": "mapcount-too-high",
    "folioscope manual sch": "schemes",
    "folioscope check vmco": "vmcore.1",
    "folioscope check -c vmco": "vmcore.1",
    "folioscope vmco": "vmcore.1",
}


@installed("fish")
def test_fish_completes(folioscope: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "vmcore.1").touch()
    script = source("fish", folioscope) + "".join(f"\ncomplete -C '{line}'; echo ==" for line in BEGUN)
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env=folioscope, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    answers = [part.split() for part in done.stdout.split("==\n")]
    assert [wanted in answer for wanted, answer in zip(BEGUN.values(), answers, strict=False)] == [True] * len(BEGUN)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; "),
}


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=installed(shell)) for shell in SHELLS])
def test_a_shell_completes(shell: str, folioscope: dict[str, str], tmp_path: Path) -> None:
    """With a tab at a terminal."""
    (tmp_path / "vmcore.1").touch()
    (tmp_path / "source").write_text(source(shell, folioscope))
    command, before = SHELLS[shell]
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execvpe(command[0], command, {**folioscope, "PS1": "", "PROMPT": ""})
    try:
        os.write(terminal, f"{before}source ./source; echo rea'dy'\n".encode())
        read_until(terminal, "ready")
        for begun, wanted in BEGUN.items():
            os.write(terminal, f"{begun}\t".encode())
            rest = wanted.removeprefix(begun.split()[-1])
            assert read_until(terminal, f"{begun}{rest}"), begun
            os.write(terminal, b"\x15")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def read_until(terminal: int, wanted: str, seconds: float = 20) -> bool:
    """Read until some text has come; control characters of a line editor are left out."""
    seen, end, written = "", time.monotonic() + seconds, select.poll()
    written.register(terminal, select.POLLIN)
    while wanted not in seen.replace("\x08", ""):
        if not written.poll(1000 * max(0, end - time.monotonic())):
            return False
        seen += os.read(terminal, 4096).decode("utf-8", "replace").replace("\x07", "")
    return True
