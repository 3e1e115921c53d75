"""Page flags as the letters of the kernel's page-types tool (tools/mm/page-types.c, fs/proc/page.c)."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import type_code
from inspector.snapshot import Snapshot

_FLAGS = (
    # page-types' letter and its page flag, in page-types' order
    ("L", "locked"),
    ("E", "error"),
    ("R", "referenced"),
    ("U", "uptodate"),
    ("D", "dirty"),
    ("l", "lru"),
    ("A", "active"),
    ("S", "*slab"),
    ("W", "writeback"),
    ("I", "reclaim"),
    ("B", "*buddy"),
    ("a", "*anon"),
    ("s", "*swapcache"),
    ("b", "*swapbacked"),
    ("H", "*head"),
    ("T", "*tail"),
    ("G", "*huge"),
    ("u", "unevictable"),
    ("X", "hwpoison"),
    ("n", "*nopage"),
    ("x", "*ksm"),
    ("t", "*thp"),
    ("o", "*offline"),
    ("g", "*pgtable"),
    ("z", "*zero"),
    ("r", "reserved"),
    ("m", "mlocked"),
    ("P", "private"),
    ("p", "private_2"),
)

_LONG = {
    "a": "anonymous",
    "H": "compound head",
    "T": "compound tail",
    "G": "hugetlb",
    "n": "not readable",
    "g": "page table",
    "z": "zero page",
}


def legend(letters: str) -> str:
    """What the letters mean that occur in ``letters``."""
    used = [(letter, _LONG.get(letter, name.lstrip("*"))) for letter, name in _FLAGS if letter in letters]
    return ", ".join(f"{letter} {name}" for letter, name in used)


def page_letters(s: Snapshot, rows: I64) -> list[str]:
    """The letters of each page, without gaps; like stable_page_flags(), most are those of the page's folio."""
    columns = [(letter, _mask(s, rows, name)) for letter, name in _FLAGS]
    return ["".join(letter for letter, mask in columns if mask[i]) for i in range(len(rows))]


def _mask(s: Snapshot, rows: I64, name: str) -> Mask:
    pages, flags = s.pages, s.layout.flags
    head = np.maximum(pages.head_row[rows], 0).astype(np.int64)
    word = pages.flags[head]
    folio = s.folio_of_page[rows]
    known = np.zeros(len(rows), np.bool_) if not len(s.folios) else folio >= 0
    at = np.maximum(folio, 0)
    pfn = pages.memmap.pfns_of_rows(rows)
    match name:
        case "*slab" | "*buddy" | "*offline":
            return pages.type_[head] == type_code(name[1:])
        case "*pgtable":
            return pages.type_[head] == type_code("table")
        case "*anon":
            return pages.is_anon(head)
        case "*ksm":
            return pages.is_ksm(head)
        case "*swapcache":
            return flags.test(word, "swapcache") & flags.test(word, "swapbacked")
        case "*swapbacked":
            return flags.test(word, "swapbacked")
        case "*head":
            return known & (head == rows)
        case "*tail":
            return known & (head != rows)
        case "*huge":
            return known & s.folios.is_hugetlb[at] if len(s.folios) else known
        case "*thp":
            return known & s.folios.is_rmappable[at] if len(s.folios) else known
        case "*nopage":
            return ~pages.readable[rows]
        case "*zero":
            return pfn == s.layout.zero_pfn
        case "hwpoison":
            return flags.test(pages.flags[rows], name)
        case _:
            return flags.test(word, name)
