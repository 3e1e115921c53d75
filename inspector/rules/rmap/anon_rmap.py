"""Rules that hold the anonymous reverse map (anon_vmas, chains, interval trees) against the page tables."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, rows_of
from inspector.rules.registry import Keys, Violations, nothing, rule
from inspector.rules.rmap.file_rmap import own_file_links
from inspector.snapshot import Snapshot
from inspector.walk.linear import ANON, HUGETLB, Links, linear_index


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


@rule("vma-pgoff-mismatch", was="vma-offset-shifted", group="anon-rmap", invariant="I6", rank=13)
def vma_offset_shifted(s: Snapshot) -> Violations:
    """All folios that a VMA maps have an index that is off by the same distance.

    True:  a folio's index is the page offset of the address it is mapped at: vm_pgoff plus the distance from vm_start,
           or, for anonymous folios from 7.3 on, the VMA's own anonymous offset plus that distance.
    Why:   include/linux/pagemap.h, linear_page_index(); mm/rmap.c, __folio_set_anon(). When every folio of a VMA is
           off by one distance it is the VMA's offset that is wrong (mm/vma.c, a merge or a move).
    Then:  no rmap walk finds these mappings: they can be neither swapped out nor migrated; a file is seen at the wrong
           offset. The trees ordered by these offsets are damaged as well.
    Silent when: a VMA maps fewer than two such folios (see anon-index-mismatch, file-index-mismatch), or its mm is
           being changed.
    Look further: folioscope vmas PID
    """
    found = [
        _shifted(s, s.links.is_anon, s.vmas.anon_pgoff),
        _shifted(s, own_file_links(s), s.vmas.pgoff),
    ]
    rows = np.concatenate([f[0] for f in found])
    order = np.unique(rows, return_index=True)[1]
    rows = rows[order]
    stored, delta, folios = (np.concatenate([f[i] for f in found])[order] for i in (1, 2, 3))
    space = s.file_rmap.space_of_vma[rows]
    return Violations(
        "vma",
        rows,
        {"pgoff": stored},
        {"pgoff": stored + delta.astype(np.uint64)},
        int(sum(f[4] for f in found)),
        facts={"folios": folios, "off_by": delta},
        claims=(("vma", rows), ("i_mmap", space), *chain_keys(s, rows, "tree")),
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


def chain_keys(s: Snapshot, vma_rows: I64, kind: str) -> Keys:
    """Keys of the anon_vmas that each VMA's chains lead to, a column for each place on its list."""
    avcs = s.anon_rmap.avcs
    listed = np.flatnonzero((avcs.list_vma_idx >= 0) & (avcs.anon_vma_idx >= 0))
    listed = listed[np.argsort(avcs.list_vma_idx[listed], kind="stable")]
    owner = avcs.list_vma_idx[listed]
    low, high = np.searchsorted(owner, vma_rows, "left"), np.searchsorted(owner, vma_rows, "right")
    longest = int((high - low).max()) if len(vma_rows) else 0
    safe = avcs.anon_vma_idx[listed] if len(listed) else np.full(1, -1, np.int32)
    return tuple((kind, np.where(low + i < high, safe[np.minimum(low + i, len(safe) - 1)], -1)) for i in range(longest))


@rule("anon-index-mismatch", group="anon-rmap", invariant="I6", rank=27)
def anon_index_mismatch(s: Snapshot) -> Violations:
    """An anonymous folio's index is not the page offset that it is mapped at.

    True:  folio->index plus the page's place in the folio is the linear index of the address in the VMA.
    Why:   mm/rmap.c, __page_check_anon_rmap() asserts it; every walk computes the address from the index.
    Then:  rmap walks miss this mapping: the folio can be neither swapped out nor migrated.
    Silent when: the folio is a KSM page, whose index means nothing; the VMA as a whole is off (vma-pgoff-mismatch).
    Look further: folioscope rmap PFN
    """
    links = s.links
    anon = links.is_anon
    found = links.take(np.flatnonzero(anon & (links.delta != 0)))
    return index_violations(s, found, int(anon.sum()))


def index_violations(s: Snapshot, found: Links, checked: int) -> Violations:
    """Folios whose index is not where they are mapped; the VMA may be what is wrong."""
    anon = (found.kind & ANON) != 0
    linear = linear_index(s.vmas, found.vma_idx, found.va, anon, s.layout.memmap.page_shift)
    return Violations(
        "page",
        page_rows(found),
        {"index": linear + found.delta.astype(np.uint64)},
        {"index": linear},
        checked,
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx]},
        depends=(("vma", found.vma_idx),),
        transient=s.mm_in_motion[s.vmas.mm_idx[found.vma_idx]],
    )


