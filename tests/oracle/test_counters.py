"""The counters that /proc/vmstat and /proc/buddyinfo printed in the guest, rebuilt from page tables and free lists."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.rules.zones.node_counters import mapped_totals
from inspector.tables.node_stats import node_stats
from tests.fixtures import KERNELS
from tests.oracle.test_kernels_word import opened

AT_REST = [
    *(pytest.param("fixture", k, id=f"fixture-{k}") for k in KERNELS),
    *(pytest.param("guest", k, id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
]
_NAMES = {
    "NR_ANON_MAPPED": ("nr_anon_pages", 1),
    "NR_FILE_MAPPED": ("nr_mapped", 1),
    "NR_ANON_THPS": ("nr_anon_transparent_hugepages", 512),
    "NR_SHMEM_PMDMAPPED": ("nr_shmem_pmdmapped", 512),
    "NR_FILE_PMDMAPPED": ("nr_file_pmdmapped", 512),
}
"""What /proc/vmstat calls each item, and the pages in one of its units."""


@pytest.mark.parametrize(("where", "kernel"), AT_REST)
def test_mapped_memory_is_what_vmstat_printed(where: str, kernel: str) -> None:
    s, oracle = opened(where, kernel)
    lines = (oracle.folder / "proc" / "vmstat").read_text("utf-8").splitlines()
    printed = {name: int(value) for name, value in (line.split() for line in lines)}
    totals = mapped_totals(s)
    assert totals == {name: printed[said] * unit for name, (said, unit) in _NAMES.items()}
    assert {name: node_stats(s.layout)[name] for name in totals} == totals
    assert totals["NR_ANON_MAPPED"] > totals["NR_ANON_THPS"] > 0


@pytest.mark.parametrize(("where", "kernel"), AT_REST)
def test_free_lists_are_what_buddyinfo_printed(where: str, kernel: str) -> None:
    s, oracle = opened(where, kernel)
    b = s.buddy
    assert b.unreadable == 0
    lines = (oracle.folder / "proc" / "buddyinfo").read_text("utf-8").splitlines()
    printed = np.array([line.split()[4:] for line in lines], np.int64)
    on = b.blocks.list_idx
    assert (on >= 0).all()
    ours = np.zeros_like(printed)
    np.add.at(ours, (b.lists.zone_idx[on], b.lists.order[on]), 1)
    # Recording went on after this file was read: small blocks came and went.
    sizes = np.int64(1) << np.arange(printed.shape[1])
    assert (np.abs((ours - printed) @ sizes) <= 512).all()
    assert (ours[0] == printed[0]).all()
    assert (ours[:, -1] - printed[:, -1] >= -1).all()
    assert ours[:, -1].sum() > 80


@pytest.mark.parametrize(("where", "kernel"), AT_REST)
def test_lists_in_front_of_the_buddy_allocator_add_up(where: str, kernel: str) -> None:
    b = opened(where, kernel)[0].buddy
    assert (b.cpu_lists.count == b.cpu_lists.held).all()
    assert not b.cpu_lists.broken.any()
    assert len(b.cpu_page_row) > 300
    assert (b.cpu_page_row >= 0).all()
