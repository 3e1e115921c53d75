"""Rules of the structures of the anonymous reverse map: anon_vmas, their chains and their interval trees."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask, rows_of, take_or
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import ANON_VMAS, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.anon_rmap import chained
from inspector.rules.vmas.lost_vmas import entering_or_leaving_tree, lost_vma_rows, mm_of_lost_vma
from inspector.snapshot import Snapshot
from inspector.subjects import ANON_VMA, AVC, VMA
from inspector.violations import Violations, holds, one, violations
from inspector.windows.window import Effect


@rule(
    "anon-vma-chain-damaged",
    VMA,
    "anon-rmap",
    Phase.STRUCTURES,
    after=(
        "anon-vma-root-mismatch",
        "vma-pgoff-mismatch",
    ),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I17 47 48",
    was="anon-vma-chain-broken",
    diagnose=lost_rmap("the VMA's chains do not lead to its anon_vma"),
)
def anon_vma_chain_damaged(s: Snapshot) -> Violations:
    """A VMA and its anon_vma disagree about the chains between them.

    Invariant: a VMA has an anon_vma exactly when its list of chains is not empty, one of them leads to that anon_vma,
        and the list's links agree with each other.
    Why: mm/rmap.c, __anon_vma_prepare() and unlink_anon_vmas().
    Consequence: rmap misses the VMA, or follows a chain to a freed one.
    Exceptions: the mm is being built or torn down.
    See also: folioscope anon-vma ADDRESS
    """
    rmap, vmas = s.anon_rmap, s.vmas
    listed = rmap.avcs.list_vma_idx >= 0
    nr = np.bincount(rmap.avcs.list_vma_idx[listed], minlength=len(vmas))
    own = np.zeros(len(vmas), np.bool_)
    owner = rmap.avcs.list_vma_idx[listed]
    own[owner[rmap.avcs.anon_vma[listed] == vmas.anon_vma[owner]]] = True
    bad: Mask = ((vmas.anon_vma != 0) != (nr > 0)) | ((vmas.anon_vma != 0) & ~own)
    bad[rmap.broken_lists] = True
    rows = np.flatnonzero(bad)
    return violations(
        rows,
        observed={"anon_vma": vmas.anon_vma[rows], "chains": nr[rows]},
        expected={"chains": np.where(vmas.anon_vma[rows] != 0, "one to its anon_vma among them", "none")},
        checked=len(vmas),
        claims=one("vma", rows) + chained(s, rows, "anon_vma"),
        transient=s.mm_in_motion[vmas.mm_idx[rows]],
    )


@rule(
    "avc-link-missing",
    AVC,
    "anon-rmap",
    Phase.STRUCTURES,
    after=(
        "i-mmap-vma-unexpected",
        "vma-anon-vma-missing",
    ),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I17 48",
    was="avc-half-linked",
    diagnose=lost_rmap("a chain between VMA and anon_vma is linked on one side only"),
)
def avc_link_missing(s: Snapshot) -> Violations:
    """A chain is on its VMA's list or in its anon_vma's tree, but not in both, or names another than it hangs on.

    Invariant: each anon_vma_chain is on the list of the VMA it names and in the interval tree of the anon_vma it names.
    Why: mm/rmap.c, anon_vma_chain_link() does both under the root's lock.
    Consequence: missing in the tree: rmap cannot find the VMA's pages. Missing on the list: the tree keeps a freed VMA.
    Exceptions: the mm is being built, changed or torn down (VMAs get chains before they enter the tree and keep them
        after they left), or the root's lock is held.
    See also: folioscope anon-vma ADDRESS
    """
    avcs, vmas = s.anon_rmap.avcs, s.vmas
    endless = np.isin(avcs.list_vma_idx, s.anon_rmap.broken_lists)
    bad = (avcs.list_vma_idx < 0) | (avcs.tree_idx < 0)
    bad |= (avcs.vma_idx != avcs.list_vma_idx) | (avcs.anon_vma_idx != avcs.tree_idx)
    rows = np.flatnonzero(bad & ~endless)
    vma = np.maximum(np.where(avcs.vma_idx[rows] >= 0, avcs.vma_idx[rows], avcs.list_vma_idx[rows]), -1)
    moving = np.ones(len(rows), np.bool_)
    if len(vmas):
        moving = (vma < 0) | s.mm_in_motion[vmas.mm_idx[np.maximum(vma, 0)]]
    moving &= _held(s)[np.maximum(avcs.anon_vma_idx[rows], 0)] | (vma >= 0) if len(s.anon_rmap.anon_vmas) else moving
    lost = np.flatnonzero(vma < 0)
    moving[lost] |= entering_or_leaving_tree(s, avcs.vma[rows[lost]])
    return violations(
        rows,
        observed={"on_list": avcs.list_vma_idx[rows] >= 0, "in_tree": avcs.tree_idx[rows] >= 0},
        expected={"on_list": np.ones(len(rows), np.bool_), "in_tree": np.ones(len(rows), np.bool_)},
        checked=len(avcs),
        facts={"vma": avcs.vma[rows], "anon_vma": avcs.anon_vma[rows]},
        claims=one("avc", rows) + one("vma", vma) + one("anon_vma", avcs.anon_vma_idx[rows]),
        depends=one("lost_vma", lost_vma_rows(s, avcs.vma[rows])) + one("mm", mm_of_lost_vma(s, avcs.vma[rows])),
        transient=moving,
    )


def _held(s: Snapshot) -> Mask:
    """anon_vmas whose root's lock is taken for writing."""
    return s.anon_vma_locked


