"""Rules of split queues: who is on one, and the links."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.needs import PAGES
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.violations import Unread, Violations, cannot_check, violations
from inspector.windows.window import Effect


def _unread(s: Snapshot) -> Unread:
    return cannot_check(int((~s.split_links.readable).sum()), "struct pages are missing")


def _nr_read(s: Snapshot) -> int:
    return int(s.split_links.readable.sum())


@rule(
    "split-queue-list-damaged",
    FOLIO,
    "split-queue",
    Phase.STRUCTURES,
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10",
)
def split_queue_list_damaged(s: Snapshot) -> Violations:
    """The links of a split queue do not fit together at a folio.

    Invariant: the folio that _deferred_list.next of a queued folio leads to has it as prev, and the one that prev leads
        to has it as next; each queue comes back to one head, which is outside of the memory map. Where two neighbours
        do not fit together the one is named that fits neither neighbour.
    Why: mm/huge_memory.c, deferred_split_folio() and folio_unqueue_deferred_split(); list_lru since 7.1.
    Consequence: the shrinker follows the list into memory that holds something else, or never splits what is behind.
    Exceptions: none of a kernel at rest; a task is at work on the queues.
    See also: folioscope folio PFN
    """
    links = s.split_links
    rows = np.flatnonzero(links.damaged)
    return violations(
        links.folio[rows],
        observed={
            "next": links.following[rows],
            "prev": links.before[rows],
            "next_points_back": links.points_back[rows],
            "prev_points_here": links.pointed_to[rows],
        },
        expected={"next_points_back": True, "prev_points_here": True},
        facts={"queue": links.queue[rows]},
        checked=_nr_read(s),
        unread=_unread(s),
    )


@rule(
    "split-queue-folio-unexpected",
    FOLIO,
    "split-queue",
    Phase.STRUCTURES,
    after=("split-queue-list-damaged",),
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10 111",
)
def split_queue_folio_unexpected(s: Snapshot) -> Violations:
    """A folio that is not anonymous is on a split queue.

    Invariant: queued are large anonymous folios alone. Folios of files and of hugetlb are never put there.
    Why: mm/rmap.c, __folio_remove_rmap() and its kin queue anonymous folios alone; mm/huge_memory.c,
        folio_unqueue_deferred_split() before a folio is freed.
    Consequence: the shrinker splits a folio that something else counts on.
    Exceptions: none of a kernel at rest; a task is at work on the queues.
    See also: folioscope folio PFN
    """
    links = s.split_links
    rows = np.flatnonzero(links.queued & ~links.damaged & ~s.folios.is_anon[links.folio])
    return violations(
        links.folio[rows],
        observed={"queued": True, "anonymous": False},
        expected={"queued": False},
        checked=_nr_read(s),
        unread=_unread(s),
    )


@rule(
    "partially-mapped-flag-unexpected",
    FOLIO,
    "split-queue",
    Phase.STRUCTURES,
    after=("split-queue-list-damaged",),
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10 109",
)
def partially_mapped_flag_unexpected(s: Snapshot) -> Violations:
    """PG_partially_mapped is set on a folio that is on no split queue.

    Invariant: since 6.12 the flag is set when a folio is queued because a part of it is no longer mapped, and cleared
        when it leaves the queue. Folios are also queued without it.
    Why: mm/huge_memory.c, deferred_split_folio(), folio_unqueue_deferred_split() and deferred_split_scan().
    Consequence: the part that nothing maps is never given back: the folio will not be split, and the flag keeps it from
        being queued and counted again.
    Exceptions: the shrinker has it in hand (deferred_split_scan()).
    See also: folioscope folio PFN
    """
    links, folios = s.split_links, s.folios
    rows = np.flatnonzero(folios.partially_mapped[links.folio] & links.readable & ~links.queued)
    return violations(
        links.folio[rows],
        observed={"partially_mapped": True, "queued": False},
        expected={"partially_mapped": False},
        checked=_nr_flagged(s, links.folio),
        unread=_unread(s),
    )


def _nr_flagged(s: Snapshot, folio: I64) -> int:
    """Folios whose flag is known; no kernel before 6.12 has it."""
    return int(s.folios.readable[folio].sum()) if s.layout.flags.mask("partially_mapped") else 0
