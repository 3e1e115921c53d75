"""``vmas`` and ``ps`` say what the kernel of each captured vmcore itself said in /proc shortly before."""

from __future__ import annotations

import pytest

from inspector.places.processes import find_mm
from inspector.report.processes import VmaRow, build_ps, build_vmas
from tests.faults.overlay import sound
from tests.fixtures import KERNELS, fixture_path
from tests.guests.oracle import OracleVma
from tests.oracle.fixture_oracle import load_fixture_oracle

_USER_END = 1 << 47

_SMAPS = {
    "Size": "size_kb",
    "Rss": "rss_kb",
    "Anonymous": "anon_kb",
    "AnonHugePages": "anon_pmd_kb",
    "ShmemPmdMapped": "shmem_pmd_kb",
    "FilePmdMapped": "file_pmd_kb",
    "Shared_Hugetlb": "hugetlb_shared_kb",
    "Private_Hugetlb": "hugetlb_private_kb",
    "Swap": "swap_kb",
    "Locked": "locked_kb",
}


def _untold(kernel: str, comm: str, ours: VmaRow, theirs: OracleVma) -> bool:
    """smaps of 6.1 leaves out huge PMDs without access (follow_trans_huge_pmd()) and copies in VM_PFNMAP VMAs."""
    if kernel != "6.1" or theirs.kb["Rss"] != 0:
        return False
    return "pfnmap" in ours.flags or (ours.rss_kb == ours.anon_pmd_kb and comm in ("numa-hint", "vma-prot-none"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_vma_equals_smaps(kernel: str) -> None:
    s = sound(str(fixture_path(kernel)))
    compared, wrong, untold = 0, [], 0
    for process in load_fixture_oracle(kernel).processes:
        rows = build_vmas(s, find_mm(s, process.pid)).vmas
        told = [v for v in process.vmas if v.start < _USER_END]
        assert [(v.start, v.end, v.perms, v.name) for v in rows] == [(v.start, v.end, v.perms, v.name) for v in told]
        for ours, theirs in zip(rows, told, strict=True):
            differ = {
                n: (getattr(ours, f), theirs.kb.get(n))
                for n, f in _SMAPS.items()
                if getattr(ours, f) != theirs.kb.get(n)
            }
            compared += 1
            if differ and _untold(kernel, process.comm, ours, theirs):
                untold += 1
            elif differ:
                wrong.append((process.comm, hex(ours.start), differ))
    print(f"{kernel}: {compared} VMAs compared with smaps, {untold} of kinds that this kernel's smaps leaves out")
    assert wrong == []
    assert compared > 1500
    assert untold <= 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_process_equals_status(kernel: str) -> None:
    s = sound(str(fixture_path(kernel)))
    ours = {p.pid: p for p in build_ps(s).processes}
    ours |= {other: p for p in list(ours.values()) for other in p.other_pids}
    wrong, compared = [], 0
    for process in load_fixture_oracle(kernel).processes:
        if process.pid not in ours:
            continue  # a dead leader: its threads carry the address space under their own pids
        p = ours[process.pid]
        shown = {"VmPTE": p.pgtables_kb}
        if kernel != "6.1":
            # Up to 6.1 /proc leaves out what each task has not yet added to its mm (SPLIT_RSS_COUNTING).
            shown |= {"RssAnon": p.anon_kb, "RssFile": p.file_kb, "RssShmem": p.shmem_kb, "VmSwap": p.swap_kb}
            shown |= {"VmRSS": p.rss_kb}
        told = {name: int(process.status[name].split()[0]) for name in shown}
        compared += 1
        if process.comm != "recorder" and told != shown:
            wrong.append((process.comm, {n: (shown[n], v) for n, v in told.items() if shown[n] != v}))
    print(f"{kernel}: {compared} processes compared with status")
    assert wrong == []
    assert compared > 100
