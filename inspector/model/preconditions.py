"""What must hold before an rmap operation, named as the kernel names it.

include/linux/rmap.h, __folio_rmap_sanity_checks(); mm/rmap.c, the assertions of each operation. Some conditions the
kernel relies on without testing them: they are named `UNTESTED`.
"""

from __future__ import annotations

from collections.abc import Iterator

from inspector.model.interface import Op, OpLevel, Spec
from inspector.model.scheme import Scheme
from inspector.model.state import FREE, Folio, count

UNTESTED = "not tested by the kernel"


class RefusedError(Exception):
    """The kernel would complain, or count nonsense without noticing.

    Attributes:
        op: The operation.
        condition: The assertion that fails, by the kernel's name, or `UNTESTED`.
        reason: What is wrong, in plain words.
    """

    def __init__(self, op: Op, condition: str, reason: str) -> None:
        super().__init__(f"{op.name}(): {reason} [{condition}]")
        self.op, self.condition, self.reason = op, condition, reason


Failure = tuple[str, str]


def check(folio: Folio, op: Op, spec: Spec) -> None:
    """Raises `RefusedError` with the first condition that fails."""
    parts = [_hugetlb(folio, spec), _exists(folio, op, spec), _range(folio, op, spec), _kind(folio, op, spec)]
    for part in [*parts, _mapped(folio, op, spec), _exclusive(folio, op, spec)]:
        for condition, reason in part:
            raise RefusedError(op, condition, reason)


def _warn(folio: Folio, what: str) -> str:
    """The macro by which this kernel complains."""
    return f"VM_BUG_ON_PAGE({what})" if folio.scheme is Scheme.OLD else f"VM_WARN_ON_FOLIO({what})"


def _hugetlb(folio: Folio, spec: Spec) -> Iterator[Failure]:
    if spec.family == "hugetlb" and not folio.kind.is_hugetlb:
        yield _warn(folio, "not hugetlb"), "the folio is not hugetlb: the hugetlb_*() family is not for it"
    if spec.family != "hugetlb" and folio.kind.is_hugetlb and spec.action != "move":
        yield _warn(folio, "hugetlb"), "the folio is hugetlb, which is counted by the hugetlb_*() family alone"


def _exists(folio: Folio, op: Op, spec: Spec) -> Iterator[Failure]:
    old = folio.scheme is Scheme.OLD
    if spec.level is OpLevel.PUD and not folio.scheme.has_mm_ids:
        yield UNTESTED, "PUDs map folios as a whole from 6.15 on only"
    if old and spec.action == "dup" and spec.level is OpLevel.PMD and spec.wants == "file":
        yield UNTESTED, "fork leaves PMDs of files to page faults: 6.1 would miss the page counts"
    if old and spec.family != "hugetlb" and spec.wants == "anon" and folio.order not in (0, folio.pmd_order):
        yield UNTESTED, "6.1 has anonymous folios of one page and of PMD size only"
    if op.as_coded and op.name != "folio_dup_file_rmap_pmd":
        yield UNTESTED, "only folio_dup_file_rmap_pmd() is written otherwise than it is meant"


def _range(folio: Folio, op: Op, spec: Spec) -> Iterator[Failure]:
    if spec.level is OpLevel.PMD and folio.order != folio.pmd_order:
        condition = "not a THP" if folio.scheme is Scheme.OLD else "N is not HPAGE_PMD_NR"
        yield _warn(folio, condition), f"a PMD maps folios of order {folio.pmd_order}, this has order {folio.order}"
    if spec.level is OpLevel.PUD and folio.order != folio.pud_order:
        reason = f"a PUD maps folios of order {folio.pud_order}, this has order {folio.order}"
        yield _warn(folio, "N is not HPAGE_PUD_NR"), reason
    if spec.level is not OpLevel.PTE:
        return
    if op.nr <= 0:
        yield "VM_WARN_ON_ONCE(no pages)", "no pages are asked for"
    if not spec.batch and op.nr != 1:
        yield UNTESTED, f"it takes one page, not {op.nr}"
    if not 0 <= op.page < folio.nr:
        yield _warn(folio, "page of another folio"), f"page {op.page} is not one of the folio's {folio.nr}"
    if op.page + op.nr > folio.nr:
        yield _warn(folio, "last page of another folio"), f"the range ends after the folio's {folio.nr} pages"


def _kind(folio: Folio, op: Op, spec: Spec) -> Iterator[Failure]:
    if spec.wants == "file" and (folio.kind.is_anon or folio.test_anon):
        yield _warn(folio, "anon"), "the folio is anonymous"
    if spec.wants == "anon" and not folio.kind.is_anon:
        yield _warn(folio, "not anon"), "the folio is not anonymous"
    if spec.wants == "anon" and spec.action != "new" and not folio.test_anon:
        yield _warn(folio, "not anon"), "the folio is not anonymous yet: its first mapping makes it so"
    if spec.action == "new" and (folio.anon_mapping or folio.total or not _at_base(folio)):
        yield UNTESTED, "the folio is not new: something maps it or its counters are in use"
    if spec.action == "new" and not op.exclusive:
        if folio.scheme not in (Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT) or spec.family == "hugetlb":
            yield UNTESTED, "a new folio is exclusive always"
        if not folio.locked:
            yield _warn(folio, "neither exclusive nor locked"), "a new folio that others may see must be locked"
    if spec.action == "move" and not folio.locked:
        yield "VM_BUG_ON_FOLIO(not locked)", "the folio lock is not held"
    if spec.action == "add" and spec.wants == "anon" and folio.scheme is Scheme.OLD and not folio.locked:
        yield "VM_BUG_ON_PAGE(not locked)", "the folio lock is not held"


def _at_base(folio: Folio) -> bool:
    unused = all(n == -1 for n in folio.pages)
    return unused and folio.entire == -1 and folio.large == -1 and folio.word == 0 and folio.slots == (FREE, FREE)


def _mapped(folio: Folio, op: Op, spec: Spec) -> Iterator[Failure]:
    """What is duplicated or taken away must be there."""
    if spec.action in ("add", "new", "move"):
        return
    who = op.mm if spec.action in ("remove", "split", "freeze", "zap") else op.src
    if spec.level is not OpLevel.PTE:
        if not (count(folio.huge, who) if who else folio.huge):
            name = f"mm {who}" if who else "nothing"
            yield UNTESTED, f"{name} does not map the folio as a whole" if who else f"{name} maps the folio as a whole"
        return
    for page in range(op.page, op.page + op.nr):
        found = count(folio.ptes, (who, page)) if who else any(p == page for (_, p), _ in folio.ptes)
        if not found:
            yield UNTESTED, f"no PTE of mm {who} maps page {page}" if who else f"no PTE maps page {page}"


def _exclusive(folio: Folio, op: Op, spec: Spec) -> Iterator[Failure]:
    first = 0 if spec.level is not OpLevel.PTE else op.page
    if spec.action == "share" and first not in folio.exclusive:
        yield _warn(folio, "not PageAnonExclusive"), f"page {first} is not exclusive"
    if spec.action == "add" and spec.wants == "anon":
        yield from _exclusive_after_add(folio, op, spec)


def _exclusive_after_add(folio: Folio, op: Op, spec: Spec) -> Iterator[Failure]:
    """An exclusive page must not be mapped twice; a PMD and a PTE at once is what a split passes through."""
    by_pte = spec.level is OpLevel.PTE
    pages = range(op.page, op.page + op.nr) if by_pte else range(folio.nr)
    given = frozenset(pages if by_pte else (0,)) if op.exclusive else frozenset()
    after = folio.exclusive | given
    if folio.scheme is Scheme.OLD:
        before = [folio.pages[i] for i in pages] if by_pte and spec.family != "hugetlb" else [folio.entire]
        heads = pages if by_pte else (0,)
        for page, held in zip(heads, before, strict=True):
            if held >= 0 and op.exclusive:
                yield "VM_BUG_ON_PAGE(not first, RMAP_EXCLUSIVE)", f"page {page} is mapped already"
            if held >= 0 and page in folio.exclusive:
                yield "VM_BUG_ON_PAGE(not first, PageAnonExclusive)", f"page {page} is exclusive to another mapping"
        return
    entire = folio.entire + 1 + (not by_pte)
    pages_count = spec.family != "hugetlb" and (folio.scheme.has_page_mapcount or not folio.is_large)
    for page in (0,) if spec.family == "hugetlb" else pages:
        if entire > 1 and page in after:
            yield (
                "VM_WARN_ON_FOLIO(entire mapcount above 1, PageAnonExclusive)",
                f"page {page} would be exclusive twice",
            )
        if pages_count and folio.pages[page] + by_pte > 0 and page in after:
            yield "VM_WARN_ON_FOLIO(_mapcount above 0, PageAnonExclusive)", f"page {page} would be exclusive twice"
