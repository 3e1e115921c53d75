"""Rules of the anonymous reverse map itself: anon_vmas, their anon_vma_chains and their interval trees."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, Mask, rows_of, take_or
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import ANON_VMAS, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.anon_rmap import anon_vmas_chained_to
from inspector.rules.vmas.lost_vmas import entering_or_leaving_tree, lost_vma_rows, mm_of_lost_vma
from inspector.snapshot import Snapshot
from inspector.subjects import ANON_VMA, AVC, VMA
from inspector.violations import Violations, one, violations
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
    """A VMA's list of anon_vma_chains is damaged or does not lead to its anon_vma.

    Invariant: a VMA has an anon_vma exactly when its list of chains is not empty, one of them leads to that anon_vma,
        and the list's links agree with each other.
    Why: mm/rmap.c, __anon_vma_prepare() and unlink_anon_vmas().
    Consequence: rmap misses the VMA, or follows a chain to a freed one.
    Exceptions: the mm is being built or torn down.
    See also: folioscope anon-vma ADDRESS
    """
    avcs, vmas = s.anon_rmap.avcs, s.vmas
    listed = avcs.list_vma_idx >= 0
    owner = avcs.list_vma_idx[listed]
    nr = np.bincount(owner, minlength=len(vmas))
    reached = np.zeros(len(vmas), np.bool_)
    reached[owner[avcs.anon_vma[listed] == vmas.anon_vma[owner]]] = True
    has = vmas.anon_vma != 0
    bad: Mask = (has != (nr > 0)) | (has & ~reached)
    bad[s.anon_rmap.broken_lists] = True
    rows = np.flatnonzero(bad)
    return violations(
        rows,
        observed={"anon_vma": vmas.anon_vma[rows], "chains": nr[rows]},
        expected={"chains": np.where(vmas.anon_vma[rows] != 0, "one to its anon_vma among them", "none")},
        checked=len(vmas),
        claims=one("vma", rows) + anon_vmas_chained_to(s, rows, "anon_vma"),
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
    """An anon_vma_chain is not both on the list of its VMA and in the tree of its anon_vma.

    Invariant: each anon_vma_chain is on the list of the VMA it names and in the interval tree of the anon_vma it names.
    Why: mm/rmap.c, anon_vma_chain_link() does both under the root's lock.
    Consequence: missing in the tree: rmap walks miss the VMA. Missing on the list: the tree keeps a freed VMA.
    Exceptions: the mm is being built, changed or torn down (VMAs get chains before they enter the tree and keep them
        after they left), or the root's lock is held.
    See also: folioscope anon-vma ADDRESS
    """
    avcs = s.anon_rmap.avcs
    endless = np.isin(avcs.list_vma_idx, s.anon_rmap.broken_lists)
    bad = (avcs.list_vma_idx < 0) | (avcs.tree_idx < 0)
    bad |= (avcs.vma_idx != avcs.list_vma_idx) | (avcs.anon_vma_idx != avcs.tree_idx)
    rows = np.flatnonzero(bad & ~endless)
    vma = np.where(avcs.vma_idx[rows] >= 0, avcs.vma_idx[rows], avcs.list_vma_idx[rows])
    locked = take_or(s.anon_vma_locked, avcs.anon_vma_idx[rows], False)
    moving = np.where(
        vma >= 0,
        take_or(s.mm_in_motion, take_or(s.vmas.mm_idx, vma, -1), False),
        locked | entering_or_leaving_tree(s, avcs.vma[rows]),
    )
    return violations(
        rows,
        observed={"on_list": avcs.list_vma_idx[rows] >= 0, "in_tree": avcs.tree_idx[rows] >= 0},
        expected={"on_list": True, "in_tree": True},
        checked=len(avcs),
        facts={"vma": avcs.vma[rows], "anon_vma": avcs.anon_vma[rows]},
        claims=one("avc", rows) + one("vma", vma) + one("anon_vma", avcs.anon_vma_idx[rows]),
        depends=one("lost_vma", lost_vma_rows(s, avcs.vma[rows])) + one("mm", mm_of_lost_vma(s, avcs.vma[rows])),
        transient=moving,
    )


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
    """An anon_vma's interval tree is out of order or has wrong cached bounds.

    Invariant: chains are ordered by the first page offset of their VMAs, each keeps the greatest last offset below it
        (rb_subtree_last), no red node has a red parent, and the anon_vma caches the first chain.
    Why: mm/interval_tree.c, anon_vma_interval_tree_insert(); lib/rbtree.c.
    Consequence: rmap walks skip a part of the tree and miss the mappings in it.
    Exceptions: the root's lock is held for writing, or the mm is being built or torn down.
    See also: folioscope anon-vma ADDRESS
    """
    rmap, avcs = s.anon_rmap, s.anon_rmap.avcs
    inside = (avcs.tree_idx >= 0) & (avcs.vma_idx >= 0)
    cyclic = np.isin(avcs.tree_idx, rmap.broken_trees)
    rb = np.uint64(s.layout.struct("struct anon_vma_chain").field("rb").offset)
    wrong_first = avcs.is_leftmost & (take_or(rmap.anon_vmas.leftmost, avcs.tree_idx, 0) != avcs.addr + rb)
    bad = avcs.misordered | avcs.red_red | avcs.mislinked | (avcs.subtree_last != avcs.true_subtree_last)
    rows = _deepest(s, np.flatnonzero(inside & (~cyclic | avcs.mislinked) & (bad | wrong_first)))
    vma, anon_vma = avcs.vma_idx[rows], avcs.anon_vma_idx[rows]
    return violations(
        rows,
        observed={"rb_subtree_last": avcs.subtree_last[rows], "ordered": ~avcs.misordered[rows]},
        expected={"rb_subtree_last": avcs.true_subtree_last[rows], "ordered": True},
        checked=inside,
        facts={"vma": avcs.vma[rows], "anon_vma": avcs.anon_vma[rows], "first": avcs.first[rows]},
        claims=one("tree", avcs.tree_idx[rows]),
        depends=one("vma", vma) + one("anon_vma", anon_vma),
        transient=s.mm_in_motion[s.vmas.mm_idx[vma]] | take_or(s.anon_vma_locked, anon_vma, False),
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
    """The root of an anon_vma is no root, or not that of its parent or of the VMA's other anon_vmas.

    Invariant: root->root is root itself; a parent has the same root; all chains of one VMA lead to one root.
    Why: mm/rmap.c, anon_vma_fork() and anon_vma_clone(): the root's lock guards the whole family.
    Consequence: operations on the family take different locks: its trees are changed concurrently.
    Exceptions: the anon_vma's tree is empty: its parent may be gone already.
    See also: folioscope anon-vma ADDRESS
    """
    table, avcs = s.anon_rmap.anon_vmas, s.anon_rmap.avcs
    rows = np.arange(len(table))
    root, parent = table.root_idx, table.parent_idx
    used = table.readable & (table.tree != 0)
    no_root = used & ((root < 0) | (take_or(root, root, -1) != root))
    differs = used & (parent >= 0) & (parent != rows) & (take_or(table.root, parent, 0) != table.root)
    # Of a child and its parent, the wrong one is that whose root differs from those of the same VMA's other anon_vmas.
    differs &= _among_other_roots(s) | ~np.isin(rows, avcs.tree_idx)
    bad = np.flatnonzero(no_root | differs)
    return violations(
        bad,
        observed={"root": table.root[bad]},
        expected={"root": take_or(table.root, parent[bad], 0)},
        checked=used,
        claims=one("anon_vma", bad) + one("anon_vma", root[bad]) + one("anon_vma", take_or(root, parent[bad], -1)),
    )


def _among_other_roots(s: Snapshot) -> Mask:
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
    """An anon_vma's num_active_vmas, num_children or refcount does not match its VMAs and children.

    Invariant: num_active_vmas is the number of VMAs whose anon_vma it is; num_children the number of anon_vmas whose
        parent it is, a root counting itself; refcount is at least 1 for a tree that is not empty plus, for a root, 1
        for each other member of its family. More references are legal (KSM, migration).
    Why: mm/rmap.c, anon_vma_clone() decides by them whether an anon_vma may be reused.
    Consequence: an anon_vma is reused or freed while in use.
    Exceptions: some of the family cannot be read; an mm of the family is being built or torn down.
    See also: folioscope anon-vma ADDRESS
    """
    table, vmas = s.anon_rmap.anon_vmas, s.vmas
    n = len(table)
    own = rows_of(table.addr, vmas.anon_vma)
    active = np.bincount(own[own >= 0], minlength=n)
    alive = table.tree != 0
    children = np.bincount(table.parent_idx[alive & (table.parent_idx >= 0)], minlength=n)
    is_root = table.root_idx == np.arange(n)
    members = np.bincount(table.root_idx[alive & ~is_root & (table.root_idx >= 0)], minlength=n)
    least = alive.astype(np.int64) + np.where(is_root, members, 0)
    bad = (table.num_active_vmas != active) | (table.num_children != children) | (table.refcount < least)
    rows = np.flatnonzero(bad & table.readable & alive)
    return violations(
        rows,
        observed={
            "num_active_vmas": table.num_active_vmas[rows],
            "num_children": table.num_children[rows],
            "refcount": table.refcount[rows],
        },
        expected={"num_active_vmas": active[rows], "num_children": children[rows], "refcount_at_least": least[rows]},
        checked=alive,
        depends=one("anon_vma", rows),
        transient=(_family_in_motion(s, own) | s.anon_vma_locked)[rows],
    )


def _family_in_motion(s: Snapshot, of_vma: I32) -> Mask:
    """anon_vmas of a family whose VMAs may be half changed.

    Args:
        s: The snapshot.
        of_vma: int32; row of the anon_vma of each VMA, -1 for none.
    """
    table, avcs = s.anon_rmap.anon_vmas, s.anon_rmap.avcs
    moving = np.zeros(len(table), np.bool_)
    moving[of_vma[s.mm_in_motion[s.vmas.mm_idx] & (of_vma >= 0)]] = True
    # VMAs that are entering or leaving a tree are counted, and only their chains lead to them.
    strays = np.flatnonzero((avcs.vma_idx < 0) & (avcs.tree_idx >= 0))
    moving[avcs.tree_idx[strays[entering_or_leaving_tree(s, avcs.vma[strays])]]] = True
    family = np.zeros(len(table), np.bool_)
    family[table.root_idx[moving & (table.root_idx >= 0)]] = True
    return take_or(family, table.root_idx, False)
