"""Folios on LRU lists: their links followed, and what their words say of the list that they must be on.

The links of all folios with PG_lru are read in one pass over the memory map, as rows of pages. What they lead to
outside of it are the heads of lists. Members are counted by list and by class: what flags and memcg_data say together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.arch.base import KERNEL_HALF
from inspector.columns import I32, I64, U8, U64, Mask, Table, distinct, rows_of_unordered, spans, take_or
from inspector.layout.kernel import Layout
from inspector.loops import distinct_rows, is_compiled, list_misfits, list_owners, list_sums, node_sums, pair_sum
from inspector.records import dataclass
from inspector.scratch import long_zeros
from inspector.tables.folios import Folios
from inspector.tables.memcgs import CLASSIC, Lru, memcg_of_data
from inspector.tables.pages import Pages, StructPages

_ROUNDS = 64
"""How often what lists lead to beside folios with PG_lru is looked up: those may lead to more of their like."""

_MOST = 1 << 12
"""Pages of one kind of damage that are looked into one by one; the rest is counted."""

NEXT, PREV = 1, 2
"""Links of a node that does not fit its neighbour."""


@dataclass(frozen=True, slots=True)
class LruLists(Table):
    """One row a list that folios are on.

    Attributes:
        head: uint64; address of its list_head; 0 for a part of a list that damage cut off from it.
        lruvec: int32; row in `inspector.tables.memcgs.Lruvecs`, -1 where it could not be read.
        place: int32; which of the vector's lists (`inspector.tables.memcgs.LruShape`), -1 where that is not known.
    """

    head: U64
    lruvec: I32
    place: I32


@dataclass(frozen=True, slots=True)
class LruClasses(Table):
    """One row what flags and memcg_data of folios with PG_lru say together.

    Attributes:
        node, zone: int32.
        file, active, unevictable: bool; by PG_swapbacked, PG_active and PG_unevictable.
        gen: int32; generation in the multi-gen LRU, -1 for none.
        memcg_data: uint64; as stored.
        memcg: int32; row of the memory cgroup, -1 for none of them, -2 where it is not known.
        nr_pages: int64; pages of its folios.
    """

    node: I32
    zone: I32
    file: Mask
    active: Mask
    unevictable: Mask
    gen: I32
    memcg_data: U64
    memcg: I32
    nr_pages: I64


@dataclass(frozen=True, slots=True)
class LruMembers(Table):
    """One row a list and a class of which it has members.

    Attributes:
        list_: int32; row in `LruLists`, -1 for folios that are on none.
        class_: int32; row in `LruClasses`.
        nr: int64; folios.
    """

    list_: I32
    class_: I32
    nr: I64


@dataclass(frozen=True, slots=True)
class OddPages(Table):
    """One row a page that is wrong on a list, missing on all, or on one where it must not be.

    Attributes:
        row: int64; row in `Pages`.
        why: uint8; `DAMAGED`, `MISSING` or `UNEXPECTED`.
        following, before: uint64; its links.
        misfit: uint8; which of them do not fit: `NEXT`, `PREV`.
    """

    row: I64
    why: U8
    following: U64
    before: U64
    misfit: U8


DAMAGED, MISSING, UNEXPECTED = 1, 2, 3
"""A link that leads elsewhere; PG_lru without a list; a list without PG_lru, or with PG_unevictable."""


@dataclass(frozen=True, slots=True)
class MisplacedPages(Table):
    """One row a folio that is on another list than its class belongs to.

    Attributes:
        row: int64; row in `Pages`.
        list_, class_: int32; rows in `LruLists` and `LruClasses`.
    """

    row: I64
    list_: I32
    class_: I32


@dataclass(frozen=True)
class LruPages:
    """What was found.

    Attributes:
        lists, classes, members: Which folios are where; ``members`` is empty where all are where they must be.
        odd: Pages whose links are damaged, or that are on lists without PG_lru.
        misplaced: Members that are not where their class belongs.
        nr: Folios with PG_lru.
        nr_unknown: Of these, folios beside which something could not be read.
        odd_heads: int64[n, 2]; vectors and their lists whose heads lead to what does not lead back.
    """

    lists: LruLists
    classes: LruClasses
    members: LruMembers
    odd: OddPages
    misplaced: MisplacedPages
    nr: int
    nr_unknown: int
    odd_heads: I64


def read_lru_pages(layout: Layout, pages: Pages, folios: Folios, lru: Lru) -> LruPages | None:
    """Follow the lists of all folios with PG_lru; None where it is not known where flags hold node and zone."""
    if layout.flag_fields is None:
        return None
    sound = _Links(layout, pages, folios).sound(lru)
    if sound is not None:
        return sound
    found = _Links(layout, pages, folios)
    found.read()
    return found.judge(lru)


class _Links:
    """The links of folios, as rows."""

    def __init__(self, layout: Layout, pages: Pages, folios: Folios) -> None:
        self._layout, self._pages, self._folios = layout, pages, folios
        flags, words, fields = layout.flags, pages.words, layout.flag_fields
        assert fields is not None
        untyped = words.readable & (words.type_ == 0)
        self._has_lru = untyped & flags.test(words.flags, "lru")
        self._on_list = self._has_lru & ~flags.test(words.flags, "unevictable")
        kept = layout.zone_bits | fields.gen_mask
        self._mask = np.uint64(kept) | flags.mask("active") | flags.mask("swapbacked") | flags.mask("unevictable")
        page = layout.struct("struct page")
        self._lru = page.field("lru").offset
        self._memcg = page.find("memcg_data")
        self._first = np.uint64(layout.memmap.vmemmap + self._lru)
        n = len(pages)
        self.following, self.before, self.class_ = (long_zeros(n, np.int32) for _ in range(3))
        self._rows: list[I32] = []
        self._classes = distinct_rows(2)
        self._others: dict[int, int] = {}
        self._beside: list[I64] = []
        self.nr = self._nr_beside = 0

    def read(self) -> None:
        """Take in the folios with PG_lru, then what their links lead to beside them."""
        for row, code, on, following, before in self._pieces():
            self.class_[row] = code
            self._add(row[on], following, before)
        self._others_beside()

    def _pieces(self) -> Iterator[tuple[I64, I32, Mask, U64, U64]]:
        """Rows and classes of folios with PG_lru, some at a time; which are on lists, and the links of those."""
        size, pieces = self._layout.memmap.page_size, StructPages(self._layout)
        link, memcg = self._lru // 8, None if self._memcg is None else self._memcg.offset // 8
        for number in range(len(pieces)):
            rows = pieces.rows(number)
            here = self._pages.number[rows]
            at = np.flatnonzero(self._has_lru[here])
            at = at[~self._pages.is_tail[at + rows.start]]
            # hugetlb's own lists hang on the same member; PG_lru there is a fault of its own.
            at = at[~take_or(self._folios.is_hugetlb, self._pages.folio[at + rows.start], False)]
            if not len(at):
                continue
            words = pieces[number][2].view(np.uint64).reshape(-1, size // 8)[at]
            data = words[:, memcg] if memcg is not None else np.zeros(len(at), np.uint64)
            row = at + rows.start
            on = self._on_list[here[at]]
            yield row, self._codes(row, here[at], data), on, words[on, link], words[on, link + 1]

    def _codes(self, row: I64, number: I32, memcg: U64) -> I32:
        keys = np.stack([self._pages.words.flags[number] & self._mask, memcg], axis=1)
        large = self._pages.folio[row]
        nr = np.where(large >= 0, take_or(self._folios.nr_pages, large, 1), 1)
        self.nr += len(row)
        return self._classes.codes(np.ascontiguousarray(keys), nr)

    def _add(self, row: I64, following: U64, before: U64) -> None:
        self.following[row], self.before[row] = self._targets(following), self._targets(before)
        self._rows.append(row.astype(np.int32))

    def _targets(self, pointer: U64) -> I32:
        """What links lead to: row of a page plus 1; the number, below 0, of anything else; 0 for what is not known."""
        memmap = self._layout.memmap
        offset = (pointer - self._first).view(np.int64)
        row = memmap.rows(offset // memmap.page_size)
        inside = (row >= 0) & (offset % memmap.page_size == 0)
        out = (row + 1).astype(np.int32)
        # Nearly all lead to folios with PG_lru.
        odd = np.flatnonzero(~(inside & self._on_list[self._pages.number[row]]))
        if not len(odd):
            return out
        known = self._pages.words.readable[self._pages.number[row[odd]]]
        beside = odd[inside[odd] & known]
        if len(beside):
            self._beside.append(distinct(row[beside]))
        out[odd[inside[odd] & ~known]] = 0
        outside = np.flatnonzero(~inside)
        if len(outside):
            values, which = np.unique(pointer[outside], return_inverse=True)
            numbers = [-1 - self._others.setdefault(value, len(self._others)) for value in values.tolist()]
            out[outside] = np.array(numbers, np.int32)[which]
        return out

    def _others_beside(self) -> None:
        """Read the links of pages without PG_lru that lists lead to: it may be lost, or just be cleared."""
        done = np.empty(0, np.int64)
        for _ in range(_ROUNDS):
            wanted = np.setdiff1d(np.concatenate([*self._beside, done[:0]]), done)[:_MOST]
            self._beside = []
            if not len(wanted):
                return
            done = np.union1d(done, wanted)
            memmap = self._layout.memmap
            own = memmap.page_addrs(memmap.pfns_of_rows(wanted)) + np.uint64(self._lru)
            links = self._layout.memory.gather(own, 16).bytes.view(np.uint64).reshape(-1, 2)
            self._add(wanted, links[:, 0].copy(), links[:, 1].copy())
            self._nr_beside += len(wanted)

    # -- lists on which all is as it must be ---------------------------------------------------------------------------

    def sound(self, lru: Lru) -> LruPages | None:
        """What is found where every link is sound and every folio on a list of its class, by sums alone.

        The pairs of a node and its next one add up to what those of a node's previous one and itself do, and the nodes
        of each list, followed from its head, to those of its classes. So one link a page is kept and no more. None
        where anything differs, or is not known: then it is to be found out what.
        """
        if not is_compiled() or not lru.whole or self._pages.nr_unreadable:
            return None
        heads, links = lru.heads.ravel(), lru.links.reshape(-1, 2)
        sorted_heads = np.argsort(heads, kind="stable")
        own = -1 - np.arange(len(heads), dtype=np.int64)
        first, last = (self._ids(links[:, side], heads, sorted_heads) for side in (0, 1))
        if first is None or last is None:
            return None
        ahead, back = pair_sum(own, first), pair_sum(last, own)
        by_class, nr = np.zeros(0, np.uint64), 0
        for row, code, on, following, before in self._pieces():
            to, of = self._ids(following, heads, sorted_heads), self._ids(before, heads, sorted_heads)
            if to is None or of is None:
                return None
            node = row[on] + 1
            nr += len(node)
            ahead, back = ahead + pair_sum(node, to), back + pair_sum(of, node)
            self.following[node - 1] = to
            by_class = np.append(by_class, np.zeros(len(self._classes) - len(by_class), np.uint64))
            np.add.at(by_class, code[on], node_sums(node))
        if (ahead - back) % (1 << 64):
            return None
        classes = self._class_table(lru)
        by_list = list_sums(self.following, first, nr)
        if by_list is None or not _are_alike(lru, classes, by_class, by_list):
            return None
        odd, misplaced = OddPages.empty(), MisplacedPages.empty()
        lists = _lists(lru, heads[first > 0])
        return LruPages(lists, classes, LruMembers.empty(), odd, misplaced, self.nr, 0, np.empty((0, 2), np.int64))

    def _ids(self, pointer: U64, heads: U64, sorted_heads: I64) -> I64 | None:
        """Row plus 1 of the folio that each link leads to, or -1 - a head's number; None if any leads elsewhere."""
        memmap = self._layout.memmap
        offset = (pointer - self._first).view(np.int64)
        row = memmap.rows(offset // memmap.page_size)
        inside = (row >= 0) & (offset % memmap.page_size == 0)
        inside &= self._on_list[self._pages.number[row]]
        out = row + 1
        outside = np.flatnonzero(~inside)
        if len(outside):
            at = np.searchsorted(heads, pointer[outside], sorter=sorted_heads)
            number = sorted_heads[np.minimum(at, len(heads) - 1)] if len(heads) else at
            if not len(heads) or (heads[number] != pointer[outside]).any():
                return None
            out[outside] = -1 - number
        return out

    # -- what they add up to -----------------------------------------------------------------------------------------

    def judge(self, lru: Lru) -> LruPages:
        """Compare links with each other and with the heads, and members with the lists that they are on."""
        rows = np.concatenate([*self._rows, np.empty(0, np.int32)])
        if self._nr_beside:
            rows.sort()
        self._rows = []
        unknown = int(np.count_nonzero((self.following[rows] == 0) | (self.before[rows] == 0)))
        misfit = self._misfits(rows)
        ends = self._ends(rows)
        heads, odd_heads = self._heads(ends, misfit, lru)
        odd = self._odd(misfit, heads)
        marked = self._on_list[self._pages.number[rows]] & ~self._pages.is_tail[rows]
        lost = rows[~marked].astype(np.int64)
        # What is behind a node whose link is wrong, or leads to what is not known, may be of any list, but is of one.
        cut = np.array([row for row, bits in misfit.items() if bits & PREV], np.int64)
        cut = distinct(np.concatenate([cut, rows[self.before[rows] == 0]]))[:_MOST]
        self.before[cut] = -1 - len(self._others) - np.arange(len(cut))
        owner = self.following
        list_owners(rows, self.before, owner)
        addresses = np.array(list(self._others), np.uint64)
        number = np.full(len(addresses) + len(cut) + 1, -1, np.int32)
        number[heads + 1] = np.arange(len(heads), dtype=np.int32)
        number[len(addresses) + 1 :] = np.arange(len(heads), len(heads) + len(cut), dtype=np.int32)
        for some in spans(len(rows)):
            owner[rows[some]] = number[owner[rows[some]]]
        classes = self._class_table(lru)
        lists = LruLists.concat([_lists(lru, addresses[heads]), _parts_of_lists(len(cut))])
        members = self._members(rows[marked], owner, len(classes))
        beside = lost[np.isin(owner[lost], members.list_[members.list_ >= 0])]
        beside = beside[[row not in misfit for row in beside.tolist()]]
        rings = np.empty(0, np.int64)
        if not misfit and not unknown and (members.list_ < 0).any():
            rings = rows[marked & (owner[rows] < 0)][:_MOST].astype(np.int64)
        more = [self._odd_rows(found, why, misfit) for found, why in ((beside, UNEXPECTED), (rings, MISSING))]
        wrong = _wrong_pairs(lru, lists, classes, members)
        misplaced = self._misplaced(rows[marked], owner, members.take(wrong))
        return LruPages(lists, classes, members, OddPages.concat([odd, *more]), misplaced, self.nr, unknown, odd_heads)

    def _misfits(self, rows: I32) -> dict[int, int]:
        """Rows of nodes that do not fit their neighbours, and which of their links."""
        out: dict[int, int] = {}
        for some in spans(len(rows)):
            bits = list_misfits(rows[some], self.following, self.before)
            at = np.flatnonzero(bits)[:_MOST]
            out.update(zip(rows[some][at].tolist(), bits[at].tolist(), strict=True))
        return out

    def _ends(self, rows: I32) -> tuple[I64, I64]:
        """Rows of nodes that come last before, and first behind, what is no page."""
        found: tuple[list[I64], list[I64]] = ([], [])
        for some in spans(len(rows)):
            for link, into in ((self.following, found[0]), (self.before, found[1])):
                into.append(rows[some][link[rows[some]] < 0].astype(np.int64))
        empty = np.empty(0, np.int64)
        return np.concatenate([*found[0], empty]), np.concatenate([*found[1], empty])

    def _heads(self, ends: tuple[I64, I64], misfit: dict[int, int], lru: Lru) -> tuple[I64, I64]:
        """Which of the things that are no pages are heads of lists; nodes that lead to others do not fit.

        Where the heads are not in the dump, one is what a first and a last node lead to.

        Returns:
            Their numbers, and those whose heads do not lead back, as `LruPages.odd_heads`.
        """
        last, first = ends
        numbers = -1 - self.following[last].astype(np.int64), -1 - self.before[first].astype(np.int64)
        addresses = np.array(list(self._others), np.uint64)
        at = rows_of_unordered(lru.heads.ravel(), addresses) if lru.heads.size else np.full(len(addresses), -1)
        nr = [np.bincount(x, minlength=len(addresses)) for x in numbers]
        is_head = at >= 0
        if not lru.whole:
            ends_known = nr[0] > 0, nr[1] > 0
            is_head |= ends_known[0] & ends_known[1]
            if self._pages.nr_unreadable:
                # The other end may be a struct page that could not be read.
                is_head |= (ends_known[0] | ends_known[1]) & self._may_be_heads(addresses)
        odd: list[tuple[int, int]] = []
        links = lru.links.reshape(-1, 2)
        is_read = np.repeat(lru.lruvecs.readable, lru.shape.nr_lists)
        for which, nodes_at, bit in ((0, last, NEXT), (1, first, PREV)):
            own = self._layout.memmap.page_addrs(self._layout.memmap.pfns_of_rows(nodes_at)) + np.uint64(self._lru)
            head = at[numbers[which]]
            # What a head leads to is not known where its vector could not be read.
            head = np.where(take_or(is_read, head, False), head, -1)
            stored = take_or(links[:, 1 - which], head, 0)
            for row, number, address, known, word in zip(
                nodes_at.tolist(), numbers[which].tolist(), own.tolist(), head.tolist(), stored.tolist(), strict=True
            ):
                alone = nr[which][number] == 1
                if not is_head[number] or (not alone and known >= 0 and address != word):
                    misfit[row] = misfit.get(row, 0) | bit
                elif alone and known >= 0 and address != word:
                    odd.append(divmod(known, lru.shape.nr_lists))
        # An empty list leads to itself.
        used = np.unique(at[(at >= 0) & ((nr[0] > 0) | (nr[1] > 0))])
        own = lru.heads.ravel()
        leads = (links != own[:, None]).any(axis=1) & is_read
        leads[used] = False
        odd += [divmod(place, lru.shape.nr_lists) for place in np.flatnonzero(leads).tolist()]
        return np.flatnonzero(is_head), np.array(sorted(set(odd)), np.int64).reshape(-1, 2)

    def _may_be_heads(self, addresses: U64) -> Mask:
        """Which addresses may be those of list heads: in memory of the kernel, outside the memory map."""
        in_kernel = (addresses >= KERNEL_HALF) & (addresses % np.uint64(8) == 0)
        return in_kernel & (self._layout.memmap.pfns(addresses) < 0)

    def _odd(self, misfit: dict[int, int], heads: I64) -> OddPages:
        """Of nodes that do not fit together those that are at fault.

        A link is wrong that leads to no node, or to one that fits another. A node that both links are wrong of, and
        that no node leads to, is on no list.
        """
        is_head = set((-1 - heads).tolist())
        links = {row: (int(self.following[row]), int(self.before[row])) for row in misfit}
        marked = self._on_list[self._pages.number[np.array(list(misfit), np.int64)]].tolist()
        led_to = {
            target - 1
            for row, pair in links.items()
            for target, bit in zip(pair, (NEXT, PREV), strict=True)
            if target > 0 and misfit[row] & bit and row in links
        }
        found: list[tuple[int, int]] = []
        for (row, bits), is_marked in zip(misfit.items(), marked, strict=True):
            if not is_marked:
                continue
            if bits == NEXT | PREV and row not in led_to:
                found.append((row, MISSING))
                continue
            for target, bit, back in zip(links[row], (NEXT, PREV), (PREV, NEXT), strict=True):
                if not bits & bit:
                    continue
                other = misfit.get(target - 1, 0) if target > 0 else 0
                plausible = bool(other & back) and target - 1 != row if target > 0 else target in is_head
                if not plausible or (bits == NEXT | PREV and other != NEXT | PREV):
                    found.append((row, DAMAGED))
                    break
        if not found and any(marked):
            # Each of two is as likely at fault.
            found = [(row, DAMAGED) for (row, _), is_marked in zip(misfit.items(), marked, strict=True) if is_marked][
                :1
            ]
        parts = [OddPages.empty()]
        for why in (DAMAGED, MISSING):
            rows = np.array([row for row, each in found if each == why], np.int64)[:_MOST]
            parts.append(self._odd_rows(rows, why, misfit))
        return OddPages.concat(parts)

    def _odd_rows(self, rows: I64, why: int, misfit: dict[int, int]) -> OddPages:
        memmap = self._layout.memmap
        own = memmap.page_addrs(memmap.pfns_of_rows(rows)) + np.uint64(self._lru)
        links = self._layout.memory.gather(own, 16).bytes.view(np.uint64).reshape(-1, 2)
        bits = np.array([misfit.get(row, 0) for row in rows.tolist()], np.uint8)
        return OddPages(rows, np.full(len(rows), why, np.uint8), links[:, 0].copy(), links[:, 1].copy(), bits)

    def _class_table(self, lru: Lru) -> LruClasses:
        fields, flags = self._layout.flag_fields, self._layout.flags
        assert fields is not None
        word, data = self._classes.values.T.copy()
        memcg, known = memcg_of_data(self._layout, lru.memcgs, data)
        memcg = np.where(known & lru.whole, memcg, -2) if lru.has_memcgs else memcg
        return LruClasses(
            node=fields.nodes(word).astype(np.int32),
            zone=fields.zones(word).astype(np.int32),
            file=~flags.test(word, "swapbacked"),
            active=flags.test(word, "active"),
            unevictable=flags.test(word, "unevictable"),
            gen=fields.gens(word).astype(np.int32),
            memcg_data=data,
            memcg=memcg.astype(np.int32),
            nr_pages=self._classes.weights,
        )

    def _members(self, rows: I32, owner: I32, nr_classes: int) -> LruMembers:
        """Members by list and class."""
        keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for some in spans(len(rows)):
            key = (owner[rows[some]].astype(np.int64) + 1) * nr_classes + self.class_[rows[some]]
            values, nr = np.unique(key, return_counts=True)
            joined, which = np.unique(np.concatenate([keys, values]), return_inverse=True)
            counts = np.bincount(which, np.concatenate([counts, nr]), len(joined)).astype(np.int64)
            keys = joined
        nr_classes = max(nr_classes, 1)
        return LruMembers((keys // nr_classes - 1).astype(np.int32), (keys % nr_classes).astype(np.int32), counts)

    def _misplaced(self, rows: I32, owner: I32, wrong: LruMembers) -> MisplacedPages:
        """The folios of pairs of list and class that do not belong together."""
        parts, found = [MisplacedPages.empty()], 0
        for some in spans(len(rows)) if len(wrong) else ():
            row = rows[some]
            for list_, class_ in zip(wrong.list_.tolist(), wrong.class_.tolist(), strict=True):
                at = row[(owner[row] == list_) & (self.class_[row] == class_)][: _MOST - found].astype(np.int64)
                found += len(at)
                same = (np.full(len(at), value, np.int32) for value in (list_, class_))
                parts.append(MisplacedPages(at, *same))
        return MisplacedPages.concat(parts)


def _are_alike(lru: Lru, classes: LruClasses, by_class: U64, by_list: U64) -> bool:
    """Whether the nodes of lists and those of the classes that belong on them add up to the same."""
    on_lists: dict[tuple[int, int], int] = {}
    place = _generations_alike(lru, np.arange(lru.shape.nr_lists))
    for number in np.flatnonzero(by_list).tolist():
        key = number // lru.shape.nr_lists, int(place[number % lru.shape.nr_lists])
        on_lists[key] = (on_lists.get(key, 0) + int(by_list[number])) % (1 << 64)
    young, belongs = classes.gen >= 0, _generations_alike(lru, _place_of(lru, classes))
    vector = lru.vector_rows(classes.memcg, classes.node)
    for number in np.flatnonzero(by_class).tolist():
        row = int(vector[number])
        if row < 0 or classes.unevictable[number] or (young[number] and classes.active[number]):
            return False
        key = row, int(belongs[number])
        on_lists[key] = (on_lists.get(key, 0) - int(by_class[number])) % (1 << 64)
    return not any(on_lists.values())


def _place_of(lru: Lru, of: LruClasses) -> I64:
    """Which of a vector's lists each class belongs on."""
    young = CLASSIC + (np.maximum(of.gen, 0) * 2 + of.file) * lru.shape.zones + of.zone
    return np.where(of.gen >= 0, young, 2 * of.file.astype(np.int64) + of.active).astype(np.int64)


def _generations_alike(lru: Lru, place: I64) -> I64:
    """The same number for the lists of all generations of a type and zone."""
    return np.where(place >= CLASSIC, (place - CLASSIC) % max(2 * lru.shape.zones, 1) + CLASSIC, place)


def _lists(lru: Lru, heads: U64) -> LruLists:
    at = rows_of_unordered(lru.heads.ravel(), heads) if lru.heads.size else np.full(len(heads), -1, np.int32)
    nr = max(lru.shape.nr_lists, 1)
    known = at >= 0
    return LruLists(
        heads,
        np.where(known, at // nr, -1).astype(np.int32),
        np.where(known, at % nr, -1).astype(np.int32),
    )


def _parts_of_lists(nr: int) -> LruLists:
    """Parts that damage cut off from the heads of their lists."""
    none = np.full(nr, -1, np.int32)
    return LruLists(np.zeros(nr, np.uint64), none, none)


def _wrong_pairs(lru: Lru, lists: LruLists, classes: LruClasses, members: LruMembers) -> I64:
    """Rows of members whose class does not belong on their list.

    On the list of a generation are folios of all generations: flags are changed when a page is found to be accessed,
    lists when reclaim comes by (mm/vmscan.c, folio_update_gen() and sort_folio()). Where a list's head could
    not be read it is that of most of its members.
    """
    of, on = classes.take(members.class_.astype(np.int64)), members.list_
    young = of.gen >= 0
    lruvec = take_or(lists.lruvec, on, -1)
    stored = take_or(lists.place, on, -1)
    known = lruvec >= 0
    apart, there = _generations_alike(lru, _place_of(lru, of)), _generations_alike(lru, stored.astype(np.int64))
    right = (apart == there) & (young == (stored >= CLASSIC)) & ~(young & of.active) & ~of.unevictable
    right &= take_or(lru.lruvecs.node, lruvec, -1) == of.node
    right &= (take_or(lru.lruvecs.memcg, lruvec, -1) == of.memcg) | (of.memcg == -2)
    # Of the others: what most of them have. Several obj_cgroups may lead to one cgroup.
    charge = np.zeros(len(on), np.int64) if lru.is_by_objcg else of.memcg_data.view(np.int64)
    alike = np.stack([apart, young, of.node, charge], axis=1).astype(np.int64)
    for list_ in distinct(on[(on >= 0) & ~known]).tolist():
        here = np.flatnonzero(on == list_)
        kinds, which = np.unique(alike[here], axis=0, return_inverse=True)
        most = np.argmax(np.bincount(which.ravel(), members.nr[here], len(kinds)))
        right[here] = (which.ravel() == most) & ~(of.unevictable | (young & of.active))[here]
    return np.flatnonzero(~right & (on >= 0))
