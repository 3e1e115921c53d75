"""The rmap interface as an executable specification: every operation as a function from state to state.

`apply` checks what must hold, counts as the kernel of the state's scheme counts, and does what the operation's callers
do: the entry itself, its reference and the rss of its mm. `count_only` counts alone, also where nothing allows it: what
an operation too many does. mm/rmap.c and include/linux/rmap.h, the functions of the same names.

The counting core follows below, kernel by kernel: __folio_add_rmap() and __folio_remove_rmap(); for 6.1
page_add_anon_rmap(), page_add_file_rmap() and page_remove_rmap(); folio_add_return_large_mapcount() and
folio_sub_return_large_mapcount() for the total and the two mm ids. The arithmetic is the kernel's own, also where a
counter is already damaged: "first" means that a count became 0, "last" that it became negative.
"""

from __future__ import annotations

from dataclasses import replace

from inspector.model.interface import SPECS, Op, OpLevel, Spec
from inspector.model.preconditions import check
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import FREE, Folio, Slot, bump, with_stats
from inspector.records import dataclass

_MIDDLE = (Scheme.SUBPAGES, Scheme.RMAP68)
"""Schemes that put a folio on the deferred split queue with the last of its pages too."""


@dataclass(frozen=True)
class Outcome:
    """What an operation returned.

    Attributes:
        folio: The state after it.
        busy: Whether it returned -EBUSY, and changed nothing: the pages may be pinned.
    """

    folio: Folio
    busy: bool = False


def apply(folio: Folio, op: Op) -> Outcome:
    """Carry out one operation.

    Raises:
        RefusedError: A precondition does not hold; the state has not changed.
        KeyError: There is no operation of that name (`inspector.model.interface` knows the older ones).
    """
    spec = SPECS[op.name]
    check(folio, op, spec)
    call = op if spec.level is OpLevel.PTE else _whole(op, folio)
    if spec.action in ("dup", "share") and folio.pinned and spec.wants == "anon":
        pages = range(call.page, call.page + call.nr) if spec.level is OpLevel.PTE else range(1)
        if any(page in folio.exclusive for page in pages):
            return Outcome(folio, busy=True)
    if spec.action == "freeze" and 0 in folio.exclusive and folio.pinned:
        # The PMD is split without freezing instead.
        spec = replace(spec, action="split")
    return Outcome(_by_caller(folio, _count(folio, call, spec), call, spec))


def count_only(folio: Folio, op: Op) -> Folio:
    """What the operation makes of the counters and flags, whether or not it is allowed; nothing of its callers'."""
    spec = SPECS[op.name]
    return _count(folio, op if spec.level is OpLevel.PTE else _whole(op, folio), spec)


def _count(folio: Folio, op: Op, spec: Spec) -> Folio:
    if spec.family == "hugetlb":
        return _hugetlb(folio, op, spec)
    if spec.action == "new":
        return _new(folio, op)
    by_pte = spec.level is OpLevel.PTE
    if spec.action == "add":
        return _add(folio, op, spec)
    if spec.action == "dup":
        ptes = by_pte or op.as_coded
        folio = _dup_ptes(folio, op.mm, op.page, op.nr) if ptes else _dup_huge(folio, op.mm)
        gone = range(op.page, op.page + op.nr) if by_pte else range(1)
        return replace(folio, exclusive=folio.exclusive - frozenset(gone)) if spec.wants == "anon" else folio
    if spec.action == "share":
        return replace(folio, exclusive=folio.exclusive - {op.page if by_pte else 0})
    if spec.action in ("remove", "zap"):
        folio = _remove_ptes(folio, op.mm, op.page, op.nr) if by_pte else _remove_huge(folio, op.mm)
        clears = op.vma_locked and (folio.scheme is not Scheme.OLD or not by_pte or not folio.is_large)
        return replace(folio, mlocked=folio.mlocked and not clears)
    if spec.action in ("split", "freeze"):
        return _split(folio, op, freeze=spec.action == "freeze")
    # A move: 6.1 marks the page as exclusive itself, later kernels leave that to the caller.
    return replace(folio, exclusive=folio.exclusive | {op.page}) if folio.scheme is Scheme.OLD else folio


def _add(folio: Folio, op: Op, spec: Spec) -> Folio:
    by_pte = spec.level is OpLevel.PTE
    folio = _add_ptes(folio, op.mm, op.page, op.nr) if by_pte else _add_huge(folio, op.mm)
    if op.exclusive and spec.wants == "anon":
        marked = range(op.page, op.page + op.nr) if by_pte else range(1)
        folio = replace(folio, exclusive=folio.exclusive | frozenset(marked))
    return replace(folio, mlocked=True) if op.vma_locked and _mlocks(folio, op, spec) else folio


