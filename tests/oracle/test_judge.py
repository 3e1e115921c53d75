"""Captures of moments that were kept are checked once more by the rules of today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.every import CATALOGUE
from tests.faults.overlay import core_path, sound
from tests.fleet.files import edited_file
from tests.guests.silence import judge

_FAULT = "only-pte-of-a-page-lost"


def test_what_is_not_silent_any_more_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = core_path("fixture", "6.1")
    damaged = edited_file(path, CATALOGUE[_FAULT](sound(path)).patches, tmp_path / "vmcore")
    line = {"kernel": "6.1", "guest": "busy", "machine": "", "seconds": 1.5, "silent": True, "findings": []}
    results = tmp_path / "results"
    kept: tuple[str | None, ...] = (path, str(damaged), None)
    results.write_text("".join(json.dumps(line | {"kept": each}) + "\n" for each in kept))
    assert judge(results) == 1
    said = capsys.readouterr().out
    assert "2 moments, 1 not silent" in said
    assert str(damaged) in said
    assert f"{path}\n" not in said
