"""What a page's reverse map leads to from one address is what all page tables have of the page."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from inspector.errors import UsageError
from inspector.report.va import build_aimed_va, build_va
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, sound


def some_addresses(s: Snapshot, each: int) -> list[tuple[int, int]]:
    """Rows of mms and addresses: of entries of every level and class, of non-present ones of every kind, of nothing."""
    m, n = s.mappings, s.nonpresent
    found = [(0, 0x1000)]
    for table, kind in ((m, m.level.astype(np.int64) * 100 + m.entry_class), (n, n.kind)):
        for value in np.unique(kind).tolist():
            rows = np.flatnonzero(kind == value)
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, each).astype(np.int64))]
            found += zip(table.mm_idx[rows].tolist(), (table.va[rows] + np.uint64(0x123)).tolist(), strict=True)
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_addresses_of_every_sort(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    apart, walked = Snapshot(s.target), 0
    for mm_idx, va in some_addresses(s, 12):
        whole = build_va(s, mm_idx, va, None)
        found = build_aimed_va(apart, whole.mm, va, None)
        assert found.led_here
        assert found.searched != "all page tables"
        if found.searched == "nothing":
            # What has no reverse map is in many places that only a walk of all page tables finds.
            assert found.mappings and all(row in whole.mappings for row in found.mappings)
            found = msgspec.structs.replace(found, mappings=whole.mappings, mapping_rows=whole.mapping_rows)
        else:
            walked += found.searched == "reverse map"
            assert found.gaps == []
        assert msgspec.structs.replace(found, searched=whole.searched, gaps=whole.gaps) == whole, (mm_idx, hex(va))
    assert walked > 15
    assert not {"mms", "_vmas", "_walked", "_sweep"} & set(vars(apart))


def test_addresses_beyond_the_user_half() -> None:
    s = sound(core_path("fixture", KERNELS[-1]))
    for va in (1 << 47, (1 << 64) - 1, 1 << 64):
        with pytest.raises(UsageError, match="this is not a user address"):
            build_aimed_va(s, int(s.mms.addr[0]), va, None)
