"""Dumps that lack pages: what is missing is counted and told, never taken for zero, and accuses nobody."""

from __future__ import annotations

from collections.abc import Callable

import drgn
import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.fixtures import KERNELS, fixture_path

Pages = set[tuple[bool, int]]


def without(path: str, lost: Callable[[Snapshot], Pages]) -> Report:
    """Check a dump as if the given 4096-byte pages (physical or virtual) had been left out of it."""
    whole = Snapshot(open_core(path))
    missing = lost(whole)
    assert missing
    snapshot = Snapshot(open_core(path))
    memory = snapshot.layout.memory
    read = memory._read

    def filtered(address: int, size: int, physical: bool = False) -> bytes:
        for page in range(address & ~4095, address + size, 4096):
            if (physical, page) in missing:
                raise drgn.FaultError("left out", page)
        return read(address, size, physical)

    memory._read = filtered
    return run_check(snapshot)


def some_page_tables(s: Snapshot) -> Pages:
    rows = np.flatnonzero((s.tables.level == 1) & s.tables.first)[::40]
    return {(True, int(pfn) << 12) for pfn in s.tables.pfn[rows]}


def some_struct_pages(s: Snapshot) -> Pages:
    start = s.layout.memmap.vmemmap
    return {(False, (start + at) & ~4095) for at in range(0x40000, s.layout.memmap.nr_pages * 64, 0x90000)}


def some_vmas(s: Snapshot) -> Pages:
    base = s.layout.memory.direct_map_base
    return {(True, (int(a) - base) & ~4095) for a in s.vmas.addr[::200]}


def some_mms(s: Snapshot) -> Pages:
    base = s.layout.memory.direct_map_base
    return {(True, (int(a) - base) & ~4095) for a in s.mms.addr[::30]}


def some_chains(s: Snapshot) -> Pages:
    base = s.layout.memory.direct_map_base
    return {(True, (int(a) - base) & ~4095) for a in s.anon_rmap.avcs.addr[::300]}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("lost", [some_page_tables, some_struct_pages, some_vmas, some_mms, some_chains])
def test_missing_pages_accuse_nobody(kernel: str, lost: Callable[[Snapshot], Pages]) -> None:
    report = without(str(fixture_path(kernel)), lost)
    assert [(f.rule, f.subject, f.observed, f.expected) for f in report.findings if f.severity != "info"] == []
    assert report.exit_code == 4
    assert not report.coverage.complete
    assert report.coverage.missing
