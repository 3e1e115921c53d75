"""The faults of the reverse maps: anon_vmas, chains and their trees, file trees, indices and offsets, VMAs."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, rows_of
from inspector.snapshot import Snapshot
from inspector.walk.linear import HUGETLB, linear_index
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, add, page_word, pfn_of, put, word
from tests.faults.plants import MissingError, Planted, pick


def _quiet(s: Snapshot) -> I64:
    """Links of ordinary anonymous folios in mms at rest."""
    links = s.links
    calm = ~s.mm_in_motion[s.vmas.mm_idx[links.vma_idx]]
    return np.flatnonzero(links.is_anon & ((links.kind & HUGETLB) == 0) & calm)


def _index_of(s: Snapshot, link: int) -> int:
    """The index that the link's folio stores."""
    links = s.links
    anon = links.is_anon[link : link + 1]
    linear = linear_index(s.vmas, links.vma_idx[link : link + 1], links.va[link : link + 1], anon, 12)
    return int(linear[0]) + int(links.delta[link]) - int(links.page[link])


def _index_patch(s: Snapshot, link: int) -> tuple[Patch, int]:
    pfn = pfn_of(s, int(s.links.head_row[link]))
    return put(s, page_word(s, pfn, "__folio_index", "index"), _index_of(s, link) + 1), pfn


def _mappers(s: Snapshot) -> I64:
    """For each link, how many links its folio has."""
    return np.bincount(s.links.head_row, minlength=len(s.pages))[s.links.head_row]


def _small(s: Snapshot, rows: I64) -> I64:
    return rows[(s.folio_of_page[s.links.head_row[rows]] < 0) & (s.links.nr[rows] == 1)]


@fault
def index_of_a_private_page_shifted(s: Snapshot) -> Planted:
    rows = _small(s, _quiet(s))
    patch, pfn = _index_patch(s, pick(rows[_mappers(s)[rows] == 1], "a private page", 10))
    return Planted((patch,), ("anon-index-mismatch",), pfn)


@fault
def index_of_a_forked_page_shifted(s: Snapshot) -> Planted:
    rows = _small(s, _quiet(s))
    patch, pfn = _index_patch(s, pick(rows[_mappers(s)[rows] > 1], "a forked page", 10))
    return Planted((patch,), ("anon-index-mismatch",), pfn)


@fault
def index_of_a_file_page_shifted(s: Snapshot) -> Planted:
    rows = np.flatnonzero(s.links.is_file & (s.links.mapping != 0))
    patch, pfn = _index_patch(s, pick(_small(s, rows), "a page of a file", 3))
    return Planted((patch,), ("file-index-mismatch", "cache-entry-mismatch"), pfn)


def _links_of_avcs(s: Snapshot) -> tuple[int, np.ndarray[tuple[int, int], np.dtype[np.uint64]]]:
    """Offset of the rb_node in an avc, and (parent and colour, right, left) of each."""
    struct = s.layout.struct("struct anon_vma_chain")
    offset = struct.field("rb").offset
    raw = s.layout.memory.gather(s.anon_rmap.avcs.addr, struct.size).bytes
    return offset, np.ascontiguousarray(raw[:, offset : offset + 24]).view(np.uint64)


def _red_leaves(s: Snapshot) -> I64:
    """Chains at the bottom of their trees that can go without spoiling order or colours."""
    avcs, (_, links) = s.anon_rmap.avcs, _links_of_avcs(s)
    leaf = (links[:, 1] == 0) & (links[:, 2] == 0) & ((links[:, 0] & np.uint64(1)) == 0)
    # One that widens no bound above it.
    highest = np.zeros(len(avcs), np.uint64)
    np.maximum.at(highest, np.maximum(avcs.tree_idx, 0), np.where(leaf, 0, avcs.last).astype(np.uint64))
    narrow = avcs.last <= highest[np.maximum(avcs.tree_idx, 0)]
    calm = ~s.mm_in_motion[s.vmas.mm_idx[np.maximum(avcs.vma_idx, 0)]]
    keep = leaf & narrow & (avcs.tree_parent != 0) & (avcs.vma_idx >= 0) & ~avcs.is_leftmost & calm
    return np.flatnonzero(keep)


def _out_of_tree(s: Snapshot, avc: int) -> Patch:
    offset, _ = _links_of_avcs(s)
    parent = int(s.anon_rmap.avcs.tree_parent[avc])
    right = word(s, parent + offset + 8) == int(s.anon_rmap.avcs.addr[avc]) + offset
    return put(s, parent + offset + (8 if right else 16), 0)


