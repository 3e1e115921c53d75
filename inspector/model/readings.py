"""What happened to a folio whose counters are wrong: its differences read as rmap operations too many or too few.

Each operation moves its counters together (mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap()). So two questions
tell most: do the stored counters agree with one another, as those of a folio with other mappings would? Then the
operations that lead there are named. Or does one of them disagree with all the others? No operation leaves that behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inspector.columns import I64, Mask
from inspector.model.expectation import Rebuilt, expect
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme


@dataclass(frozen=True)
class Truth:
    """What the page tables say.

    Attributes:
        pages: int64[nr_pages]; PTEs that map each page (P).
        entire: Huge entries (E).
        is_hugetlb, is_anon: Kind of the folio.
        double_map: PG_double_map (6.1).
        small: Whether the folio is one page, which keeps its _mapcount alone.
    """

    pages: I64
    entire: int
    is_hugetlb: bool
    is_anon: bool
    double_map: bool
    small: bool


@dataclass(frozen=True)
class Stored:
    """What the kernel stored, -1 based where it counts so.

    Attributes:
        pages: int64[nr_pages]; ``_mapcount``.
        entire_raw, large_raw, word_raw: Of the folio; those that the kernel does not keep are ignored.
        references: References beyond those that are explained; negative where there are too few. None when unknown.
    """

    pages: I64
    entire_raw: int
    large_raw: int
    word_raw: int
    references: int | None


@dataclass(frozen=True)
class Reading:
    """One way to read the differences.

    Attributes:
        operations: What was done too often or not at all: name of the operation and how often it is too many
            (negative: too few); empty where no operation explains the state.
        sentence: In words.
        references: What became of the references, "" where that is not known.
    """

    operations: tuple[tuple[str, int], ...]
    sentence: str
    references: str = ""


@dataclass(frozen=True)
class Names:
    """What this kernel calls its operations."""

    add_pte: str
    remove_pte: str
    add_pmd: str
    remove_pmd: str


def names_of(*, is_anon: bool, is_hugetlb: bool, folio_names: bool) -> Names:
    """The operations' names: page_add_anon_rmap() and its like up to 6.7, folio_add_anon_rmap_pte() since."""
    kind = "anon" if is_anon else "file"
    if is_hugetlb and folio_names:
        return Names("", "", f"hugetlb_add_{kind}_rmap", "hugetlb_remove_rmap")
    if is_hugetlb:
        return Names("", "", "hugepage_add_anon_rmap" if is_anon else "page_dup_file_rmap", "page_remove_rmap")
    if folio_names:
        pte, pmd = f"folio_add_{kind}_rmap_pte", f"folio_add_{kind}_rmap_pmd"
        return Names(pte, "folio_remove_rmap_pte", pmd, "folio_remove_rmap_pmd")
    return Names(f"page_add_{kind}_rmap", "page_remove_rmap", f"page_add_{kind}_rmap", "page_remove_rmap")


def readings(scheme: Scheme, truth: Truth, stored: Stored, names: Names) -> list[Reading]:
    """The ways to read the differences between a folio's stored counters and its mappings, the simplest first.

    Args:
        scheme: The kernel's accounting.
        truth: The mappings.
        stored: The counters.
        names: What the operations are called.
    """
    off = _off(scheme, truth, stored)
    if not off:
        return _of_references(stored)
    # A folio with these other mappings would have these page counts and this entire count.
    other = _implied(scheme, truth, stored)
    if other is not None and not _off(scheme, other, stored):
        return [_operations(scheme, truth, other, stored, names)]
    if len(off) == 1:
        return [_alone(off[0], truth, stored)]
    words = ", ".join(f"{name} {difference:+d}" for name, difference in off)
    return [
        Reading((), f"counters that move together disagree ({words}): several faults, or memory that was overwritten")
    ]


def _columns(scheme: Scheme, truth: Truth) -> tuple[I64, int, int, int]:
    """Page counts, entire, large and word as they must be stored."""
    nr = len(truth.pages)
    if truth.small:
        return truth.pages - 1, -1, -1, 0
    rebuilt = Rebuilt(
        page_mappings=truth.pages.astype(np.int32),
        head_row=np.array([0], np.int64),
        order=np.array([nr.bit_length() - 1], np.uint8),
        entire=np.array([truth.entire], np.int32),
        is_hugetlb=np.array([truth.is_hugetlb]),
        is_anon=np.array([truth.is_anon]),
        double_map=np.array([truth.double_map]),
    )
    e = expect(scheme, rebuilt, np.zeros(nr, np.int32))
    return e.page_mapcount_raw.astype(np.int64), int(e.entire_raw[0]), int(e.large_raw[0]), int(e.word_raw[0])


def _off(scheme: Scheme, truth: Truth, stored: Stored) -> list[tuple[str, int]]:
    """The counters that differ, each with the sum of its differences; only those that this kernel keeps."""
    pages, entire, large, word = _columns(scheme, truth)
    out = []
    if (pages != stored.pages).any():
        out.append(("_mapcount", int((stored.pages - pages).sum())))
    if truth.small:
        return out
    if entire != stored.entire_raw:
        out.append(("entire mapcount", stored.entire_raw - entire))
    if scheme.has_large_mapcount and large != stored.large_raw:
        out.append(("_large_mapcount", stored.large_raw - large))
    if scheme.has_pages_mapped_word and word != stored.word_raw:
        out.append(("_nr_pages_mapped", stored.word_raw - word))
    return out


