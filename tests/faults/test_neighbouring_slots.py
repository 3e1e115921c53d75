"""A slot of the page cache that leads to its neighbour's folio: that slot is named, and the folio that it lost."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.tables.files import FILE, SHMEM
from tests.faults.cache_plants import idle_entries, slot_address
from tests.faults.overlay import KERNELS, add, core_path, pfn_of, planted, put, sound
from tests.faults.plants import MissingError, mapcount_at, pick, small_anon
from tests.faults.test_stretches import edits


def test_the_case_of_the_field_names_the_slot_that_leads_astray() -> None:
    path = core_path("fixture", "7.3")
    (found,) = run_check(planted(path, *edits("xarray_neighbour.7.3"))).findings
    assert (found.rule, found.subject.pfn) == ("cache-entry-mismatch", 0x3470)
    assert (found.observed["index"], found.expected["index"]) == (4, 5)
    assert found.evidence.also == ["cached-folio-missing"]


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("kind", [FILE, SHMEM])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_slot_is_named_and_not_its_neighbour(kernel: str, kind: int, step: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    e = s.files.entries
    rows = idle_entries(s, kind)
    beside = rows[
        np.isin(rows + step, rows)
        & (e.address_space_idx[rows] == e.address_space_idx[np.minimum(rows + step, len(e) - 1)])
        & (e.index[rows].astype(np.int64) + step == e.index[np.minimum(rows + step, len(e) - 1)].astype(np.int64))
    ]
    try:
        row = pick(beside, "cached folios side by side", 3)
    except MissingError:
        pytest.skip("no idle cached folios side by side")
    at, _ = slot_address(s, row)
    away = pick(small_anon(s, 1), "a page elsewhere", 7)
    leads_astray = put(s, at, int(e.value[row + step]))
    report = run_check(planted(path, leads_astray, add(s, mapcount_at(s, away), 1, 4)))
    assert sorted((f.rule, f.subject.pfn) for f in report.findings) == [
        ("cache-entry-mismatch", int(e.pfn[row + step])),
        ("mapcount-too-high", pfn_of(s, away)),
    ]
    (found,) = (f for f in report.findings if f.rule == "cache-entry-mismatch")
    assert found.observed["index"] == int(e.index[row + step])
    assert found.expected["index"] == int(e.index[row])