def _used(s: Snapshot, rows: I64, *, used: bool) -> I64:
    """Chains by which some folio is (or none is) mapped."""
    links, avcs = s.links, s.anon_rmap.avcs
    anon = np.flatnonzero(links.is_anon)
    tree = rows_of(s.anon_rmap.anon_vmas.addr, links.mapping[anon] & ~np.uint64(3))
    have = set(zip(tree.tolist(), links.vma_idx[anon].tolist(), strict=True))
    here = zip(avcs.tree_idx[rows].tolist(), avcs.vma_idx[rows].tolist(), strict=True)
    return rows[np.array([(pair in have) == used for pair in here], np.bool_)]


@fault
def chain_unlinked_from_its_tree(s: Snapshot) -> Planted:
    avc = pick(_used(s, _red_leaves(s), used=True), "a chain that leads to mapped folios")
    return Planted((_out_of_tree(s, avc),), ("avc-link-missing",), None)


@fault
def idle_chain_unlinked_from_its_tree(s: Snapshot) -> Planted:
    avc = pick(_used(s, _red_leaves(s), used=False), "a chain that leads to no folio")
    return Planted((_out_of_tree(s, avc),), ("avc-link-missing",), None)


@fault
def list_of_chains_emptied(s: Snapshot) -> Planted:
    rows = _quiet(s)
    vma = pick(np.unique(s.links.vma_idx[rows]).astype(np.int64), "a VMA with folios", 3)
    field = s.layout.struct("struct vm_area_struct").field("anon_vma_chain")
    at = int(s.vmas.addr[vma]) + field.offset
    return Planted((put(s, at, at), put(s, at + 8, at)), ("anon-vma-chain-damaged",), None)


def _subtree_last(s: Snapshot, avc: int, value: int) -> Planted:
    field = s.layout.struct("struct anon_vma_chain").field("rb_subtree_last")
    return Planted((put(s, int(s.anon_rmap.avcs.addr[avc]) + field.offset, value),), ("avc-tree-damaged",), None)


@fault
def subtree_last_of_a_leaf_wrong(s: Snapshot) -> Planted:
    avc = pick(_red_leaves(s), "a chain at the bottom of a tree")
    return _subtree_last(s, avc, int(s.anon_rmap.avcs.subtree_last[avc]) + 5)


@fault
def subtree_last_of_a_top_wrong(s: Snapshot) -> Planted:
    calm = ~s.mm_in_motion[s.vmas.mm_idx[np.maximum(s.anon_rmap.avcs.vma_idx, 0)]]
    return _subtree_last(s, pick(np.flatnonzero((s.anon_rmap.avcs.tree_depth == 0) & calm), "a tree", 5), 0)


def _children(s: Snapshot) -> I64:
    table = s.anon_rmap.anon_vmas
    return np.flatnonzero((table.root_idx != np.arange(len(table))) & (table.tree != 0))


def _other_root(s: Snapshot, row: int, nth: int = 3) -> int:
    table = s.anon_rmap.anon_vmas
    roots = np.flatnonzero((table.root_idx == np.arange(len(table))) & (np.arange(len(table)) != table.root_idx[row]))
    return pick(roots, "another root", nth)


@fault
def root_of_an_anon_vma_replaced(s: Snapshot) -> Planted:
    table, field = s.anon_rmap.anon_vmas, s.layout.struct("struct anon_vma").field("root")
    row = pick(_children(s), "an anon_vma with a parent", 40)
    patch = put(s, int(table.addr[row]) + field.offset, int(table.addr[_other_root(s, row)]))
    return Planted((patch,), ("anon-vma-root-mismatch",), None)


def _counter(s: Snapshot, name: str, delta: int) -> Planted:
    field = s.layout.struct("struct anon_vma").field(name)
    row = pick(_children(s), "an anon_vma with a parent", 3)
    return Planted(
        (add(s, int(s.anon_rmap.anon_vmas.addr[row]) + field.offset, delta, field.size),),
        ("anon-vma-counters-mismatch",),
        None,
    )


@fault
def children_of_an_anon_vma_miscounted(s: Snapshot) -> Planted:
    return _counter(s, "num_children", 1)


@fault
def users_of_an_anon_vma_miscounted(s: Snapshot) -> Planted:
    return _counter(s, "num_active_vmas", 1)


@fault
def references_of_an_anon_vma_too_few(s: Snapshot) -> Planted:
    return _counter(s, "refcount.counter", -1)


