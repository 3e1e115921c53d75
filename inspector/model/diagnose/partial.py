"""Operations that moved some of their counters and not the others.

The order of the steps shows whether a CPU that stopped in the middle can have left it so: mm/rmap.c, __folio_add_rmap()
and __folio_remove_rmap(). What no such place explains is an update that was lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.model.counters import RmapCounter
from inspector.model.diagnose.evidence import Differences, Run, StoredCounters, difference, runs_of
from inspector.model.diagnose.moves import Candidate, FaultyCall
from inspector.model.diagnose.names import OperationNames, listed
from inspector.model.interface import Op
from inspector.model.operations import count_only
from inspector.model.scheme import Scheme
from inspector.model.state import Folio

_ORDER = (RmapCounter.PAGE, RmapCounter.ENTIRE, RmapCounter.LARGE, RmapCounter.NR_PAGES_MAPPED)
"""In which sentences list the counters."""


def order_of(scheme: Scheme, *, add: bool, huge: bool) -> tuple[RmapCounter, ...]:
    """The counters in the order in which the operation moves them; those that a scheme does not keep never differ."""
    if scheme is Scheme.OLD:
        return (RmapCounter.PAGE, RmapCounter.ENTIRE)
    first = RmapCounter.ENTIRE if huge else RmapCounter.PAGE
    if not scheme.has_page_mapcount:
        return (first, RmapCounter.LARGE)
    if add:
        return (first, RmapCounter.NR_PAGES_MAPPED, RmapCounter.LARGE)
    return (RmapCounter.LARGE, first, RmapCounter.NR_PAGES_MAPPED)


def partial_calls(rest: Folio, off: Differences, names: OperationNames) -> Iterator[Candidate]:
    """Single operations of which the difference is a part."""
    found = off.counters()
    for op, add, huge in _calls(rest, off, names):
        after = count_only(rest, op)
        stored = StoredCounters(np.array(after.pages, np.int64), after.entire, after.large, after.word)
        effect = difference(rest, stored)
        whole = effect.counters() & off.known()
        if found < whole and _part_of(off, effect, op):
            yield _candidate(op, (add, huge), found, whole, names)


def _calls(rest: Folio, off: Differences, names: OperationNames) -> Iterator[tuple[Op, bool, bool]]:
    """Calls to try: one huge entry either way, and PTEs on the pages that differ or as many as a sum is off by."""
    if rest.is_large and (rest.order in (rest.pmd_order, rest.pud_order) or rest.kind.is_hugetlb):
        for add in (True, False):
            yield Op(names.huge(add=add)), add, True
    if rest.kind.is_hugetlb or not rest.is_large:
        return
    for add in (True, False):
        for page, nr in _ranges(rest, off, 1 if add else -1):
            yield Op(names.pte(add=add, nr=nr), page=page, nr=nr), add, False


def _ranges(rest: Folio, off: Differences, sign: int) -> Iterator[Run]:
    sums = {abs(n) for n in (off.large, off.word) if n and n * sign > 0 and abs(n) <= rest.nr}
    if off.pages is None:
        return
    runs = runs_of(off.pages * sign)
    if len(runs) == 1:
        page, nr = runs[0]
        yield page, nr
        # A batch that stopped after some of its pages.
        yield from ((page, n) for n in sums if n > nr and page + n <= rest.nr)
    elif not off.pages_differ:
        yield from ((page, n) for n in sums for page in _first_that_counts(rest, n, sign))


def _first_that_counts(rest: Folio, n: int, sign: int) -> Iterator[int]:
    """Places for a batch of n pages: one where each page is the first or last mapping, one where none is."""
    pages = np.array(rest.pages)
    for edge in (pages == (-1 if sign > 0 else 0), pages >= (0 if sign > 0 else 1)):
        sums = np.concatenate(([0], np.cumsum(edge)))
        found = np.flatnonzero(sums[n:] - sums[:-n] == n)
        if len(found):
            yield int(found[0])


def _part_of(off: Differences, effect: Differences, op: Op) -> bool:
    """Whether every counter that differs does so as the operation would have it, or some pages of its batch do."""
    if any(effect.of_folio().get(counter) != by for counter, by in off.of_folio().items()):
        return False
    if off.pages is None or effect.pages is None or not off.pages_differ:
        return True
    if np.array_equal(off.pages, effect.pages):
        return True
    done = int((off.pages != 0).sum())
    cut = effect.pages.copy()
    cut[op.page + done :] = 0
    return op.name.endswith("_ptes") and done < op.nr and np.array_equal(off.pages, cut)


def _candidate(
    op: Op, what: tuple[bool, bool], found: set[RmapCounter], whole: set[RmapCounter], names: OperationNames
) -> Candidate:
    """The operation was begun and not ended, its opposite was not ended, or an update was lost."""
    add, huge = what
    anywhere = RmapCounter.PAGE in whole - found
    opposite = names.huge(add=not add) if huge else names.pte(add=not add, nr=op.nr)
    shown = Op(op.name, op.mm, -1 if anywhere else op.page, op.nr)
    other = Op(opposite, op.mm, shown.page, op.nr)
    entry = f"the {names.entry()}" if huge else "the PTE" if op.nr == 1 else "each PTE"
    ways = (
        (shown, found, add, f"{entry} is not written yet" if add else f"{entry} is still there"),
        (other, whole - found, not add, f"{entry} is cleared already" if add else f"{entry} is written already"),
    )
    for call, done, adds, where in ways:
        steps = [counter for counter in order_of(names.scheme, add=adds, huge=huge) if counter in whole]
        if set(steps[: len(done)]) == done:
            sentence = (
                f"{names.call(call)} stopped in the middle, after {_members(done, names)} and before"
                f" {_members(whole - done, names)}: {where}"
            )
            return Candidate((FaultyCall(call, "torn"),), "torn", sentence, 2.0, anywhere)
    sentence = f"{names.call(other)} missed its {_members(found, names)}: an update was lost"
    return Candidate((FaultyCall(other, "torn"),), "torn", sentence, 3.0, anywhere)


def _members(counters: set[RmapCounter], names: OperationNames) -> str:
    return listed([names.counter(counter) for counter in _ORDER if counter in counters])
