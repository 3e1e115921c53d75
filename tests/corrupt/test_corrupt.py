"""A few hundred runs are made by hand (``python -m tests.corrupt --runs 5000``); these few keep the road open."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(900)
@pytest.mark.parametrize("runs", [1, pytest.param(60, marks=pytest.mark.long)])
def test_damaged_dumps_neither_crash_nor_hang_nor_pass(runs: int) -> None:
    words = [sys.executable, "-m", "tests.corrupt", "--runs", str(runs), "--jobs", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{runs} runs" in done.stdout
    assert "defects 0" in done.stdout
