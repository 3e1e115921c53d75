"""The counters of one folio: each with its formula, the stored value beside it, and what a difference means.

Stored and expected values are those that the rules compare: columns of `Pages` and `Folios`, and the model's
expectation for the whole snapshot. The formulas show how one such value comes about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.folio.verdicts import Verdict, Verdicts
from inspector.hex_json import Hex, Wide
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS
from inspector.model import mm_ids
from inspector.model.counters import Direction, RmapCounter, meaning
from inspector.model.formulas import Formula, Mapped, folio_formulas, page_formula, word_text
from inspector.tables.hugetlb import ON_FREE
from inspector.walk.names import owner_of
from inspector.walk.references import EXPECTED, TERMS, ExpectedReferences, ReferenceTerms

if TYPE_CHECKING:
    from inspector.columns import I64, AnyArray
    from inspector.folio.numbers import OneFolio
    from inspector.model.scheme import Scheme
    from inspector.snapshot import Snapshot

UNPROVEN = "the reverse map leads to fewer: it misses a mapping, or the count is too high; --all decides"
"""Of a counter that is higher than what following the reverse map found."""

Relation = Literal["equal", "at least", "at most", "none"]


class CounterLine(msgspec.Struct, frozen=True):
    """One counter."""

    counter: str
    """Its name, as this kernel has it."""
    stored: Wide
    """As stored; many count from -1."""
    expected: int | None
    """What must be stored; null where nothing is compared."""
    relation: Relation
    """What the stored value must be to it."""
    formula: str
    """With the numbers in place."""
    terms: dict[str, int]
    """The parts of the sum."""
    verdict: Verdict
    """"in flight": differs, as it may while a task works on the folio; "": nothing is compared."""
    first: int = -1
    """Of a counter that each page keeps, the first page of the folio that the line is about; else -1."""
    pages: int = 0
    """And how many; 0 for a counter of the folio."""
    note: str = ""


class MmIdSlot(msgspec.Struct, frozen=True):
    """One of the two slots in which a large folio names the processes that map it (6.15 and later)."""

    slot: int
    mm_id: Wide
    """0 for a free slot."""
    count_raw: int
    """As stored: one less than the mappings it claims."""
    at_most: int | None
    """What the stored count may be at most: the mm's own mappings, less one."""
    verdict: Verdict
    mm: Hex | None
    pid: int | None
    comm: str | None


def _line(  # noqa: PLR0913, PLR0917
    name: str,
    stored: int,
    expected: int | None,
    formula: str,
    verdict: Verdict,
    relation: Relation = "equal",
    *,
    terms: dict[str, int] | None = None,
    at: tuple[int, int] = (-1, 0),
    note: str = "",
) -> CounterLine:
    return CounterLine(name, stored, expected, relation, formula, terms or {}, verdict, *at, note)


def mapcount_lines(s: Snapshot, f: OneFolio, scheme: Scheme | None, verdicts: Verdicts | None) -> list[CounterLine]:
    """The mapcounts of the folio and those of its pages, equal neighbours folded.

    Args:
        s: The snapshot; a window on the folio will do without verdicts.
        f: The folio.
        scheme: The kernel's accounting; None where it is not known.
        verdicts: On values that differ; None to show stored values alone.
    """
    if f.page_type:
        word = int(s.pages.mapcount_raw[f.head])
        note = f"the word is no count but the page type: {f.page_type}"
        return [_line("_mapcount", word, None, f"_mapcount = {word & 0xFFFFFFFF:#010x}", "", "none", note=note)]
    if scheme is None:
        word = int(s.pages.mapcount_raw[f.head])
        return [] if f.is_large else [_line("_mapcount", word, None, f"_mapcount = {word}", "", "none")]
    mapped = f.mapped(s)
    lines = _folio_lines(s, f, scheme, mapped, verdicts) if f.is_large else []
    return lines + _page_lines(s, f, scheme, mapped, verdicts)


_FOLIO_COLUMNS = {
    RmapCounter.ENTIRE: "entire_raw",
    RmapCounter.LARGE: "large_raw",
    RmapCounter.NR_PAGES_MAPPED: "word_raw",
}
"""Column of a counter, in `Folios` as stored and in `Expected`."""


