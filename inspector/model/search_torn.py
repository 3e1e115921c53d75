"""Operations that moved some of their counters and not the others.

The order of the steps tells whether a CPU that stopped in the middle can have left it so: mm/rmap.c, __folio_add_rmap()
and __folio_remove_rmap(). What no such place explains is an update that was lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.model.evidence import Candidate, Off, Run, Step, runs_of
from inspector.model.interface import Op
from inspector.model.operations import count_only
from inspector.model.scheme import Scheme
from inspector.model.search_words import Words, listed
from inspector.model.state import Folio

_PARTS = ("pages", "entire", "large", "word")


def order_of(scheme: Scheme, *, add: bool, huge: bool) -> tuple[str, ...]:
    """The counters in the order in which the operation moves them; those that a scheme does not keep never differ."""
    if scheme is Scheme.OLD:
        return ("pages", "entire")
    first = "entire" if huge else "pages"
    if not scheme.has_page_mapcount:
        return (first, "large")
    return (first, "word", "large") if add else ("large", first, "word")


def torn(rest: Folio, off: Off, words: Words) -> Iterator[Candidate]:
    """Single operations of which the difference is a part."""
    for op, add, huge in _vocabulary(rest, off, words):
        after = count_only(rest, op)
        effect = _effect(rest, after)
        stood = {part for part in _PARTS if _moved(off, part)}
        whole = {part for part in _PARTS if _nonzero(effect[part]) and getattr(off, part) is not None}
        if not stood < whole or any(not _same(off, effect, part, op) for part in stood):
            continue
        yield _tell(op, (add, huge), stood, whole, words)


def _vocabulary(rest: Folio, off: Off, words: Words) -> Iterator[tuple[Op, bool, bool]]:
    """Calls worth a look: one huge entry either way, and PTEs on the pages that differ or as many as a sum says."""
    if rest.is_large and (rest.order in (rest.pmd_order, rest.pud_order) or rest.kind.is_hugetlb):
        for add in (True, False):
            yield Op(words.huge(add=add)), add, True
    if rest.kind.is_hugetlb or not rest.is_large:
        return
    for add in (True, False):
        sign = 1 if add else -1
        for page, nr in _ranges(rest, off, sign):
            yield Op(words.pte(add=add, nr=nr), page=page, nr=nr), add, False


def _ranges(rest: Folio, off: Off, sign: int) -> Iterator[Run]:
    sums = {abs(n) for n in (off.large, off.word) if n and n * sign > 0 and abs(n) <= rest.nr}
    if off.pages is None:
        return
    runs = runs_of(off.pages * sign)
    if len(runs) == 1:
        page, nr = runs[0]
        yield page, nr
        # A batch that stopped after some of its pages.
        yield from ((page, n) for n in sums if n > nr and page + n <= rest.nr)
    elif not off.moved_pages:
        yield from ((page, n) for n in sums for page in _first_that_counts(rest, n, sign))


def _first_that_counts(rest: Folio, n: int, sign: int) -> Iterator[int]:
    """Places for a batch of n pages: one where each page is the first or last mapping, one where none is."""
    pages = np.array(rest.pages)
    for edge in (pages == (-1 if sign > 0 else 0), pages >= (0 if sign > 0 else 1)):
        sums = np.concatenate(([0], np.cumsum(edge)))
        found = np.flatnonzero(sums[n:] - sums[:-n] == n)
        if len(found):
            yield int(found[0])


def _effect(before: Folio, after: Folio) -> dict[str, object]:
    return {
        "pages": np.array(after.pages, np.int64) - np.array(before.pages, np.int64),
        "entire": after.entire - before.entire,
        "large": after.large - before.large,
        "word": after.word - before.word,
    }


def _moved(off: Off, part: str) -> bool:
    return off.moved_pages if part == "pages" else bool(getattr(off, part))


def _nonzero(value: object) -> bool:
    return bool(np.any(value))  # type: ignore[call-overload]


def _same(off: Off, effect: dict[str, object], part: str, op: Op) -> bool:
    if part != "pages":
        return bool(getattr(off, part) == effect[part])
    wanted = np.asarray(effect["pages"])
    assert off.pages is not None
    if np.array_equal(off.pages, wanted):
        return True
    # Some pages of the batch, from its first on.
    done = int((off.pages != 0).sum())
    cut = wanted.copy()
    cut[op.page + done :] = 0
    return op.name.endswith("_ptes") and done < op.nr and np.array_equal(off.pages, cut)


def _tell(op: Op, what: tuple[bool, bool], stood: set[str], whole: set[str], words: Words) -> Candidate:
    """The operation was begun and not ended, its opposite was not ended, or an update was lost."""
    add, huge = what
    anywhere = "pages" in whole and "pages" not in stood
    opposite = words.huge(add=not add) if huge else words.pte(add=not add, nr=op.nr)
    shown = Op(op.name, op.mm, -1 if anywhere else op.page, op.nr)
    other = Op(opposite, op.mm, shown.page, op.nr)
    entry = f"the {words.entry()}" if huge else "the PTE" if op.nr == 1 else "each PTE"
    readings = (
        (shown, stood, add, f"{entry} is not there yet" if add else f"{entry} still stands"),
        (other, whole - stood, not add, f"{entry} is gone already" if add else f"{entry} stands already"),
    )
    for call, done, adds, where in readings:
        steps = [p for p in order_of(words.scheme, add=adds, huge=huge) if p in whole]
        if set(steps[: len(done)]) == done:
            sentence = (
                f"{words.call(call)} stopped in the middle, after {_names(done, words)} and before"
                f" {_names(whole - done, words)}: {where}"
            )
            return Candidate((Step(call, "torn"),), "torn", sentence, 2.0, anywhere)
    sentence = f"{words.call(other)} missed its {_names(stood, words)}: an update was lost"
    return Candidate((Step(other, "torn"),), "torn", sentence, 3.0, anywhere)


def _names(parts: set[str], words: Words) -> str:
    return listed([words.counter(p) for p in _PARTS if p in parts])
