"""The total mapcount of a large folio, and with it the two mm ids of 6.15 and later.

include/linux/rmap.h, folio_set_large_mapcount(), folio_add_return_large_mapcount() and
folio_sub_return_large_mapcount().
"""

from __future__ import annotations

from dataclasses import replace

from inspector.model.state import FREE, Folio, Slot


def set_large(folio: Folio, mm: int, mapcount: int) -> Folio:
    """The first mappings of a new folio."""
    if not folio.scheme.has_large_mapcount:
        return folio
    folio = replace(folio, large=mapcount - 1)
    return replace(folio, slots=((mm, mapcount - 1), folio.slots[1])) if folio.scheme.has_mm_ids else folio


def add_large(folio: Folio, mm: int, diff: int) -> Folio:
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
            return _with(folio, slots, shared=folio.shared)
    if slots[0][0] == 0:
        slots[0] = mm, diff - 1
        return _with(folio, slots, shared=folio.shared or folio.large != diff - 1)
    if slots[1][0] == 0:
        slots[1] = mm, diff - 1
        return _with(folio, slots, shared=True)
    return folio


def sub_large(folio: Folio, mm: int, diff: int) -> Folio:
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
                return _with(folio, slots, shared=folio.shared)
            slots[i] = FREE
            break
    # One mm owns all that is left, or nothing is left.
    alone = folio.large in (slots[0][1], slots[1][1])
    return _with(folio, slots, shared=folio.shared and not alone)


def _with(folio: Folio, slots: list[Slot], *, shared: bool) -> Folio:
    return replace(folio, slots=(slots[0], slots[1]), shared=shared)