def _folio_lines(
    s: Snapshot, f: OneFolio, scheme: Scheme, mapped: Mapped, verdicts: Verdicts | None
) -> list[CounterLine]:
    folios, out = s.folios, []
    for formula in folio_formulas(scheme, mapped):
        column = _FOLIO_COLUMNS[formula.counter]
        stored, note = int(getattr(folios, column)[f.folio]), ""
        expected = None
        if verdicts is not None:
            assert s.expected is not None
            expected = int(getattr(s.expected, column)[f.folio])
        if formula.counter is RmapCounter.NR_PAGES_MAPPED and (stored >> 24 or expected not in (None, stored)):
            note = word_text(stored)
        out.append(_compared(s, f, formula, stored, expected, verdicts, note=note))
    if mapped.double_map:
        note = "one of several huge mappings was split: every page of an anonymous folio counts one more"
        out.append(_line("PG_double_map", 1, None, "PG_double_map is set", "", "none", note=note))
    if folios.partially_mapped[f.folio]:
        note = "queued for a deferred split"
        if verdicts is not None:
            note = f"{int((f.pte > 0).sum())} of {f.nr_pages} pages are mapped by PTEs; {note}"
        out.append(_line("PG_partially_mapped", 1, None, "PG_partially_mapped is set", "", "none", note=note))
    return out


def _page_lines(
    s: Snapshot, f: OneFolio, scheme: Scheme, mapped: Mapped, verdicts: Verdicts | None
) -> list[CounterLine]:
    """One line a run of pages with the same stored and expected value."""
    stored = s.pages.mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64)
    if f.is_hugetlb and (s.pages.type_[f.head] != 0 or (stored == -1).all()):
        return []
    if uses_mapcount_otherwise(s, f):
        note = "the owner of a movable page keeps something else here"
        return [_line("_mapcount", int(stored[0]), None, "_mapcount", "", "none", note=note)]
    expected = stored
    if verdicts is not None:
        assert s.expected is not None
        expected = s.expected.page_mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64)
    if not f.is_large:
        formula = page_formula(scheme, mapped, int(f.pte[0]), small=True)
        return [_compared(s, f, formula, int(stored[0]), int(expected[0]) if verdicts else None, verdicts)]
    out = []
    for at, n in runs(stored, expected, f.pte.astype(np.int64)):
        formula = page_formula(scheme, mapped, int(f.pte[at]))
        wanted = int(expected[at]) if verdicts else None
        out.append(_compared(s, f, formula, int(stored[at]), wanted, verdicts, at=(at, n)))
    return out


