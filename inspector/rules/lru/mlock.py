"""The rule of mlocked folios: they are unevictable."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.tables.batches import BATCHES
from inspector.violations import Violations, holds, unread_pages, violations
from inspector.windows.holders import runs_on
from inspector.windows.window import Effect

_LIVE = "folios are locked in memory while the kernel runs"


def evictable_mlocked(s: Snapshot) -> I64:
    """Rows of the folios with PG_mlocked and PG_lru, but not PG_unevictable, that wait in no batch of mlock's."""
    flags, words = s.layout.flags, s.pages.words
    marked = flags.test(words.flags, "mlocked") & flags.test(words.flags, "lru") & (words.type_ == 0)
    rows = s.pages.heads_where(marked & ~flags.test(words.flags, "unevictable"))
    waiting = s.batches.pfn[s.batches.batch == BATCHES.index("mlock")]
    return rows[~np.isin(s.pages.memmap.pfns_of_rows(rows), waiting)]


@rule(
    "mlocked-unevictable-missing",
    PAGE,
    "lru",
    Phase.STATES,
    effect=Effect.LRU,
    needs=frozenset(("per-CPU batches",)),
    decides="I15 106",
)
def mlocked_unevictable_missing(s: Snapshot) -> Violations:
    """A folio with PG_mlocked is on the LRU as evictable.

    Invariant: a folio with PG_mlocked and PG_lru has PG_unevictable, unless it waits in a CPU's batch of mlock's.
    Why: mm/mlock.c, __mlock_folio(); mm/swap.c (mm/folio.c from 7.x on), lru_add(): folio_evictable() is asked after
        PG_mlocked is set; mm/vmscan.c, move_folios_to_lru().
    Consequence: PG_mlocked is there without mlock(), or memory that must not leave RAM is looked for in each reclaim.
    Exceptions: a task is about to lock it, or to put it back on a list.
    See also: folioscope folio PFN
    """
    if runs_on(s):
        return holds(0, note=_LIVE)
    flags, words = s.layout.flags, s.pages.words
    marked = flags.test(words.flags, "mlocked") & flags.test(words.flags, "lru") & (words.type_ == 0)
    rows = evictable_mlocked(s)
    return violations(
        rows,
        observed={"mlocked": True, "unevictable": False},
        expected={"unevictable": True},
        facts={"mappings": s.counts.page_mappings[rows]},
        checked=int(words.nr[marked].sum()),
        unread=unread_pages(s),
        transient=np.full(len(rows), bool(s.lru.lruvecs.locked.any()) or not s.lru.whole),
    )