@rule(
    "avc-tree-damaged",
    AVC,
    "anon-rmap",
    Phase.STRUCTURES,
    after=("i-mmap-vma-missing",),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I17 49",
)
def avc_tree_damaged(s: Snapshot) -> Violations:
    """An interval tree of an anon_vma is out of order or its cached bounds are wrong.

    Invariant: chains are ordered by the first page offset of their VMAs, each keeps the greatest last offset below it
        (rb_subtree_last), no red node has a red parent, and the anon_vma caches the first chain.
    Why: mm/interval_tree.c, anon_vma_interval_tree_insert(); lib/rbtree.c.
    Consequence: rmap walks pass by mappings that lie in the part of the tree they skip.
    Exceptions: the root's lock is held for writing, or the mm is being built or torn down.
    See also: folioscope anon-vma ADDRESS
    """
    rmap, avcs = s.anon_rmap, s.anon_rmap.avcs
    inside = (avcs.tree_idx >= 0) & (avcs.vma_idx >= 0)
    cyclic = np.isin(avcs.tree_idx, rmap.broken_trees)
    rb = np.uint64(s.layout.struct("struct anon_vma_chain").field("rb").offset)
    cached = np.zeros(len(avcs), np.uint64)
    if len(rmap.anon_vmas):
        cached = rmap.anon_vmas.leftmost[np.maximum(avcs.tree_idx, 0)]
    wrong_first = avcs.is_leftmost & (cached != avcs.addr + rb)
    bad = avcs.misordered | avcs.red_red | avcs.misparented | (avcs.subtree_last != avcs.true_subtree_last)
    rows = _deepest(s, np.flatnonzero(inside & ~cyclic & (bad | wrong_first)))
    vma = avcs.vma_idx[rows]
    moving = s.mm_in_motion[s.vmas.mm_idx[vma]] if len(s.vmas) else np.zeros(len(rows), np.bool_)
    return violations(
        rows,
        observed={"rb_subtree_last": avcs.subtree_last[rows], "ordered": ~avcs.misordered[rows]},
        expected={"rb_subtree_last": avcs.true_subtree_last[rows], "ordered": np.ones(len(rows), np.bool_)},
        checked=int(inside.sum()),
        facts={"vma": avcs.vma[rows], "anon_vma": avcs.anon_vma[rows], "first": avcs.first[rows]},
        claims=one("tree", avcs.tree_idx[rows]),
        depends=one("vma", vma) + one("anon_vma", avcs.anon_vma_idx[rows]),
        transient=moving | _held(s)[np.maximum(avcs.anon_vma_idx[rows], 0)],
    )


def _deepest(s: Snapshot, rows: I64) -> I64:
    """Rows ordered by tree, the deepest first: a wrong bound below makes those above it wrong as well."""
    avcs = s.anon_rmap.avcs
    return rows[np.lexsort((-avcs.tree_depth[rows], avcs.tree_idx[rows]))]


