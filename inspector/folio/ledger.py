"""The ledger of one folio: each counter with its formula, the stored value beside, and what a difference means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from inspector.columns import I64
from inspector.folio.holders import ring_pins
from inspector.folio.numbers import OneFolio
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS
from inspector.model import mm_ids
from inspector.model.counters import Direction, RmapCounter, meaning
from inspector.model.formulas import Formula, Mapped, folio_formulas, page_formula, word_text
from inspector.snapshot import Snapshot
from inspector.walk.references import TERMS, ReferenceTerms
from inspector.windows.grading import count_in_flight

Verdict = Literal["ok", "WRONG", "in flight", "not checked", ""]
"""``in flight``: differs, as it may while somebody works on the folio."""


@dataclass(frozen=True)
class Line:
    """One counter.

    Attributes:
        counter: Its name, as the kernel has it.
        first, pages: Of a counter that each page keeps, which neighbouring pages of the folio; -1 and 0 otherwise.
        stored: As stored.
        expected: What must be stored; None where nothing can be said.
        relation: What the stored value must be to it.
        formula: With the numbers in place.
        terms: The parts of the sum.
        verdict: "" where nothing is compared.
        note: What the value means, or what its difference leads to.
    """

    counter: str
    stored: int
    expected: int | None
    formula: str
    verdict: Verdict
    relation: Literal["equal", "at least", "none"] = "equal"
    first: int = -1
    pages: int = 0
    terms: dict[str, int] = field(default_factory=dict)
    note: str = ""


def ledger(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> list[Line]:
    """All counters of the folio: those of the folio, of its pages (equal neighbours folded), pins and references."""
    out: list[Line] = []
    if f.page_type:
        word = int(s.pages.mapcount_raw[f.head]) & 0xFFFFFFFF
        note = f"the word is no count but the page type: {f.page_type}"
        out.append(
            Line(
                "_mapcount", int(s.pages.mapcount_raw[f.head]), None, f"_mapcount = {word:#010x}", "", "none", note=note
            )
        )
    elif s.scheme is not None:
        mapped = f.mapped(s)
        if f.is_large:
            out += _folio_lines(s, f, mapped)
        out += _page_lines(s, f, mapped)
    if f.is_large and not f.page_type:
        out.append(_pincount(s, f))
    out.append(_refcount(s, f, terms))
    return out


def _folio_lines(s: Snapshot, f: OneFolio, mapped: Mapped) -> list[Line]:
    assert s.scheme is not None
    folios, out = s.folios, []
    for formula in folio_formulas(s.scheme, mapped):
        if formula.counter is RmapCounter.LARGE:
            stored, note = int(folios.large_raw[f.folio]), ""
        elif formula.counter is RmapCounter.NR_PAGES_MAPPED:
            stored = int(folios.word_raw[f.folio])
            note = word_text(stored) if stored >> 24 or stored != formula.expected_raw else ""
        else:
            stored, note = int(folios.entire_raw[f.folio]), ""
        out.append(_judged(s, f, formula, stored, note=note))
    if mapped.double_map:
        note = "one of several huge mappings was split: every page of an anonymous folio counts one more"
        out.append(Line("PG_double_map", 1, None, "PG_double_map is set", "", "none", note=note))
    if folios.partially_mapped[f.folio]:
        note = f"{int((f.pte > 0).sum())} of {f.nr_pages} pages are mapped by PTEs; queued for a deferred split"
        out.append(Line("PG_partially_mapped", 1, None, "PG_partially_mapped is set", "", "none", note=note))
    return out


def _page_lines(s: Snapshot, f: OneFolio, mapped: Mapped) -> list[Line]:
    """One line a run of pages with the same stored and expected value."""
    assert s.scheme is not None
    if f.is_hugetlb:
        return []
    stored = s.pages.mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64)
    if not f.is_large:
        if is_lent(s, f):
            note = "the owner of a movable page keeps something else here"
            return [Line("_mapcount", int(stored[0]), None, "_mapcount", "", "none", note=note)]
        return [_judged(s, f, page_formula(s.scheme, mapped, int(f.pte[0]), small=True), int(stored[0]))]
    out = []
    for at, n in runs(stored, f.pte.astype(np.int64)):
        formula = page_formula(s.scheme, mapped, int(f.pte[at]))
        out.append(_judged(s, f, formula, int(stored[at]), at=(at, n)))
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


def is_lent(s: Snapshot, f: OneFolio) -> bool:
    """Whether a movable driver keeps something else in the word: zsmalloc before 6.10 (set_first_obj_offset())."""
    return int(s.pages.mapping[f.head]) & MAPPING_TAGS == MAPPING_MOVABLE and not f.total


def _judged(
    s: Snapshot, f: OneFolio, formula: Formula, stored: int, *, note: str = "", at: tuple[int, int] = (-1, 0)
) -> Line:
    """With page tables missing a value above the rebuilt one may well be right."""
    expected = formula.expected_raw
    verdict: Verdict = "ok" if stored == expected and s.tables_complete else "WRONG"
    if not s.tables_complete and stored >= expected:
        verdict = "not checked"
    if verdict == "WRONG":
        found = meaning(formula.counter, Direction.TOO_HIGH if stored > expected else Direction.TOO_LOW)
        if found is not None:
            note = f"{found.name}: {found.reason}" + (f" ({note})" if note else "")
            if found.transient and count_in_flight(s, np.array([f.head], np.int32))[0]:
                verdict = "in flight"
    text = formula.text(stored if verdict != "not checked" else None)
    return Line(formula.field, stored, expected, text, verdict, "equal", *at, dict(formula.terms), note)


def _pincount(s: Snapshot, f: OneFolio) -> Line:
    """Pins: only those of io_uring can be found one by one."""
    stored, found = int(s.folios.pincount[f.folio]), len(ring_pins(s, f))
    name = s.layout.struct("struct folio").has("_pincount") and "_pincount" or "compound_pincount"
    if not found:
        note = "pins (FOLL_PIN) say how many they are, not whose" if stored else ""
        return Line(name, stored, None, f"{name} = {stored}", "", "none", note=note)
    verdict: Verdict = "ok" if stored >= found else "WRONG"
    formula = f"{name} >= io_uring buffers {found}" + ("" if stored >= found else f", stored {stored}")
    return Line(name, stored, found, formula, verdict, "at least", terms={"io_uring buffers": found})


def _refcount(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> Line:
    stored = int(s.pages.refcount[f.head])
    if stored == 0:
        locked = bool(s.layout.flags.test(s.pages.flags[f.head : f.head + 1], "locked")[0])
        note = "frozen: it is being split or migrated" if locked and f.total else "free, or nobody counts references"
        wrong: Verdict = "WRONG" if f.total and not locked else ""
        return Line("_refcount", 0, None, "_refcount = 0", wrong, "none", note=note)
    held = {word: int(terms.terms[name][0]) for name, _, word in TERMS if terms.terms[name][0]}
    least = int(terms.expected.total[0])
    explained, rest = int(terms.explained[0]), int(terms.remainder[0])
    parts = " + ".join(f"{word} {n}" for word, n in held.items())
    formula = f"_refcount = {parts} = {explained}" if held else "_refcount = 0 holders found"
    note = ""
    if rest > 0:
        formula += f", stored {stored}: {rest} not explained"
    elif rest < 0:
        formula += f", stored {stored}: {-rest} too few"
        note = "more hold a reference than are counted"
    return Line(
        "_refcount", stored, least, formula, "ok" if stored >= least else "WRONG", "at least", -1, 0, held, note
    )


def id_lines(s: Snapshot, f: OneFolio) -> list[Line]:
    """The flag "maybe shared" of the mm ids (6.15 and later); its slots are told apart."""
    if not f.is_large or f.is_hugetlb or f.page_type or s.scheme is None or not s.scheme.has_mm_ids:
        return []
    shared = bool(s.folios.mm_ids[f.folio] & mm_ids.SHARED_BIT)
    name = "FOLIO_MM_IDS_SHARED"
    word = "set" if shared else "clear"
    if f.nr_mms > 1:
        text = f"{name} must be set: {f.nr_mms} address spaces map the folio; it is {word}"
        verdict: Verdict = "ok" if shared else "WRONG"
    elif f.nr_mms == 1:
        text, verdict = f"{name} may be either: 1 address space maps the folio; it is {word}", "ok"
    else:
        text = f"{name} must be clear: nothing maps the folio; it is {word}"
        verdict = "WRONG" if shared and s.tables_complete else "ok"
    return [Line(name, int(shared), None, text, verdict, "none")]
