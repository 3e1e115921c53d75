"""Every counter a folio keeps, as stored, beside what the page tables say it must be."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from inspector.columns import I64
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS
from inspector.model import mm_ids
from inspector.model.scheme import Scheme
from inspector.report.mappings import owner_of
from inspector.snapshot import Snapshot
from inspector.walk.references import expected_references

Relation = Literal["equal", "at least", "at most", "none"]
Verdict = Literal["ok", "WRONG", "in flight", "not checked", ""]

_SHOWN_RUNS = 1 << 20


class Counter(msgspec.Struct, frozen=True):
    """One counter of the folio."""

    name: str
    stored: int
    relation: Relation
    """What the stored value must be to the expected one."""
    expected: int | None
    verdict: Verdict
    """"" where there is nothing to compare with."""
    note: str = ""


class MmIdSlot(msgspec.Struct, frozen=True):
    """One of the two slots in which a large folio names the processes that map it (6.15 and later)."""

    slot: int
    mm_id: int
    """0 for a free slot."""
    count_raw: int
    """As stored: one less than the mappings it claims."""
    at_most: int | None
    """What the stored count may be at most: the mm's own mappings, less one."""
    verdict: Verdict
    mm: int | None
    pid: int | None
    comm: str | None


class PageRun(msgspec.Struct, frozen=True):
    """Neighbouring pages of the folio with the same counts."""

    first: int
    """Index in the folio."""
    pages: int
    pfn: int
    mapped: int | None
    """PTEs that map each of them."""
    mapcount_raw: int
    expected_raw: int | None
    verdict: Verdict


def folio_counters(s: Snapshot, head: int, folio: int, scheme: Scheme | None, *, walked: bool) -> list[Counter]:
    """The counters of the folio headed by a page row.

    Args:
        s: The snapshot, or a window when nothing is compared.
        head: Row of the head in the pages.
        folio: Row in the folios, -1 for a folio of one page.
        scheme: The kernel's accounting.
        walked: Whether mappings were counted.
    """
    pages = s.pages
    out = []
    typed = int(pages.type_[head]) != 0 and not (folio >= 0 and bool(s.folios.is_hugetlb[folio]))
    expected = s.expected if walked and not typed else None

    def equal(name: str, stored: int, wanted: int | None, note: str = "") -> None:
        out.append(Counter(name, stored, "equal", wanted, _judge(s, stored, wanted), note))

    if folio < 0 and not typed and _is_lent(s, head, walked=walked):
        note = "the owner of a movable page keeps something else here"
        out.append(Counter("_mapcount", int(pages.mapcount_raw[head]), "none", None, "", note))
    elif folio < 0 and not typed:
        wanted = int(expected.page_mapcount_raw[head]) if expected is not None else None
        equal("_mapcount", int(pages.mapcount_raw[head]), wanted, "mappings, less one")
    if folio >= 0:
        for name, column, kept, note in _folio_columns(scheme, typed=typed):
            if kept:
                wanted = int(getattr(expected, column)[folio]) if expected is not None else None
                equal(name, int(getattr(s.folios, column)[folio]), wanted, note)
        out.append(Counter("_pincount", int(s.folios.pincount[folio]), "none", None, ""))
    out.append(_refcount(s, head, compare=expected is not None))
    return out


def _folio_columns(scheme: Scheme | None, *, typed: bool) -> list[tuple[str, str, bool, str]]:
    """Name, column in `Folios` and `Expected`, whether this kernel keeps it, and what it counts."""
    large = scheme is not None and scheme.has_large_mapcount and not typed
    word = scheme is not None and scheme.has_pages_mapped_word and not typed
    return [
        ("_entire_mapcount", "entire_raw", True, "huge entries, less one"),
        ("_large_mapcount", "large_raw", large, "all mappings, less one"),
        ("_nr_pages_mapped", "word_raw", word, "PTE-mapped pages, +0x800000 if mapped whole"),
    ]


def _is_lent(s: Snapshot, head: int, *, walked: bool) -> bool:
    """Whether the word of the mapcount is used otherwise: by zsmalloc before 6.10 (set_first_obj_offset())."""
    movable = int(s.pages.mapping[head]) & MAPPING_TAGS == MAPPING_MOVABLE
    return movable and not (walked and s.counts.page_mappings[head])


