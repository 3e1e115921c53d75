"""Moves that end in what is stored, in words: calls too many, missed, of the wrong level or page, or cut short."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.model.counters import RmapCounter
from inspector.model.diagnose.evidence import Differences, Run, StoredCounters
from inspector.model.diagnose.moves import Candidate, FaultyCall, Moves
from inspector.model.diagnose.names import OperationNames, listed, pages_text
from inspector.model.interface import Op
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import FolioKind

_SECOND = 0.1
"""How much the less likely of two explanations of one difference costs more: what was done once more than it should
have been leaves no entry to be seen, what was forgotten does."""


def candidates_of(moves: Moves, names: OperationNames, stored: StoredCounters, depth: int) -> Iterator[Candidate]:
    """The explanations of moves that end in what is stored."""
    if moves.calls == 1:
        yield from _single(moves, names, stored)
    elif moves.entire in (1, -1) and len(moves.up) + len(moves.down) == 1:
        yield from _wrong_level(moves, names, stored)
    elif not moves.entire and len(moves.up) == len(moves.down) == 1 and moves.up[0][1] == moves.down[0][1]:
        yield from _wrong_page(moves, names, stored)
    if moves.calls > 1:
        yield _several(moves, names, stored, depth)


def _pte(names: OperationNames, run: Run, *, add: bool, dup: bool = False) -> Op:
    return Op(names.pte(add=add, nr=run[1], dup=dup), page=run[0], nr=run[1])


def _candidate(
    steps: list[FaultyCall], text: str, cost: float, names: OperationNames, stored: StoredCounters
) -> Candidate:
    unknown = any(s.op.page < 0 for s in steps)
    if unknown:
        text += f" ({_unknown_pages(names, stored)})"
    return Candidate(tuple(steps), "operations", text, cost, unknown)


def _unknown_pages(names: OperationNames, stored: StoredCounters) -> str:
    """Why the pages are unknown."""
    why = "no per-page counts are kept" if not names.scheme.has_page_mapcount else "page counts could not be read"
    return f"pages unknown: {why}" if stored.pages is None or names.rebuilt.order else "any page"


def _mapped(names: OperationNames, run: Run) -> bool:
    """Whether a PTE maps each page of the run, so that adding it may have been missed."""
    page, nr = run
    if page < 0:
        return int(names.rebuilt.ptes.sum()) >= nr
    return bool((names.rebuilt.ptes[page : page + nr] > 0).all())


def _single(moves: Moves, names: OperationNames, stored: StoredCounters) -> Iterator[Candidate]:
    """One operation too many, or one missed."""
    if not moves.entire:
        yield from _single_pte(moves, names, stored)
        return
    entry = names.entry()
    remove, add = Op(names.huge(add=False)), Op(names.huge(add=True, dup=moves.dup))
    if moves.entire > 0:
        if not moves.dup:
            text = f"one {names.call(remove)} is missing: a {entry} was cleared without it"
            yield _candidate([FaultyCall(remove, "missing")], text, 1.0, names, stored)
        text = f"one {names.call(add)} too many: no {entry} was written for it"
        yield _candidate([FaultyCall(add, "too many")], text, 1.0 + _SECOND, names, stored)
        return
    text = f"one {names.call(remove)} too many: no {entry} was cleared for it"
    yield _candidate([FaultyCall(remove, "too many")], text, 1.0, names, stored)
    if names.rebuilt.entire > 0:
        text = f"one {names.call(add)} is missing: a {entry} was written without it"
        yield _candidate([FaultyCall(add, "missing")], text, 1.0 + _SECOND, names, stored)


def _single_pte(moves: Moves, names: OperationNames, stored: StoredCounters) -> Iterator[Candidate]:
    run = (moves.up or moves.down)[0]
    remove, add = _pte(names, run, add=False), _pte(names, run, add=True, dup=moves.dup)
    entries = "a PTE was" if run[1] == 1 else f"{run[1]} PTEs were"
    if moves.up:
        if not moves.dup:
            text = f"one {names.call(remove)} is missing: {entries} cleared without it"
            yield _candidate([FaultyCall(remove, "missing")], text, 1.0, names, stored)
            yield from _short(run, names, stored, add=False)
        text = f"one {names.call(add)} too many: no entry was written for it"
        yield _candidate([FaultyCall(add, "too many")], text, 1.0 + _SECOND, names, stored)
        return
    text = f"one {names.call(remove)} too many: no entry was cleared for it"
    yield _candidate([FaultyCall(remove, "too many")], text, 1.0, names, stored)
    if _mapped(names, run):
        text = f"one {names.call(add)} is missing: {entries} written without it"
        yield _candidate([FaultyCall(add, "missing")], text, 1.0 + _SECOND, names, stored)
        yield from _short(run, names, stored, add=True)


def _short(run: Run, names: OperationNames, stored: StoredCounters, *, add: bool) -> Iterator[Candidate]:
    """A batch that was given too few pages: the run ends it, and the pages before went the right way."""
    page, nr = run
    if page <= 0 or not names.batches:
        return
    before = int(names.rebuilt.ptes[page - 1])
    if (before > 0) == add:
        op = Op(names.pte(add=add, nr=2), page=page, nr=nr)
        few = "1 page" if nr == 1 else f"{nr} pages"
        text = f"a {op.name}() of a range that ends with page {page + nr - 1} was given {few} too few"
        yield _candidate([FaultyCall(op, "short")], text, 1.5, names, stored)


def _wrong_level(moves: Moves, names: OperationNames, stored: StoredCounters) -> Iterator[Candidate]:
    """A huge entry one way and PTEs the other."""
    run = (moves.up or moves.down)[0]
    entry, everything = names.entry(), run[1] == names.rebuilt.ptes.size
    remove, add = Op(names.huge(add=False)), Op(names.huge(add=True))
    if moves.entire > 0 and moves.down:
        if everything:
            op = _pte(names, run, add=False)
            text = f"a {entry} mapping was removed with {names.call(op)} in place of {names.call(remove)}"
            yield _candidate([FaultyCall(op, "wrong level")], text, 1.2, names, stored)
            if names.rebuilt.kind is FolioKind.ANON and _mapped(names, run):
                op = Op("split_huge_pmd")
                text = "the split of a PMD was not counted: PTEs have replaced it, the counters still include the PMD"
                yield _candidate([FaultyCall(op, "missing")], text, 1.3, names, stored)
        if _mapped(names, run):
            text = f"PTEs were added with {names.call(add)} in place of {names.call(_pte(names, run, add=True))}"
            yield _candidate([FaultyCall(add, "wrong level")], text, 1.4, names, stored)
    if moves.entire < 0 and moves.up:
        text = f"PTEs were removed with {names.call(remove)} in place of {names.call(_pte(names, run, add=False))}"
        yield _candidate([FaultyCall(remove, "wrong level")], text, 1.2, names, stored)
        if everything and names.rebuilt.entire > 0:
            op = _pte(names, run, add=True)
            text = f"a {entry} mapping was added with {names.call(op)} in place of {names.call(add)}"
            yield _candidate([FaultyCall(op, "wrong level")], text, 1.3, names, stored)
            if names.rebuilt.kind is FolioKind.ANON:
                text = "a PMD was split in the counters alone: it still maps the folio, the counters include its PTEs"
                yield _candidate([FaultyCall(Op("split_huge_pmd"), "too many")], text, 1.4, names, stored)


def _wrong_page(moves: Moves, names: OperationNames, stored: StoredCounters) -> Iterator[Candidate]:
    """As many pages too high as too low."""
    high, low = moves.up[0], moves.down[0]
    op, right = _pte(names, low, add=False), _pte(names, high, add=False)
    text = f"{names.call(op)} was called in place of {names.call(right)}"
    yield _candidate([FaultyCall(op, "wrong page")], text, 1.2, names, stored)
    if _mapped(names, low):
        op, right = _pte(names, high, add=True), _pte(names, low, add=True)
        text = f"{names.call(op)} was called in place of {names.call(right)}"
        yield _candidate([FaultyCall(op, "wrong page")], text, 1.3, names, stored)


def _several(moves: Moves, names: OperationNames, stored: StoredCounters, depth: int) -> Candidate:
    """Each move by itself; beyond the given depth, their sum."""
    steps: list[FaultyCall] = []
    if moves.entire:
        change = "missing" if moves.entire > 0 else "too many"
        steps.append(FaultyCall(Op(names.huge(add=False)), change, abs(moves.entire)))
    steps += [FaultyCall(_pte(names, run, add=False), "missing") for run in moves.up]
    steps += [FaultyCall(_pte(names, run, add=False), "too many") for run in moves.down]
    if moves.dup:
        steps = [_as_dup(step, names) for step in steps]
    cost = moves.calls + (_SECOND if moves.dup else 0)
    if moves.calls <= depth:
        return _candidate(steps, listed([_step_text(s, names) for s in steps]), cost, names, stored)
    parts = []
    for change in ("missing", "too many"):
        chosen = [s for s in steps if s.change == change]
        times = sum(s.times for s in chosen)
        if times:
            called = listed(sorted({f"{names.called(s.op.name)}()" for s in chosen}))
            parts.append(f"{times} calls of {called} {'are ' if change == 'missing' else ''}{change}")
    text = f"{listed(parts)}, more than {depth}: the counters agree with one another, not with the page tables"
    return _candidate(steps, text, cost, names, stored)


def _as_dup(step: FaultyCall, names: OperationNames) -> FaultyCall:
    """What is missing a removal may be a duplicate too many."""
    if step.change != "missing":
        return step
    by_pte = step.op.name.endswith(("_pte", "_ptes"))
    name = names.pte(add=True, nr=step.op.nr, dup=True) if by_pte else names.huge(add=True, dup=True)
    return FaultyCall(Op(name, page=step.op.page, nr=step.op.nr), "too many", step.times)


def _step_text(step: FaultyCall, names: OperationNames) -> str:
    times = "one" if step.times == 1 else str(step.times)
    verb = ("is missing" if step.times == 1 else "are missing") if step.change == "missing" else "too many"
    return f"{times} {names.call(step.op)} {verb}"


def net_effect(moves: Moves, names: OperationNames) -> tuple[tuple[tuple[str, int], ...], str]:
    """The moves added up: calls too many (negative: too few) by name, and the same in words."""
    calls: list[tuple[str, int]] = []
    words = []
    of_ptes = (names.pte(add=False, nr=1), names.pte(add=True, nr=1))
    for sign, runs in ((1, moves.up), (-1, moves.down)):
        n = sum(nr for _, nr in runs)
        if n:
            known = names.rebuilt.order > 0 and all(page >= 0 for page, _ in runs)
            calls.append((names.called(of_ptes[0]), -sign * n))
            words.append(_net_text(names, of_ptes, sign * n, f" of {pages_text(list(runs))}" if known else ""))
    if moves.entire:
        of_huge = (names.huge(add=False), names.huge(add=True))
        calls.append((names.called(of_huge[0]), -moves.entire))
        words.append(_net_text(names, of_huge, moves.entire, ""))
    return tuple(calls), "; ".join(words)


def _net_text(names: OperationNames, calls: tuple[str, str], n: int, where: str) -> str:
    """So many removals too few (negative: too many) or additions too many."""
    remove, add = (f"{names.called(name)}()" for name in calls)
    times, entries = ("one", "an entry was") if abs(n) == 1 else (str(abs(n)), "entries were")
    if n > 0:
        return f"{times} {remove}{where} too few ({entries} cleared without it), or {times} {add} too many"
    return f"{times} {remove}{where} too many, or {times} {add} too few ({entries} written without it)"


def contradiction(off: Differences, names: OperationNames, flipped: int, *, partial: bool) -> str:
    """How counters that no operations explain contradict each other.

    Args:
        off: The differences.
        names: What counters are called.
        flipped: The bit in which one counter alone differs, -1 when it is no bit flip.
        partial: Whether an operation that moved some of its counters explains them.
    """
    scalars, differing = off.of_folio(), off.counters()
    if len(differing) > 1:
        cause = "" if partial else ": several faults, or memory that was overwritten"
        return f"counters that move together disagree ({names.differences(off)}){cause}"
    if off.word is not None and not off.pages_differ and abs(off.word) == ENTIRELY_MAPPED:
        word = "not taken back with the last huge entry" if off.word > 0 else "taken away, but huge entries are left"
        field = names.counter(RmapCounter.NR_PAGES_MAPPED)
        return f'only the bit "mapped as a whole" of {field} is wrong: it was {word}'
    by = next(iter(scalars.values())) if scalars else int(off.pages.sum()) if off.pages is not None else 0
    name = names.counter(next(iter(differing)))
    damage = f"bit {flipped} flipped" if flipped >= 0 else "memory that was overwritten"
    together = names.rebuilt.order > 0 and names.scheme is not Scheme.OLD
    alone = ", and no operation moves it alone" if together else ""
    return f"only {name} is off, by {by:+d}{alone}: a lost update, or {damage}"


def references_text(extra: int | None, mappings: int | None) -> str:
    """What became of the references, of which each mapping holds one.

    Args:
        extra: References beyond those that are explained; None when unknown.
        mappings: What the mapcounts are off by; None when they contradict each other.
    """
    if extra is None or mappings == 0:
        return ""
    if extra == 0:
        return "the reference count is right: only the mapcounts went wrong"
    if mappings is None:
        return ""
    if extra != mappings:
        return f"references are off by {extra:+d}, mapcounts by {mappings:+d}"
    dropped = "they were not dropped either" if mappings > 0 else "they were dropped as well"
    return f"the references went with the counters: {dropped}"
