"""Rules that compare the anonymous reverse map (anon_vmas, chains, interval trees) with VMAs and page tables.

Rules about mapped pages compare an entry with its VMA and with the folio that it maps: they are judged over
links (`inspector.rules.rmap.links`), which join the three, and not over pieces of any one table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inspector.columns import I32, I64, U64, Mask, expand_runs, rows_of, take_or
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import ANON_VMAS, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.file_rmap import index_violations
from inspector.rules.rmap.links import (
    AnonIndexCheck,
    AnonVmaPairs,
    FileIndexCheck,
    IndexCheck,
    anon_vma_named,
    links_of_pairs,
    near_in_chain,
)
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE, VMA
from inspector.violations import Things, Violations, holds, one, several, violations
from inspector.walk.linear import HUGETLB, Links
from inspector.windows.window import Effect


@rule(
    "vma-pgoff-mismatch",
    VMA,
    "anon-rmap",
    Phase.STRUCTURES,
    after=(
        "anon-vma-tree-loop-unexpected",
        "i-mmap-tree-loop-unexpected",
        "vma-attached-mark-missing",
        "vma-range-mismatch",
    ),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I6 43 56 80",
    was="vma-offset-shifted",
    diagnose=lost_rmap("all indexes in the VMA are off by the same distance"),
    collects=(AnonIndexCheck, FileIndexCheck),
)
def vma_pgoff_mismatch(s: Snapshot) -> Violations:
    """The indexes of all folios that a VMA maps are off by the same distance.

    Invariant: a folio's index is the page offset of the address it is mapped at: vm_pgoff plus the distance from
        vm_start, or, for anonymous folios from 7.3 on, the VMA's own anonymous offset plus that distance.
    Why: include/linux/pagemap.h, linear_page_index(); mm/rmap.c, __folio_set_anon(). When every folio of a VMA is off
        by one distance it is the VMA's offset that is wrong (mm/vma.c, a merge or a move).
    Consequence: no rmap walk finds these mappings: they can be neither swapped out nor migrated; a file is seen at the
        wrong offset. The trees ordered by these offsets are damaged as well.
    Exceptions: a VMA maps fewer than two such folios (see anon-index-mismatch, file-index-mismatch), or its mm is being
        changed.
    See also: folioscope vmas PID
    """
    found = [
        _shifted(s, s.collected(AnonIndexCheck), s.vmas.anon_pgoff),
        _shifted(s, s.collected(FileIndexCheck), s.vmas.pgoff),
    ]
    # A VMA whose anonymous and file folios are both off is reported once.
    rows, order = np.unique(np.concatenate([f.rows for f in found]), return_index=True)
    pgoff = np.concatenate([f.pgoff for f in found])[order]
    off_by = np.concatenate([f.off_by for f in found])[order]
    return violations(
        rows,
        observed={"pgoff": pgoff},
        expected={"pgoff": pgoff + off_by.astype(np.uint64)},
        checked=sum(f.checked for f in found),
        facts={"folios": np.concatenate([f.folios for f in found])[order], "off_by": off_by},
        claims=one("vma", rows)
        + one("i_mmap", s.file_rmap.address_space_of_vma[rows])
        + anon_vmas_chained_to(s, rows, "tree"),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )


class _Shifted(NamedTuple):
    """VMAs all of whose folios are off by one distance.

    Attributes:
        rows: int64[n]; the VMAs.
        pgoff: uint64[n]; the offset of each.
        off_by: int64[n]; index minus page offset of its folios.
        folios: int64[n]; links of each.
        checked: VMAs with such folios.
    """

    rows: I64
    pgoff: U64
    off_by: I64
    folios: I64
    checked: int


def _shifted(s: Snapshot, seen: IndexCheck, pgoff: U64) -> _Shifted:
    """VMAs whose folios in the chosen links are all off by one distance."""
    mine, n = seen.found, len(s.vmas)
    mine = mine.take(np.flatnonzero(~seen.straight[mine.vma_idx]))
    suspect = np.zeros(n, np.bool_)
    suspect[mine.vma_idx] = True
    delta, head = (_bounds(mine.vma_idx, column, n) for column in (mine.delta, mine.head_row.astype(np.int64)))
    # If there is a single folio, its own index is wrong and not the VMA.
    rows = np.flatnonzero(suspect & (delta[0] == delta[1]) & ((head[0] != head[1]) | _several_pages(mine, n)))
    return _Shifted(rows, pgoff[rows], delta[0][rows], seen.nr[rows].astype(np.int64), int((seen.nr > 0).sum()))


def _bounds(vma_idx: I32, column: I64, n: int) -> tuple[I64, I64]:
    """The least and the greatest value of each of n VMAs."""
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(low, vma_idx, column)
    np.maximum.at(high, vma_idx, column)
    return low, high


def _several_pages(links: Links, n: int) -> Mask:
    """VMAs with a link of several small folios."""
    out = np.zeros(n, np.bool_)
    out[links.vma_idx[(links.nr > 1) & (links.page == 0) & ((links.kind & HUGETLB) == 0)]] = True
    return out


def anon_vmas_chained_to(s: Snapshot, vma_rows: I64, kind: str) -> Things:
    """The anon_vmas that each VMA's chains lead to, as things of the given kind, in the order of its list."""
    avcs = s.anon_rmap.avcs
    listed = np.flatnonzero((avcs.list_vma_idx >= 0) & (avcs.anon_vma_idx >= 0))
    listed = listed[np.argsort(avcs.list_vma_idx[listed], kind="stable")]
    owner = avcs.list_vma_idx[listed]
    low, high = np.searchsorted(owner, vma_rows, "left"), np.searchsorted(owner, vma_rows, "right")
    at = np.repeat(np.arange(len(vma_rows)), high - low)
    return several(kind, at, avcs.anon_vma_idx[listed[expand_runs(low, high - low)]])


