"""What a check takes for each page of the target has a bound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.enlarge import enlarge
from tests.fixtures import fixture_path

BYTES_A_PAGE = 16
"""Tables, columns and temporaries together; the added memory is free, but for its own memory map."""

CHECK = """
import sys
from pathlib import Path
from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
s = Snapshot(open_core(sys.argv[1], types="btf"))
assert not run_check(s).findings
status = Path("/proc/self/status").read_text()
print(len(s.pages), status.partition("VmHWM:")[2].split()[0])
"""


def peak_of_a_check(core: Path) -> tuple[int, int]:
    """Struct pages of a dump, and the bytes that a process held at most that checked it, alone: without workers."""
    alone = {**os.environ, "FOLIOSCOPE_WORKERS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", CHECK, core], capture_output=True, text=True, check=True, cwd=Path.cwd(), env=alone
    )
    pages, kib = out.stdout.split()
    return int(pages), int(kib) << 10


@pytest.mark.parametrize(
    "kernel", [pytest.param("6.1", marks=pytest.mark.long), pytest.param("6.12", marks=pytest.mark.long), "7.3"]
)
def test_a_check_takes_so_many_bytes_a_page(kernel: str, tmp_path: Path) -> None:
    found = []
    for gib in (5, 17):
        core = tmp_path / f"{gib}.elf"
        enlarge(fixture_path(kernel), core, gib << 30)
        found.append(peak_of_a_check(core))
    (few, small), (many, large) = found
    assert many - few == 12 << 18
    assert (large - small) / (many - few) < BYTES_A_PAGE
