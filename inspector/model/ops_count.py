"""The counting core of the rmap interface, kernel by kernel: what adding and removing a mapping does to the counters.

mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap(); for 6.1 page_add_anon_rmap(), page_add_file_rmap() and
page_remove_rmap(). The arithmetic is the kernel's own, also where a counter is already damaged: "first" means that a
count became 0, "last" that it became negative.
"""

from __future__ import annotations

from dataclasses import replace

from inspector.model import ops_ids
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import Folio, with_stats

_MIDDLE = (Scheme.SUBPAGES, Scheme.RMAP68)


def add_ptes(folio: Folio, mm: int, page: int, nr: int) -> Folio:
    """PTEs map ``nr`` pages from ``page`` on."""
    if folio.scheme is Scheme.OLD and folio.is_large and not folio.kind.is_anon:
        folio = replace(folio, double_map=True)
    if folio.is_large and not folio.scheme.has_page_mapcount:
        was_mapped = folio.large >= 0
        folio = ops_ids.add_large(folio, mm, nr)
        return with_stats(folio, 0 if was_mapped else folio.nr, 0)
    folio, first = _raise(folio, page, nr)
    if not folio.is_large or folio.scheme is Scheme.OLD:
        return with_stats(folio, first, 0)
    folio = replace(folio, word=folio.word + first)
    folio = with_stats(folio, first if folio.word < ENTIRELY_MAPPED else 0, 0)
    return ops_ids.add_large(folio, mm, nr)


def add_huge(folio: Folio, mm: int) -> Folio:
    """One PMD or PUD maps the folio as a whole."""
    if folio.scheme is Scheme.OLD:
        return _add_huge_old(folio)
    folio = replace(folio, entire=folio.entire + 1)
    first = folio.entire == 0
    pmd_mapped = folio.nr if first and folio.order == folio.pmd_order else 0
    if not folio.scheme.has_page_mapcount:
        was_mapped = folio.large >= 0
        folio = ops_ids.add_large(folio, mm, 1)
        return with_stats(folio, 0 if was_mapped else folio.nr, pmd_mapped)
    if first:
        folio = replace(folio, word=folio.word + ENTIRELY_MAPPED)
        if folio.word < 2 * ENTIRELY_MAPPED:
            folio = with_stats(folio, max(folio.nr - folio.word % ENTIRELY_MAPPED, 0), pmd_mapped)
    return ops_ids.add_large(folio, mm, 1)


def dup_ptes(folio: Folio, mm: int, page: int, nr: int) -> Folio:
    """PTEs map pages that are mapped already: no sum and no statistic moves."""
    if not folio.is_large or folio.scheme.has_page_mapcount:
        folio, _ = _raise(folio, page, nr)
    return ops_ids.add_large(folio, mm, nr) if folio.is_large else folio


def dup_huge(folio: Folio, mm: int) -> Folio:
    """One more PMD maps a folio that a PMD maps already."""
    return ops_ids.add_large(replace(folio, entire=folio.entire + 1), mm, 1)


def remove_ptes(folio: Folio, mm: int, page: int, nr: int) -> Folio:
    """PTEs that mapped ``nr`` pages from ``page`` on are gone."""
    if folio.is_large and not folio.scheme.has_page_mapcount:
        folio = ops_ids.sub_large(folio, mm, nr)
        gone = folio.large == -1
        partial = not gone and folio.large + 1 < folio.nr and folio.entire < 0
        return with_stats(_defer(folio) if partial else folio, -folio.nr if gone else 0, 0)
    if folio.is_large:
        folio = ops_ids.sub_large(folio, mm, nr)
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


def remove_huge(folio: Folio, mm: int) -> Folio:
    """A PMD or PUD that mapped the folio as a whole is gone."""
    if folio.scheme is Scheme.OLD:
        return _remove_huge_old(folio)
    folio = replace(ops_ids.sub_large(folio, mm, 1), entire=folio.entire - 1)
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


def split_huge(folio: Folio, mm: int) -> Folio:
    """A PMD becomes PTEs of all pages; mm/huge_memory.c, __split_huge_pmd_locked()."""
    if folio.scheme is not Scheme.OLD:
        return remove_huge(add_ptes(folio, mm, 0, folio.nr), mm)
    # 6.1 raises the pages without a look at the statistics: a PMD accounted all of them already.
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