def _mlocks(folio: Folio, op: Op, spec: Spec) -> bool:
    """Whether adding marks the folio as mlocked: small ones, and from 6.15 on whatever is mapped completely."""
    if folio.scheme is Scheme.OLD:
        return spec.level is not OpLevel.PTE or not folio.is_large
    return op.nr == folio.nr if folio.scheme.has_mm_ids else not folio.is_large


def _new(folio: Folio, op: Op) -> Folio:
    """All counters are set, not raised: no other task can see the folio yet."""
    folio = replace(folio, anon_mapping=True)
    marked = frozenset(range(folio.nr) if folio.order < folio.pmd_order else (0,))
    folio = replace(folio, exclusive=folio.exclusive | marked) if op.exclusive else folio
    if folio.order >= folio.pmd_order:
        word = ENTIRELY_MAPPED if folio.scheme.has_pages_mapped_word else folio.word
        folio = _set_large(replace(folio, entire=0, word=word), op.mm, 1)
        return with_stats(folio, folio.nr, folio.nr)
    if folio.scheme.has_page_mapcount or not folio.is_large:
        folio = replace(folio, pages=(0,) * folio.nr)
    if folio.is_large:
        word = folio.nr if folio.scheme.has_pages_mapped_word else folio.word
        folio = _set_large(replace(folio, word=word), op.mm, folio.nr)
    return with_stats(folio, folio.nr, 0)


def _split(folio: Folio, op: Op, *, freeze: bool) -> Folio:
    """mm/huge_memory.c, __split_huge_pmd_locked(): PTEs or migration entries in place of a PMD."""
    marked = 0 in folio.exclusive
    if not freeze:
        folio = _split_huge(folio, op.mm)
        return replace(folio, exclusive=folio.exclusive | frozenset(range(folio.nr))) if marked else folio
    folio = replace(folio, exclusive=folio.exclusive - {0})
    if folio.scheme is not Scheme.OLD:
        return _remove_huge(folio, op.mm)
    # 6.1 counts PTEs first and takes each of them away again.
    return _remove_ptes(_split_huge(folio, op.mm), op.mm, 0, folio.nr)


def _hugetlb(folio: Folio, op: Op, spec: Spec) -> Folio:
    """One logical entry, whatever hardware entries it is made of: no page, no sum, no statistic."""
    if spec.action == "share":
        return replace(folio, exclusive=folio.exclusive - {0})
    step = -1 if spec.action == "remove" else 1
    entire = 0 if spec.action == "new" else folio.entire + step
    large = 0 if spec.action == "new" else folio.large + step
    folio = replace(folio, entire=entire, large=large if folio.scheme.has_large_mapcount else folio.large)
    if spec.action == "new":
        folio = replace(folio, anon_mapping=True)
    if spec.action == "dup":
        return replace(folio, exclusive=folio.exclusive - {0})
    marks = spec.wants == "anon" and op.exclusive
    return replace(folio, exclusive=folio.exclusive | {0}) if marks else folio


def _by_caller(before: Folio, folio: Folio, op: Op, spec: Spec) -> Folio:
    """The entries themselves, a reference for each, and the rss of the mm."""
    if spec.action in ("share", "move"):
        return folio
    by_pte = spec.level is OpLevel.PTE or (
        spec.action == "new" and spec.family != "hugetlb" and before.order < before.pmd_order
    )
    keys = [(op.mm, page) for page in range(op.page, op.page + op.nr)]
    if spec.action in ("split", "freeze"):
        folio = replace(folio, huge=bump(folio.huge, [op.mm], -1))
        if spec.action == "freeze":
            moved = bump(folio.migration, [op.mm], folio.nr)
            return replace(folio, migration=moved, refcount=folio.refcount - 1)
        return replace(folio, ptes=bump(folio.ptes, keys, 1), refcount=folio.refcount + folio.nr - 1)
    sign = -1 if spec.action in ("remove", "zap") else 1
    if by_pte:
        folio = replace(folio, ptes=bump(folio.ptes, keys, sign), refcount=folio.refcount + sign * op.nr)
    else:
        folio = replace(folio, huge=bump(folio.huge, [op.mm], sign), refcount=folio.refcount + sign)
    if spec.family == "hugetlb":
        return folio
    return replace(folio, rss=bump(folio.rss, [op.mm], sign * (op.nr if by_pte else folio.nr)))


def _whole(op: Op, folio: Folio) -> Op:
    """The call for all pages of the folio."""
    return replace(op, page=0, nr=folio.nr)


def _add_ptes(folio: Folio, mm: int, page: int, nr: int) -> Folio:
    """PTEs map ``nr`` pages from ``page`` on."""
    if folio.scheme is Scheme.OLD and folio.is_large and not folio.kind.is_anon:
        folio = replace(folio, double_map=True)
    if folio.is_large and not folio.scheme.has_page_mapcount:
        was_mapped = folio.large >= 0
        folio = _add_large(folio, mm, nr)
        return with_stats(folio, 0 if was_mapped else folio.nr, 0)
    folio, first = _raise(folio, page, nr)
    if not folio.is_large or folio.scheme is Scheme.OLD:
        return with_stats(folio, first, 0)
    folio = replace(folio, word=folio.word + first)
    folio = with_stats(folio, first if folio.word < ENTIRELY_MAPPED else 0, 0)
    return _add_large(folio, mm, nr)


def _add_huge(folio: Folio, mm: int) -> Folio:
    """One PMD or PUD maps the folio as a whole."""
    if folio.scheme is Scheme.OLD:
        return _add_huge_old(folio)
    folio = replace(folio, entire=folio.entire + 1)
    first = folio.entire == 0
    pmd_mapped = folio.nr if first and folio.order == folio.pmd_order else 0
    if not folio.scheme.has_page_mapcount:
        was_mapped = folio.large >= 0
        folio = _add_large(folio, mm, 1)
        return with_stats(folio, 0 if was_mapped else folio.nr, pmd_mapped)
    if first:
        folio = replace(folio, word=folio.word + ENTIRELY_MAPPED)
        if folio.word < 2 * ENTIRELY_MAPPED:
            folio = with_stats(folio, max(folio.nr - folio.word % ENTIRELY_MAPPED, 0), pmd_mapped)
    return _add_large(folio, mm, 1)


def _dup_ptes(folio: Folio, mm: int, page: int, nr: int) -> Folio:
    """PTEs map pages that are mapped already: no sum and no statistic moves."""
    if not folio.is_large or folio.scheme.has_page_mapcount:
        folio, _ = _raise(folio, page, nr)
    return _add_large(folio, mm, nr) if folio.is_large else folio


def _dup_huge(folio: Folio, mm: int) -> Folio:
    """One more PMD maps a folio that a PMD maps already."""
    return _add_large(replace(folio, entire=folio.entire + 1), mm, 1)


def _remove_ptes(folio: Folio, mm: int, page: int, nr: int) -> Folio:
    """PTEs that mapped ``nr`` pages from ``page`` on are gone."""
    if folio.is_large and not folio.scheme.has_page_mapcount:
        folio = _sub_large(folio, mm, nr)
        gone = folio.large == -1
        partial = not gone and folio.large + 1 < folio.nr and folio.entire < 0
        return with_stats(_defer(folio) if partial else folio, -folio.nr if gone else 0, 0)
    if folio.is_large:
        folio = _sub_large(folio, mm, nr)
    folio, last = _lower(folio, page, nr)
    if not folio.is_large:
        return with_stats(folio, -last, 0)
    if folio.scheme is Scheme.OLD:
        return with_stats(_defer(folio) if last else folio, -last, 0)
    folio = replace(folio, word=folio.word - last)
    counted = last if folio.word < ENTIRELY_MAPPED else 0
    if counted and (folio.scheme in _MIDDLE or folio.word != 0):
        folio = _defer(folio)
    return with_stats(folio, -counted, 0)


def _remove_huge(folio: Folio, mm: int) -> Folio:
    """A PMD or PUD that mapped the folio as a whole is gone."""
    if folio.scheme is Scheme.OLD:
        return _remove_huge_old(folio)
    folio = replace(_sub_large(folio, mm, 1), entire=folio.entire - 1)
    last = folio.entire < 0
    pmd_mapped = folio.nr if last and folio.order == folio.pmd_order else 0
    if not folio.scheme.has_page_mapcount:
        gone = folio.large == -1
        if last and not gone and folio.large + 1 < folio.nr:
            folio = _defer(folio)
        return with_stats(folio, -folio.nr if gone else 0, -pmd_mapped)
    if not last:
        return folio
    folio = replace(folio, word=folio.word - ENTIRELY_MAPPED)
    if folio.word >= ENTIRELY_MAPPED:
        return folio
    unmapped = max(folio.nr - folio.word, 0)
    if 0 < unmapped < pmd_mapped:
        folio = _defer(folio)
    return with_stats(folio, -unmapped, -pmd_mapped)


def _split_huge(folio: Folio, mm: int) -> Folio:
    """A PMD becomes PTEs of all pages; mm/huge_memory.c, __split_huge_pmd_locked()."""
    if folio.scheme is not Scheme.OLD:
        return _remove_huge(_add_ptes(folio, mm, 0, folio.nr), mm)
    # 6.1 raises the pages and leaves the statistics alone: a PMD accounted all of them already.
    folio, _ = _raise(folio, 0, folio.nr)
    if folio.entire > 0 and not folio.double_map:
        folio, _ = _raise(replace(folio, double_map=True), 0, folio.nr)
    folio = replace(folio, entire=folio.entire - 1)
    if folio.entire >= 0:
        return folio
    folio = with_stats(folio, 0, -folio.nr)
    return _lower(replace(folio, double_map=False), 0, folio.nr)[0] if folio.double_map else folio


