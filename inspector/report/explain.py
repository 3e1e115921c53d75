"""The ledger of one folio: every counter with its formula, who holds its references, and what may be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import msgspec
import numpy as np

from inspector.check.run import Progress, prepare
from inspector.errors import Exit
from inspector.findings import Finding
from inspector.folio.about import about
from inspector.folio.findings import findings_about
from inspector.folio.holders import holders
from inspector.folio.ledger import Line, id_lines, ledger
from inspector.folio.looks_like import looks_like
from inspector.folio.numbers import OneFolio, one_folio, terms_of
from inspector.folio.sharing import decisions, sharing
from inspector.folio.suspects import suspects
from inspector.folio.what_if import what_if
from inspector.report.counters import MmIdSlot, Verdict, mm_id_slots
from inspector.report.mappings import MappingRow, mapping_rows
from inspector.report.pages import FoundPage, PageRow, build_place, page_rows
from inspector.snapshot import Snapshot
from inspector.walk.page_numbers import NumberMeaning
from inspector.walk.references import TERMS, ReferenceTerms


class LedgerLine(msgspec.Struct, frozen=True):
    """One counter."""

    counter: str
    """Its name, as this kernel has it."""
    stored: int
    """As stored; many count from -1."""
    expected: int | None
    """What must be stored; null where nothing can be said."""
    relation: Literal["equal", "at least", "none"]
    """What the stored value must be to it."""
    formula: str
    """With the numbers in place."""
    terms: dict[str, int]
    """The parts of the sum."""
    verdict: Verdict
    """"in flight": differs, as it may while somebody works on the folio; "": nothing is compared."""
    first: int
    """Of a counter that each page keeps, the first page of the folio that the line is about; else -1."""
    pages: int
    """And how many; 0 for a counter of the folio."""
    note: str


class Holding(msgspec.Struct, frozen=True):
    """References of one sort."""

    term: str
    """pte, huge, page_cache, swap_cache, private, batch, pipe, gather, pins, owner or isolated."""
    meaning: str
    count: int
    basis: Literal["found", "stored", "inferred"]
    """The holder was found; the folio says so itself; it stands to reason."""
    holders: list[str]
    """Who or what."""


class References(msgspec.Struct, frozen=True):
    """The reference count broken down."""

    stored: int
    terms: list[Holding]
    explained: int
    """Their sum."""
    unexplained: int
    """References left over; negative when more holders were found than references."""
    candidates: list[str]
    """Who may hold those left over, the likeliest first."""


class SharingRun(msgspec.Struct, frozen=True):
    """Neighbouring pages of an anonymous folio that are shared alike."""

    first: int
    pages: int
    mark: Literal["E", "s", "-", "x"]
    """E exclusive; s maybe shared; - neither marked nor mapped; x marked, but not mapped any more."""
    mappings: int
    """Entries that map each of them, huge ones included."""
    writable: int
    """Those of them that let user space write."""
    verdict: Verdict
    note: str


class Decided(msgspec.Struct, frozen=True):
    """What the kernel would do now."""

    question: str
    """write fault, fork, split, migrate or reclaim."""
    pages: str
    """Which pages of the folio are meant; "" for all."""
    answer: str
    """reuse, copy or share; yes or no; or "unknown"."""
    reason: str
    source: str
    """The kernel function that decides."""


class Changed(msgspec.Struct, frozen=True):
    """What an operation changes."""

    what: str
    before: str
    after: str


class WhatIf(msgspec.Struct, frozen=True):
    """One operation applied to the folio as it stands."""

    operation: str
    refused: str
    """Why it cannot be done, with the kernel's assertion; "" when it can."""
    changes: list[Changed]
    note: str
    """What it returned when that was not success."""


class Explanation(msgspec.Struct, frozen=True):
    """The object that ``explain --format json`` prints."""

    schema: Literal["folioscope.explain/1"]
    place: FoundPage
    head: PageRow | None
    """The struct page of the head; null when it cannot be read: then nothing else is told."""
    about: list[str]
    """What the page is, in sentences."""
    scheme: str | None
    order: int
    pages: int
    page_index: int
    """Which page of the folio was asked for."""
    mms: int
    """Address spaces that map it."""
    pmd: int
    pud: int
    pte: int
    """Entries that map it, by level."""
    ledger: list[LedgerLine]
    mm_ids: list[MmIdSlot]
    references: References | None
    sharing: list[SharingRun]
    decisions: list[Decided]
    mappings: list[MappingRow]
    mapping_rows: int
    """How many rows of mappings there are; ``mappings`` may hold fewer."""
    findings: list[Finding]
    """What the rules say about this folio."""
    looks_like: list[str]
    """What would have to happen to a sound folio to leave these counters behind, the simplest first."""
    what_if: list[WhatIf]
    """The operations asked for, one after the other up to the first that is refused."""
    tables_complete: bool
    """False when page tables are missing: a count can then only be shown to be too low."""
    exit_code: int


def build_explanation(  # noqa: PLR0913  (all but two are options)
    s: Snapshot,
    pfn: int,
    *,
    place: FoundPage | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
    check: bool = True,
    operations: Sequence[str] = (),
) -> Explanation:
    """Account for the folio that a page belongs to.

    Args:
        s: A snapshot of the target.
        pfn: Any page of the folio; it must have a struct page.
        place: What was asked for, when it was not simply a page frame number.
        progress: Told about the walk of all page tables.
        limit: Mappings listed at most; None for all.
        check: Whether rules are run to tell what they find about the folio.
        operations: rmap operations to try on the folio as it stands, as `inspector.folio.what_if` takes them.

    Raises:
        UsageError: An operation cannot be understood, or the folio is none that the rmap counts.
    """
    if progress is not None:
        prepare(s, progress)
    place = place or build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    f = one_folio(s, pfn)
    head = page_rows(s, np.array([f.head], np.int64))[0]
    if not head.readable or not s.pages.readable[s.pages.memmap.row(pfn)]:
        return _nothing(s, place, f)
    terms = terms_of(s, f)
    lines = [_line(x) for x in (*ledger(s, f, terms), *id_lines(s, f))]
    ids = mm_id_slots(s, f.folio, s.scheme, walked=True)
    found = findings_about(s, f) if check else []
    if any(x.severity == "fail" for x in found):
        # A lock is held, but the rules know that nobody works here: stacks decide where they are known.
        lines = [msgspec.structs.replace(x, verdict="WRONG") if x.verdict == "in flight" else x for x in lines]
    if any(x.verdict == "in flight" for x in lines):
        # The slots move with the large mapcount.
        ids = [msgspec.structs.replace(x, verdict="in flight") if x.verdict == "WRONG" else x for x in ids]
    marks = sharing(s, f)
    shared = [SharingRun(**asdict(x)) for x in marks]
    rows, total = mapping_rows(s, f.pfn, f.nr_pages, limit)
    verdicts = [x.verdict for part in (lines, ids, shared) for x in part]
    return Explanation(
        schema="folioscope.explain/1",
        place=place,
        head=head,
        about=about(s, f, pfn),
        scheme=s.scheme.name if s.scheme else None,
        order=f.order,
        pages=f.nr_pages,
        page_index=pfn - f.pfn,
        mms=f.nr_mms,
        pmd=f.pmd,
        pud=f.pud,
        pte=int(f.pte.sum()),
        ledger=lines,
        mm_ids=ids,
        references=_references(s, f, terms),
        sharing=shared,
        decisions=[Decided(d.question, pages, d.answer, d.reason, d.source) for pages, d in decisions(s, f, terms)],
        mappings=rows,
        mapping_rows=total,
        findings=found,
        looks_like=looks_like(s, f, terms, marks) if "WRONG" in verdicts else [],
        what_if=[
            WhatIf(x.operation, x.refused, [Changed(*c) for c in x.changes], x.note)
            for x in (what_if(s, f, operations) if operations else [])
        ],
        tables_complete=s.tables_complete,
        exit_code=int(_exit(s, verdicts, found)),
    )


def _nothing(s: Snapshot, place: FoundPage, f: OneFolio) -> Explanation:
    """For a page whose struct page, or whose head's, is missing."""
    return Explanation(
        schema="folioscope.explain/1",
        place=place,
        head=None,
        about=["The struct page, or that of the folio's head, is not in the dump: nothing can be told."],
        scheme=s.scheme.name if s.scheme else None,
        order=0,
        pages=1,
        page_index=place.pfn - f.pfn,
        mms=0,
        pmd=0,
        pud=0,
        pte=0,
        ledger=[],
        mm_ids=[],
        references=None,
        sharing=[],
        decisions=[],
        mappings=[],
        mapping_rows=0,
        findings=[],
        looks_like=[],
        what_if=[],
        tables_complete=s.tables_complete,
        exit_code=int(Exit.INCOMPLETE),
    )


def _line(x: Line) -> LedgerLine:
    return LedgerLine(
        x.counter, x.stored, x.expected, x.relation, x.formula, x.terms, x.verdict, x.first, x.pages, x.note
    )


def _references(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> References | None:
    """None for a folio without references."""
    stored = int(terms.refcount[0])
    if stored <= 0:
        return None
    held = [
        Holding(name, meaning, int(terms.terms[name][0]), basis, holders(s, f, name))
        for name, basis, meaning in TERMS
        if terms.terms[name][0]
    ]
    rest = int(terms.remainder[0])
    return References(stored, held, int(terms.explained[0]), rest, suspects(s, f, rest) if rest else [])


def _exit(s: Snapshot, verdicts: Sequence[str], found: list[Finding]) -> Exit:
    if "WRONG" in verdicts or any(x.severity in ("fail", "warn") for x in found):
        return Exit.FINDINGS
    return Exit.CLEAN if s.tables_complete and "not checked" not in verdicts else Exit.INCOMPLETE
