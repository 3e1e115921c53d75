"""Flattened streams, as ``makedumpfile -F`` and QEMU's kdump formats write them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.check.run import run_check
from inspector.errors import TargetError
from inspector.snapshot import Snapshot
from inspector.target.target import open_core

STEP = 100_000


def flattened(data: bytes) -> bytes:
    """A stream of a file: its pieces in another order, its header first wrong and then written again."""
    places = list(range(0, len(data), STEP))
    pieces = [(0, bytes(4096)), *((at, data[at : at + STEP]) for at in reversed(places))]
    body = b"".join(struct.pack(">qq", at, len(piece)) + piece for at, piece in pieces)
    return (b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)).ljust(4096, b"\0") + body + b"\xff" * 16


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
