"""Large folios VMA by VMA, beside what pagemap, kpageflags and smaps of the kernel itself make of them.

The sums are those of tools/mm/thpmaps in the kernel's sources: of folios that PTEs map whole, by alignment of the
address; of parts of folios; and of blocks that arm64 could hold in one TLB entry.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from inspector.columns import I64, U64
from inspector.report.mthp import build_mthp
from inspector.walk.mthp import CONT_ORDER
from tests.faults.overlay import core_path, sound
from tests.fixtures import KERNELS
from tests.guests import load_oracle
from tests.guests.oracle import Oracle, OracleVma
from tests.oracle.fixture_oracle import load_fixture_oracle

PRESENT, PFN = 1 << 63, (1 << 55) - 1
ANON, HEAD, TAIL, THP, ZERO = (1 << bit for bit in (12, 15, 16, 22, 24))

Sums = dict[str, int]
"""Bytes by what thpmaps calls them."""


def folios_of(flags: U64) -> tuple[I64, I64]:
    """By page frame: the head of its folio, and the pages of the folio that each head begins."""
    pfn = np.arange(len(flags))
    head = np.maximum.accumulate(np.where((flags & TAIL) == 0, pfn, 0))
    return head, np.bincount(head, minlength=len(flags))


def as_thpmaps(oracle: Oracle, vma: OracleVma, head: I64, size: I64) -> Sums:
    """What it prints of a VMA, in bytes, but for what is 0."""
    flags = oracle.kpageflags
    out: dict[str, int] = defaultdict(int)
    pages: dict[tuple[int, int], list[int]] = defaultdict(list)
    for at, entry in enumerate(vma.pagemap.tolist()):
        pfn = entry & PFN
        if entry & PRESENT and int(flags[pfn]) & THP and not int(flags[pfn]) & ZERO:
            vfn = (vma.start >> 12) + at
            # The folio, and how far its page frames are from their addresses.
            pages[int(head[pfn]), vfn - pfn].append(pfn)
    for (first, distance), mapped in pages.items():
        nr, kind = int(size[first]), "anon" if int(flags[first]) & ANON else "file"
        if len(mapped) == nr:
            place = "unaligned" if (first + distance) % nr else "aligned"
            out[f"{kind} {place} {nr.bit_length() - 1}"] += nr << 12
        else:
            out[f"{kind} partial"] += len(mapped) << 12
        block = 1 << CONT_ORDER
        if distance % block == 0:
            blocks = np.bincount(np.array(mapped) // block, minlength=1)
            out[f"{kind} cont"] += int((blocks == block).sum()) * block << 12
    huge = {"anon": vma.kb["AnonHugePages"], "file": vma.kb["ShmemPmdMapped"] + vma.kb["FilePmdMapped"]}
    if not vma.kb["Rss"]:
        # Up to 6.1 smaps passes by PMDs without access (smaps_pmd_entry(), follow_trans_huge_pmd()).
        huge = {kind: out[f"{kind} aligned 9"] >> 10 for kind in huge}
    for kind, kb in huge.items():
        out[f"{kind} by_pmd"] += kb << 10
        out[f"{kind} aligned 9"] -= kb << 10
        out[f"{kind} cont"] -= kb << 10
    return {name: number for name, number in out.items() if number}


@pytest.mark.parametrize(
    ("where", "kernel"),
    [
        *(pytest.param("fixture", k, id=f"fixture-{k}") for k in KERNELS),
        *(pytest.param("rest", k, id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
    ],
)
def test_each_vma_is_what_thpmaps_would_say(where: str, kernel: str) -> None:
    oracle = load_fixture_oracle(kernel) if where == "fixture" else load_oracle(kernel)
    ours: dict[tuple[int, int], Sums] = defaultdict(lambda: defaultdict(int))
    for each in build_mthp(sound(core_path(where, kernel)), by_vma=True).vmas:
        if each.pid is not None:
            sums = ours[each.pid, each.start]
            sums[f"{each.kind} by_pmd"] += each.by_pmd
            sums[f"{each.kind} aligned {each.order}"] += each.aligned
            sums[f"{each.kind} unaligned {each.order}"] += each.unaligned
            sums[f"{each.kind} partial"] += each.partial
            sums[f"{each.kind} cont"] += each.cont
    head, size = folios_of(oracle.kpageflags)
    theirs = {
        (p.pid, vma.start): sums
        for p in oracle.processes
        for vma in p.vmas
        if "ht" not in vma.flags and (sums := as_thpmaps(oracle, vma, head, size))
    }
    assert len(theirs) > 40
    compared = {where: {name: number for name, number in sums.items() if number} for where, sums in ours.items()}
    assert {place: sums for place, sums in compared.items() if sums} == theirs
