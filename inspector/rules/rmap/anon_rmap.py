"""Rules that hold the anonymous reverse map (anon_vmas, chains, interval trees) against the page tables."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, expand_runs, rows_of
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import ANON_VMAS, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.file_rmap import own_file_links
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE, VMA
from inspector.violations import Relation, Violations, holds, one, several, violations
from inspector.walk.linear import ANON, HUGETLB, Links, linear_index
from inspector.windows.window import Effect


def _pairs(s: Snapshot) -> tuple[U64, I32]:
    """Every distinct (anon_vma address, VMA row) that some anonymous mapping joins."""
    links = s.links
    anon = np.flatnonzero(links.is_anon)
    pointer, vma = links.mapping[anon] & ~np.uint64(3), links.vma_idx[anon]
    if not len(anon):
        return pointer, vma
    fresh = np.concatenate([[True], (pointer[1:] != pointer[:-1]) | (vma[1:] != vma[:-1])])
    pair = np.unique(np.stack([pointer[fresh], vma[fresh].astype(np.uint64)]), axis=1)
    return pair[0], pair[1].astype(np.int32)


def _links_of(s: Snapshot, pointer: U64, vma: I32) -> Links:
    """The links that the given pairs stand for."""
    links = s.links
    rows = np.flatnonzero(links.is_anon & np.isin(links.vma_idx, vma))
    links = links.take(rows)
    wanted = set(zip(pointer.tolist(), vma.tolist(), strict=True))
    here = zip((links.mapping & ~np.uint64(3)).tolist(), links.vma_idx.tolist(), strict=True)
    return links.take(np.array([pair in wanted for pair in here], np.bool_))


def page_rows(links: Links) -> I64:
    """Rows in the page table of the first page of each link."""
    return links.head_row.astype(np.int64) + links.page


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
)
def vma_pgoff_mismatch(s: Snapshot) -> Violations:
    """All folios that a VMA maps have an index that is off by the same distance.

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
        _shifted(s, s.links.is_anon, s.vmas.anon_pgoff),
        _shifted(s, own_file_links(s), s.vmas.pgoff),
    ]
    rows = np.concatenate([f[0] for f in found])
    order = np.unique(rows, return_index=True)[1]
    rows = rows[order]
    stored, delta, folios = (np.concatenate([f[i] for f in found])[order] for i in (1, 2, 3))
    space = s.file_rmap.address_space_of_vma[rows]
    return violations(
        rows,
        observed={"pgoff": stored},
        expected={"pgoff": stored + delta.astype(np.uint64)},
        checked=int(sum(f[4] for f in found)),
        facts={"folios": folios, "off_by": delta},
        claims=one("vma", rows) + one("i_mmap", space) + chained(s, rows, "tree"),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )


def _shifted(s: Snapshot, which: Mask, base: U64) -> tuple[I64, U64, I64, I64, int]:
    """VMAs all of whose folios are off by one distance: rows, their offset, the distance, links; VMAs looked at."""
    links, n = s.links, len(s.vmas)
    seen = np.zeros(n, np.bool_)
    seen[links.vma_idx[which]] = True
    none = np.empty(0, np.int64)
    suspects = np.flatnonzero(which & (links.delta != 0))
    if not len(suspects):
        return none, none.astype(np.uint64), none, none, int(seen.sum())
    suspect = np.zeros(n, np.bool_)
    suspect[links.vma_idx[suspects]] = True
    mine = links.take(np.flatnonzero(which & suspect[links.vma_idx]))
    low, high = np.full((2, n), np.iinfo(np.int64).max), np.full((2, n), np.iinfo(np.int64).min)
    for i, column in enumerate((mine.delta, mine.head_row.astype(np.int64))):
        np.minimum.at(low[i], mine.vma_idx, column)
        np.maximum.at(high[i], mine.vma_idx, column)
    # One folio alone accuses itself, not its VMA.
    rows = np.flatnonzero(suspect & (low[0] == high[0]) & ((low[1] != high[1]) | _several_pages(mine, n)))
    folios = np.bincount(mine.vma_idx, minlength=n)
    return rows, base[rows], low[0][rows], folios[rows], int(seen.sum())


def _several_pages(links: Links, n: int) -> Mask:
    """VMAs with a link of several small folios."""
    out = np.zeros(n, np.bool_)
    out[links.vma_idx[(links.nr > 1) & (links.page == 0) & ((links.kind & HUGETLB) == 0)]] = True
    return out


def chained(s: Snapshot, vma_rows: I64, kind: str) -> Relation:
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
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I6 43 66 148",
    diagnose=lost_rmap("the folio's index is not that of the address"),
)
def anon_index_mismatch(s: Snapshot) -> Violations:
    """An anonymous folio's index is not the page offset that it is mapped at.

    Invariant: folio->index plus the page's place in the folio is the linear index of the address in the VMA.
    Why: mm/rmap.c, __page_check_anon_rmap() asserts it; every walk computes the address from the index.
    Consequence: rmap walks miss this mapping: the folio can be neither swapped out nor migrated.
    Exceptions: the folio is a KSM page, whose index means nothing; the VMA as a whole is off (vma-pgoff-mismatch).
    See also: folioscope rmap PFN
    """
    links = s.links
    anon = links.is_anon
    found = links.take(np.flatnonzero(anon & (links.delta != 0)))
    return index_violations(s, found, int(anon.sum()))


