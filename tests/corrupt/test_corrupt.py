"""A few hundred runs are made by hand (``python -m tests.corrupt --runs 5000``); these few keep the road open."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(900)
def test_damaged_dumps_neither_crash_nor_hang_nor_pass() -> None:
    words = [sys.executable, "-m", "tests.corrupt", "--runs", "60", "--jobs", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 runs" in done.stdout
    assert "defects 0" in done.stdout
