"""Flattened streams, as ``makedumpfile -F`` and QEMU's kdump formats write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.check.run import run_check
from inspector.cli import main
from inspector.errors import Exit, TargetError
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.corrupt.truncation import flattened


def test_same_report(core: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "vmcore.flat"
    path.write_bytes(flattened(Path(core("6.12")).read_bytes()))
    one, other = (run_check(Snapshot(open_core(p, types="btf"))) for p in (str(path), core("6.12")))
    assert one.summary == other.summary
    assert one.coverage == other.coverage
    assert one.findings == other.findings


@pytest.mark.parametrize("lost", [1, 16, 1000, 3_000_000])
def test_truncated(lost: int, core: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "vmcore.flat"
    path.write_bytes(flattened(Path(core("6.12")).read_bytes())[:-lost])
    with pytest.raises(TargetError, match="truncated"):
        open_core(str(path), types="btf")


def test_nothing_is_said_of_one_that_opens(
    core: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmcore.flat"
    path.write_bytes(flattened(Path(core("6.1")).read_bytes()))
    assert main(["info", "-c", str(path)]) == Exit.CLEAN
    assert capfd.readouterr().err == ""
