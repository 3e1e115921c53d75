"""One damaged dump after another, each checked within bounds of time and memory."""

from __future__ import annotations

import resource
import signal
import time
import traceback
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType

import msgspec
import numpy as np

from inspector.check.run import run_check
from inspector.errors import Exit, FolioscopeError
from inspector.report.check import render_report
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from tests.corrupt.commands import Commands, run_command
from tests.corrupt.edits import Edit, Editor, pages_of_kdump
from tests.faults.overlay import KERNELS, core_path, planted

SLACK = 5
"""A damaged dump may take so many times as long as the sound one."""
_FLOOR = 1.0
"""Seconds of processor time that are forgiven beside that; a busy machine costs none."""
_MEMORY = 6 << 30


class HangError(Exception):
    """A run took too long."""


@dataclass
class Outcome:
    """What became of one run: ``silent``, ``found``, ``refused`` (one clear error), or what went wrong."""

    number: int
    kernel: str
    kind: str
    what: str
    result: str
    seconds: float
    detail: str = ""
    rules: list[str] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """Whether the run shows a defect of the inspector."""
        return self.result in ("traceback", "hang", "missed")


@dataclass(frozen=True)
class _Bench:
    path: str
    editor: Editor
    commands: Commands
    seconds: float


@lru_cache(maxsize=3)
def _bench(kernel: str) -> _Bench:
    path = core_path("fixture", kernel)
    clean = min(_timed(path, ())[1] for _ in range(3))
    s = planted(path)
    return _Bench(path, Editor(s, pages_of_kdump(path)), Commands(s), clean)


def _timed(path: str, patches: tuple[object, ...]) -> tuple[list[str], float]:
    start = time.process_time()
    s: Snapshot = planted(path, *patches)  # type: ignore[arg-type]
    report = run_check(s)
    msgspec.json.encode(report)
    list(render_report(Screen(), report))
    return [f.rule for f in report.findings], time.process_time() - start


def _ask(bench: _Bench, edit: Edit, words: list[str], outcome: Outcome) -> None:
    """Run another command on the damaged dump as well."""
    outcome.what += f"; {' '.join(words)}"
    start = time.process_time()
    code = run_command(bench.path, edit.patches, words)
    outcome.seconds = max(outcome.seconds, time.process_time() - start)
    if code not in tuple(Exit):
        outcome.result, outcome.detail = "traceback", f"exit code {code}"


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def bound_memory() -> None:
    """Let a run that wants absurd amounts of memory fail instead of the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGPROF, _alarm)


def run_one(number: int, seed: int = 0) -> Outcome:
    """Damage a dump as the number says, check it, and tell what became of it."""
    rng = np.random.default_rng((seed, number))
    kernel = KERNELS[number % len(KERNELS)]
    bench = _bench(kernel)
    edit: Edit = bench.editor.edit(rng)
    bound = SLACK * bench.seconds + _FLOOR
    outcome = Outcome(number, kernel, edit.kind, edit.what, "silent", 0.0)
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 4 * bound)
    try:
        outcome.rules, outcome.seconds = _timed(bench.path, edit.patches)
        outcome.result = "found" if outcome.rules else "missed" if edit.must_find else "silent"
        _ask(bench, edit, bench.commands.some(rng), outcome)
        if outcome.seconds > bound:
            outcome.result, outcome.detail = "hang", f"{outcome.seconds:.1f} s, {bench.seconds:.2f} s when sound"
    except HangError:
        outcome.result, outcome.detail = "hang", traceback.format_exc()
    except FolioscopeError as error:
        outcome.result, outcome.detail = "refused", str(error)
    except Exception:  # whatever it is, it must not reach a user
        outcome.result, outcome.detail = "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    outcome.seconds = outcome.seconds or time.process_time() - start
    return outcome