@rule(
    "anon-index-mismatch",
    PAGE,
    "anon-rmap",
    Phase.LINKS,
    after=("anon-vma-unreachable",),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES,
    decides="I6 43 66 148",
    diagnose=lost_rmap("the folio's index is not that of the address"),
    collects=(AnonIndexCheck,),
)
def anon_index_mismatch(s: Snapshot) -> Violations:
    """An anonymous folio's index differs from the page offset that it is mapped at.

    Invariant: folio->index plus the page's place in the folio is the linear index of the address in the VMA.
    Why: mm/rmap.c, __page_check_anon_rmap() asserts it; every walk computes the address from the index.
    Consequence: rmap walks miss this mapping: the folio can be neither swapped out nor migrated.
    Exceptions: the folio is a KSM page, whose index means nothing; the VMA as a whole is off (vma-pgoff-mismatch).
    See also: folioscope rmap PFN
    """
    return index_violations(s, s.collected(AnonIndexCheck))


@rule(
    "anon-vma-unreachable",
    PAGE,
    "anon-rmap",
    Phase.LINKS,
    after=("shared-vma-anon-page-unexpected",),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I4 44 54 66 148",
    diagnose=lost_rmap("the anon_vma that the folio names does not lead to the VMA"),
    collects=(AnonVmaPairs,),
)
def anon_vma_unreachable(s: Snapshot) -> Violations:
    """An anonymous folio's anon_vma does not lead to a VMA that maps the folio.

    Invariant: the interval tree of the anon_vma that folio->mapping names holds a chain to every VMA that maps the
        folio.
    Why: mm/rmap.c, rmap_walk_anon() finds mappings in no other way; anon_vma_fork() and anon_vma_clone() link them.
    Consequence: reclaim, migration and memory failure do not find the mapping; the anon_vma is freed while in use.
    Exceptions: the mm is being built or torn down: chains go before page tables.
    See also: folioscope rmap PFN; folioscope anon-vma ADDRESS
    """
    pointer, vma = s.collected(AnonVmaPairs).pairs()
    named = rows_of(s.anon_rmap.anon_vmas.addr, pointer).astype(np.int64)
    avcs, n = s.anon_rmap.avcs, np.int64(len(s.vmas) + 1)
    linked = (avcs.tree_idx >= 0) & (avcs.vma_idx >= 0)
    have = avcs.tree_idx[linked].astype(np.int64) * n + avcs.vma_idx[linked]
    lost = np.flatnonzero(~np.isin(named * n + vma, have))
    if not len(lost):
        return holds(len(pointer))
    found = links_of_pairs(s, pointer[lost], vma[lost])
    near, bit = near_in_chain(s, found)
    flipped = {"flipped_bit": bit} if len(bit) and (bit >= 0).all() else {}
    return violations(
        found.page_row,
        observed={"anon_vma": anon_vma_named(found)},
        expected={"anon_vma": near},
        checked=len(pointer),
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx], **flipped},
        depends=one("vma", found.vma_idx) + one("anon_vma", rows_of(s.anon_rmap.anon_vmas.addr, anon_vma_named(found))),
        transient=s.mm_in_motion[s.vmas.mm_idx[found.vma_idx]],
    )