@rule(
    "anon-vma-root-mismatch",
    ANON_VMA,
    "anon-rmap",
    Phase.STRUCTURES,
    after=("anon-vma-tree-loop-unexpected",),
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I17 53",
    was="anon-vma-root-wrong",
)
def anon_vma_root_mismatch(s: Snapshot) -> Violations:
    """An anon_vma names a root that is none, or another root than its parent or its VMAs' chains do.

    Invariant: root->root is root itself; a parent has the same root; all chains of one VMA lead to one root.
    Why: mm/rmap.c, anon_vma_fork() and anon_vma_clone(): the root's lock guards the whole family.
    Consequence: operations on the family take different locks: its trees are changed under each other.
    Exceptions: the anon_vma's tree is empty: its parent may be gone already.
    See also: folioscope anon-vma ADDRESS
    """
    table, avcs = s.anon_rmap.anon_vmas, s.anon_rmap.avcs
    if not len(table):
        return holds(0)
    rows = np.arange(len(table))
    root, parent = table.root_idx, table.parent_idx
    used = table.readable & (table.tree != 0)
    no_root = used & ((root < 0) | (take_or(table.root_idx, root, -1) != root))
    odd = used & (parent >= 0) & (parent != rows) & (table.root[np.maximum(parent, 0)] != table.root)
    # The chains of one VMA vote: the anon_vma whose root differs from the others' is the wrong one.
    odd &= _outvoted(s) | ~np.isin(rows, avcs.tree_idx)
    bad = np.flatnonzero(no_root | odd)
    return violations(
        bad,
        observed={"root": table.root[bad]},
        expected={"root": take_or(table.root, parent[bad], 0)},
        checked=int(used.sum()),
        claims=one("anon_vma", bad)
        + one("anon_vma", root[bad])
        + one("anon_vma", table.root_idx[np.maximum(parent[bad], 0)]),
    )


def _outvoted(s: Snapshot) -> Mask:
    """anon_vmas whose root differs from that of another anon_vma on the list of one of their VMAs."""
    table, avcs = s.anon_rmap.anon_vmas, s.anon_rmap.avcs
    rows = np.flatnonzero((avcs.list_vma_idx >= 0) & (avcs.anon_vma_idx >= 0))
    vma, anon = avcs.list_vma_idx[rows], avcs.anon_vma_idx[rows]
    low = np.full(len(s.vmas), np.uint64(0xFFFFFFFFFFFFFFFF))
    high = np.zeros(len(s.vmas), np.uint64)
    np.minimum.at(low, vma, table.root[anon])
    np.maximum.at(high, vma, table.root[anon])
    out = np.zeros(len(table), np.bool_)
    out[anon[low[vma] != high[vma]]] = True
    return out


@rule(
    "anon-vma-counters-mismatch",
    ANON_VMA,
    "anon-rmap",
    Phase.LINKS,
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I17 50 51 52 54",
    was="anon-vma-counters",
)
def anon_vma_counters_mismatch(s: Snapshot) -> Violations:
    """An anon_vma's counters are not what its family shows.

    Invariant: num_active_vmas is the number of VMAs whose anon_vma it is; num_children the number of anon_vmas whose
        parent it is, a root counting itself; refcount is at least 1 for a tree that is not empty plus, for a root, 1
        for each other member of its family. More references are legal (KSM, migration).
    Why: mm/rmap.c, anon_vma_clone() decides by them whether an anon_vma may be reused.
    Consequence: an anon_vma is reused that is not free, or freed while in use.
    Exceptions: some of the family cannot be read; an mm of the family is being built or torn down.
    See also: folioscope anon-vma ADDRESS
    """
    table, vmas = s.anon_rmap.anon_vmas, s.vmas
    n = len(table)
    if not n:
        return holds(0)
    own = rows_of(table.addr, vmas.anon_vma)
    active = np.bincount(own[own >= 0], minlength=n)
    alive = table.tree != 0
    children = np.bincount(table.parent_idx[alive & (table.parent_idx >= 0)], minlength=n)
    is_root = table.root_idx == np.arange(n)
    members = np.bincount(table.root_idx[alive & ~is_root & (table.root_idx >= 0)], minlength=n)
    least = alive.astype(np.int64) + np.where(is_root, members, 0)
    bad = (table.num_active_vmas != active) | (table.num_children != children) | (table.refcount < least)
    rows = np.flatnonzero(bad & table.readable & alive)
    moving = np.zeros(n, np.bool_)
    busy = np.flatnonzero(s.mm_in_motion[vmas.mm_idx]) if len(vmas) else np.empty(0, np.int64)
    moving[own[busy][own[busy] >= 0]] = True
    # VMAs that are on their way into or out of a tree count, and only their chains lead to them.
    avcs = s.anon_rmap.avcs
    strays = np.flatnonzero((avcs.vma_idx < 0) & (avcs.tree_idx >= 0))
    moving[avcs.tree_idx[strays[entering_or_leaving_tree(s, avcs.vma[strays])]]] = True
    family = np.zeros(n, np.bool_)
    family[table.root_idx[moving & (table.root_idx >= 0)]] = True
    return violations(
        rows,
        observed={
            "num_active_vmas": table.num_active_vmas[rows],
            "num_children": table.num_children[rows],
            "refcount": table.refcount[rows],
        },
        expected={"num_active_vmas": active[rows], "num_children": children[rows], "refcount_at_least": least[rows]},
        checked=int(alive.sum()),
        depends=one("anon_vma", rows),
        transient=family[np.maximum(table.root_idx[rows], 0)] | _held(s)[rows],
    )