def _judge(s: Snapshot, stored: int, wanted: int | None) -> Verdict:
    """With page tables missing a stored value above the rebuilt one may well be right."""
    if wanted is None:
        return ""
    if stored == wanted and s.tables_complete:
        return "ok"
    return "WRONG" if s.tables_complete or stored < wanted else "not checked"


def _refcount(s: Snapshot, head: int, *, compare: bool) -> Counter:
    stored = int(s.pages.refcount[head])
    if not compare or stored == 0:
        return Counter("_refcount", stored, "none", None, "", "frozen or free" if not stored else "")
    expected = expected_references(s, np.array([head], np.int64))
    mapped, cache, private = (int(x[0]) for x in (expected.mappings, expected.cache, expected.private))
    least = int(expected.total[0])
    parts = [f"{mapped} mapped", f"{cache} in a cache" if cache else "", "1 private" if private else ""]
    note = ", ".join(p for p in parts if p)
    return Counter("_refcount", stored, "at least", least, "ok" if stored >= least else "WRONG", note)


def mm_id_slots(s: Snapshot, folio: int, scheme: Scheme | None, *, walked: bool) -> list[MmIdSlot]:
    """The two slots and the process behind each; none on kernels without and for hugetlb."""
    if folio < 0 or scheme is None or not scheme.has_mm_ids or bool(s.folios.is_hugetlb[folio]):
        return []
    if s.pages.type_[s.folios.row[folio]] != 0:
        return []
    f = s.folios
    me = slice(folio, folio + 1)
    slots = mm_ids.Slots(f.mm_ids[me], f.mm_id_count0[me], f.mm_id_count1[me])
    wrong = bool(mm_ids.malformed(slots)[0])
    out = []
    for i, (ident, count) in enumerate(((slots.id0, slots.count0), (slots.id1, slots.count1))):
        out.append(_slot(s, folio, (i, int(ident[0]), int(count[0])), wrong, walked=walked))
    return out


def _slot(s: Snapshot, folio: int, slot: tuple[int, int, int], wrong: bool, *, walked: bool) -> MmIdSlot:
    number, ident, count = slot
    if not walked or not ident:
        return MmIdSlot(number, ident, count, None, "WRONG" if wrong else "ok" if walked else "", None, None, None)
    mm = np.flatnonzero(s.mms.mm_id == ident)
    counts = s.counts
    mine = (counts.pair_folio == folio) & np.isin(counts.pair_mm, mm)
    at_most = int(counts.pair_count[mine].sum()) - 1
    owner = owner_of(s, int(mm[0])) if len(mm) else (None, None, None)
    high = count > at_most
    verdict: Verdict = "WRONG" if wrong or (high and s.tables_complete) else "not checked" if high else "ok"
    return MmIdSlot(
        number,
        ident,
        count,
        at_most,
        verdict,
        *owner,
    )


def page_runs(s: Snapshot, head: int, folio: int, scheme: Scheme | None, *, walked: bool) -> list[PageRun]:
    """The page counts of a large folio, equal neighbours folded; none for folios of one page and for typed ones."""
    if folio < 0 or bool(s.folios.is_hugetlb[folio]) or s.pages.type_[head] != 0:
        return []
    nr = min(int(s.folios.nr_pages[folio]), len(s.pages) - head, _SHOWN_RUNS)
    stored = s.pages.mapcount_raw[head : head + nr].astype(np.int64)
    expected = s.expected if walked else None
    known = expected is not None
    wanted: I64 = expected.page_mapcount_raw[head : head + nr].astype(np.int64) if expected is not None else stored
    mapped: I64 = s.counts.page_mappings[head : head + nr].astype(np.int64) if walked else stored * 0
    change = np.zeros(nr, np.bool_)
    change[0] = True
    for column in (stored, wanted, mapped):
        change[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(change)
    lengths = np.diff(starts, append=nr)
    pfn = int(s.folios.pfn[folio])
    return [
        PageRun(
            at,
            n,
            pfn + at,
            int(mapped[at]) if walked else None,
            int(stored[at]),
            int(wanted[at]) if known else None,
            _judge(s, int(stored[at]), int(wanted[at]) if known else None),
        )
        for at, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
