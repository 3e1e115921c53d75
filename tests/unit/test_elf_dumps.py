"""ELF dumps with pages left out, and truncated ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import drgn
import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.columns import AnyArray
from inspector.errors import Exit, TargetError
from inspector.snapshot import Snapshot
from inspector.target.corefile import _joined, _without
from inspector.target.target import open_core
from tests.elf import PAGE, pages_of, write_elf


@pytest.fixture(scope="module")
def elf(core: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnyArray]:
    """A captured dump as ELF, and the page frames that it holds."""
    kept = pages_of(core("6.12"))
    assert len(kept) < 1 << 16
    out = tmp_path_factory.mktemp("elf") / "vmcore"
    write_elf(core("6.12"), out, kept)
    return out, kept


def test_pages_left_out_are_missing(elf: tuple[Path, AnyArray]) -> None:
    """What the segments span and the file does not hold faults; drgn reads zeros there."""
    path, kept = elf
    target = open_core(str(path), types="btf")
    gone = np.setdiff1d(np.arange(int(kept[0]), int(kept[-1])), kept)
    for pfn in gone[:: max(1, len(gone) // 50)].tolist():
        with pytest.raises(drgn.FaultError):
            target.prog.read(pfn * PAGE, 8, physical=True)
    assert target.prog.read(int(kept[0]) * PAGE, 8, physical=True)
    assert any("were left out when the dump was written" in note for note in target.notes)


def test_same_answers_as_the_compressed_dump(elf: tuple[Path, AnyArray], core: Callable[[str], str]) -> None:
    one, other = (run_check(Snapshot(open_core(p, types="btf"))) for p in (str(elf[0]), core("6.12")))
    assert one.findings == other.findings == []
    assert one.summary == other.summary
    assert one.coverage.rules == other.coverage.rules


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.004, 0.01, 0.05, 0.2, 0.5, 0.9])
def test_truncated(share: float, elf: tuple[Path, AnyArray], tmp_path: Path) -> None:
    """One clear line, or an answer that is not "consistent"."""
    data = elf[0].read_bytes()
    path = tmp_path / "vmcore"
    path.write_bytes(data[: int(len(data) * (1 - share))])
    try:
        target = open_core(str(path), types="btf")
        report = run_check(Snapshot(target))
    except TargetError:
        return
    assert any("The dump is truncated" in note for note in target.notes)
    assert report.exit_code == Exit.INCOMPLETE
    assert any("the dump is truncated" in note for note in report.coverage.notes)


def test_ranges() -> None:
    starts, ends = np.array([4, 0, 2, 9, 7]), np.array([6, 2, 3, 12, 7])
    assert _joined(starts, ends) == [(0, 3), (4, 6), (9, 12)]
    assert _without(1, 11, [(0, 3), (4, 6), (9, 12)]) == [(3, 4), (6, 9)]
    assert _without(5, 20, [(0, 3), (4, 6)]) == [(6, 20)]
    assert _without(4, 6, [(4, 6)]) == []