@rule("anon-vma-unreachable", group="anon-rmap", invariant="I4", rank=26)
def anon_vma_unreachable(s: Snapshot) -> Violations:
    """An anonymous folio's anon_vma does not lead to a VMA that maps the folio.

    True:  the interval tree of the anon_vma that folio->mapping names holds a chain to every VMA that maps the folio.
    Why:   mm/rmap.c, rmap_walk_anon() finds mappings in no other way; anon_vma_fork() and anon_vma_clone() link them.
    Then:  the mapping is invisible to reclaim, migration and memory failure; the anon_vma is freed while in use.
    Silent when: the mm is being built or torn down: chains go before page tables.
    Look further: folioscope rmap PFN; folioscope anon-vma ADDRESS
    """
    pointer, vma = _pairs(s)
    anon_idx = rows_of(s.anon_rmap.anon_vmas.addr, pointer).astype(np.int64)
    avcs, n = s.anon_rmap.avcs, np.int64(len(s.vmas) + 1)
    linked = (avcs.tree_idx >= 0) & (avcs.vma_idx >= 0)
    have = avcs.tree_idx[linked].astype(np.int64) * n + avcs.vma_idx[linked]
    lost = np.flatnonzero(~np.isin(anon_idx * n + vma, have))
    if not len(lost):
        return nothing("page", len(pointer))
    found = _links_of(s, pointer[lost], vma[lost])
    named = rows_of(s.anon_rmap.anon_vmas.addr, found.mapping & ~np.uint64(3))
    return Violations(
        "page",
        page_rows(found),
        {"anon_vma": found.mapping & ~np.uint64(3)},
        {"anon_vma": s.vmas.anon_vma[found.vma_idx]},
        len(pointer),
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx]},
        depends=(("vma", found.vma_idx), ("anon_vma", named)),
        transient=s.mm_in_motion[s.vmas.mm_idx[found.vma_idx]],
    )


@rule("anon-root-mismatch", group="anon-rmap", invariant="I6", rank=28)
def anon_root_mismatch(s: Snapshot) -> Violations:
    """A folio and the VMA that maps it belong to different families of anon_vmas.

    True:  folio->mapping's anon_vma and vma->anon_vma have the same root: one lock guards both.
    Why:   mm/rmap.c, __page_check_anon_rmap().
    Then:  rmap walks run under the wrong lock.
    Silent when: the VMA has no anon_vma (vma-anon-vma-missing).
    Look further: folioscope anon-vma ADDRESS
    """
    pointer, vma = _pairs(s)
    table = s.anon_rmap.anon_vmas
    named, own = rows_of(table.addr, pointer), rows_of(table.addr, s.vmas.anon_vma[vma])
    both = (own >= 0) & (named >= 0)
    differ = table.root[np.maximum(own, 0)] != table.root[np.maximum(named, 0)] if len(table) else both
    wrong = np.flatnonzero(both & differ)
    if not len(wrong):
        return nothing("page", int(both.sum()))
    found = _links_of(s, pointer[wrong], vma[wrong])
    named, own = rows_of(table.addr, found.mapping & ~np.uint64(3)), rows_of(table.addr, s.vmas.anon_vma[found.vma_idx])
    return Violations(
        "page",
        page_rows(found),
        {"root": table.root[named]},
        {"root": table.root[own]},
        int(both.sum()),
        facts={"va": found.va},
        depends=(("vma", found.vma_idx), ("anon_vma", named), ("anon_vma", own)),
    )


@rule("vma-anon-vma-missing", was="vma-without-anon-vma", group="anon-rmap", invariant="I6", rank=15)
def vma_without_anon_vma(s: Snapshot) -> Violations:
    """A VMA maps anonymous folios but has no anon_vma.

    True:  a VMA gets its anon_vma before its first anonymous folio.
    Why:   mm/memory.c, vmf_anon_prepare(); mm/mremap.c and mm/vma.c carry it along when VMAs move or merge.
    Then:  forked children share the folios without any link to them: use after free of the anon_vma.
    Silent when: the only such folios are KSM pages.
    Look further: folioscope vmas PID
    """
    nr = np.bincount(s.links.vma_idx[s.links.is_anon], minlength=len(s.vmas))
    rows = np.flatnonzero((nr > 0) & (s.vmas.anon_vma == 0))
    return Violations(
        "vma",
        rows,
        {"anon_vma": s.vmas.anon_vma[rows]},
        {"anon_vma": np.full(len(rows), "an anon_vma")},
        int((nr > 0).sum()),
        facts={"folios": nr[rows]},
        claims=(("vma", rows),),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )
