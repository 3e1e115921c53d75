"""The command line run inside the test's own process, stdout and stderr apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from inspector.cli import main


@dataclass(frozen=True)
class Result:
    """What one run of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> Any:
        """The one JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return json.loads(lines[0])

    @property
    def error(self) -> str:
        """The one line on stderr, when nothing is on stdout."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run ``folioscope`` with the given words."""

    def call(*words: str) -> Result:
        code = main([str(w) for w in words])
        seen = capfd.readouterr()
        return Result(code, seen.out, seen.err)

    return call