@rule(
    "anon-root-mismatch",
    PAGE,
    "anon-rmap",
    Phase.LINKS,
    after=("anon-vma-unreachable",),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I6 45",
    diagnose=lost_rmap("folio and VMA belong to different families of anon_vmas"),
    collects=(AnonVmaPairs,),
)
def anon_root_mismatch(s: Snapshot) -> Violations:
    """The anon_vmas of a folio and of the VMA that maps it have different roots.

    Invariant: folio->mapping's anon_vma and vma->anon_vma have the same root: one lock guards both.
    Why: mm/rmap.c, __page_check_anon_rmap().
    Consequence: rmap walks run under the wrong lock.
    Exceptions: the VMA has no anon_vma (vma-anon-vma-missing).
    See also: folioscope anon-vma ADDRESS
    """
    pointer, vma = s.collected(AnonVmaPairs).pairs()
    table = s.anon_rmap.anon_vmas
    named, own = rows_of(table.addr, pointer), rows_of(table.addr, s.vmas.anon_vma[vma])
    both = take_or(table.readable, own, False) & take_or(table.readable, named, False)
    wrong = np.flatnonzero(both & (take_or(table.root, own, 0) != take_or(table.root, named, 0)))
    if not len(wrong):
        return holds(both)
    found = links_of_pairs(s, pointer[wrong], vma[wrong])
    named, own = rows_of(table.addr, anon_vma_named(found)), rows_of(table.addr, s.vmas.anon_vma[found.vma_idx])
    return violations(
        found.page_row,
        observed={"root": table.root[named]},
        expected={"root": table.root[own]},
        checked=both,
        facts={"va": found.va},
        depends=one("vma", found.vma_idx) + one("anon_vma", named) + one("anon_vma", own),
    )


@rule(
    "vma-anon-vma-missing",
    VMA,
    "anon-rmap",
    Phase.STRUCTURES,
    after=("anon-vma-chain-damaged",),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES,
    decides="I6 46",
    was="vma-without-anon-vma",
    diagnose=lost_rmap("the VMA has no anon_vma"),
    collects=(AnonIndexCheck, AnonVmaPairs),
)
def vma_anon_vma_missing(s: Snapshot) -> Violations:
    """A VMA maps anonymous folios but has no anon_vma.

    Invariant: a VMA gets its anon_vma before its first anonymous folio.
    Why: mm/memory.c, vmf_anon_prepare(); mm/mremap.c and mm/vma.c carry it along when VMAs move or merge.
    Consequence: forked children share the folios without any link to them: use after free of the anon_vma.
    Exceptions: the only such folios are KSM pages, or name no address of an object: then it is they that are damaged.
    See also: folioscope vmas PID
    """
    nr = s.collected(AnonIndexCheck).nr.astype(np.int64)
    pointer, vma = s.collected(AnonVmaPairs).pairs()
    named = np.zeros(len(nr), np.bool_)
    named[vma[s.layout.direct_map_pfns(pointer) >= 0]] = True
    rows = np.flatnonzero((nr > 0) & named & (s.vmas.anon_vma == 0))
    return violations(
        rows,
        observed={"anon_vma": s.vmas.anon_vma[rows]},
        expected={"anon_vma": "an anon_vma"},
        checked=nr > 0,
        facts={"folios": nr[rows]},
        claims=one("vma", rows),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )
