"""The shortest story that leads from sound counters to the stored ones: operations too many, missed, mistaken or torn.

The differences themselves say which operations to try, so no page is tried in vain; each story is then played through
`inspector.model.operations` and kept only if it ends in exactly what is stored. Explanations that the counters cannot
tell apart are all given, the simplest first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.model.evidence import Candidate, Off, Step, Stored, Truth, at_rest, difference, runs_of
from inspector.model.interface import Op
from inspector.model.operations import count_only
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.search_mms import slot_stories
from inspector.model.search_names import told
from inspector.model.search_torn import torn
from inspector.model.search_words import Words
from inspector.model.state import Folio
from inspector.model.story import Story

__all__ = ["Candidate", "Step", "Stored", "Truth", "looks_like"]

_MAX_GUESS = 3
"""How far the entire mapcount is guessed where it cannot be read."""

_MAX_MOVES = 64
"""Stories of more moves are none."""


def looks_like(scheme: Scheme, truth: Truth, stored: Stored, depth: int = 3) -> list[Candidate]:
    """What may have happened to a folio, the simplest explanation first; empty when nothing is wrong.

    Args:
        scheme: The kernel's accounting.
        truth: The mappings rebuilt from the page tables.
        stored: The counters; any of them may be missing.
        depth: Operations up to which a story counts as an explanation.
    """
    rest = at_rest(scheme, truth)
    off = difference(rest, stored)
    words = Words(scheme, truth)
    if not off.anything:
        return slot_stories(scheme, truth, stored)
    found: list[Candidate] = []
    for story in _stories(rest, truth, off):
        if story.moves > _MAX_MOVES or not _ends_in(rest, story, stored, words):
            continue
        found += told(story, words, stored, depth)
    found += torn(rest, off, words)
    if not found:
        found.append(Candidate((), "none", _nothing(off, words, depth), 9.0))
    found += _flips(off, stored, words)
    found += slot_stories(scheme, truth, stored)
    best: dict[str, Candidate] = {}
    for c in sorted(found, key=lambda c: c.cost):
        best.setdefault(c.sentence, c)
    return list(best.values())


def _stories(rest: Folio, truth: Truth, off: Off) -> Iterator[Story]:
    """What the differences suggest."""
    guesses = [off.entire] if off.entire is not None else sorted(range(-_MAX_GUESS, _MAX_GUESS + 1), key=abs)
    for entire in guesses if rest.is_large or truth.kind.is_hugetlb else [0]:
        if abs(entire) > _MAX_MOVES:
            continue
        if off.pages is not None:
            # On 6.1 every PMD mapping of a file is in its pages as well.
            of_huge = entire if rest.scheme is Scheme.OLD and not truth.kind.is_anon and rest.is_large else 0
            left = off.pages - of_huge
            more, fewer = tuple(runs_of(left)), tuple(runs_of(-left))
            yield Story(entire, more, fewer)
            if more or (entire > 0 and rest.order == rest.pmd_order):
                yield Story(entire, more, fewer, dup=True)
        elif truth.kind.is_hugetlb:
            yield Story(entire, (), ())
        else:
            for n in _anywhere(off, entire):
                yield Story(entire, (), (), n)
                if not rest.scheme.has_page_mapcount and (n > 0 or (entire > 0 and rest.order == rest.pmd_order)):
                    yield Story(entire, (), (), n, dup=True)


def _anywhere(off: Off, entire: int) -> list[int]:
    """How many PTEs too many the sums speak of, where page counts tell nothing."""
    if off.large is not None:
        return [off.large - entire]
    if off.word is not None:
        low = (off.word + ENTIRELY_MAPPED // 2) % ENTIRELY_MAPPED - ENTIRELY_MAPPED // 2
        return [low]
    return [0]


def _ends_in(rest: Folio, story: Story, stored: Stored, words: Words) -> bool:
    """Whether the story, played through, ends in what is stored; adds before removals, or after them."""
    ops = _ops(story, words)
    placed = _placed(rest, story, stored, words) if story.anywhere else []
    for order in (ops, ops[::-1]) if len(ops) > 1 else (ops,):
        folio = rest
        for op in [*order, *placed]:
            folio = count_only(folio, op)
        if not difference(folio, stored).anything:
            return True
    return False


def _ops(story: Story, words: Words) -> list[Op]:
    """The moves as calls that count alike: what was missed is made up for by its opposite."""
    ops = [
        Op(words.huge(add=story.entire > 0, dup=story.dup and story.entire > 0 and not words.truth.kind.is_hugetlb))
    ] * abs(story.entire)
    ops += [Op(words.pte(add=True, nr=nr, dup=story.dup), page=page, nr=nr) for page, nr in story.more]
    return ops + [Op(words.pte(add=False, nr=nr), page=page, nr=nr) for page, nr in story.fewer]


def _placed(rest: Folio, story: Story, stored: Stored, words: Words) -> list[Op]:
    """PTEs on unknown pages, put where the sum of mapped pages comes out as it is stored, if there is such a place."""
    n, add = abs(story.anywhere), story.anywhere > 0
    if not rest.scheme.has_page_mapcount:
        return [Op(words.pte(add=add, nr=n), nr=n)]
    step = 0
    if rest.scheme.has_pages_mapped_word and stored.word is not None:
        bits = (stored.word - rest.word + ENTIRELY_MAPPED // 2) % ENTIRELY_MAPPED - ENTIRELY_MAPPED // 2
        step = abs(bits) if (bits > 0) == add or not bits else n + 1
    ptes = words.truth.ptes
    edge = np.flatnonzero(ptes == (0 if add else 1))
    inner = np.flatnonzero(ptes >= (1 if add else 2))
    if step > len(edge) or step > n or (n > step and not len(inner)):
        # Removed where nothing was left: every one of them counts as the last.
        return [Op(words.pte(add=add, nr=1), page=int(i)) for i in np.resize(np.arange(rest.nr), n)]
    chosen = [*edge[:step], *(np.resize(inner, n - step) if n > step else ())]
    return [Op(words.pte(add=add, nr=1), page=int(i)) for i in chosen]


def _flips(off: Off, stored: Stored, words: Words) -> Iterator[Candidate]:
    """One counter alone that differs in one bit alone."""
    scalars = off.scalars()
    rows = np.flatnonzero(off.pages) if off.pages is not None else np.zeros(0, np.int64)
    if len(scalars) + len(rows) != 1:
        return
    if scalars:
        name, by = next(iter(scalars.items()))
        value = getattr(stored, name)
        where = words.counter(name)
    else:
        by, value = int(off.pages[rows[0]]), int(stored.pages[rows[0]])  # type: ignore[index]
        where = "_mapcount" if words.truth.order == 0 else f"_mapcount of page {int(rows[0])}"
    changed = (value ^ (value - by)) & 0xFFFFFFFF
    if changed & (changed - 1) == 0:
        bit = changed.bit_length() - 1
        yield Candidate((), "bit flip", f"bit flip: {where} differs from what is due in bit {bit} alone", 6.0)


def _nothing(off: Off, words: Words, depth: int) -> str:
    parts = [f"{words.counter(name)} {by:+d}" for name, by in off.scalars().items()]
    if off.pages is not None and off.moved_pages:
        parts.insert(0, f"page mapcounts {int(off.pages.sum()):+d} on {int((off.pages != 0).sum())} pages")
    return f"nothing up to {depth} operations explains it: {', '.join(parts)}"
