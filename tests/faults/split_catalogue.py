"""Faults of split queues: their links, who is on one, and the flag of partially mapped folios."""

from __future__ import annotations

import numpy as np

from inspector.columns import rows_of
from inspector.snapshot import Snapshot
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, page_word, pfn_of, put, word
from tests.faults.plants import MissingError, Planted, folios, pick, small_anon

DAMAGED = ("split-queue-list-damaged",)


def _node(s: Snapshot, folio: int) -> int:
    """Address of the list node of a folio."""
    links = s.split_links
    return int(links.node[np.flatnonzero(links.folio == folio)[0]])


def _neighbours(s: Snapshot) -> tuple[int, int]:
    """Two folios of a queue of which the second follows the first."""
    links = s.split_links
    queued = np.flatnonzero(links.queued)
    at = rows_of(links.node, links.following[queued])
    first = pick(queued[at >= 0], "a queue of two")
    second = int(rows_of(links.node, links.following[first : first + 1])[0])
    return int(links.folio[first]), int(links.folio[second])


def _link(s: Snapshot, one: int, other: int) -> tuple[Patch, Patch]:
    """One folio's node leads to another's, and back."""
    return put(s, _node(s, one), _node(s, other)), put(s, _node(s, other) + 8, _node(s, one))


@fault
def split_queue_leads_to_poison(s: Snapshot) -> Planted:
    """The folio was taken off with list_del() and its neighbours were not told."""
    first, _ = _neighbours(s)
    return Planted((put(s, _node(s, first), 0xDEAD_0000_0000_0100),), DAMAGED, int(s.folios.pfn[first]))


@fault
def split_queue_leads_to_a_small_page(s: Snapshot) -> Planted:
    """A folio was freed while it was queued, and its pages are used for something else (CVE-2024-42234)."""
    first, _ = _neighbours(s)
    other = page_word(s, pfn_of(s, pick(small_anon(s, 1), "a small page")), "lru")
    return Planted((put(s, _node(s, first), other),), DAMAGED, int(s.folios.pfn[first]))


@fault
def bit_of_a_split_queue_flipped(s: Snapshot) -> Planted:
    _, second = _neighbours(s)
    address = _node(s, second) + 8
    return Planted((put(s, address, word(s, address) ^ 1 << 17),), DAMAGED, int(s.folios.pfn[second]))


@fault
def queued_folio_that_only_its_neighbours_know(s: Snapshot) -> Planted:
    """Its node was made anew instead of being taken off."""
    links = s.split_links
    inside = links.queued & (rows_of(links.node, links.following) >= 0) & (rows_of(links.node, links.before) >= 0)
    folio = int(links.folio[pick(np.flatnonzero(inside), "a queue of three")])
    node = _node(s, folio)
    return Planted((put(s, node, node), put(s, node + 8, node)), DAMAGED, int(s.folios.pfn[folio]))


@fault
def file_folio_on_a_split_queue(s: Snapshot) -> Planted:
    first, second = _neighbours(s)
    links = s.split_links
    other = pick(links.folio[~links.queued & ~s.folios.is_anon[links.folio]], "a large folio of a file")
    patches = (*_link(s, first, other), *_link(s, other, second))
    return Planted(patches, ("split-queue-folio-unexpected",), int(s.folios.pfn[other]))


@fault
def partially_mapped_folio_off_the_queue(s: Snapshot) -> Planted:
    """Migration did not queue the new folio (mm/migrate.c, fixed in 6.12.86)."""
    if not s.layout.flags.mask("partially_mapped"):
        raise MissingError("PG_partially_mapped")
    links = s.split_links
    mapped = folios(s, s.folios.is_anon & (s.folio_totals > 0))
    folio = pick(np.intersect1d(mapped, links.folio[~links.queued]), "a THP on no queue")
    address = page_word(s, int(s.folios.pfn[folio]) + 1, "flags.f", "flags")
    value = word(s, address) | int(s.layout.flags.mask("partially_mapped"))
    return Planted((put(s, address, value),), ("partially-mapped-flag-unexpected",), int(s.folios.pfn[folio]))