def index_violations(s: Snapshot, found: Links, checked: int) -> Violations:
    """Folios whose index is not where they are mapped; the VMA may be what is wrong."""
    anon = (found.kind & ANON) != 0
    linear = linear_index(s.vmas, found.vma_idx, found.va, anon, s.layout.memmap.page_shift)
    return violations(
        page_rows(found),
        observed={"index": linear + found.delta.astype(np.uint64)},
        expected={"index": linear},
        checked=checked,
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx]},
        depends=one("vma", found.vma_idx),
        transient=s.mm_in_motion[s.vmas.mm_idx[found.vma_idx]],
    )


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
)
def anon_vma_unreachable(s: Snapshot) -> Violations:
    """An anonymous folio's anon_vma does not lead to a VMA that maps the folio.

    Invariant: the interval tree of the anon_vma that folio->mapping names holds a chain to every VMA that maps the
        folio.
    Why: mm/rmap.c, rmap_walk_anon() finds mappings in no other way; anon_vma_fork() and anon_vma_clone() link them.
    Consequence: the mapping is invisible to reclaim, migration and memory failure; the anon_vma is freed while in use.
    Exceptions: the mm is being built or torn down: chains go before page tables.
    See also: folioscope rmap PFN; folioscope anon-vma ADDRESS
    """
    pointer, vma = _pairs(s)
    anon_idx = rows_of(s.anon_rmap.anon_vmas.addr, pointer).astype(np.int64)
    avcs, n = s.anon_rmap.avcs, np.int64(len(s.vmas) + 1)
    linked = (avcs.tree_idx >= 0) & (avcs.vma_idx >= 0)
    have = avcs.tree_idx[linked].astype(np.int64) * n + avcs.vma_idx[linked]
    lost = np.flatnonzero(~np.isin(anon_idx * n + vma, have))
    if not len(lost):
        return holds(len(pointer))
    found = _links_of(s, pointer[lost], vma[lost])
    named = rows_of(s.anon_rmap.anon_vmas.addr, found.mapping & ~np.uint64(3))
    return violations(
        page_rows(found),
        observed={"anon_vma": found.mapping & ~np.uint64(3)},
        expected={"anon_vma": s.vmas.anon_vma[found.vma_idx]},
        checked=len(pointer),
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx]},
        depends=one("vma", found.vma_idx) + one("anon_vma", named),
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
)
def anon_root_mismatch(s: Snapshot) -> Violations:
    """A folio and the VMA that maps it belong to different families of anon_vmas.

    Invariant: folio->mapping's anon_vma and vma->anon_vma have the same root: one lock guards both.
    Why: mm/rmap.c, __page_check_anon_rmap().
    Consequence: rmap walks run under the wrong lock.
    Exceptions: the VMA has no anon_vma (vma-anon-vma-missing).
    See also: folioscope anon-vma ADDRESS
    """
    pointer, vma = _pairs(s)
    table = s.anon_rmap.anon_vmas
    named, own = rows_of(table.addr, pointer), rows_of(table.addr, s.vmas.anon_vma[vma])
    both = (own >= 0) & (named >= 0)
    differ = table.root[np.maximum(own, 0)] != table.root[np.maximum(named, 0)] if len(table) else both
    wrong = np.flatnonzero(both & differ)
    if not len(wrong):
        return holds(int(both.sum()))
    found = _links_of(s, pointer[wrong], vma[wrong])
    named, own = rows_of(table.addr, found.mapping & ~np.uint64(3)), rows_of(table.addr, s.vmas.anon_vma[found.vma_idx])
    return violations(
        page_rows(found),
        observed={"root": table.root[named]},
        expected={"root": table.root[own]},
        checked=int(both.sum()),
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
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I6 46",
    was="vma-without-anon-vma",
    diagnose=lost_rmap("the VMA has no anon_vma"),
)
def vma_anon_vma_missing(s: Snapshot) -> Violations:
    """A VMA maps anonymous folios but has no anon_vma.

    Invariant: a VMA gets its anon_vma before its first anonymous folio.
    Why: mm/memory.c, vmf_anon_prepare(); mm/mremap.c and mm/vma.c carry it along when VMAs move or merge.
    Consequence: forked children share the folios without any link to them: use after free of the anon_vma.
    Exceptions: the only such folios are KSM pages.
    See also: folioscope vmas PID
    """
    nr = np.bincount(s.links.vma_idx[s.links.is_anon], minlength=len(s.vmas))
    rows = np.flatnonzero((nr > 0) & (s.vmas.anon_vma == 0))
    return violations(
        rows,
        observed={"anon_vma": s.vmas.anon_vma[rows]},
        expected={"anon_vma": np.full(len(rows), "an anon_vma")},
        checked=int((nr > 0).sum()),
        facts={"folios": nr[rows]},
        claims=one("vma", rows),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )
