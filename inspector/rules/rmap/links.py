"""What rules gather from links: entries beside their VMAs and the folios that they map, seen a batch at a time."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from inspector.columns import I32, I64, U64, Mask, count_up, flipped_bit
from inspector.layout.flags import MAPPING_TAGS
from inspector.walk.batches import Collector, EntryBatch, run_collectors
from inspector.walk.linear import Links
from inspector.workers import InOrder

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_PENDING = 1 << 18
"""Pairs that may wait until they are merged."""


def anon_links(batch: EntryBatch) -> Mask:
    """Which kinds of links of a batch are of anonymous folios."""
    return batch.link_kinds.examples.is_anon & ~batch.view(mistagged_links)


def mistagged_links(batch: EntryBatch) -> Mask:
    """Which kinds of links of a batch map folios that are the VMA's own file's but for a tag of anonymous ones."""
    links = batch.link_kinds.examples
    own = batch.s.mapping_of_vma[links.vma_idx]
    return links.is_anon & (own != 0) & (anon_vma_named(links) == own)


def own_file_links(batch: EntryBatch) -> Mask:
    """Which kinds of links of a batch map folios of the VMA's own file."""
    links = batch.link_kinds.examples
    out = links.is_file
    rows = np.flatnonzero(out)
    own = batch.s.mapping_of_vma[links.vma_idx[rows]]
    out[rows] = (links.mapping[rows] != 0) & (links.mapping[rows] == own)
    return out


class LinkCheck(Collector):
    """Keeps the links that break a rule.

    Args:
        s: The snapshot.

    Attributes:
        checked: How many were compared.
    """

    gathers: ClassVar[tuple[str, ...]] = ("_found", "checked")
    looks_in = ("page_index",)

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self._found: InOrder[Links] = InOrder()
        self.checked = 0

    @abstractmethod
    def judge(self, batch: EntryBatch) -> tuple[Mask, Mask]:
        """Which kinds of the batch's links (`EntryBatch.link_kinds`) break the rule, and which were compared."""

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        wrong, among = self.judge(batch)
        self.checked += int(batch.link_kinds.nr[among].sum())
        wrong &= among
        if wrong.any():
            self._found.add(batch.number, self.chosen(batch.link_kinds.links(wrong)))

    def chosen(self, links: Links) -> Links:
        """Of the links of kinds that may break the rule, those that do: all, where the kind decides."""
        return links

    @property
    def found(self) -> Links:
        """The links that break the rule."""
        return Links.concat([Links.empty(), *self._found])


class IndexCheck(LinkCheck):
    """Links whose index differs from the page offset that they are mapped at.

    Attributes:
        nr: int32[vmas]; links of each VMA that were compared.
        straight: bool[vmas]; VMAs with a link that does not differ.
    """

    gathers = (*LinkCheck.gathers, "nr", "straight")

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self.nr = np.zeros(len(s.vmas), np.int32)
        self.straight = np.zeros(len(s.vmas), np.bool_)

    @abstractmethod
    def among(self, batch: EntryBatch) -> Mask:
        """Which links are compared."""

    def judge(self, batch: EntryBatch) -> tuple[Mask, Mask]:
        """As `LinkCheck.judge`."""
        among, kinds = self.among(batch), batch.link_kinds
        links = kinds.examples
        off = links.delta != 0
        np.add.at(self.nr, links.vma_idx[among], kinds.nr[among].astype(np.int32))
        self.straight[links.vma_idx[among & ~off]] = True
        return off, among


class AnonIndexCheck(IndexCheck):
    """Those of anonymous folios."""

    def among(self, batch: EntryBatch) -> Mask:
        """As `IndexCheck.among`."""
        return batch.view(anon_links)


class FileIndexCheck(IndexCheck):
    """Those of folios of the VMA's own file."""

    def among(self, batch: EntryBatch) -> Mask:
        """As `IndexCheck.among`."""
        return batch.view(own_file_links)


def anon_vma_named(links: Links) -> U64:
    """Address of the anon_vma that each link's folio names."""
    return links.mapping & ~np.uint64(MAPPING_TAGS)


