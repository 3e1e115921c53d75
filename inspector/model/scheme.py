"""The generations of mapcount accounting."""

from __future__ import annotations

from enum import Enum

ENTIRELY_MAPPED = 0x800000
"""Bit of _nr_pages_mapped that means "mapped as a whole" (mm/internal.h; COMPOUND_MAPPED before 6.8)."""


class Scheme(Enum):
    """How a kernel counts mappings of large folios."""

    OLD = "compound_mapcount and PG_double_map"
    """6.1 and before: per-page counts that partly include huge mappings."""
    SUBPAGES = "_compound_mapcount and _subpages_mapcount"
    """6.2: the formulas of 6.3 to 6.9 under other names."""
    RMAP68 = "_entire_mapcount and _nr_pages_mapped"
    """6.3 to 6.9: the total is computed from the pages."""
    LARGE = "_large_mapcount"
    """6.10 to 6.14, and later ones without THP: the total is kept as well."""
    MM_IDS = "_large_mapcount and mm ids, page counts kept"
    """6.15 and later: two mms are named in every large folio."""
    NO_PAGE_MAPCOUNT = "_large_mapcount and mm ids, no page counts"
    """6.15 and later with CONFIG_NO_PAGE_MAPCOUNT."""

    @property
    def kernels(self) -> str:
        """The releases that count this way."""
        return {
            Scheme.OLD: "up to 6.1",
            Scheme.SUBPAGES: "6.2",
            Scheme.RMAP68: "6.3 to 6.9",
            Scheme.LARGE: "6.10 to 6.14, later ones without THP",
            Scheme.MM_IDS: "6.15 and later",
            Scheme.NO_PAGE_MAPCOUNT: "6.15 and later with CONFIG_NO_PAGE_MAPCOUNT",
        }[self]

    @property
    def has_pages_mapped_word(self) -> bool:
        """Whether _nr_pages_mapped (or _subpages_mapcount) is maintained."""
        return self in (Scheme.SUBPAGES, Scheme.RMAP68, Scheme.LARGE, Scheme.MM_IDS)

    @property
    def has_large_mapcount(self) -> bool:
        """Whether the total is stored."""
        return self in (Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)

    @property
    def has_mm_ids(self) -> bool:
        """Whether a large folio keeps two mm ids."""
        return self in (Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)

    @property
    def has_page_mapcount(self) -> bool:
        """Whether pages of large folios keep a _mapcount."""
        return self is not Scheme.NO_PAGE_MAPCOUNT

    @property
    def double_map(self) -> bool:
        """Whether page counts depend on huge mappings too, and on PG_double_map where the folio is anonymous."""
        return self is Scheme.OLD