def _implied(scheme: Scheme, truth: Truth, stored: Stored) -> Truth | None:
    """The mappings that the stored page counts and entire count speak of; None where no folio can have them."""
    if truth.small:
        return None if (stored.pages < -1).any() else replace(truth, pages=stored.pages + 1)
    entire = stored.entire_raw + 1
    if entire < 0:
        return None
    if truth.is_hugetlb:
        return replace(truth, entire=entire)
    if not scheme.has_page_mapcount:
        # Only the total tells how many PTEs there are; where they were is not kept.
        total = stored.large_raw + 1 - entire
        if total < 0:
            return None
        pages = np.diff(np.minimum(np.cumsum(truth.pages), total), prepend=0).astype(np.int64)
        pages[0] += total - int(pages.sum())
    else:
        pages = stored.pages + 1
        if scheme.double_map:
            pages = pages - (truth.double_map if truth.is_anon else entire)
    return None if (pages < 0).any() else replace(truth, pages=pages, entire=entire)


def _operations(scheme: Scheme, truth: Truth, other: Truth, stored: Stored, names: Names) -> Reading:
    """The way from the mappings to the ones that the counters speak of."""
    pages, entire = other.pages - truth.pages, other.entire - truth.entire
    done: list[tuple[str, int]] = []
    words = []
    for sign, where in ((1, pages > 0), (-1, pages < 0)):
        n = int(np.abs(pages[where]).sum())
        if n:
            name = names.remove_pte
            at = "" if truth.small or not scheme.has_page_mapcount else f" of {_span(where)}"
            done.append((name, -sign * n))
            words.append(_phrase(name, at, n, sign, names.add_pte))
    if entire:
        sign = 1 if entire > 0 else -1
        done.append((names.remove_pmd, -entire))
        words.append(_phrase(names.remove_pmd, "", abs(entire), sign, names.add_pmd))
    moved = int(pages.sum()) + entire
    return Reading(tuple(done), "; ".join(words), _references(stored.references, moved))


def _phrase(remove: str, at: str, n: int, sign: int, add: str) -> str:
    times = "one" if n == 1 else f"{n}"
    if sign > 0:
        what = "an entry was cleared" if n == 1 else "entries were cleared"
        return f"{times} {remove}(){at} too few ({what} without it), or {times} {add}() too many"
    what = "an entry was written" if n == 1 else "entries were written"
    return f"{times} {remove}(){at} too many, or {times} {add}() too few ({what} without it)"


def _references(extra: int | None, moved: int) -> str:
    """What became of the references, which each mapping holds one of."""
    if extra is None or not moved:
        return ""
    if extra == moved:
        return "the references went with the counters: " + (
            "they were not dropped either" if moved > 0 else "they were dropped as well"
        )
    if extra == 0:
        return "the reference count is right: only the mapcounts went wrong"
    return f"references are off by {extra:+d}, mapcounts by {moved:+d}"


def _alone(off: tuple[str, int], truth: Truth, stored: Stored) -> Reading:
    """One counter disagrees with all others and with the page tables."""
    name, difference = off
    if name == "_nr_pages_mapped" and abs(difference) == ENTIRELY_MAPPED:
        word = (
            "was not taken back with the last huge entry"
            if difference > 0
            else "was taken away, but huge entries are left"
        )
        return Reading((), f'only the bit "mapped as a whole" of _nr_pages_mapped is wrong: it {word}')
    words = f"only {name} is off, by {difference:+d}, and no operation moves it alone"
    flipped = _flipped_bit(name, difference, truth, stored)
    if flipped >= 0:
        return Reading((), f"{words}: a lost update, or bit {flipped} flipped")
    return Reading((), f"{words}: a lost update, or memory that was overwritten")


def _flipped_bit(name: str, difference: int, truth: Truth, stored: Stored) -> int:
    """The bit in which a counter of the folio differs, if it is one alone; -1 otherwise."""
    raw = {
        "entire mapcount": stored.entire_raw,
        "_large_mapcount": stored.large_raw,
        "_nr_pages_mapped": stored.word_raw,
    }.get(name)
    if raw is None:
        return -1
    changed = (raw ^ (raw - difference)) & 0xFFFFFFFF
    return changed.bit_length() - 1 if changed and changed & (changed - 1) == 0 else -1


def _of_references(stored: Stored) -> list[Reading]:
    """The mapcounts are right."""
    if stored.references is None or stored.references >= 0:
        return []
    n = -stored.references
    times = "one folio_put()" if n == 1 else f"{n} folio_put()"
    return [Reading((("folio_put", n),), f"{times} too many: the mapcounts are right, references are missing")]


def _span(where: Mask) -> str:
    rows = np.flatnonzero(where)
    if len(rows) == 1:
        return f"page +{int(rows[0])}"
    if int(rows[-1]) - int(rows[0]) + 1 == len(rows):
        return f"pages +{int(rows[0])}..+{int(rows[-1])}"
    return f"{len(rows)} pages from +{int(rows[0])} to +{int(rows[-1])}"
