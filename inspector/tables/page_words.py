"""The words of struct pages, each distinct set of them kept once: millions of pages hold some hundreds of sets.

A page then needs the number of its set alone, and what depends on a page's own words is worked out once a set.
"""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U8, U32, U64, Mask, Table
from inspector.layout.flags import MAPPING_ANON, MAPPING_KSM, MAPPING_TAGS, type_code
from inspector.layout.kernel import Layout
from inspector.loops import Distinct
from inspector.records import dataclass


@dataclass(frozen=True, slots=True)
class PageWords(Table):
    """One row a distinct set of words of struct pages, in the order in which they were met.

    Attributes:
        flags: uint64; the flags word as stored.
        mapping: uint64; the ``mapping`` word: an address_space, or tagged.
        mapcount_raw: int32; the word shared by ``_mapcount`` and the page type, as stored.
        refcount: int32; ``_refcount``.
        readable: bool; False for pages that could not be read: all other columns are then 0.
        type_: uint8; page type code (`inspector.layout.flags.PAGE_TYPES`), 0 for none.
        nr: int64; how many pages hold this set.
    """

    flags: U64
    mapping: U64
    mapcount_raw: I32
    refcount: I32
    readable: Mask
    type_: U8
    nr: I64

    @property
    def is_anon(self) -> Mask:
        """Sets of anonymous pages (KSM included); typed pages never are."""
        return ((self.mapping & np.uint64(MAPPING_ANON)) != 0) & (self.type_ == 0)

    @property
    def is_ksm(self) -> Mask:
        """Sets of KSM pages."""
        return ((self.mapping & np.uint64(MAPPING_TAGS)) == MAPPING_KSM) & (self.type_ == 0)

    @property
    def names_file(self) -> Mask:
        """Sets whose ``mapping`` points to an address_space, whatever the page type."""
        return (self.mapping != 0) & ((self.mapping & np.uint64(MAPPING_TAGS)) == 0)


def page_words_table(layout: Layout, found: Distinct) -> PageWords:
    """The table of sets of words that were met.

    Args:
        layout: The kernel's layout.
        found: Rows of flags, ``mapping``, ``_mapcount`` in the low and ``_refcount`` in the high half of a word, and
            whether the page was read; each weighed by the number of pages.
    """
    flags, mapping, counts, readable = (column.copy() for column in found.values.T)
    word = (counts & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    types = page_type_codes(layout, flags, word)
    types[readable == 0] = 0
    return PageWords(
        flags=flags,
        mapping=mapping,
        mapcount_raw=word.view(np.int32),
        refcount=(counts >> np.uint64(32)).astype(np.uint32).view(np.int32),
        readable=readable != 0,
        type_=types,
        nr=found.weights,
    )


def page_type_codes(layout: Layout, flags: U64, word: U32) -> U8:
    """The page type code of each page, from its flags word and the word shared with ``_mapcount``."""
    types = layout.types.decode(word)
    if layout.flags.has("slab"):
        # Before 6.10 slab is a page flag, not a page type.
        types[layout.flags.test(flags, "slab")] = type_code("slab")
    return types
