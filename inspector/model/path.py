"""The shortest sequence of rmap operations that leads one state of a folio to another, as two captures hold them.

Every step is an operation of `inspector.model.operations`, allowed where it is done, on a run of pages of one mm. What
the rmap itself does not do is a step too: a write that makes a page exclusive again (mm/memory.c, wp_page_reuse()).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace

from inspector.model.interface import Op
from inspector.model.operations import apply
from inspector.model.preconditions import RefusedError
from inspector.model.state import Folio, count, fresh
from inspector.records import dataclass

REUSE = "wp_page_reuse"
"""Not of the rmap: a write to a page that no other process maps marks it as exclusive."""

MAX_STEPS = 6
MAX_STATES = 600
"""States after which the search ends without an answer."""


@dataclass(frozen=True)
class Step:
    """One operation, done on each page of a run where it takes one page only.

    Attributes:
        op: The call; ``page`` and ``nr`` are the run.
        name: Of the operation, or `REUSE`.
    """

    op: Op
    name: str


def lead(before: Folio, after: Folio, max_steps: int = MAX_STEPS, max_states: int = MAX_STATES) -> list[Step] | None:
    """The fewest steps from one state to another of the same folio; None where so many do not lead there.

    Compared are mappings, counters, mm ids and exclusive pages; not references, statistics and queues.
    """
    if _shape(before) != _shape(after):
        return None
    before, wanted = replace(before, locked=True), _key(after)
    if _key(before) == wanted:
        return []
    queue: list[tuple[int, int, int, Folio, list[Step]]] = [(_far(before, after), 0, 0, before, [])]
    fewest: dict[tuple[object, ...], int] = {_key(before): 0}
    number = 0
    while queue and len(fewest) < max_states:
        _, _, _, state, steps = heapq.heappop(queue)
        if _key(state) == wanted:
            return steps
        if len(steps) + max(_far(state, after), 1) > max_steps:
            continue
        for step in _steps(state, after):
            found = _done(state, step)
            if found is None or fewest.get(_key(found), max_steps + 1) <= len(steps) + 1:
                continue
            fewest[_key(found)] = len(steps) + 1
            number += 1
            cost = len(steps) + 1 + _far(found, after)
            heapq.heappush(queue, (cost, -len(steps), number, found, [*steps, step]))
    return None


def unmapped(before: Folio) -> list[Step]:
    """The steps that take away all mappings."""
    return list(_fewer(before, replace(before, ptes=(), huge=())))


def born(after: Folio, max_steps: int = MAX_STEPS) -> list[Step] | None:
    """The fewest steps from a folio that nothing has mapped yet."""
    start = fresh(after.scheme, after.order, after.kind, after.pmd_order, after.pud_order)
    return lead(start, after, max_steps)


def _shape(f: Folio) -> tuple[object, ...]:
    return f.scheme, f.order, f.kind


def _key(f: Folio) -> tuple[object, ...]:
    counters = (f.pages, f.entire, f.large, f.word, f.double_map, f.slots, f.shared)
    return (*counters, f.exclusive, f.ptes, f.huge)


def _by_mm(f: Folio) -> dict[int, set[int]]:
    out: dict[int, set[int]] = {}
    for (mm, page), _ in f.ptes:
        out.setdefault(mm, set()).add(page)
    return out


def _far(f: Folio, after: Folio) -> int:
    """Mms whose mappings differ: a step changes those of one."""
    a, b = _by_mm(f), _by_mm(after)
    huge = dict(f.huge), dict(after.huge)
    mms = a.keys() | b.keys() | huge[0].keys() | huge[1].keys()
    return sum(a.get(mm) != b.get(mm) or huge[0].get(mm) != huge[1].get(mm) for mm in mms)


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, length) of neighbours."""
    first = last = -2
    for page in sorted(pages):
        if page != last + 1:
            if first >= 0:
                yield first, last - first + 1
            first = page
        last = page
    if first >= 0:
        yield first, last - first + 1


def _steps(f: Folio, after: Folio) -> Iterator[Step]:
    yield from _fewer(f, after)
    yield from _more(f, after)
    if f.kind.is_anon:
        yield from _marks(f, after)
        yield from _child_that_ended(f, after)


def _named(name: str, mm: int, page: int = 0, nr: int = 1, *, exclusive: bool = False, src: int = 0) -> Step:
    name = name.removesuffix("s") if nr == 1 and name.endswith("_ptes") else name
    return Step(Op(name, mm=mm, page=page, nr=nr, exclusive=exclusive, src=src), name)


def _fewer(f: Folio, after: Folio) -> Iterator[Step]:
    own, wanted = _by_mm(f), _by_mm(after)
    for mm, pages in own.items():
        for first, nr in _runs(pages - wanted.get(mm, set())):
            yield _named("folio_remove_rmap_ptes", mm, first, nr)
    for mm, n in f.huge:
        if n <= count(after.huge, mm):
            continue
        if f.kind.is_hugetlb:
            yield _named("hugetlb_remove_rmap", mm)
            continue
        yield _named("folio_remove_rmap_pmd", mm)
        if wanted.get(mm) and f.kind.is_anon:
            yield _named("split_huge_pmd", mm)


def _more(f: Folio, after: Folio) -> Iterator[Step]:
    own, wanted = _by_mm(f), _by_mm(after)
    word = "anon" if f.kind.is_anon else "file"
    is_new = f.kind.is_anon and not f.anon_mapping
    for mm, pages in wanted.items():
        for first, nr in _runs(pages - own.get(mm, set())):
            if is_new:
                yield _named("folio_add_new_anon_rmap", mm, exclusive=True)
                break
            if f.kind.is_anon and f.total:
                yield _named("folio_try_dup_anon_rmap_ptes", mm, first, nr)
            yield _named(f"folio_add_{word}_rmap_ptes", mm, first, nr)
            if f.kind.is_anon:
                yield _named(f"folio_add_{word}_rmap_ptes", mm, first, nr, exclusive=True)
    names: tuple[str, ...]
    for mm, n in after.huge:
        if n <= count(f.huge, mm):
            continue
        if f.kind.is_hugetlb:
            anon: tuple[str, ...]
            anon = ("hugetlb_add_new_anon_rmap",) if is_new else ("hugetlb_try_dup_anon_rmap", "hugetlb_add_anon_rmap")
            names = anon if f.kind.is_anon else ("hugetlb_add_file_rmap",)
        elif is_new:
            names = ("folio_add_new_anon_rmap",)
        elif f.kind.is_anon:
            names = ("folio_try_dup_anon_rmap_pmd", "folio_add_anon_rmap_pmd")
        else:
            names = ("folio_add_file_rmap_pmd",)
        for name in names:
            yield _named(name, mm, exclusive="_new_" in name)
    if is_new and after.ptes and after.order == after.pmd_order:
        yield _named("folio_add_new_anon_rmap", after.ptes[0][0][0], exclusive=True)


def _marks(f: Folio, after: Folio) -> Iterator[Step]:
    """Pages that stop being exclusive, or are again."""
    mm = f.ptes[0][0][0] if f.ptes else f.huge[0][0] if f.huge else 0
    if not mm:
        return
    if f.huge:
        if 0 in f.exclusive - after.exclusive:
            yield _named("hugetlb_try_share_anon_rmap" if f.kind.is_hugetlb else "folio_try_share_anon_rmap_pmd", mm)
    else:
        for first, nr in _runs(f.exclusive - after.exclusive):
            yield _named("folio_try_share_anon_rmap_pte", mm, first, nr)
    for first, nr in _runs(after.exclusive - f.exclusive):
        yield Step(Op("folio_move_anon_rmap", mm=mm, page=first, nr=nr), REUSE)


def _child_that_ended(f: Folio, after: Folio) -> Iterator[Step]:
    """A process between the captures: forked, and gone before the second one."""
    others = {mm for (mm, _), _ in (*f.ptes, *after.ptes)} | {mm for mm, _ in (*f.huge, *after.huge)}
    if not f.exclusive - after.exclusive and f.shared == after.shared:
        return
    child = max(others, default=0) + 1
    for mm, pages in _by_mm(f).items():
        runs = list(_runs(pages))
        if len(runs) == 1:
            yield _named("folio_try_dup_anon_rmap_ptes", child, *runs[0], src=mm)
    for mm, _ in f.huge:
        name = "hugetlb_try_dup_anon_rmap" if f.kind.is_hugetlb else "folio_try_dup_anon_rmap_pmd"
        yield _named(name, child, src=mm)


def _done(f: Folio, step: Step) -> Folio | None:
    """The state after a step; None where it is refused, or the kernel answers that pages may be pinned."""
    op = step.op
    try:
        if step.name == REUSE:
            pages = frozenset(range(op.page, op.page + op.nr))
            once = all(sum(n for (_, at), n in f.ptes if at == page) + sum(n for _, n in f.huge) == 1 for page in pages)
            return replace(f, exclusive=f.exclusive | pages) if once else None
        if step.name == "folio_try_share_anon_rmap_pte":
            for page in range(op.page, op.page + op.nr):
                found = apply(f, replace(op, page=page, nr=1))
                if found.busy:
                    return None
                f = found.folio
            return f
        found = apply(f, op)
    except RefusedError:
        return None
    return None if found.busy else found.folio