def _add_huge_old(folio: Folio) -> Folio:
    newly = 0
    if not folio.kind.is_anon:
        folio, newly = _raise(folio, 0, folio.nr)
    folio = replace(folio, entire=folio.entire + 1)
    if folio.entire != 0:
        return with_stats(folio, newly, 0)
    if folio.kind.is_anon:
        return with_stats(folio, folio.nr, folio.nr)
    return with_stats(replace(folio, double_map=folio.double_map and newly != folio.nr), newly, folio.nr)


def _remove_huge_old(folio: Folio) -> Folio:
    gone = 0
    if not folio.kind.is_anon:
        folio, gone = _lower(folio, 0, folio.nr)
    folio = replace(folio, entire=folio.entire - 1)
    if folio.entire >= 0:
        return with_stats(folio, -gone, 0)
    if not folio.kind.is_anon:
        return with_stats(folio, -gone, -folio.nr)
    gone = folio.nr
    if folio.double_map:
        folio, gone = _lower(replace(folio, double_map=False), 0, folio.nr)
        if 0 < gone < folio.nr:
            folio = _defer(folio)
    return with_stats(folio, -gone, -folio.nr)


def _raise(folio: Folio, page: int, nr: int) -> tuple[Folio, int]:
    """Page counts one higher, and how many became 0."""
    raised = tuple(n + 1 for n in folio.pages[page : page + nr])
    pages = folio.pages[:page] + raised + folio.pages[page + nr :]
    return replace(folio, pages=pages), raised.count(0)


def _lower(folio: Folio, page: int, nr: int) -> tuple[Folio, int]:
    """Page counts one lower, and how many are negative now."""
    lowered = tuple(n - 1 for n in folio.pages[page : page + nr])
    pages = folio.pages[:page] + lowered + folio.pages[page + nr :]
    return replace(folio, pages=pages), sum(n < 0 for n in lowered)


def _defer(folio: Folio) -> Folio:
    """On the deferred split queue; mm/huge_memory.c, deferred_split_folio()."""
    if not folio.kind.is_anon or folio.swapcache or folio.order <= 1 < folio.pmd_order:
        return folio
    return replace(folio, deferred=True, partially_mapped=folio.scheme.has_large_mapcount)


def _set_large(folio: Folio, mm: int, mapcount: int) -> Folio:
    """The first mappings of a new folio."""
    if not folio.scheme.has_large_mapcount:
        return folio
    folio = replace(folio, large=mapcount - 1)
    return replace(folio, slots=((mm, mapcount - 1), folio.slots[1])) if folio.scheme.has_mm_ids else folio


def _add_large(folio: Folio, mm: int, diff: int) -> Folio:
    """So many mappings more by that mm; the total first, then its slot."""
    if not folio.scheme.has_large_mapcount:
        return folio
    folio = replace(folio, large=folio.large + diff)
    if not folio.scheme.has_mm_ids:
        return folio
    slots = list(folio.slots)
    for i, (ident, held) in enumerate(slots):
        if ident == mm:
            slots[i] = mm, held + diff
            return _with_slots(folio, slots, shared=folio.shared)
    if slots[0][0] == 0:
        slots[0] = mm, diff - 1
        return _with_slots(folio, slots, shared=folio.shared or folio.large != diff - 1)
    if slots[1][0] == 0:
        slots[1] = mm, diff - 1
        return _with_slots(folio, slots, shared=True)
    return folio


def _sub_large(folio: Folio, mm: int, diff: int) -> Folio:
    """So many mappings fewer by that mm; a slot that goes negative is freed."""
    if not folio.scheme.has_large_mapcount:
        return folio
    folio = replace(folio, large=folio.large - diff)
    if not folio.scheme.has_mm_ids:
        return folio
    slots = list(folio.slots)
    for i, (ident, held) in enumerate(slots):
        if ident == mm:
            if held >= diff:
                slots[i] = mm, held - diff
                return _with_slots(folio, slots, shared=folio.shared)
            slots[i] = FREE
            break
    # One mm owns all that is left, or nothing is left.
    alone = folio.large in (slots[0][1], slots[1][1])
    return _with_slots(folio, slots, shared=folio.shared and not alone)


def _with_slots(folio: Folio, slots: list[Slot], *, shared: bool) -> Folio:
    return replace(folio, slots=(slots[0], slots[1]), shared=shared)
