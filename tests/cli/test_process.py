"""The command as a process: what it imports, how it ends, what it writes where."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inspector.cli.opening import leave_out_plugins
from tests.faults.overlay import sound
from tests.fixtures import fixture_path

FOLIOSCOPE = [sys.executable, "-c", "import sys; from inspector.cli import main; sys.exit(main())"]


def loaded_after(words: str, modules: str) -> str:
    """Which of some modules are loaded after a command ran, in a clean interpreter."""
    code = (
        "import sys\nfrom inspector.cli import main\n"
        f"main({words!r}.split())\n"
        f"print('LOADED', [m for m in {modules!r}.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "words", ["--help", "--version", "check --help", "folio --help", "chekc", "ps --nonsense", "manual"]
)
def test_help_is_cheap(words: str) -> None:
    assert loaded_after(words, "drgn numpy rich msgspec logging inspector.snapshot") == "LOADED []"


def test_rich_is_for_terminals(core: Callable[[str], str]) -> None:
    assert loaded_after(f"check {core('6.12')}", "rich") == "LOADED []"
    assert loaded_after(f"folio 0x1000 -c {core('6.12')}", "rich") == "LOADED []"


ASKED = (
    *("info", "page 0x1000", "folio 0x1000", "vmas 1", "folio ANON", "rmap ANON", "explain ANON", "anon-vma --of ANON"),
    *("folio FILE", "rmap FILE"),
)


@pytest.mark.parametrize("words", ASKED)
def test_a_question_imports_what_it_needs(words: str, core: Callable[[str], str]) -> None:
    """Each of these would cost as much as opening the dump: plug-ins of drgn, sockets, masked arrays, screens."""
    dear = "importlib.metadata socket rich textual tui pandas inspector.capture numpy.testing numpy.ma"
    s = sound(core("7.3"))
    m = s.mappings
    for name, pages in (("ANON", s.anon_pages), ("FILE", s.file_pages)):
        at = np.flatnonzero((m.page_row >= 0) & pages[np.maximum(m.page_row, 0)])[0]
        words = words.replace(name, str(m.pfn[at]))
    assert loaded_after(f"{words} -q -c {core('7.3')}", dear) == "LOADED []"


def test_plugins_of_drgn_are_looked_for_where_a_package_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing")])
    offers = {"other-1.dist-info": "console_scripts"}
    offers |= dict.fromkeys(("drgn-0.3.0.dist-info", "folioscope-1.dist-info", "folioscope.egg-info"), "drgn.plugins")
    for name, section in offers.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "entry_points.txt").write_text(f"[{section}]\na = b\n")
    for asked, left_out in {"": "*", "*": "*", "mine": "*", "crash_commands": "crash_commands"}.items():
        monkeypatch.setenv("DRGN_DISABLE_PLUGINS", asked)
        leave_out_plugins()
        assert os.environ["DRGN_DISABLE_PLUGINS"] == left_out
    (tmp_path / "more-1.dist-info").mkdir()
    (tmp_path / "more-1.dist-info/entry_points.txt").write_text("[drgn.plugins]\nmine = b\n")
    prompt = "builtin_commands,crash_commands,folioscope"
    for asked, left_out in {"": prompt, "x": f"x,{prompt}"}.items():
        monkeypatch.setenv("DRGN_DISABLE_PLUGINS", asked)
        leave_out_plugins()
        assert os.environ["DRGN_DISABLE_PLUGINS"] == left_out


def test_no_garbage_is_looked_for_in_an_answer_about_a_dump(core: Callable[[str], str]) -> None:
    """It is off from the first import on; what is done afterwards, and a kernel that runs on, find it on."""
    code = (
        "import gc\nfrom inspector.cli import main\nfrom inspector.cli.params import Settings\n"
        "states, snapshot = [], Settings.snapshot\n"
        "def watched(self):\n"
        " states.append(gc.isenabled()); made = snapshot(self); states.append(gc.isenabled()); return made\n"
        "Settings.snapshot = watched\n"
        f"for words in ('info -c {core('7.3')}', 'info -c /nonexistent', 'rules', '--version', 'nonsense'):\n"
        " main(words.split()); states.append(gc.isenabled())\n"
        "print('STATES', states)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"STATES {[False, False, True, False, True, True, True, True]}"


def test_exit_code_of_the_process() -> None:
    done = subprocess.run([*FOLIOSCOPE, "chekc"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "folioscope: error: there is no such command: chekc. Did you mean check?\n"


def test_a_reader_that_leaves_is_no_error(core: Callable[[str], str]) -> None:
    line = f"{subprocess.list2cmdline(FOLIOSCOPE)} page 0+0x20000 -c {core('6.1')}"
    script = f"{line} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "141"


def test_a_full_disk(core: Callable[[str], str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*FOLIOSCOPE, "info", "-c", core("6.1")], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr == "folioscope: error: the output cannot be written: No space left on device.\n"


def test_stdout_is_utf8_in_any_locale(core: Callable[[str], str]) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*FOLIOSCOPE, "info", "-c", core("6.1")], capture_output=True, env=environment, check=True)
    assert done.stdout.decode("utf-8")


def test_interrupt(core: Callable[[str], str]) -> None:
    code = (
        # A shell's background jobs begin with SIGINT ignored.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, time, inspector.cli.opening as o\nfrom inspector.cli import main\n"
        "def wait(*a, **k):\n    print('ready', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "o.open_core = wait\nsys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "info", "-c", core("6.1")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")


def test_interrupt_of_a_process_with_workers(core: Callable[[str], str]) -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import os, sys, time\nfrom inspector.tables import pages\nfrom inspector.cli import main\n"
        "def wait(*a, **k):\n    os.write(2, b'ready\\n')\n    time.sleep(60)\n"
        "pages.CHUNK, pages._WORTH_UNPACKING, pages._Found.read = 1 << 12, 2, wait\nsys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", "-c", core("6.1"), "--workers", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(3)] == ["ready\n"] * 3
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
    assert len(pids) == 2  # and this process itself: three that work
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_number_of_workers(core: Callable[[str], str]) -> None:
    shown = [
        subprocess.run([*FOLIOSCOPE, "ps", "-c", core("6.1"), *words], capture_output=True, text=True, check=True)
        for words in ([], ["--workers", "1"], ["--workers", "3"])
    ]
    assert len({done.stdout for done in shown}) == 1
    for words, environment, error in (
        (["--workers", "0"], {}, "invalid value for '--workers'"),
        ([], {"FOLIOSCOPE_WORKERS": "many"}, "this is no number of processes: FOLIOSCOPE_WORKERS=many. Give 1 or more"),
    ):
        done = subprocess.run(
            [*FOLIOSCOPE, "ps", "-c", core("6.1"), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert error in done.stderr


def on_terminal(words: list[str], environment: dict[str, str]) -> str:
    """What a terminal of 80 columns sees."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*FOLIOSCOPE, *words], stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "80", **environment}
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    process.wait()
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def test_colour_only_where_wanted(core: Callable[[str], str]) -> None:
    words = ["info", "-c", core("6.1")]
    terminal = {"TERM": "xterm", "NO_COLOR": ""}
    assert "\x1b[1mTarget" in on_terminal(words, terminal)
    for refused, environment in (
        (["--no-color"], terminal),
        (["--color", "never"], terminal),
        ([], {**terminal, "NO_COLOR": "1"}),
        ([], {"TERM": "dumb"}),
    ):
        assert "\x1b" not in on_terminal(refused + words, environment)
    piped = subprocess.run(
        [*FOLIOSCOPE, *words], capture_output=True, text=True, check=True, env={**os.environ, "TERM": "xterm"}
    )
    assert "\x1b" not in piped.stdout
    wanted = subprocess.run(
        [*FOLIOSCOPE, *words, "--color", "always"], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert "\x1b[1mTarget" in wanted.stdout


def test_terminal_text_keeps_to_its_width(core: Callable[[str], str]) -> None:
    for words in (["info"], ["check"], ["rules"], ["vmas", "1"]):
        shown = on_terminal([*words, "-c", core("7.3")], {"NO_COLOR": "1", "TERM": "xterm"})
        assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80, words


def test_progress_appears_on_a_terminal_for_long_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspector.cli.params import Settings
    from inspector.cli.progress import ProgressBar

    code = (
        "import time\nfrom inspector.cli.params import Settings\nfrom inspector.cli.progress import ProgressBar\n"
        "with ProgressBar(Settings(quiet={quiet}), '1/2', delay={delay}) as p:\n"
        "    p('page tables', 2, 5)\n    time.sleep({seconds})\n    p('counting', 3, 5)\n"
    )
    monkeypatch.setattr(
        sys.modules[__name__], "FOLIOSCOPE", [sys.executable, "-c", code.format(quiet=False, delay=0.05, seconds=3)]
    )
    shown = on_terminal([], {"TERM": "xterm"})
    assert "1/2 page tables" in shown
    for quiet, delay in ((True, 0.05), (False, 5)):
        monkeypatch.setattr(
            sys.modules[__name__],
            "FOLIOSCOPE",
            [sys.executable, "-c", code.format(quiet=quiet, delay=delay, seconds=0.5)],
        )
        assert on_terminal([], {"TERM": "xterm"}) == ""
    with ProgressBar(Settings(), delay=0) as progress:
        progress("nothing is shown where stderr is no terminal", 0, 1)


def test_rules_are_imported_where_they_run(core: Callable[[str], str]) -> None:
    for words in ("info", "page 0x1000", "va 1 0x400000", "vmas 1", "ps", "swap", "rmap 0x5800", "folio 0x5800"):
        line = f"{words} -c {core('7.3')}"
        assert loaded_after(line, "inspector.rules.registry inspector.check.run") == "LOADED []", words


@pytest.mark.parametrize("form", ["text", "json"])
def test_closed_stdout_is_one_line_on_stderr(form: str) -> None:
    words = [*FOLIOSCOPE, "-c", str(fixture_path("7.3")), "--format", form, "info"]
    done = subprocess.run(["bash", "-c", '"$@" >&-', "bash", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "stdout is closed" in done.stderr
