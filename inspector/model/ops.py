"""The rmap interface as an executable specification: every operation as a function from state to state.

`apply` checks what must hold, counts as the kernel of the state's scheme counts, and does what the operation's callers
do: the entry itself, its reference and the rss of its mm. `count_only` counts alone, also where nothing allows it: what
an operation too many does. mm/rmap.c and include/linux/rmap.h, the functions of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from inspector.model import ops_count, ops_ids
from inspector.model.ops_check import Level, Op, RefusedError, Spec, check, whole
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import Folio, bump, with_stats

__all__ = ["SPECS", "Level", "Op", "Outcome", "RefusedError", "Spec", "apply", "count_only"]


@dataclass(frozen=True)
class Outcome:
    """What an operation returned.

    Attributes:
        folio: The state after it.
        busy: Whether it returned -EBUSY, and changed nothing: the pages may be pinned.
    """

    folio: Folio
    busy: bool = False


def _family(name: str, action: str, wants: str, levels: str = "pte ptes pmd") -> dict[str, Spec]:
    found = {"pte": Level.PTE, "ptes": Level.PTE, "pmd": Level.PMD, "pud": Level.PUD}
    return {f"{name}_{word}": Spec(action, found[word], wants, batch=word == "ptes") for word in levels.split()}


SPECS: dict[str, Spec] = {
    **_family("folio_add_anon_rmap", "add", "anon"),
    "folio_add_new_anon_rmap": Spec("new", Level.FOLIO, "anon"),
    **_family("folio_add_file_rmap", "add", "file", "pte ptes pmd pud"),
    **_family("folio_dup_file_rmap", "dup", "file"),
    **_family("folio_try_dup_anon_rmap", "dup", "anon"),
    **_family("folio_try_share_anon_rmap", "share", "anon", "pte pmd"),
    **_family("folio_remove_rmap", "remove", "any", "pte ptes pmd pud"),
    "folio_move_anon_rmap": Spec("move", Level.FOLIO, "anon"),
    "hugetlb_add_anon_rmap": Spec("add", Level.FOLIO, "anon", "hugetlb"),
    "hugetlb_add_new_anon_rmap": Spec("new", Level.FOLIO, "anon", "hugetlb"),
    "hugetlb_add_file_rmap": Spec("add", Level.FOLIO, "file", "hugetlb"),
    "hugetlb_try_dup_anon_rmap": Spec("dup", Level.FOLIO, "anon", "hugetlb"),
    "hugetlb_try_share_anon_rmap": Spec("share", Level.FOLIO, "anon", "hugetlb"),
    "hugetlb_remove_rmap": Spec("remove", Level.FOLIO, "any", "hugetlb"),
    "split_huge_pmd": Spec("split", Level.PMD, "anon"),
    "split_huge_pmd_freeze": Spec("freeze", Level.PMD, "anon"),
    "zap_huge_pmd": Spec("zap", Level.PMD, "any"),
}
"""All operations: the interface of 6.8 and later, and what mm/huge_memory.c puts together from it."""


def apply(folio: Folio, op: Op) -> Outcome:
    """Carry out one operation.

    Raises:
        RefusedError: A precondition does not hold; the state has not changed.
        KeyError: There is no operation of that name (`inspector.model.lineage` knows the older ones).
    """
    spec = SPECS[op.name]
    check(folio, op, spec)
    told = op if spec.level is Level.PTE else whole(op, folio)
    if spec.action in ("dup", "share") and folio.pinned and spec.wants == "anon":
        pages = range(told.page, told.page + told.nr) if spec.level is Level.PTE else range(1)
        if any(page in folio.exclusive for page in pages):
            return Outcome(folio, busy=True)
    if spec.action == "freeze" and 0 in folio.exclusive and folio.pinned:
        # The PMD is split without freezing instead.
        spec = replace(spec, action="split")
    return Outcome(_by_caller(folio, _count(folio, told, spec), told, spec))


def count_only(folio: Folio, op: Op) -> Folio:
    """What the operation makes of the counters and flags, whether or not it is allowed; nothing of its callers'."""
    spec = SPECS[op.name]
    return _count(folio, op if spec.level is Level.PTE else whole(op, folio), spec)


