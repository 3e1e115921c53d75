"""Swap and page cache against the kernel's own /proc: swaps, status, vmstat and meminfo of the guests at rest."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.rules.files.page_cache import cached_totals
from inspector.tables.files import BLOCK, FOLIO
from inspector.walk.swap_view import swap_devices
from tests.fixtures import KERNELS
from tests.oracle.test_kernels_word import Pair, opened


@pytest.fixture(
    params=[
        *(pytest.param(("fixture", k), id=f"fixture-{k}") for k in KERNELS),
        *(pytest.param(("guest", k), id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
    ]
)
def pair(request: pytest.FixtureRequest) -> Pair:
    return opened(*request.param)


def test_proc_swaps(pair: Pair) -> None:
    s, oracle = pair
    rows = [line.split() for line in oracle.text("proc/swaps").splitlines()[1:]]
    view = swap_devices(s)
    assert len(view) == len(rows) == 2
    for i, (name, kind, size, used, priority) in enumerate(rows):
        assert view.path[i] in (name, "?")  # a capture may leave out the names of files that no process maps
        assert view.is_partition[i] == (kind == "partition")
        assert (view.size_kb[i], view.used_kb[i], view.prio[i]) == (int(size), int(used), int(priority))
        assert int(view.used[i]) * 4 == int(used)


def test_swap_of_every_anonymous_vma(pair: Pair) -> None:
    """smaps tells the swap entries of each VMA; a shmem file's own pages in swap are told there too, so not these."""
    s, oracle = pair
    rows = s.swap_refs.users.nonpresent_row
    entries = np.bincount(s.nonpresent.vma_idx[rows[rows >= 0]], minlength=len(s.vmas))
    pid = s.mms.pid[s.vmas.mm_idx]
    ours = {(int(p), int(a)): 4 * int(n) for p, a, n in zip(pid, s.vmas.start, entries, strict=True)}
    told = {
        (p.pid, v.start): v.kb["Swap"]
        for p in oracle.processes
        for v in p.vmas
        if "Swap" in v.kb and not v.name.startswith("/")
    }
    compared = {key: (ours[key], kb) for key, kb in told.items() if key in ours}
    assert len(compared) > 500
    assert [key for key, (mine, theirs) in compared.items() if mine != theirs] == []
    assert sum(theirs for _, theirs in compared.values()) == 4 * int((rows >= 0).sum())


@pytest.mark.each_kernel
def test_vm_swap_of_every_process(pair: Pair) -> None:
    s, oracle = pair
    if s.layout.struct("struct mm_struct").has("rss_stat.count"):
        pytest.skip("before 6.2 status leaves out what tasks have not folded into their mm yet")
    rows = s.swap_refs.users.nonpresent_row
    entries = np.bincount(s.nonpresent.mm_idx[rows[rows >= 0]], minlength=len(s.mms))
    row_of = {int(pid): row for row, pid in enumerate(s.mms.pid) if pid > 0}
    told = {p.pid: int(p.status["VmSwap"].split()[0]) for p in oracle.processes if "VmSwap" in p.status}
    compared = {pid: (int(entries[row_of[pid]]) * 4, kb) for pid, kb in told.items() if pid in row_of}
    assert len(compared) > 100
    assert all(ours == theirs for ours, theirs in compared.values())


def test_vmstat(pair: Pair) -> None:
    s, oracle = pair
    pages = {"NR_FILE_PAGES": "nr_file_pages", "NR_SHMEM": "nr_shmem", "NR_SWAPCACHE": "nr_swapcached"}
    # Counted in pages, printed in huge ones (mm/vmstat.c, vmstat_item_print_in_thp()).
    huge = {"NR_SHMEM_THPS": "nr_shmem_hugepages", "NR_FILE_THPS": "nr_file_hugepages"}
    told = {k: oracle.vmstat[v] for k, v in pages.items()}
    told |= {k: oracle.vmstat[v] << s.layout.pmd_order for k, v in huge.items()}
    assert cached_totals(s) == told


def test_meminfo(pair: Pair) -> None:
    s, oracle = pair
    entries, spaces = s.files.entries, s.files.address_spaces
    block = (entries.kind == FOLIO) & (spaces.kind[entries.address_space_idx] == BLOCK)
    totals = cached_totals(s)
    buffers = int(entries.nr[block].sum())
    assert buffers * 4 == oracle.meminfo["Buffers"]
    assert (totals["NR_FILE_PAGES"] - totals["NR_SWAPCACHE"] - buffers) * 4 == oracle.meminfo["Cached"]
    assert totals["NR_SWAPCACHE"] * 4 == oracle.meminfo["SwapCached"]
    assert totals["NR_SHMEM"] * 4 == oracle.meminfo["Shmem"]
    view = swap_devices(s)
    assert int(view.size_kb.sum() - view.used_kb.sum()) == oracle.meminfo["SwapFree"]
