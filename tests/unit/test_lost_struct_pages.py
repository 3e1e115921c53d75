"""Dumps that lack parts of the memory map: what those hid is unknown, and nothing that remains looks wrong for it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.errors import Exit
from inspector.snapshot import Snapshot
from tests.faults.overlay import sound
from tests.holes import PAGE, with_holes

SEEDS = int(os.environ.get("FOLIOSCOPE_DEPTH", "2"))


def memory_map(s: Snapshot) -> list[int]:
    """Addresses of the pages that struct pages lie in."""
    memmap = s.layout.memmap
    stretches = zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True)
    return [a for b, e in stretches for a in range(memmap.page_addr(b) & -PAGE, memmap.page_addr(e), PAGE)]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("share", [0.001, 0.02, 0.15])
def test_nothing_looks_wrong_for_it(any_core: str, share: float, seed: int) -> None:
    every = memory_map(sound(any_core))
    some = np.random.default_rng(seed).choice(every, max(1, int(len(every) * share)), replace=False)
    report = run_check(with_holes(any_core, some.tolist(), physical=False))
    assert [f.rule for f in report.findings if f.severity != "info"] == []
    assert report.exit_code == Exit.INCOMPLETE
    assert all(r.reason for r in report.coverage.rules if r.state in ("partial", "not-checked"))


def test_sums_of_a_folio_in_part(any_core: str) -> None:
    """Its pages that are known are compared one by one, what goes over all of them is not."""
    whole = sound(any_core)
    folios = whole.folios
    row = int(np.flatnonzero((folios.order == 9) & (whole.folio_totals > 0) & ~folios.is_hugetlb)[0])
    address = whole.layout.memmap.page_addr(int(folios.pfn[row]) + 256)
    s = with_holes(any_core, [address], physical=False)
    assert folios.pfn[row] in s.folios.pfn[~s.folio_whole].tolist()
    assert int((~s.folio_whole).sum()) == 1
    assert whole.folio_whole.all()
