"""anon_vmas, the chains that tie VMAs to them, and their interval trees: how an rmap walk finds anonymous mappings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, difference, distinct, rows_of, take_or, union
from inspector.layout.kernel import Layout
from inspector.lib.list import ListEntries, walk_lists
from inspector.lib.rbtree import RbNodes, check_colours, check_order, subtree_max, walk_rbtrees
from inspector.records import dataclass
from inspector.tables.locks import held_for_writing
from inspector.tables.slabs import lead_nowhere
from inspector.tables.vmas import Vmas, vma_rows

_MAX_GENERATIONS = 64
"""Steps from an anon_vma to its root and parents; what goes on longer is other data."""


@dataclass(frozen=True, slots=True)
class AnonVmas(Table):
    """One row an anon_vma that a VMA, a chain or another anon_vma names, ordered by address.

    Attributes:
        addr: uint64.
        root, parent: uint64; addresses.
        root_idx, parent_idx: int32; rows, -1 when there is no such row.
        refcount: int32.
        num_children, num_active_vmas: int64.
        tree: uint64; the rb_node at the top of its interval tree, 0 when empty.
        leftmost: uint64; the cached first rb_node.
        locked: bool; its own lock (a root's guards the family) is taken for writing.
        readable: bool; False where it could not be read.
    """

    addr: U64
    root: U64
    parent: U64
    root_idx: I32
    parent_idx: I32
    refcount: I32
    num_children: I64
    num_active_vmas: I64
    tree: U64
    leftmost: U64
    locked: Mask
    readable: Mask


@dataclass(frozen=True, slots=True)
class Avcs(Table):
    """One row an anon_vma_chain, ordered by address, from the VMAs' lists, the trees, or both.

    Attributes:
        addr: uint64.
        vma, anon_vma: uint64; as stored in it.
        vma_idx, anon_vma_idx: int32; rows, -1 when there is none.
        list_vma_idx: int32; VMA on whose list it hangs, -1 when on none.
        tree_idx: int32; anon_vma in whose interval tree it is, -1 when in none.
        subtree_last: uint64; as stored.
        true_subtree_last: uint64; the greatest last page offset below it, rebuilt; 0 when in no tree.
        first, last: uint64; page offsets of its VMA that the tree is ordered by; 0 without a VMA.
        misordered, red_red, mislinked: bool; defects of its place in the tree.
        is_leftmost: bool; first of its tree.
        tree_depth: int32; -1 when in no tree.
        tree_parent: uint64; the avc above it in the tree, 0 for the top.
    """

    addr: U64
    vma: U64
    anon_vma: U64
    vma_idx: I32
    anon_vma_idx: I32
    list_vma_idx: I32
    tree_idx: I32
    subtree_last: U64
    true_subtree_last: U64
    first: U64
    last: U64
    misordered: Mask
    red_red: Mask
    mislinked: Mask
    is_leftmost: Mask
    tree_depth: I32
    tree_parent: U64


@dataclass(frozen=True)
class AnonRmap:
    """Everything about anonymous reverse mapping.

    Attributes:
        anon_vmas: Table of anon_vmas.
        avcs: Table of anon_vma_chains.
        broken_lists: int32; VMA rows whose list of avcs is damaged or leaves readable memory.
        broken_trees: int32; anon_vma rows whose interval tree has nodes that cannot be read or are met twice.
        cyclic_trees: int32; those of them whose tree leads back to a node.
        unreadable: How many things could not be read.
    """

    anon_vmas: AnonVmas
    avcs: Avcs
    broken_lists: I32
    broken_trees: I32
    cyclic_trees: I32
    unreadable: int


def build_anon_rmap(layout: Layout, vmas: Vmas, extra: U64, freed: Mask, *, is_every_vma: bool) -> AnonRmap:
    """Read all anon_vmas and chains (mm/rmap.c, __anon_vma_prepare(), anon_vma_clone(), anon_vma_fork()).

    Args:
        layout: The kernel's layout.
        vmas: Whose lists of chains to follow.
        extra: uint64; addresses of further anon_vmas, such as those that mapped folios name.
        freed: bool; VMAs that may be free memory already: exit_mmap() frees them before the tree that names them.
            A list that leads nowhere there is not missing from the dump.
        is_every_vma: Whether the VMAs are all of the target: only then is an anon_vma that none is linked to known to
            be none.
    """
    vma_struct, avc_struct = layout.struct("struct vm_area_struct"), layout.struct("struct anon_vma_chain")
    heads = vmas.addr + np.uint64(vma_struct.field("anon_vma_chain").offset)
    lists = walk_lists(layout.memory, heads, avc_struct.size, avc_struct.field("same_vma").offset)
    listed = avc_struct.field("anon_vma").column(lists.raw)
    linked = np.concatenate([vmas.anon_vma, listed])
    lost = lists.unreadable[~freed[lists.unreadable]]
    lists_lost = len(lost) - int(_led_astray(layout, heads, lists, avc_struct.field("same_vma").offset)[lost].sum())
    # Where all chains are known, an anon_vma of none of them belongs to no VMA: who names it, be it a VMA, names it
    # wrongly.
    all_linked = listed if is_every_vma and not lists_lost and not len(lists.broken) else None
    found = _with_trees(layout, vmas, np.concatenate([linked, extra]), (lists.addr, lists.owner), all_linked)
    broken_lists = distinct(np.concatenate([lists.broken, lists.unreadable])).astype(np.int32)
    return replace(found, broken_lists=broken_lists, unreadable=lists_lost + found.unreadable)


def _led_astray(layout: Layout, heads: U64, lists: ListEntries, link: int) -> Mask:
    """Which of some lists that could not be followed to their end lead to where no chain can be."""
    out = np.zeros(len(heads), np.bool_)
    if len(lists.unreadable):
        after, known = layout.memory.words(heads[lists.unreadable])
        # The entries are ordered by list and position: the last one of each list is written last.
        last = np.full(len(heads), -1, np.int64)
        last[lists.owner] = np.arange(len(lists.owner))
        at = last[lists.unreadable]
        links = np.ascontiguousarray(lists.raw[:, link : link + 8]).view(np.uint64)[:, 0]
        after = np.where(at >= 0, take_or(links, at, 0), after)
        out[lists.unreadable] = known & lead_nowhere(layout, after, lists.addr + np.uint64(link))
    return out


def read_anon_trees(layout: Layout, vmas: Vmas, named: U64) -> AnonRmap:
    """The interval trees of some anon_vmas alone: no VMA's list of chains is followed.

    Args:
        layout: The kernel's layout.
        vmas: Those whose rows the chains are to get.
        named: uint64; addresses of anon_vmas.
    """
    return _with_trees(layout, vmas, named, (np.empty(0, np.uint64), np.empty(0, np.int32)))


def _with_trees(layout: Layout, vmas: Vmas, named: U64, listed: tuple[U64, I32], linked: U64 | None = None) -> AnonRmap:
    """The named anon_vmas, the chains in their trees, and those on lists: their addresses and the rows of the VMAs.

    Where ``linked`` is given, what is none of them, nor above one, is no anon_vma: nothing of it is read or missing.
    """
    avc = layout.struct("struct anon_vma_chain")
    anon_vmas = _read_anon_vmas(layout, named)
    real = np.ones(len(anon_vmas), np.bool_)
    if linked is not None:
        real = _and_above(anon_vmas, linked)
    gone = anon_vmas.addr[real & ~anon_vmas.readable]
    there = anon_vmas.addr[anon_vmas.readable]
    missing = int((~lead_nowhere(layout, gone, there)).sum()) if len(gone) else 0
    anon_vmas = replace(
        anon_vmas, readable=anon_vmas.readable & real, tree=np.where(real, anon_vmas.tree, np.uint64(0))
    )
    nowhere = partial(lead_nowhere, layout, like=listed[0] + np.uint64(avc.field("rb").offset))
    nodes = walk_rbtrees(layout.memory, anon_vmas.tree, avc.size, avc.field("rb").offset, nowhere)
    avcs = _join(layout, vmas, anon_vmas, *listed, nodes)
    broken_trees = distinct(np.concatenate([nodes.unreadable, nodes.cyclic, nodes.astray])).astype(np.int32)
    unreadable = len(nodes.unreadable) + missing
    no_lists = np.empty(0, np.int32)
    return AnonRmap(anon_vmas, avcs, no_lists, broken_trees, distinct(nodes.cyclic), unreadable)


def _and_above(anon_vmas: AnonVmas, linked: U64) -> Mask:
    """Those that a chain links to a VMA, and the roots and parents that they name."""
    out = np.isin(anon_vmas.addr, linked)
    while True:
        up = np.concatenate([anon_vmas.root_idx[out], anon_vmas.parent_idx[out]])
        new = up[(up >= 0) & ~out[up]]
        if not len(new):
            return out
        out[new] = True


def _read_anon_vmas(layout: Layout, named: U64) -> AnonVmas:
    """The named anon_vmas and, breadth-first, the roots and parents that they name."""
    struct = layout.struct("struct anon_vma")
    known = distinct(named[named != 0])
    for left in reversed(range(_MAX_GENERATIONS)):
        raw = layout.memory.gather(known, struct.size)
        up = [struct.field(name).column(raw.bytes[raw.valid]) for name in ("root", "parent")]
        more = difference(np.concatenate(up), known)
        # The parent of an anon_vma whose own tree is empty may be gone already; only what lies in the direct map is.
        more = more[(more >= np.uint64(layout.memory.direct_map_base)) & (more & np.uint64(7) == 0)]
        if not len(more) or not left:
            break
        known = union(known, more)
    data = raw.bytes
    root, parent = struct.field("root").column(data), struct.field("parent").column(data)
    return AnonVmas(
        addr=known,
        root=root,
        parent=parent,
        root_idx=rows_of(known, root),
        parent_idx=rows_of(known, parent),
        refcount=struct.field("refcount.counter").column(data).astype(np.int32),
        num_children=struct.field("num_children").column(data).astype(np.int64),
        num_active_vmas=struct.field("num_active_vmas").column(data).astype(np.int64),
        tree=struct.field("rb_root.rb_root.rb_node").column(data),
        leftmost=struct.field("rb_root.rb_leftmost").column(data),
        locked=held_for_writing(struct, "rwsem", data),
        readable=raw.valid,
    )


def _join(layout: Layout, vmas: Vmas, anon_vmas: AnonVmas, list_addr: U64, list_owner: I32, nodes: RbNodes) -> Avcs:
    """One row an avc, whether it was met on a list, in a tree, or both."""
    struct = layout.struct("struct anon_vma_chain")
    addr = union(list_addr, nodes.addr)
    raw = layout.memory.gather(addr, struct.size)
    vma, anon_vma = struct.field("vma").column(raw.bytes), struct.field("anon_vma").column(raw.bytes)
    vma_idx = vma_rows(vmas, vma)
    first = take_or(vmas.anon_pgoff, vma_idx, 0)
    last = take_or(vmas.anon_pgoff + vmas.nr_pages.astype(np.uint64) - np.uint64(1), vma_idx, 0)
    stored_last = struct.field("rb_subtree_last").column(raw.bytes)
    place = rows_of(addr, nodes.addr)

    def spread(column: Mask) -> Mask:
        out = np.zeros(len(addr), np.bool_)
        out[place] = column
        return out

    tree_idx, depth = np.full(len(addr), -1, np.int32), np.full(len(addr), -1, np.int32)
    tree_idx[place], depth[place] = nodes.root, nodes.depth
    true_last, above = np.zeros(len(addr), np.uint64), np.zeros(len(addr), np.uint64)
    true_last[place] = subtree_max(nodes, last[place])
    above[place] = take_or(nodes.addr, nodes.parent, 0)
    list_vma = np.full(len(addr), -1, np.int32)
    list_vma[rows_of(addr, list_addr)] = list_owner
    return Avcs(
        addr=addr,
        vma=vma,
        anon_vma=anon_vma,
        vma_idx=vma_idx,
        anon_vma_idx=rows_of(anon_vmas.addr, anon_vma),
        list_vma_idx=list_vma,
        tree_idx=tree_idx,
        subtree_last=stored_last,
        true_subtree_last=true_last,
        first=first,
        last=last,
        misordered=spread(check_order(nodes, first[place])),
        red_red=spread(check_colours(nodes)),
        mislinked=spread(nodes.mislinked),
        is_leftmost=spread(nodes.leftmost),
        tree_depth=depth,
        tree_parent=above,
    )
