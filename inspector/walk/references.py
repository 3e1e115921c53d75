"""References of folios: how many a folio must have, what was found to hold them, and what is left unexplained.

`expected_references` is folio_expected_ref_count(): what no folio can do without. `break_down` adds every other holder
that can be found. A shared page of libc, ``_refcount`` 7:

    page-table entries  4    four PTEs map it                           expected
    page cache          1    one index of the file's xarray             expected
    per-CPU batches     1    in lru_add of CPU 1, not yet on its list   found
    not explained       1    7 - 6; `inspector.folio.suspects` says who may hold it

``_refcount`` below 5 is a fault (rule refcount-low); between 5 and 6 a batch was counted that is being emptied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from inspector.columns import I32, I64, Mask, rows_of, rows_where
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, type_code
from inspector.records import dataclass
from inspector.tables.node_stats import node_stats
from inspector.walk.page_cache import on_lru

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

PIN_BIAS = 1024
"""GUP_PIN_COUNTING_BIAS, include/linux/mm.h: what one pin adds to the references of a small folio."""

Basis = Literal["found", "stored", "inferred"]
"""How a holder is known: found; stored in the folio itself; inferred."""

TERMS: tuple[tuple[str, Basis, str], ...] = (
    ("pte", "found", "page-table entries"),
    ("huge", "found", "huge page-table entries"),
    ("page_cache", "found", "page cache"),
    ("swap_cache", "stored", "swap cache"),
    ("private", "stored", "private data of the file system"),
    ("batch", "found", "per-CPU batches"),
    ("pipe", "found", "pipe buffers"),
    ("gather", "found", "unmapped, waiting for a TLB flush"),
    ("pins", "stored", "pins"),
    ("owner", "inferred", "its allocator"),
    ("isolated", "inferred", "isolated from the LRU"),
)
"""Name, basis and meaning of each term, in the order in which they are listed."""

EXPECTED = ("pte", "huge", "page_cache", "swap_cache", "private")
"""The terms of `TERMS` that folio_expected_ref_count() sums up: a folio has at least so many references."""


@dataclass(frozen=True)
class ExpectedReferences:
    """References that folios must have.

    Attributes:
        rows: int64[n]; rows of the heads in `Pages`.
        terms: By name of `EXPECTED`, int64[n].
    """

    rows: I64
    terms: dict[str, I64]

    @property
    def mappings(self) -> I64:
        """int64[n]; one for each entry that maps the folio."""
        return self.terms["pte"] + self.terms["huge"]

    @property
    def cache(self) -> I64:
        """int64[n]; those of the page cache or the swap cache."""
        return self.terms["page_cache"] + self.terms["swap_cache"]

    @property
    def private(self) -> I64:
        """int64[n]; one for private data."""
        return self.terms["private"]

    @property
    def total(self) -> I64:
        """int64[n]; the lower bound of ``_refcount`` (but while it is frozen at 0)."""
        return self.mappings + self.cache + self.private


@dataclass(frozen=True)
class ReferenceTerms:
    """References of folios broken down.

    Attributes:
        rows: int64[n]; rows of the heads in `Pages`, ascending.
        refcount: int32[n]; as stored.
        expected: What they must have.
        terms: By name of `TERMS`, int32[n]; references each thing holds.
    """

    rows: I64
    refcount: I32
    expected: ExpectedReferences
    terms: dict[str, I32]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def explained(self) -> I64:
        """int64[n]; the sum of all terms."""
        out = np.zeros(len(self.rows), np.int64)
        for column in self.terms.values():
            out += column
        return out

    @property
    def remainder(self) -> I64:
        """int64[n]; references that nothing explains; negative where more holders were found than references."""
        return self.refcount.astype(np.int64) - self.explained


def user_folios(s: Snapshot) -> I64:
    """Rows of the heads of all referenced folios that user memory or the page cache knows of.

    Mapped, anonymous, of a file, or on an LRU list; hugetlb, but no other typed page. What the kernel allocated for
    itself alone is no folio in this sense.
    """
    pages, words = s.pages, s.pages.words
    able = words.readable & (words.refcount > 0) & ((words.type_ == 0) | (words.type_ == type_code("hugetlb")))
    known = able & ((words.mapping != 0) | s.layout.flags.test(words.flags, "lru"))
    mapped = s.folios.row[s.folio_totals > 0]
    found = rows_where(
        len(pages), lambda at: known[pages.number[at]] | ((s.counts.page_mappings[at] > 0) & able[pages.number[at]])
    )
    rows = np.union1d(found, mapped[able[pages.number[mapped]]])
    return rows[~pages.is_tail[rows]]


def expected_references(s: Snapshot, rows: I64) -> ExpectedReferences:
    """What folio_expected_ref_count() (include/linux/mm.h of 6.15 and later) gives for folios.

    One for each mapping, one for each page in the page cache or the swap cache, one for private data: mm/rmap.c and
    mm/memory.c; mm/filemap.c, __filemap_add_folio(); mm/swap_state.c, add_to_swap_cache(); folio_attach_private().

    Args:
        s: The snapshot.
        rows: int64[n]; rows of heads and of small pages, each once.
    """
    pages, flags = s.pages, s.layout.flags
    word = pages.flags[rows]
    huge = _of_folio(s, rows, s.counts.entire.astype(np.int64), 0)
    mapped = _of_folio(s, rows, s.folio_totals, s.counts.page_mappings[rows].astype(np.int64))
    nr = _nr_pages(s, rows)
    cache = _cached(s, rows, nr)
    swap = np.where(_in_swap_cache(s, rows), nr, 0)
    private = (flags.test(word, "private") & _names_file(s, rows) & (cache > 0)).astype(np.int64)
    columns = (mapped - huge, huge, cache, swap, private)
    return ExpectedReferences(rows, dict(zip(EXPECTED, columns, strict=True)))


def nothing_expected(rows: I64) -> ExpectedReferences:
    """For folios of which only stored values are wanted."""
    return ExpectedReferences(rows, {name: np.zeros(len(rows), np.int64) for name in EXPECTED})


def spare_references(s: Snapshot, row: int) -> int | None:
    """References of a page's folio beyond those that it must have; None where that is not known.

    Args:
        s: The snapshot.
        row: Row of any page of the folio.
    """
    head = int(s.pages.head_row[row])
    if head < 0 or s.may_be_mapped_unseen(np.array([head], np.int64))[0]:
        return None
    return int(s.pages.refcount[head]) - int(expected_references(s, np.array([head], np.int64)).total[0])


def break_down(s: Snapshot, rows: I64) -> ReferenceTerms:
    """Find what holds the references of the folios headed by ``rows``.

    Beyond what is expected: LRU batches hold one each (mm/swap.c, folio_add_lru(); mm/mlock.c), and so do pipe buffers
    (fs/splice.c) and unmapped pages until their TLB flush (mm/mmu_gather.c). A pin adds 1 and is counted in
    ``_pincount``, or adds 1024 to a small folio (mm/gup.c, try_grab_folio()); more pins than the kernel counts in all
    are none: references are then left over.

    One reference of what is left is ascribed to the allocator of a page that is neither cached nor anonymous, or to the
    task that isolated a folio from its LRU list. Such holders cannot be found, so they come last.

    A snapshot that does not know pipes or gathers finds none there (`inspector.folio.holders.not_sought`).

    Args:
        s: The snapshot.
        rows: int64[n]; rows of heads and of small pages, each once.
    """
    pages, folios = s.pages, s.folios
    expected = expected_references(s, rows)
    cache = expected.terms["page_cache"]
    batch = _places(s, rows, s.batches.pfn)
    none = np.zeros(len(rows), np.int64)
    pipe = _places(s, rows, s.pipes.pfn) if s.knows("pipes") else none
    gather = _places(s, rows, np.repeat(s.gathered.pfn, s.gathered.nr)) if s.knows("gathers") else none
    stored = pages.refcount[rows]
    rest = stored - (expected.total + batch + pipe + gather)
    small = np.maximum(rest, 0) // PIN_BIAS
    if small.any():
        small = np.minimum(small, _most_pins(s))
    pins = _of_folio(s, rows, folios.pincount.astype(np.int64), small * PIN_BIAS)
    rest = rest - pins
    owner = np.minimum(np.maximum(rest, 0), 1) * _is_owned(s, rows, cache)
    isolated = np.minimum(np.maximum(rest - owner, 0), 1) * (_is_off_lru(s, rows) & (batch == 0) & (owner == 0))
    columns = (*expected.terms.values(), batch, pipe, gather, pins, owner, isolated)
    terms = {term[0]: column.astype(np.int32) for term, column in zip(TERMS, columns, strict=True)}
    return ReferenceTerms(rows, stored, expected, terms)


def _most_pins(s: Snapshot) -> int:
    """How many pins one folio can have: as many as the kernel counts in all; no bound where it keeps no count.

    mm/gup.c counts NR_FOLL_PIN_ACQUIRED and NR_FOLL_PIN_RELEASED, one a pin of a page.
    """
    stats = node_stats(s.layout)
    if "NR_FOLL_PIN_ACQUIRED" not in stats:
        return 1 << 31
    return max(stats["NR_FOLL_PIN_ACQUIRED"] - stats["NR_FOLL_PIN_RELEASED"], 0)


def _of_folio(s: Snapshot, rows: I64, column: I64, small: I64 | int) -> I64:
    """A column of `Folios` for the folios with these heads; ``small`` for those of one page."""
    folio = s.folio_of_page[rows]
    if not len(s.folios):
        return np.full(len(rows), small, np.int64)
    return np.where(folio >= 0, column[np.maximum(folio, 0)], small).astype(np.int64)


def _nr_pages(s: Snapshot, rows: I64) -> I64:
    return _of_folio(s, rows, np.where(s.folios.readable, s.folios.nr_pages, 1), 1)


def _is_hugetlb(s: Snapshot, rows: I64) -> Mask:
    return _of_folio(s, rows, s.folios.is_hugetlb.astype(np.int64), 0) > 0


def _names_file(s: Snapshot, rows: I64) -> Mask:
    """Whether ``mapping`` points to an address_space."""
    mapping = s.pages.mapping[rows]
    return (mapping != 0) & ((mapping & np.uint64(MAPPING_TAGS)) == 0)


def _places(s: Snapshot, rows: I64, pfn: I64) -> I64:
    """How many of the places, given by page frame, belong to each folio."""
    pages = s.pages
    page = pages.memmap.rows(pfn[pfn >= 0])
    head = pages.head_row[page[page >= 0]].astype(np.int64)
    return _count(rows, head)


def _count(rows: I64, heads: I64) -> I64:
    """How often each of ``rows`` is in ``heads``."""
    ordered = np.sort(heads)
    return (np.searchsorted(ordered, rows, "right") - np.searchsorted(ordered, rows, "left")).astype(np.int64)


def _cached(s: Snapshot, rows: I64, nr: I64) -> I64:
    """References of the page cache.

    A folio of a file that is on an LRU list is in its page cache, and has one reference a page for that. Others name an
    address_space that they may not be in (drivers set ``mapping`` too): for them only entries that were found count,
    one reference for each index. hugetlb folios, which are on no LRU list, take one index up to 6.6 and one a base page
    from 6.7 on (mm/filemap.c, __filemap_add_folio() lost its special case of hugetlb, and with it its count of 1).
    """
    pages, file, hugetlb = s.pages, _names_file(s, rows), _is_hugetlb(s, rows)
    by_lru = file & ~hugetlb & on_lru(s, rows)
    by_tree = file & ~by_lru & ((pages.type_[rows] == 0) | hugetlb)
    if not by_tree.any():
        return np.where(by_lru, nr, 0)
    return np.where(by_lru, nr, np.where(by_tree, _indices(s, rows), 0))


def _indices(s: Snapshot, rows: I64) -> I64:
    """How many indices each folio takes in the page cache, by the entries found there that it agrees with."""
    heads, which = np.unique(rows, return_inverse=True)
    cached, found = s.page_cache.off_lru, np.zeros(len(heads), np.int64)
    at = rows_of(heads, cached.head_row)
    np.add.at(found, at[at >= 0], cached.span[at >= 0])
    return found[which]


def _in_swap_cache(s: Snapshot, rows: I64) -> Mask:
    """folio_test_swapcache(): the flag means that only together with PG_swapbacked; hugetlb never is there."""
    pages, flags = s.pages, s.layout.flags
    word, mapping = pages.flags[rows], pages.mapping[rows]
    anon = ((mapping & np.uint64(MAPPING_TAGS)) == 1) | (mapping == 0) | pages.is_ksm(rows)
    known = flags.test(word, "lru") | flags.test(word, "locked") | (mapping != 0)
    return flags.test(word, "swapcache") & flags.test(word, "swapbacked") & anon & known & (pages.type_[rows] == 0)


def _is_owned(s: Snapshot, rows: I64, cache: I64) -> Mask:
    """Pages that their allocator keeps a reference of: neither anonymous, cached, hugetlb nor on the LRU.

    Drivers' buffers, the vDSO, rings of io_uring, perf and packet sockets: vm_insert_page() takes a reference for
    each mapping, the one of alloc_pages() stays. Typed pages, and those of movable drivers, are owned likewise.
    """
    pages, flags = s.pages, s.layout.flags
    mapping = pages.mapping[rows]
    tag = mapping & np.uint64(MAPPING_TAGS)
    plain = (mapping == 0) | (tag == MAPPING_MOVABLE) | (tag == 0)
    hugetlb = _is_hugetlb(s, rows)
    typed = (pages.type_[rows] != 0) & ~hugetlb
    idle = plain & (cache == 0) & ~flags.test(pages.flags[rows], "lru") & ~flags.test(pages.flags[rows], "swapbacked")
    return typed | (idle & ~hugetlb)


def _is_off_lru(s: Snapshot, rows: I64) -> Mask:
    """Folios of users that are on no LRU list, which were taken off it by a holder of a reference.

    folio_isolate_lru() (mm/vmscan.c): reclaim, migration, compaction, collapse and madvise do so.
    """
    pages, flags = s.pages, s.layout.flags
    user = (pages.mapping[rows] != 0) & (pages.type_[rows] == 0)
    return user & ~flags.test(pages.flags[rows], "lru")