@fault
def folio_given_to_a_foreign_anon_vma(s: Snapshot) -> Planted:
    rows = _small(s, _quiet(s))
    link = pick(rows[_mappers(s)[rows] == 1], "a private page", 12)
    table = s.anon_rmap.anon_vmas
    own = int(rows_of(table.addr, s.links.mapping[link : link + 1] & ~np.uint64(3))[0])
    pfn = pfn_of(s, int(s.links.head_row[link]))
    patch = put(s, page_word(s, pfn, "mapping"), int(table.addr[_other_root(s, own)]) | 1)
    return Planted((patch,), ("anon-vma-unreachable",), pfn)


@fault
def anon_vma_of_a_vma_forgotten(s: Snapshot) -> Planted:
    vma = pick(np.unique(s.links.vma_idx[_quiet(s)]).astype(np.int64), "a VMA with folios", 6)
    field = s.layout.struct("struct vm_area_struct").field("anon_vma")
    return Planted((put(s, int(s.vmas.addr[vma]) + field.offset, 0),), ("anon-vma-chain-damaged",), None)


def _shift_offset(s: Snapshot, vma: int, *, anon: bool) -> tuple[Patch, ...]:
    struct, at = s.layout.struct("struct vm_area_struct"), int(s.vmas.addr[vma])
    patches = [add(s, at + struct.field("vm_pgoff").offset, 1)]
    low = struct.find("__vm_anon_pgoff_lo")
    if anon and low is not None:
        patches.append(add(s, at + low.offset, 1, 4))
    return tuple(patches)


@fault
def offset_of_an_anonymous_vma_shifted(s: Snapshot) -> Planted:
    rows = _quiet(s)
    many = np.flatnonzero((np.bincount(s.links.vma_idx[rows], minlength=len(s.vmas)) > 3) & (s.vmas.file == 0))
    return Planted(_shift_offset(s, pick(many, "a VMA of many folios", 4), anon=True), ("vma-pgoff-mismatch",), None)


@fault
def offset_of_a_file_vma_shifted(s: Snapshot) -> Planted:
    rows = np.flatnonzero(s.links.is_file & (s.links.mapping != 0))
    calm = ~s.mm_in_motion[s.vmas.mm_idx]
    pages = np.bincount(s.links.vma_idx[rows], weights=s.links.nr[rows], minlength=len(s.vmas))
    many = np.flatnonzero((pages > 3) & calm & (s.vmas.anon_vma == 0) & (s.vmas.file != 0) & ~s.vmas.is_hugetlb)
    return Planted(_shift_offset(s, pick(many, "a VMA of many pages", 3), anon=False), ("vma-pgoff-mismatch",), None)


@fault
def end_of_a_vma_moved(s: Snapshot) -> Planted:
    v = s.vmas
    room = (v.end[:-1] + np.uint64(8192) < v.start[1:]) & (v.mm_idx[:-1] == v.mm_idx[1:]) & (v.anon_vma[:-1] != 0)
    vma = pick(np.flatnonzero(room & ~s.mm_in_motion[v.mm_idx[:-1]]), "a VMA before a gap", 4)
    field = s.layout.struct("struct vm_area_struct").field("vm_end")
    return Planted((add(s, int(v.addr[vma]) + field.offset, 4096),), ("vma-range-mismatch",), None)


@fault
def file_vma_out_of_its_tree(s: Snapshot) -> Planted:
    struct, nodes = s.layout.struct("struct vm_area_struct"), s.file_rmap.nodes
    offset = struct.field("shared.rb").offset
    raw = s.layout.memory.gather(nodes.vma, struct.size).bytes
    links = np.ascontiguousarray(raw[:, offset : offset + 24]).view(np.uint64)
    parents = links[:, 0] & ~np.uint64(3)
    leaf = (links[:, 1] == 0) & (links[:, 2] == 0) & ((links[:, 0] & np.uint64(1)) == 0) & (parents != 0)
    calm = ~s.mm_in_motion[s.vmas.mm_idx[np.maximum(nodes.vma_idx, 0)]]
    for node in np.flatnonzero(leaf & ~nodes.is_leftmost & calm).tolist():
        parent = int(parents[node])
        right = word(s, parent + 8) == int(nodes.vma[node]) + offset
        return Planted((put(s, parent + (8 if right else 16), 0),), ("i-mmap-vma-missing",), None)
    raise MissingError("a VMA at the bottom of a file's tree")
