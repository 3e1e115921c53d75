"""Dumps of every format that end too early: one line of refusal, or an answer that is called incomplete."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corrupt.truncation import COMMANDS, FORMATS, asked, cuts
from tests.fixtures import KERNELS

_QUICK = ("capture", "ELF", "flattened")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("commands", [COMMANDS[:1], pytest.param(COMMANDS[1:], marks=pytest.mark.long)])
@pytest.mark.parametrize("form", [f if f in _QUICK else pytest.param(f, marks=pytest.mark.long) for f in FORMATS])
@pytest.mark.parametrize("kernel", KERNELS)
def test_truncated(kernel: str, form: str, commands: tuple[str, ...], tmp_path: Path) -> None:
    path = FORMATS[form](kernel, tmp_path)
    assert len(cuts(path)) >= 20
    assert [f"{cut.where}: {defect}" for cut, _, _, defect in asked(path, tmp_path, commands) if defect] == []
