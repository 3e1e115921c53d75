"""Words of the command line: the same option is called the same everywhere, and what people type is answered."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import click
import pytest

from inspector.cli import COMMANDS, cli
from inspector.cli.examples import CRASH, EXAMPLES
from inspector.cli.params import Settings
from tests.cli.conftest import Run


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    with click.Context(cli, info_name="folioscope", obj=Settings()) as above:
        for name in COMMANDS:
            command = cli.get_command(above, name)
            assert command is not None
            with click.Context(command, above, info_name=name) as context:
                yield name, command, context


def test_every_help_has_an_example_that_is_understood() -> None:
    for name, command, context in commands():
        assert EXAMPLES[name]
        assert "\nExample" in command.get_help(context)
        for words in EXAMPLES[name]:
            first, *rest = shlex.split(words)
            assert first == name
            command.parse_args(click.Context(command, context.parent, info_name=name, obj=Settings()), rest)
    assert set(EXAMPLES) == set(COMMANDS)


def test_arguments_are_no_options_without_words() -> None:
    for name, command, context in commands():
        for line in command.get_help(context).splitlines():
            assert not re.fullmatch(r"  \[?[A-Z:]+\]?(\.\.\.)?", line), (name, line)


def test_one_word_for_one_option() -> None:
    """Options that set the same thing have the same names in every command, and those of one name mean one kind."""
    seen: dict[str, tuple[str, str]] = {}
    for name, command, _ in commands():
        for option in command.params:
            if not isinstance(option, click.Option) or option.hidden:
                continue
            for word in option.opts:
                kind = (type(option.type).__name__, str(option.metavar))
                if word in ("--limit", "--all"):
                    kind = (kind[0], "")
                assert seen.setdefault(word, kind) == kind, (name, word)
    assert not {"--interval", "--colour", "--order-by"} & {
        o.opts[0] for _, c, _ in commands() for o in c.params if isinstance(o, click.Option)
    }


LISTS = (
    *("ps", "mthp", "uffd", "ksm", "hugetlb", "windows", "swap", "references"),
    *("memory", "cpus", "file", "vmas 1"),
)


@pytest.mark.parametrize("command", LISTS)
def test_lists_are_sorted_and_cut(command: str, run: Run, core: Callable[[str], str]) -> None:
    names = {"references": "left", "uffd": "contexts", "ksm": "nodes", "hugetlb": "folios", "swap": "devices"}
    names |= {"memory": "kinds", "cpus": "cpus", "file": "files", "vmas 1": "vmas"}
    member = names.get(command, "windows" if command == "windows" else "processes")
    words = ("-q", "-c", core("7.3"), *command.split())
    rows = run(*words, "--format", "json").object[member]
    by = next(k for k, v in rows[0].items() if isinstance(v, int) and not isinstance(v, bool))
    for sort, reverse in ((by, True), (f"-{by}", False)):
        seen = run(*words, "--format", "json", f"--sort={sort}").object[member]
        values = [row[by] for row in seen if row[by] is not None]
        assert values == sorted(values, reverse=reverse)
        assert sorted(map(str, seen)) == sorted(map(str, rows))
    assert len(run(*words, "--format", "json", "--limit", "1").object[member]) == 1
    refused = run(*words, "--sort", "nothing")
    assert refused.code == 2
    assert f"There are {'pid' if 'pid' in rows[0] else next(iter(rows[0]))}" in refused.err or by in refused.err


def test_what_is_cut_is_counted(run: Run, core: Callable[[str], str]) -> None:
    text = run("-q", "-c", core("7.3"), "ps", "--limit", "3").out
    assert re.search(r"^3 of \d+ rows are shown", text, re.MULTILINE)


def test_help_shows_the_help_of_a_command(run: Run) -> None:
    assert run("help", "folio").out == run("folio", "--help").out
    assert "Commands:" in run("help").out
    assert run("help", "nothing").error == (
        "folioscope: error: there is no such command: nothing. See folioscope help; folioscope manual has pages, too."
    )


_HELP_OF_CRASH = """
    alias ascii bpf bt btop dev dis eval exit extend files foreach fuser gdb help ipcs irq kmem list log
    mach mod mount net p ps pte ptob ptov q rd repeat runq search set sig struct swap sym sys task
    timer tree union vm vtop waitq whatis wr
"""
"""What `help` of crash 8 lists."""


def test_words_of_crash_are_answered(run: Run) -> None:
    assert run("vtop", "0x1000").error == (
        "folioscope: error: this is a command of crash: vtop. Here it is folioscope va PID ADDRESS."
    )
    assert not set(_HELP_OF_CRASH.split()) - set(CRASH) - set(COMMANDS) - {"exit", "q"}
    for words in CRASH.values():
        assert words.split()[0].rstrip(",;") in COMMANDS
    assert not set(CRASH) & set(COMMANDS)


def test_the_environment_names_the_dump(run: Run, core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLIOSCOPE_CORE", core("6.1"))
    assert run("-q", "info", "--format", "json").object["target"]["path"] == core("6.1")
    assert run("-q", "info", "-c", core("6.12"), "--format", "json").object["target"]["path"] == core("6.12")
    assert run("-q", "check", "-r", "mapcount").code == 0


@pytest.mark.parametrize("words", [["ps"], ["ps", "--no-pager"], ["ps", "--limit", "1"]])
def test_long_text_goes_through_a_pager(words: list[str], core: Callable[[str], str]) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", PAGER="sed 's/^/paged /'", NO_COLOR="1")
        os.environ.pop("FOLIOSCOPE_PAGER", None)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "inspector", "-q", "-c", core("7.3"), *words])
    seen, end, written = b"", time.monotonic() + 60, select.poll()
    written.register(terminal, select.POLLIN)
    while time.monotonic() < end:
        if written.poll(1000):
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lines = seen.decode().splitlines()
    assert any("keeper" in line for line in lines)
    assert lines[0].startswith("paged ") == (words == ["ps"])


@pytest.mark.skipif(
    subprocess.run(["sh", "-c", "command -v man"], capture_output=True, check=False).returncode != 0,
    reason="man is not installed",
)
def test_manual_pages_are_read_by_man() -> None:
    from tests.arch.man import MAN

    for path in sorted(MAN.iterdir())[:3]:
        done = subprocess.run(
            ["man", "--warnings", "-l", str(path)], capture_output=True, text=True, check=False, env={**os.environ}
        )
        assert done.returncode == 0
        assert "SYNOPSIS" in done.stdout
