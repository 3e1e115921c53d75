"""States that stand only while a lock is held: a guest stopped in the middle of migration, and checked there."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import MIGRATION_KINDS, Level
from inspector.check.run import run_check
from inspector.columns import I64
from inspector.snapshot import Snapshot
from tests.faults.overlay import findings, flags_xor
from tests.fixtures import KERNELS
from tests.guests.gaps import stopped_in
from tests.guests.kernels import kernel_named
from tests.guests.zoo import ZOO_RACES

FUNCTIONS = ("move_to_new_folio", "migrate_huge_page_move_mapping")
"""Called once the entries are in place: for any folio, and for those of hugetlb."""

TURNS = 8


def migrating(s: Snapshot, level: Level, *, hugetlb: bool) -> I64:
    """Rows of migration entries of a level."""
    n = s.nonpresent
    of_hugetlb = (n.vma_idx >= 0) & s.vmas.is_hugetlb[np.maximum(n.vma_idx, 0)]
    return np.flatnonzero(np.isin(n.kind, MIGRATION_KINDS) & (n.level == level) & (of_hugetlb == hugetlb))


@pytest.mark.guest
@pytest.mark.race
@pytest.mark.parametrize("kernel", KERNELS)
def test_migration_entries_of_every_kind(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Small, huge and of hugetlb; each lost lock of a folio that they lead to is found, and nothing else ever."""
    met = {"small": 0, "huge": 0, "hugetlb": 0}
    unlocked = set[str]()
    for s in stopped_in(kernel_named(kernel), ZOO_RACES, FUNCTIONS, TURNS):
        assert [f.rule for f in run_check(s).findings if f.severity != "info"] == []
        kinds = {
            "small": migrating(s, Level.PTE, hugetlb=False),
            "huge": migrating(s, Level.PMD, hugetlb=False),
            "hugetlb": migrating(s, Level.PMD, hugetlb=True),
        }
        for name, rows in kinds.items():
            met[name] += len(rows)
            if len(rows) and name not in unlocked:
                unlocked.add(name)
                pfn = int(s.nonpresent.pfn[rows[0]])
                found = [f for f in findings(s.target.path, flags_xor(s, pfn, "locked")) if f.severity != "info"]
                assert [f.rule for f in found] == ["migration-target-lock-missing"], name
        if all(met.values()):
            break
    with capsys.disabled():
        print("", kernel, met, sep="\n  ")
    assert all(met.values()), met
