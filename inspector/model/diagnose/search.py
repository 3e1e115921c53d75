"""The search: from the counters that the mappings demand to those that are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inspector.model import mm_ids
from inspector.model.counters import RmapCounter
from inspector.model.diagnose.evidence import (
    MAX_RUNS,
    Differences,
    RebuiltFolio,
    StoredCounters,
    at_rest,
    difference,
    runs_of,
)
from inspector.model.diagnose.moves import Candidate, FolioDiagnosis, Moves
from inspector.model.diagnose.names import OperationNames
from inspector.model.diagnose.partial import partial_calls
from inspector.model.diagnose.sentences import candidates_of, contradiction, net_effect, references_text
from inspector.model.interface import Op
from inspector.model.operations import count_only
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import Folio, count

_MAX_GUESS = 3
"""How far the entire mapcount is guessed where it cannot be read."""


def diagnose(
    scheme: Scheme,
    rebuilt: RebuiltFolio,
    stored: StoredCounters,
    depth: int = 3,
    *,
    folio_names: bool | None = None,
) -> FolioDiagnosis:
    """What may have happened to a folio.

    Args:
        scheme: The kernel's accounting.
        rebuilt: The mappings rebuilt from the page tables.
        stored: The counters; any of them may be missing.
        depth: Calls up to which each is named by itself.
        folio_names: Whether the kernel's operations have the names of 6.8 and later; None: by the scheme.
    """
    rest = at_rest(scheme, rebuilt)
    off = difference(rest, stored)
    names = OperationNames(scheme, rebuilt, folio_names)
    slots = tuple(_slot_candidates(scheme, rebuilt, stored))
    if not off.counters():
        return replace(_references_alone(stored), candidates=slots)
    fitting = [moves for moves in _suggested(rest, rebuilt, off) if _ends_in(rest, moves, stored, names)]
    found = [candidate for moves in fitting for candidate in candidates_of(moves, names, stored, depth)]
    partial = list(partial_calls(rest, off, names))
    found += partial
    if not found:
        sentence = f"nothing up to {depth} operations explains it: {names.differences(off)}"
        found.append(Candidate((), "none", sentence, 9.0))
    flipped = _flipped_bit(off, stored)
    if flipped >= 0:
        sentence = f"bit flip: {_one_counter(off, names)} differs from the expected value in bit {flipped} alone"
        found.append(Candidate((), "bit flip", sentence, 6.0))
    best: dict[str, Candidate] = {}
    for c in sorted([*found, *slots], key=lambda c: c.cost):
        best.setdefault(c.sentence, c)
    candidates = tuple(best.values())
    if fitting:
        moves = min(fitting, key=lambda moves: (moves.dup, moves.calls))
        calls, sentence = net_effect(moves, names)
        return FolioDiagnosis(calls, sentence, references_text(stored.references, moves.mappings), candidates)
    sentence = contradiction(off, names, flipped, partial=bool(partial))
    return FolioDiagnosis((), sentence, references_text(stored.references, None), candidates)


def _references_alone(stored: StoredCounters) -> FolioDiagnosis:
    """The mapcounts are right."""
    if stored.references is None or stored.references >= 0:
        return FolioDiagnosis()
    n = -stored.references
    times = "one folio_put()" if n == 1 else f"{n} folio_put()"
    return FolioDiagnosis((("folio_put", n),), f"{times} too many: the mapcounts are right, references are missing")


def _suggested(rest: Folio, rebuilt: RebuiltFolio, off: Differences) -> Iterator[Moves]:
    """The moves that the differences suggest."""
    guesses = [off.entire] if off.entire is not None else sorted(range(-_MAX_GUESS, _MAX_GUESS + 1), key=abs)
    for entire in guesses if rest.is_large or rebuilt.kind.is_hugetlb else [0]:
        by_pmd = entire > 0 and rest.order == rest.pmd_order
        if off.pages is not None:
            # On 6.1 every PMD mapping of a file is in its pages as well.
            of_huge = entire if rest.scheme is Scheme.OLD and not rebuilt.kind.is_anon and rest.is_large else 0
            left = off.pages - of_huge
            more, fewer = tuple(runs_of(left)), tuple(runs_of(-left))
            yield Moves(entire, more, fewer)
            if more or by_pmd:
                yield Moves(entire, more, fewer, dup=True)
        elif rebuilt.kind.is_hugetlb:
            yield Moves(entire, (), ())
        else:
            n = _anywhere(off, entire)
            yield Moves(entire, (), (), n)
            if not rest.scheme.has_page_mapcount and (n > 0 or by_pmd):
                yield Moves(entire, (), (), n, dup=True)


def _anywhere(off: Differences, entire: int) -> int:
    """How many PTEs too many the sums show, where no page counts are known."""
    if off.large is not None:
        return off.large - entire
    return _mapped_pages(off.word) if off.word is not None else 0


def _mapped_pages(word: int) -> int:
    """The pages in a difference of _nr_pages_mapped, without the bit "mapped as a whole"."""
    return (word + ENTIRELY_MAPPED // 2) % ENTIRELY_MAPPED - ENTIRELY_MAPPED // 2


def _ends_in(rest: Folio, moves: Moves, stored: StoredCounters, names: OperationNames) -> bool:
    """Whether the calls end in what is stored; adds before removals, or after them."""
    if not 0 < moves.calls <= MAX_RUNS:
        return False
    ops = _ops(moves, names)
    placed = _placed(rest, moves, stored, names) if moves.anywhere else []
    for order in (ops, ops[::-1]) if len(ops) > 1 else (ops,):
        folio = rest
        for op in [*order, *placed]:
            folio = count_only(folio, op)
        if not difference(folio, stored).counters():
            return True
    return False


def _ops(moves: Moves, names: OperationNames) -> list[Op]:
    """The moves as calls that count alike: what was missed is made up for by its opposite."""
    more = moves.entire > 0
    dup = moves.dup and more and not names.rebuilt.kind.is_hugetlb
    ops = [Op(names.huge(add=more, dup=dup))] * abs(moves.entire)
    ops += [Op(names.pte(add=True, nr=nr, dup=moves.dup), page=page, nr=nr) for page, nr in moves.more]
    return ops + [Op(names.pte(add=False, nr=nr), page=page, nr=nr) for page, nr in moves.fewer]


def _placed(rest: Folio, moves: Moves, stored: StoredCounters, names: OperationNames) -> list[Op]:
    """PTEs on unknown pages, put where the sum of mapped pages comes out as it is stored, if there is such a place."""
    n, add = abs(moves.anywhere), moves.anywhere > 0
    if not rest.scheme.has_page_mapcount:
        return [Op(names.pte(add=add, nr=n), nr=n)]
    step = 0
    if rest.scheme.has_pages_mapped_word and stored.word is not None:
        bits = _mapped_pages(stored.word - rest.word)
        step = abs(bits) if (bits > 0) == add or not bits else n + 1
    ptes = names.rebuilt.ptes
    edge = np.flatnonzero(ptes == (0 if add else 1))
    inner = np.flatnonzero(ptes >= (1 if add else 2))
    if step > len(edge) or step > n or (n > step and not len(inner)):
        # Removed where nothing was left: every one of them counts as the last.
        return [Op(names.pte(add=add, nr=1), page=int(i)) for i in np.resize(np.arange(rest.nr), n)]
    chosen = [*edge[:step], *(np.resize(inner, n - step) if n > step else ())]
    return [Op(names.pte(add=add, nr=1), page=int(i)) for i in chosen]


def _one_counter(off: Differences, names: OperationNames) -> str:
    """The only counter that differs."""
    if off.of_folio():
        return names.counter(next(iter(off.of_folio())))
    field = names.counter(RmapCounter.PAGE)
    assert off.pages is not None
    return field if names.rebuilt.order == 0 else f"{field} of page {int(np.flatnonzero(off.pages)[0])}"


def _flipped_bit(off: Differences, stored: StoredCounters) -> int:
    """The bit in which one counter alone differs; -1 where it is more than one, or more than a bit."""
    pages = np.flatnonzero(off.pages) if off.pages is not None else np.zeros(0, np.int64)
    values = {RmapCounter.ENTIRE: stored.entire, RmapCounter.LARGE: stored.large}
    values[RmapCounter.NR_PAGES_MAPPED] = stored.word
    pairs = [(values[counter], by) for counter, by in off.of_folio().items()]
    if off.pages is not None and stored.pages is not None:
        pairs += [(int(stored.pages[i]), int(off.pages[i])) for i in pages[:2].tolist()]
    if len(pairs) != 1:
        return -1
    value, by = pairs[0]
    changed = ((value or 0) ^ ((value or 0) - by)) & 0xFFFFFFFF
    return changed.bit_length() - 1 if changed & (changed - 1) == 0 else -1


def _slot_candidates(scheme: Scheme, rebuilt: RebuiltFolio, stored: StoredCounters) -> Iterator[Candidate]:
    """Slots that hold more mappings than their mm has, and a clear flag although several mms map the folio.

    Mappings of mms that are unknown may explain either, so all mappings must be of known ones (6.15 and later).
    """
    if not scheme.has_mm_ids or not rebuilt.order or rebuilt.kind.is_hugetlb:
        return
    if sum(n for _, n in rebuilt.mms) != int(rebuilt.ptes.sum()) + rebuilt.entire:
        return
    if stored.slots is None:
        return
    (id0, count0), (id1, count1) = stored.slots
    word = np.array([id0 | id1 << 32 | int(bool(stored.shared)) << 63], np.uint64)
    slots = mm_ids.Slots(word, np.array([count0]), np.array([count1]))
    mapped = [np.array([count(rebuilt.mms, ident)]) for ident, _ in stored.slots]
    for i, (ident, excess) in enumerate(zip((id0, id1), mm_ids.excess(slots, *mapped), strict=True)):
        over = int(excess[0])
        if over > 0:
            sentence = (
                f"slot {i} credits mm id {ident} with {over} too many: removed in the name of another mm, or not at all"
            )
            yield Candidate((), "mm ids", sentence, 4.0)
    if stored.shared is not None and mm_ids.unshared_but_shared(slots, np.array([len(rebuilt.mms)]))[0]:
        sentence = (
            f"FOLIO_MM_IDS_SHARED is clear though {len(rebuilt.mms)} mms map the folio: it was not set when the second"
            " came, or cleared too early"
        )
        yield Candidate((), "mm ids", sentence, 4.0)
