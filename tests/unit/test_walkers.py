"""Lists and trees of the kernel, sound and damaged: followed to their end, and their end always comes."""

from __future__ import annotations

from functools import cache

import drgn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.layout.offsets import Struct
from inspector.lib import xarray
from inspector.lib.list import walk_lists
from inspector.lib.maple_tree import walk_maple_trees
from inspector.lib.rbtree import check_colours, check_order, subtree_max, walk_rbtrees
from inspector.lib.xarray import walk_xarrays
from inspector.target.target import open_core
from tests.fixtures import fixture_path
from tests.unit.fake_memory import FakeReader

HEADS = np.array([0x100, 0x200], np.uint64)


@cache
def prog() -> drgn.Program:
    """Types of a real kernel."""
    return open_core(str(fixture_path("7.3"))).prog


def ring(reader: FakeReader, head: int, *nodes: int) -> None:
    """A list_head ring through structs whose link is at offset 16."""
    links = [head, *(n + 16 for n in nodes)]
    for i, link in enumerate(links):
        reader.words(link, links[(i + 1) % len(links)], links[i - 1])
    for i, node in enumerate(nodes):
        reader.words(node, 1000 + i, 0)


def test_lists_of_different_length_are_followed_together() -> None:
    reader = FakeReader()
    ring(reader, 0x100, 0x1000, 0x1100, 0x1200)
    ring(reader, 0x200)
    found = walk_lists(reader.memory(), HEADS, 32, 16)
    assert found.owner.tolist() == [0, 0, 0]
    assert found.addr.tolist() == [0x1000, 0x1100, 0x1200]
    assert found.position.tolist() == [0, 1, 2]
    assert (len(found.broken), len(found.unreadable)) == (0, 0)


def test_a_back_link_that_disagrees_is_told() -> None:
    reader = FakeReader()
    ring(reader, 0x100, 0x1000, 0x1100)
    ring(reader, 0x200, 0x2000)
    reader.words(0x1110 + 8, 0xDEAD)
    found = walk_lists(reader.memory(), HEADS, 32, 16)
    assert found.broken.tolist() == [0]
    assert found.addr.tolist() == [0x1000, 0x1100, 0x2000]


def test_a_circle_that_misses_the_head_ends() -> None:
    reader = FakeReader()
    ring(reader, 0x100, *range(0x1000, 0x1000 + 0x40 * 9, 0x40))
    ring(reader, 0x200)
    reader.words(0x1000 + 0x40 * 8 + 16, 0x1000 + 0x40 * 2 + 16)
    found = walk_lists(reader.memory(), HEADS, 32, 16)
    assert found.broken.tolist() == [0]
    assert len(found.addr) < 100


def test_a_list_that_leaves_readable_memory_is_told() -> None:
    reader = FakeReader()
    ring(reader, 0x100, 0x1000)
    ring(reader, 0x200, 0x2000)
    reader.words(0x1010, 0x999000)
    found = walk_lists(reader.memory(), HEADS, 32, 16)
    assert found.unreadable.tolist() == [0]


@given(
    st.lists(st.tuples(st.integers(-2, 8), st.booleans()), min_size=9, max_size=9),
    st.integers(0, 8),
    st.booleans(),
    st.sampled_from([5, 1 << 20]),
)
def test_the_last_list_is_followed_as_many_are(
    links: list[tuple[int, bool]], first: int, hash_chain: bool, most: int
) -> None:
    """Any tangle of nodes: alone, each list is followed word by word; beside its double, in columns."""
    reader, head = FakeReader(), 0x100
    # -2 leads out of memory, -1 ends the list.
    place = {-2: 0x999000, -1: 0 if hash_chain else head, **{i: 0x1010 + 0x100 * i for i in range(9)}}
    reader.words(head, place[first], 0)
    for i, (after, sound) in enumerate(links):
        before = next((place[b] for b, (to, _) in enumerate(links) if to == i), head)
        reader.words(place[i] - 16, 1000 + i, 0, place[after], before if sound else 0xDEAD)
    one = walk_lists(reader.memory(), np.array([head], np.uint64), 32, 16, hash_chain=hash_chain, max_length=most)
    two = walk_lists(reader.memory(), np.array([head, head], np.uint64), 32, 16, hash_chain=hash_chain, max_length=most)
    half = two.owner == 0
    assert half.sum() * 2 == len(two.owner)
    for name in ("owner", "addr", "raw", "position"):
        mine, double = getattr(one, name), getattr(two, name)[half]
        assert mine.dtype == double.dtype
        assert mine.tolist() == double.tolist()
    assert one.broken.tolist() == two.broken[two.broken == 0].tolist()
    assert one.unreadable.tolist() == two.unreadable[two.unreadable == 0].tolist()