def runs(*columns: I64) -> list[tuple[int, int]]:
    """First place and length of each stretch in which none of the columns changes."""
    nr = len(columns[0])
    change = np.zeros(nr, np.bool_)
    change[:1] = True
    for column in columns:
        change[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(change)
    return list(zip(starts.tolist(), np.diff(starts, append=nr).tolist(), strict=True))


def uses_mapcount_otherwise(s: Snapshot, f: OneFolio) -> bool:
    """Whether a movable driver keeps something else in the word: zsmalloc before 6.10 (set_first_obj_offset())."""
    return int(s.pages.mapping[f.head]) & MAPPING_TAGS == MAPPING_MOVABLE and not f.total


def _compared(  # noqa: PLR0913
    s: Snapshot,
    f: OneFolio,
    formula: Formula,
    stored: int,
    expected: int | None,
    verdicts: Verdicts | None,
    *,
    note: str = "",
    at: tuple[int, int] = (-1, 0),
) -> CounterLine:
    """With page tables missing a value above the expected one may well be right."""
    if expected is None or verdicts is None:
        return _line(formula.field, stored, None, f"{formula.field} = {stored}", "", at=at, note=note)
    verdict: Verdict = "ok" if s.mappings_whole else "not checked"
    if stored != expected:
        verdict = verdicts.of(formula.field, at[0] if at[1] else 0, at[1])
        if verdict != "not checked":
            found = meaning(formula.counter, Direction.TOO_HIGH if stored > expected else Direction.TOO_LOW)
            if len(f.rejected) and stored > expected:
                note = "entries that map it and may not are not counted here" + (f" ({note})" if note else "")
            elif found is not None:
                note = f"{found.name}: {found.reason}" + (f" ({note})" if note else "")
        elif s.search == "reverse map" and stored > expected:
            note = UNPROVEN + (f" ({note})" if note else "")
    text = formula.text(stored if verdict != "not checked" else None)
    return _line(formula.field, stored, expected, text, verdict, terms=dict(formula.terms), at=at, note=note)


def pincount_line(s: Snapshot, f: OneFolio, verdicts: Verdicts | None, found: int | None) -> CounterLine:
    """Pins (FOLL_PIN) of a large folio, each of which holds a reference.

    Args:
        s: The snapshot.
        f: The folio.
        verdicts: On a value that is out of bounds; None to show the stored value alone.
        found: Pins by buffers of io_uring, the only ones that can be found one by one; None when they were not sought.
    """
    stored, references = int(s.folios.pincount[f.folio]), int(s.pages.refcount[f.head])
    name = "_pincount" if s.layout.struct("struct folio").has("_pincount") else "compound_pincount"
    # A negative reference count is what is wrong then, and bounds nothing.
    if verdicts is None or references < 0:
        return _line(name, stored, None, f"{name} = {stored}", "", "none")
    if stored < 0:
        return _line(name, stored, 0, f"{name} is negative, stored {stored}", verdicts.of("_pincount"), "at least")
    verdict: Verdict = "ok" if stored <= references else verdicts.of("_pincount")
    terms: dict[str, int] = {}
    note = ""
    if found:
        terms = {"io_uring buffers": found}
        note = f"{found} of them by io_uring buffers" if found <= stored else f"{found} io_uring buffers pin it"
    elif stored:
        note = "pins (FOLL_PIN) say how many they are, not whose"
    formula = f"{name} <= _refcount {references}" + ("" if stored <= references else f", stored {stored}")
    if not stored and verdict == "ok":
        formula = f"{name} = 0"
    return _line(name, stored, references, formula, verdict, "at most", terms=terms, note=note)


def refcount_line(
    s: Snapshot, f: OneFolio, verdicts: Verdicts | None, expected: ExpectedReferences, found: ReferenceTerms | None
) -> CounterLine:
    """The references, which may be more than are expected but not fewer.

    Args:
        s: The snapshot.
        f: The folio.
        verdicts: On a value that is out of bounds.
        expected: References that it must have.
        found: All that was found; None for the short form, which shows what is expected alone.
    """
    stored = int(s.pages.refcount[f.head])
    if f.page_type == "slab" and verdicts is not None and s.search == "all page tables":
        usual = s.slab_counts[0]
        verdict: Verdict = "ok" if stored == usual else verdicts.of("_refcount")
        held = {"slab allocator": usual} if usual else {}
        return _line("_refcount", stored, usual, f"_refcount = {usual}", verdict, terms=held, note="as of most slabs")
    if stored == 0:
        locked = bool(s.layout.flags.test(s.pages.flags[f.head : f.head + 1], "locked")[0])
        frozen = locked and f.total
        note = "frozen: it is being split or migrated" if frozen else "free, or its references are not counted"
        wrong: Verdict = "" if not f.total or frozen or verdicts is None else verdicts.of("_refcount")
        return _line("_refcount", 0, None, "_refcount = 0", wrong, "none", note=note)
    free = _free_list(s, f) if verdicts is not None else ""
    if free and verdicts is not None:
        formula, note = f"_refcount = 0 ({free}), stored {stored}", "free pages have no references"
        return _line("_refcount", stored, 0, formula, verdicts.of("_refcount"), note=note)
    shown = TERMS if found is not None else [t for t in TERMS if t[0] in EXPECTED]
    columns: dict[str, AnyArray] = {**expected.terms, **(found.terms if found is not None else {})}
    held = {word: int(columns[name][0]) for name, _, word in shown if columns[name][0]}
    # A negative count is wrong by itself and not compared with the holders.
    explained, least = sum(held.values()), int(expected.total[0]) if stored > 0 else 0
    parts = " + ".join(f"{word} {n}" for word, n in held.items())
    rest, note = stored - explained, ""
    if found is None:
        formula = f"_refcount >= {parts} = {explained}" if held else "_refcount >= 0"
    else:
        formula = f"_refcount = {parts} = {explained}" if held else "_refcount = 0 holders found"
    if rest > 0 and found is not None:
        formula += f", stored {stored}: {rest} not explained"
    elif rest < 0:
        formula += f", stored {stored}: {-rest} too few"
        note = "more hold a reference than are counted"
    if not f.is_counted or verdicts is None:
        return _line("_refcount", stored, None, formula, "", "none", terms=held, note=note)
    verdict = "ok" if stored >= least else verdicts.of("_refcount")
    return _line("_refcount", stored, least, formula, verdict, "at least", terms=held, note=note)


def tail_refcount_lines(s: Snapshot, f: OneFolio, verdicts: Verdicts | None) -> list[CounterLine]:
    """References of tails, which have none (mm/page_alloc.c, prep_compound_tail()): a line for each that is not 0."""
    if not f.is_large or verdicts is None:
        return []
    tails = slice(f.head + 1, f.head + f.nr_pages)
    alias = s.layout.flags.test(s.pages.flags[tails], "head")
    own = s.pages.is_tail[tails] & s.pages.readable[tails] & ~alias & (s.pages.head_row[tails] == f.head)
    out = []
    for at in np.flatnonzero(own & (s.pages.refcount[tails] != 0)).tolist():
        stored, page = int(s.pages.refcount[tails][at]), at + 1
        text = f"_refcount of page +{page} = 0, stored {stored}"
        out.append(_line("_refcount", stored, 0, text, verdicts.of("_refcount", page, 1), at=(page, 1), note="a tail"))
    return out


def _free_list(s: Snapshot, f: OneFolio) -> str:
    """Which list of free memory holds the folio, in words; lists of CPUs are read only for pages that may be on one."""
    if s.knows("in_free_block") and s.in_free_block[np.array([f.head])].any():
        return "in a free block of the buddy allocator"
    if f.is_hugetlb:
        if not s.knows("hugetlb"):
            return ""
        pool = s.hugetlb.folios
        free = bool(((pool.folio_idx == f.folio) & (pool.where == ON_FREE)).any())
        return "on the free list of its hugetlb pool" if free else ""
    on_lru = bool(s.layout.flags.test(s.pages.flags[f.head : f.head + 1], "lru")[0])
    if f.total or on_lru or f.page_type or s.pages.mapping[f.head] or not s.knows("buddy"):
        return ""
    return "on a CPU's list of free pages" if (s.buddy.cpu_page_row == f.head).any() else ""


def shared_flag_lines(s: Snapshot, f: OneFolio, scheme: Scheme | None, verdicts: Verdicts | None) -> list[CounterLine]:
    """The flag "maybe mapped shared" of the mm ids (6.15 and later)."""
    if not has_mm_ids(f, scheme):
        return []
    shared = bool(s.folios.mm_id_slots.one(f.folio).shared[0])
    name = "FOLIO_MM_IDS_SHARED"
    word = "set" if shared else "clear"
    verdict: Verdict = "ok"
    if verdicts is None:
        return [_line(name, int(shared), None, f"{name} is {word}", "", "none")]
    if f.nr_mms > 1:
        text = f"{name} must be set: {f.nr_mms} address spaces map the folio; it is {word}"
        verdict = "ok" if shared else verdicts.of("shared")
    elif f.nr_mms == 1:
        text = f"{name} may be either: 1 address space maps the folio; it is {word}"
    else:
        text = f"{name} must be clear: nothing maps the folio; it is {word}"
        verdict = verdicts.of("shared") if shared else "ok"
    return [_line(name, int(shared), None, text, verdict, "none")]


def has_mm_ids(f: OneFolio, scheme: Scheme | None) -> bool:
    """Whether the folio names the processes that map it: not on older kernels, not hugetlb."""
    return f.is_large and not f.is_hugetlb and not f.page_type and scheme is not None and scheme.has_mm_ids


def mm_id_slots(s: Snapshot, f: OneFolio, scheme: Scheme | None, verdicts: Verdicts | None) -> list[MmIdSlot]:
    """The two slots and the process behind each."""
    if not has_mm_ids(f, scheme):
        return []
    slots = s.folios.mm_id_slots.one(f.folio)
    malformed = bool(mm_ids.malformed(slots)[0])
    pairs = (slots.id0, slots.count0), (slots.id1, slots.count1)
    return [
        _slot(s, f, (i, int(ident[0]), int(count[0])), verdicts, malformed=malformed)
        for i, (ident, count) in enumerate(pairs)
    ]


def _slot(
    s: Snapshot, f: OneFolio, slot: tuple[int, int, int], verdicts: Verdicts | None, *, malformed: bool
) -> MmIdSlot:
    number, ident, count = slot
    if verdicts is None:
        return MmIdSlot(number, ident, count, None, "", None, None, None)
    name = f"_mm_id_mapcount[{number}]"
    if not ident:
        return MmIdSlot(number, ident, count, None, verdicts.of(name) if malformed else "ok", None, None, None)
    mm = np.flatnonzero(s.mms.mm_id == ident)
    counts = s.counts
    mine = (counts.pair_folio == f.folio) & np.isin(counts.pair_mm, mm)
    at_most = int(counts.pair_count[mine].sum()) - 1
    owner = owner_of(s, int(mm[0])) if len(mm) else (None, None, None)
    verdict: Verdict = verdicts.of(name) if malformed or count > at_most else "ok"
    return MmIdSlot(number, ident, count, at_most, verdict, *owner)
