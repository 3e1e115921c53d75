"""Dumps in which no task, or no address space either, can be found: every command says so, and none stumbles."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import inspector.snapshot
from inspector.errors import LayoutError
from inspector.tables.mms import no_mms
from inspector.tables.tasks import no_tasks
from tests.cli.conftest import Run
from tests.cli.test_commands import COMMAND_LINES

ASKED = {
    **{(name, *words): 0 for name, words in COMMAND_LINES.items() if name not in ("rules", "cache", "doctor")},
    ("explain", "--all", "0x5800"): 0,
    ("folio", "--all", "0x5800"): 0,
    ("rmap", "--all", "0x5800"): 0,
    ("file", "--all", "/bin/keeper"): 2,
    ("vmas", "--all", "203"): 2,
    ("windows", "--stack", "1"): 2,
    ("swap", "--all", "0:10"): 0,
}


@pytest.mark.parametrize("lost", ["tasks", "the layout of tasks", "mms"])
@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_every_command(
    words: tuple[str, ...], lost: str, run: Run, any_core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tasks(*_: Any, **__: Any) -> Any:
        if lost == "the layout of tasks":
            raise LayoutError("struct task_struct has no member of that name", "pid", "")
        return no_tasks(), 200 if lost == "tasks" else 0

    monkeypatch.setattr(inspector.snapshot, "build_tasks", tasks)
    if lost == "mms":
        monkeypatch.setattr(inspector.snapshot, "build_mms", lambda *_, **__: (no_mms(), 0))
    command, *rest = words
    warnings.simplefilter("error", RuntimeWarning)
    result = run(command, "--no-cache", "-c", any_core, *rest)
    assert "unexpected" not in result.err
    # Where the mms were taken away, pages that they map look lost.
    assert result.code in ({0, 1, ASKED[words]} if lost == "mms" else {0, 4}), result.err
    assert bool(result.out) or "as far as is known" in result.err or ASKED[words] == 2