def rb(reader: FakeReader, at: int, parent: int, left: int, right: int, *, key: int, black: bool = True) -> None:
    """A struct with its key first and an rb_node at offset 8."""
    reader.words(
        at, key, (parent + 8 if parent else 0) | int(black), right + 8 if right else 0, left + 8 if left else 0
    )


def three(reader: FakeReader) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    rb(reader, 0x1000, 0, 0x1100, 0x1200, key=20)
    rb(reader, 0x1100, 0x1000, 0, 0, key=10, black=False)
    rb(reader, 0x1200, 0x1000, 0, 0, key=30, black=False)
    return np.array([0x1008, 0], np.uint64)


def test_a_sound_tree_is_in_order_and_knows_its_first() -> None:
    reader = FakeReader()
    nodes = walk_rbtrees(reader.memory(), three(reader) | np.uint64(1), 32, 8)
    key = nodes.raw[:, :8].copy().view(np.uint64)[:, 0]
    assert sorted(key.tolist()) == [10, 20, 30]
    assert key[nodes.leftmost].tolist() == [10]
    assert not check_order(nodes, key).any()
    assert not check_colours(nodes).any()
    assert not nodes.mislinked.any()
    assert subtree_max(nodes, key)[nodes.parent < 0].tolist() == [30]


def test_disorder_colours_and_parents_are_found() -> None:
    reader = FakeReader()
    roots = three(reader)
    rb(reader, 0x1200, 0x1100, 0x1300, 0, key=15, black=False)
    rb(reader, 0x1300, 0x1200, 0, 0, key=22, black=False)
    nodes = walk_rbtrees(reader.memory(), roots, 32, 8)
    key = nodes.raw[:, :8].copy().view(np.uint64)[:, 0]
    assert set(key[check_order(nodes, key)].tolist()) == {15, 22}
    assert key[check_colours(nodes)].tolist() == [22]
    assert key[nodes.mislinked].tolist() == [15]


def test_a_tree_that_leads_back_into_itself_ends() -> None:
    reader = FakeReader()
    roots = three(reader)
    rb(reader, 0x1100, 0x1000, 0x1000, 0x999000, key=10)
    nodes = walk_rbtrees(reader.memory(), roots, 32, 8)
    assert nodes.cyclic.tolist() == [0]
    assert nodes.unreadable.tolist() == [0]
    assert len(nodes) == 3


def xa_node(reader: FakeReader, at: int, shift: int, slots: dict[int, int]) -> int:
    node = Struct(prog(), "struct xa_node")
    data = bytearray(node.size)
    data[node.field("shift").offset] = shift
    for slot, value in slots.items():
        offset = node.field("slots").offset + 8 * slot
        data[offset : offset + 8] = value.to_bytes(8, "little")
    reader.put(at, bytes(data))
    return at | 2


def test_xarray_entries_keep_index_order_and_kind() -> None:
    reader = FakeReader()
    sibling = (4 << 2) | 2
    low = xa_node(reader, 0x10000, 0, {3: 0x8000, 4: 0x9000, 5: sibling, 6: sibling, 7: sibling, 9: (7 << 1) | 1})
    top = xa_node(reader, 0x20000, 6, {0: low, 2: 0xA000})
    found = walk_xarrays(prog(), reader.memory(), np.array([top, 0x7000, 0], np.uint64))
    e = found.all()
    rows = list(zip(e.root.tolist(), e.index.tolist(), e.nr.tolist(), e.value.tolist(), strict=True))
    assert rows == [
        (0, 3, 1, 0x8000),
        (0, 4, 4, 0x9000),
        (0, 9, 1, 15),
        (0, 128, 64, 0xA000),
        (1, 0, 1, 0x7000),
    ]
    assert (len(found.broken), len(found.unreadable)) == (0, 0)