def near_in_chain(s: Snapshot, links: Links) -> tuple[U64, I64]:
    """What each link's folio may have named before a bit was flipped.

    Returns:
        uint64[links], int64[links]; the anon_vma in the chain of the link's VMA that differs in one bit from what the
        folio names, and that bit; the VMA's own anon_vma, and -1, where none does.
    """
    named, avcs = anon_vma_named(links), s.anon_rmap.avcs
    listed = np.flatnonzero(avcs.list_vma_idx >= 0)
    listed = listed[np.argsort(avcs.list_vma_idx[listed], kind="stable")]
    first, stop = np.searchsorted(avcs.list_vma_idx[listed], np.stack([links.vma_idx, links.vma_idx + 1]))
    link = np.repeat(np.arange(len(links)), stop - first)
    chained = avcs.anon_vma[listed[first[link] + count_up(stop - first)]]
    bit = flipped_bit(named[link], chained)
    hit = np.flatnonzero(bit >= 0)
    near, bits = s.vmas.anon_vma[links.vma_idx].copy(), np.full(len(links), -1, np.int64)
    near[link[hit]], bits[link[hit]] = chained[hit], bit[hit]
    return near, bits


class AnonVmaPairs(Collector):
    """Every distinct pair of an anon_vma's address, as folios name it, and the row of a VMA that maps such folios."""

    looks_in = ("page_index",)

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self._merged = np.empty(0, np.uint64), np.empty(0, np.int32)
        self._pending: list[tuple[U64, I32]] = []
        self._nr = 0

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        rows = np.flatnonzero(batch.view(anon_links))
        links = batch.link_kinds.examples
        pointer, vma = anon_vma_named(links)[rows], links.vma_idx[rows]
        if not len(rows):
            return
        # Neighbouring links mostly repeat the pair: few are left to sort.
        fresh = np.ones(len(rows), np.bool_)
        fresh[1:] = (pointer[1:] != pointer[:-1]) | (vma[1:] != vma[:-1])
        self._pending.append((pointer[fresh], vma[fresh]))
        self._nr += len(self._pending[-1][0])
        if self._nr > max(_PENDING, len(self._merged[0])):
            self._merge()

    def _merge(self) -> None:
        pointer, vma = (np.concatenate([part[i] for part in (self._merged, *self._pending)]) for i in (0, 1))
        order = np.lexsort((vma, pointer))
        pointer, vma = pointer[order], vma[order]
        fresh = np.ones(len(order), np.bool_)
        fresh[1:] = (pointer[1:] != pointer[:-1]) | (vma[1:] != vma[:-1])
        self._merged, self._pending, self._nr = (pointer[fresh], vma[fresh]), [], 0

    def gathered(self) -> list[Any]:
        """As `Collector.gathered`."""
        return [self.pairs()]

    def merge(self, gathered: list[Any]) -> None:
        """As `Collector.merge`."""
        self._pending += gathered

    def pairs(self) -> tuple[U64, I32]:
        """The pairs, ascending: ``(address, row of the VMA)``."""
        self._merge()
        return self._merged


class _LinksOfPairs(LinkCheck):
    """The links of some pairs.

    Args:
        s: The snapshot.
        pointer, vma: As `AnonVmaPairs.pairs` gives them.
    """

    def __init__(self, s: Snapshot, pointer: U64, vma: I32) -> None:
        super().__init__(s)
        self._vma = np.unique(vma)
        self._wanted = set(zip(pointer.tolist(), vma.tolist(), strict=True))

    def judge(self, batch: EntryBatch) -> tuple[Mask, Mask]:
        """As `LinkCheck.judge`."""
        links = batch.link_kinds.examples
        among = links.is_anon & np.isin(links.vma_idx, self._vma)
        rows = np.flatnonzero(among)
        wrong = np.zeros(len(links), np.bool_)
        here = zip(anon_vma_named(links)[rows].tolist(), links.vma_idx[rows].tolist(), strict=True)
        wrong[rows] = np.array([pair in self._wanted for pair in here], np.bool_)
        return wrong, among


def links_of_pairs(s: Snapshot, pointer: U64, vma: I32) -> Links:
    """The links that some pairs were taken from, looked for in the page tables of those VMAs."""
    found = _LinksOfPairs(s, pointer, vma)
    run_collectors(s, [found], s.tables_over(vma.astype(np.int64)))
    return found.found