def _count(folio: Folio, op: Op, spec: Spec) -> Folio:
    if spec.family == "hugetlb":
        return _hugetlb(folio, op, spec)
    if spec.action == "new":
        return _new(folio, op)
    by_pte = spec.level is Level.PTE
    if spec.action == "add":
        return _add(folio, op, spec)
    if spec.action == "dup":
        if by_pte or op.as_coded:
            folio = ops_count.dup_ptes(folio, op.mm, op.page, op.nr)
        else:
            folio = ops_count.dup_huge(folio, op.mm)
        gone = range(op.page, op.page + op.nr) if by_pte else range(1)
        return replace(folio, exclusive=folio.exclusive - frozenset(gone)) if spec.wants == "anon" else folio
    if spec.action == "share":
        return replace(folio, exclusive=folio.exclusive - {op.page if by_pte else 0})
    if spec.action in ("remove", "zap"):
        removed = ops_count.remove_ptes(folio, op.mm, op.page, op.nr) if by_pte else None
        folio = removed or ops_count.remove_huge(folio, op.mm)
        clears = op.vma_locked and (folio.scheme is not Scheme.OLD or not by_pte or not folio.is_large)
        return replace(folio, mlocked=folio.mlocked and not clears)
    if spec.action in ("split", "freeze"):
        return _split(folio, op, freeze=spec.action == "freeze")
    # A move: 6.1 marks the page as exclusive itself, later kernels leave that to the caller.
    return replace(folio, exclusive=folio.exclusive | {op.page}) if folio.scheme is Scheme.OLD else folio


def _add(folio: Folio, op: Op, spec: Spec) -> Folio:
    by_pte = spec.level is Level.PTE
    added = ops_count.add_ptes(folio, op.mm, op.page, op.nr) if by_pte else None
    folio = added or ops_count.add_huge(folio, op.mm)
    if op.exclusive and spec.wants == "anon":
        marked = range(op.page, op.page + op.nr) if by_pte else range(1)
        folio = replace(folio, exclusive=folio.exclusive | frozenset(marked))
    return replace(folio, mlocked=True) if op.vma_locked and _mlocks(folio, op, spec) else folio


def _mlocks(folio: Folio, op: Op, spec: Spec) -> bool:
    """Whether adding marks the folio as mlocked: small ones, and from 6.15 on whatever is mapped completely."""
    if folio.scheme is Scheme.OLD:
        return spec.level is not Level.PTE or not folio.is_large
    return op.nr == folio.nr if folio.scheme.has_mm_ids else not folio.is_large


def _new(folio: Folio, op: Op) -> Folio:
    """All counters are set, not raised: nobody else can see the folio yet."""
    folio = replace(folio, anon_mapping=True)
    marked = frozenset(range(folio.nr) if folio.order < folio.pmd_order else (0,))
    folio = replace(folio, exclusive=folio.exclusive | marked) if op.exclusive else folio
    if folio.order >= folio.pmd_order:
        word = ENTIRELY_MAPPED if folio.scheme.has_pages_mapped_word else folio.word
        folio = ops_ids.set_large(replace(folio, entire=0, word=word), op.mm, 1)
        return with_stats(folio, folio.nr, folio.nr)
    if folio.scheme.has_page_mapcount or not folio.is_large:
        folio = replace(folio, pages=(0,) * folio.nr)
    if folio.is_large:
        word = folio.nr if folio.scheme.has_pages_mapped_word else folio.word
        folio = ops_ids.set_large(replace(folio, word=word), op.mm, folio.nr)
    return with_stats(folio, folio.nr, 0)


def _split(folio: Folio, op: Op, *, freeze: bool) -> Folio:
    """mm/huge_memory.c, __split_huge_pmd_locked(): PTEs or migration entries in place of a PMD."""
    marked = 0 in folio.exclusive
    if not freeze:
        folio = ops_count.split_huge(folio, op.mm)
        return replace(folio, exclusive=folio.exclusive | frozenset(range(folio.nr))) if marked else folio
    folio = replace(folio, exclusive=folio.exclusive - {0})
    if folio.scheme is not Scheme.OLD:
        return ops_count.remove_huge(folio, op.mm)
    # 6.1 counts PTEs first and takes each of them away again.
    return ops_count.remove_ptes(ops_count.split_huge(folio, op.mm), op.mm, 0, folio.nr)


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
    by_pte = spec.level is Level.PTE or (
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