def test_xarray_entries_are_the_same_in_any_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the nodes of the lowest level lie entries of nodes above, which are as long as one or longer."""
    reader = FakeReader()
    first = xa_node(reader, 0x10000, 0, {3: 0x8000, 63: 0x9000})
    last = xa_node(reader, 0x11000, 0, {0: 0xA000})
    middle = xa_node(reader, 0x20000, 6, {0: first, 1: 0xB000, 2: (1 << 2) | 2, 3: last, 63: (9 << 1) | 1})
    top = xa_node(reader, 0x30000, 12, {0: middle, 5: 0xC000})
    heads = np.array([0x7000, top, 0, 0xD000, first], np.uint64)
    whole = walk_xarrays(prog(), reader.memory(), heads).all()
    assert list(zip(whole.root.tolist(), whole.index.tolist(), whole.nr.tolist(), strict=True)) == [
        (0, 0, 1),
        *((1, i, n) for i, n in ((3, 1), (63, 1), (64, 128), (192, 1), (4032, 64), (5 << 12, 1 << 12))),
        (3, 0, 1),
        *((4, 3, 1), (4, 63, 1)),
    ]
    monkeypatch.setattr(xarray, "_KEPT", 0)
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(xarray, "_ENTRIES", size)
        arrays = walk_xarrays(prog(), reader.memory(), heads)
        parts = [arrays.piece(number) for number in range(arrays.pieces)]
        assert [arrays.start(n) for n in range(arrays.pieces)] == np.cumsum([0, *map(len, parts[:-1])]).tolist()
        assert all(
            np.array_equal(getattr(arrays.all(), n), getattr(whole, n)) for n in ("root", "index", "nr", "value")
        )
        assert arrays.piece_of(np.arange(len(whole))).tolist() == [n for n, part in enumerate(parts) for _ in part.root]
        for root in range(len(heads)):
            having = [number for number, part in enumerate(parts) if (part.root == root).any()]
            assert arrays.pieces_of(np.array([root])).tolist() == having
        assert arrays.pieces_of(np.array([0, 1, 2, 3, 4])).tolist() == list(range(arrays.pieces))
    assert walk_xarrays(prog(), reader.memory(), heads[2:3]).pieces == 0


def test_the_last_slot_of_an_xarray_node_can_be_a_sibling() -> None:
    """Two pages at the end of a node: xa_mk_sibling(62) in slot 63, seen in huge tmpfs files of 7.3."""
    reader = FakeReader()
    node = xa_node(reader, 0x10000, 0, {62: 0x8000, 63: (62 << 2) | 2})
    found = walk_xarrays(prog(), reader.memory(), np.array([node], np.uint64)).all()
    assert (found.index.tolist(), found.nr.tolist(), found.value.tolist()) == ([62], [2], [0x8000])


def test_reserved_xarray_entries_are_no_pages() -> None:
    reader = FakeReader()
    node = xa_node(reader, 0x10000, 0, {0: (256 << 2) | 2, 1: (257 << 2) | 2, 2: 0x8000})
    found = walk_xarrays(prog(), reader.memory(), np.array([node], np.uint64)).all()
    assert found.value.tolist() == [0x8000]


def test_an_xarray_node_that_leads_to_itself_ends() -> None:
    reader = FakeReader()
    xa_node(reader, 0x10000, 6, {0: 0x10002, 1: 0x8000})
    found = walk_xarrays(prog(), reader.memory(), np.array([0x10002, 0x999002], np.uint64))
    assert set(found.broken.tolist()) == {0}
    assert found.unreadable.tolist() == [1]
    assert found.all().value.tolist() == [0x8000]


LEAF, RANGE = 1, 2


def maple(reader: FakeReader, at: int, pivots: list[int], slots: list[int], *, kind: int, root: bool = False) -> int:
    node = Struct(prog(), "struct maple_range_64")
    pivot, slot = node.field("pivot"), node.field("slot")
    data = bytearray(256)
    for field, values in ((pivot, pivots), (slot, slots)):
        for i, value in enumerate(values):
            data[field.offset + 8 * i : field.offset + 8 * i + 8] = value.to_bytes(8, "little")
    reader.put(at, bytes(data))
    return at | kind << 3 | (2 if root else 4)


def test_maple_ranges_are_told_with_their_bounds() -> None:
    reader = FakeReader()
    left = maple(reader, 0x10000, [0xFFF, 0x2FFF, 0x4FFF], [0, 0xA000, 0], kind=LEAF)
    right = maple(reader, 0x11000, [0x8FFF, 0], [0xB000, 0], kind=LEAF)
    top = maple(reader, 0x12000, [0x4FFF, 0], [left, right], kind=RANGE, root=True)
    alone = maple(reader, 0x13000, [0x5FFF, 0x6FFF, 0], [0, 0xC000, 0], kind=LEAF, root=True)
    found = walk_maple_trees(prog(), reader.memory(), np.array([top, alone, 0], np.uint64))
    rows = list(zip(found.root.tolist(), found.first.tolist(), found.last.tolist(), found.value.tolist(), strict=True))
    assert rows == [(0, 0x1000, 0x2FFF, 0xA000), (0, 0x5000, 0x8FFF, 0xB000), (1, 0x6000, 0x6FFF, 0xC000)]
    assert (len(found.broken), len(found.unreadable)) == (0, 0)


def test_damaged_maple_trees_end_and_say_so() -> None:
    reader = FakeReader()
    circle = 0x10000 | RANGE << 3 | 4
    maple(reader, 0x10000, [0x4FFF, 0], [circle, circle], kind=RANGE)
    odd = maple(reader, 0x11000, [0], [0xA000], kind=9, root=True)
    roots = np.array([0x10000 | RANGE << 3 | 2, odd, 0x999000 | LEAF << 3 | 2], np.uint64)
    found = walk_maple_trees(prog(), reader.memory(), roots)
    assert set(found.broken.tolist()) == {0, 1}
    assert found.unreadable.tolist() == [2]
    assert len(found.value) == 0
