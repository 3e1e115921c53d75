"""A story that fits, told as operations too many, missed, of the wrong level or page, or cut short."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.model.evidence import Candidate, Run, Step, Stored
from inspector.model.interface import Op
from inspector.model.scheme import Scheme
from inspector.model.search_words import Words, listed
from inspector.model.state import FolioKind
from inspector.model.story import Story

_SECOND = 0.1
"""How much the less likely of two readings of one difference costs more: what was done once more than it should have
been leaves no entry to be seen, what was forgotten does."""


def told(story: Story, words: Words, stored: Stored, depth: int) -> Iterator[Candidate]:
    """The readings of a story that ends in what is stored."""
    if not story.moves:
        return
    if story.moves == 1:
        yield from _single(story, words, stored)
    elif story.entire in (1, -1) and len(story.up) + len(story.down) == 1:
        yield from _wrong_level(story, words, stored)
    elif not story.entire and len(story.up) == len(story.down) == 1 and story.up[0][1] == story.down[0][1]:
        yield from _wrong_page(story, words, stored)
    if story.moves > 1:
        yield _several(story, words, stored, depth)


def _pte(words: Words, run: Run, *, add: bool, dup: bool = False) -> Op:
    return Op(words.pte(add=add, nr=run[1], dup=dup), page=run[0], nr=run[1])


def _candidate(steps: list[Step], text: str, cost: float, words: Words, stored: Stored) -> Candidate:
    lost = any(s.op.page < 0 for s in steps)
    if lost:
        text += f" ({unknown_pages(words, stored)})"
    return Candidate(tuple(steps), "operations", text, cost, lost)


def unknown_pages(words: Words, stored: Stored) -> str:
    """Why nobody can say which pages."""
    why = "per-page counts are not kept" if not words.scheme.has_page_mapcount else "page counts could not be read"
    return f"which pages cannot be told: {why}" if stored.pages is None or words.truth.order else "any page"


def _mapped(words: Words, run: Run) -> bool:
    """Whether a PTE stands on each page of the run, so that adding it may have been missed."""
    page, nr = run
    if page < 0:
        return int(words.truth.ptes.sum()) >= nr
    return bool((words.truth.ptes[page : page + nr] > 0).all())


def _single(story: Story, words: Words, stored: Stored) -> Iterator[Candidate]:
    """One operation too many, or one missed."""
    entry = words.entry()
    if story.entire:
        more = story.entire > 0
        remove, add = Op(words.huge(add=False)), Op(words.huge(add=True, dup=story.dup))
        if more:
            if not story.dup:
                text = f"one {words.call(remove)} is missing: a {entry} was cleared without it"
                yield _candidate([Step(remove, "missing")], text, 1.0, words, stored)
            text = f"one {words.call(add)} too many: no {entry} was written for it"
            yield _candidate([Step(add, "too many")], text, 1.0 + _SECOND, words, stored)
            return
        text = f"one {words.call(remove)} too many: no {entry} was cleared for it"
        yield _candidate([Step(remove, "too many")], text, 1.0, words, stored)
        if words.truth.entire > 0:
            text = f"one {words.call(add)} is missing: a {entry} was written without it"
            yield _candidate([Step(add, "missing")], text, 1.0 + _SECOND, words, stored)
        return
    yield from _single_pte(story, words, stored)


def _single_pte(story: Story, words: Words, stored: Stored) -> Iterator[Candidate]:
    more = bool(story.up)
    run = (story.up or story.down)[0]
    remove, add = _pte(words, run, add=False), _pte(words, run, add=True, dup=story.dup)
    if more:
        if not story.dup:
            text = f"one {words.call(remove)} is missing: what it stands for was cleared without it"
            yield _candidate([Step(remove, "missing")], text, 1.0, words, stored)
            yield from _short(run, words, stored, add=False)
        text = f"one {words.call(add)} too many: no entry was written for it"
        yield _candidate([Step(add, "too many")], text, 1.0 + _SECOND, words, stored)
        return
    text = f"one {words.call(remove)} too many: no entry was cleared for it"
    yield _candidate([Step(remove, "too many")], text, 1.0, words, stored)
    if _mapped(words, run):
        text = f"one {words.call(add)} is missing: what it stands for was written without it"
        yield _candidate([Step(add, "missing")], text, 1.0 + _SECOND, words, stored)
        yield from _short(run, words, stored, add=True)


def _short(run: Run, words: Words, stored: Stored, *, add: bool) -> Iterator[Candidate]:
    """A batch that was given too few pages: the run ends it, and the pages before went the right way."""
    page, nr = run
    if page <= 0 or words.scheme is Scheme.OLD:
        return
    before = int(words.truth.ptes[page - 1])
    if (before > 0) == add:
        op = Op(words.pte(add=add, nr=2), page=page, nr=nr)
        few = "1 page" if nr == 1 else f"{nr} pages"
        text = f"a {op.name}() of a range that ends with page {page + nr - 1} was given {few} too few"
        yield _candidate([Step(op, "short")], text, 1.5, words, stored)


def _wrong_level(story: Story, words: Words, stored: Stored) -> Iterator[Candidate]:
    """A huge entry one way and PTEs the other."""
    run = (story.up or story.down)[0]
    entry, everything = words.entry(), run[1] == words.truth.ptes.size
    remove, add = Op(words.huge(add=False)), Op(words.huge(add=True))
    if story.entire > 0 and story.down:
        if everything:
            op = _pte(words, run, add=False)
            text = f"a {entry} mapping was removed with {words.call(op)} in place of {words.call(remove)}"
            yield _candidate([Step(op, "wrong level")], text, 1.2, words, stored)
            if words.truth.kind is FolioKind.ANON and _mapped(words, run):
                op = Op("split_huge_pmd")
                text = "the split of a PMD was not counted: PTEs stand in its place, the counters still tell of the PMD"
                yield _candidate([Step(op, "missing")], text, 1.3, words, stored)
        if _mapped(words, run):
            text = f"PTEs were added with {words.call(add)} in place of {words.call(_pte(words, run, add=True))}"
            yield _candidate([Step(add, "wrong level")], text, 1.4, words, stored)
    if story.entire < 0 and story.up:
        text = f"PTEs were removed with {words.call(remove)} in place of {words.call(_pte(words, run, add=False))}"
        yield _candidate([Step(remove, "wrong level")], text, 1.2, words, stored)
        if everything and words.truth.entire > 0:
            op = _pte(words, run, add=True)
            text = f"a {entry} mapping was added with {words.call(op)} in place of {words.call(add)}"
            yield _candidate([Step(op, "wrong level")], text, 1.3, words, stored)
            if words.truth.kind is FolioKind.ANON:
                text = "a PMD was split in the counters alone: it still stands, the counters tell of its PTEs"
                yield _candidate([Step(Op("split_huge_pmd"), "too many")], text, 1.4, words, stored)


def _wrong_page(story: Story, words: Words, stored: Stored) -> Iterator[Candidate]:
    """As many pages too high as too low."""
    high, low = story.up[0], story.down[0]
    op, right = _pte(words, low, add=False), _pte(words, high, add=False)
    text = f"{words.call(op)} was called in place of {words.call(right)}"
    yield _candidate([Step(op, "wrong page")], text, 1.2, words, stored)
    if _mapped(words, low):
        op, right = _pte(words, high, add=True), _pte(words, low, add=True)
        text = f"{words.call(op)} was called in place of {words.call(right)}"
        yield _candidate([Step(op, "wrong page")], text, 1.3, words, stored)


def _several(story: Story, words: Words, stored: Stored, depth: int) -> Candidate:
    """Each move by itself; beyond the depth asked for, what they come to."""
    steps: list[Step] = []
    if story.entire > 0:
        steps.append(Step(Op(words.huge(add=False)), "missing", story.entire))
    elif story.entire:
        steps.append(Step(Op(words.huge(add=False)), "too many", -story.entire))
    steps += [Step(_pte(words, run, add=False), "missing") for run in story.up]
    steps += [Step(_pte(words, run, add=False), "too many") for run in story.down]
    if story.dup:
        steps = [_as_dup(step, words) for step in steps]
    cost = story.moves + (_SECOND if story.dup else 0)
    if story.moves <= depth:
        return _candidate(steps, listed([_step_text(s, words) for s in steps]), cost, words, stored)
    parts = []
    for change in ("missing", "too many"):
        chosen = [s for s in steps if s.change == change]
        times = sum(s.times for s in chosen)
        if times:
            names = listed(sorted({words.call(Op(s.op.name)).split("(")[0] + "()" for s in chosen}))
            parts.append(f"{times} calls of {names} {'are ' if change == 'missing' else ''}{change}")
    text = f"{listed(parts)}, more than {depth}: the counters agree with one another, not with the page tables"
    return _candidate(steps, text, cost, words, stored)


def _as_dup(step: Step, words: Words) -> Step:
    """What is missing a removal may be a duplicate too many."""
    if step.change != "missing":
        return step
    by_pte = step.op.name.endswith(("_pte", "_ptes"))
    name = words.pte(add=True, nr=step.op.nr, dup=True) if by_pte else words.huge(add=True, dup=True)
    return Step(Op(name, page=step.op.page, nr=step.op.nr), "too many", step.times)


def _step_text(step: Step, words: Words) -> str:
    times = "one" if step.times == 1 else str(step.times)
    verb = ("is missing" if step.times == 1 else "are missing") if step.change == "missing" else "too many"
    return f"{times} {words.call(step.op)} {verb}"
