"""One folio accounted for: every counter with its formula, who holds its references, and what may be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.errors import Exit
from inspector.findings import Finding
from inspector.folio.about import about
from inspector.folio.account import FolioAccount, account_of
from inspector.folio.births import BirthLine, births
from inspector.folio.counters import CounterLine, MmIdSlot
from inspector.folio.holders import holders, not_sought
from inspector.folio.numbers import OneFolio
from inspector.folio.sharing import SharingRun, decisions
from inspector.folio.suspects import suspects
from inspector.folio.waiters import Waiter, may_be_awaited, naming, waiters, waiting
from inspector.folio.what_if import WhatIf, what_if
from inspector.report.mappings import MappingRow, mapping_rows
from inspector.report.pages import FoundPage, PageRow, build_place, page_rows
from inspector.snapshot import Search
from inspector.walk.page_numbers import NumberMeaning
from inspector.walk.references import TERMS, ReferenceTerms

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


class Holding(msgspec.Struct, frozen=True):
    """References of one kind of holder."""

    term: str
    """pte, huge, page_cache, swap_cache, private, batch, pipe, gather, pins, owner or isolated."""
    meaning: str
    count: int
    basis: Literal["found", "stored", "inferred"]
    """The holder was found; stored in the folio itself; inferred."""
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


class Decided(msgspec.Struct, frozen=True):
    """What the kernel would do now."""

    question: str
    """write fault, fork, split, collapse, migrate, reclaim or uffd move (UFFDIO_MOVE)."""
    pages: str
    """Which pages of the folio are meant; "" for all."""
    answer: str
    """reuse, copy or share; yes or no; or "unknown"."""
    reason: str
    source: str
    """The kernel function that decides."""


class Explanation(msgspec.Struct, frozen=True):
    """The object that ``explain --format json`` prints."""

    schema: Literal["folioscope.explain/3"]
    place: FoundPage
    head: PageRow | None
    """The struct page of the head; null when it cannot be read: then nothing else is known."""
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
    rejected: int
    """Entries that map it and may not: no count has them, and ``mappings`` lists them with the reason as their sort."""
    ledger: list[CounterLine]
    mm_ids: list[MmIdSlot]
    references: References | None
    waiting: list[str]
    """Tasks that sleep until it is unlocked or written, in sentences."""
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
    births: list[BirthLine]
    """What may have made it, and what cannot have."""
    searched: Search
    """Where its mappings were searched for; "nothing" where no reverse map leads on from it."""
    gaps: list[str]
    """Why the search does not lead to everything that it should lead to, in sentences."""
    not_sought: list[str]
    """Kinds of holders of references that were not looked for."""
    rules_run: bool
    """Whether the rules were run; they need all page tables."""
    tables_complete: bool
    """False unless all page tables were walked and none is missing: a count can then only be shown to be too low."""
    exit_code: int


def build_explanation(  # noqa: PLR0913  (all but two are options)
    s: Snapshot,
    pfn: int,
    *,
    place: FoundPage | None = None,
    limit: int | None = None,
    check: bool = True,
    operations: Sequence[str] = (),
) -> Explanation:
    """Account for the folio that a page belongs to.

    Args:
        s: A snapshot of the target, or one that is aimed at the folio (`inspector.folio.look.look_at`).
        pfn: Any page of the folio; it must have a struct page.
        place: What was asked for, when it was not simply a page frame number.
        limit: Mappings listed at most; None for all.
        check: Whether rules are run to report what they find about the folio; not where it is aimed at.
        operations: rmap operations to try on the folio as it is, as `inspector.folio.what_if` takes them.

    Raises:
        UsageError: An operation cannot be understood, or the folio is not one that the rmap counts.
    """
    place = place or build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    return explain_account(account_of(s, pfn), place, limit=limit, check=check, operations=operations)


def explain_account(
    account: FolioAccount,
    place: FoundPage,
    *,
    limit: int | None = None,
    check: bool = True,
    operations: Sequence[str] = (),
) -> Explanation:
    """The long form of an account.

    Args:
        account: Of the folio.
        place: The page that was asked for.
        limit: As `build_explanation` takes them all.
        check: The same.
        operations: The same.
    """
    s, f = account.s, account.folio
    head = page_rows(s, np.array([f.head], np.int64))[0]
    if not head.readable or not s.pages.readable[s.pages.memmap.row(place.pfn)]:
        return _nothing(s, place, f)
    check = check and s.search == "all page tables"
    found = account.findings if check else []
    rows, total = mapping_rows(s, f.pfn, f.nr_pages, limit)
    asleep = waiters(s, f) if may_be_awaited(s, f) else []
    return Explanation(
        schema="folioscope.explain/3",
        place=place,
        head=head,
        about=about(s, f, place.pfn),
        scheme=account.scheme.name if account.scheme else None,
        order=f.order,
        pages=f.nr_pages,
        page_index=place.pfn - f.pfn,
        mms=f.nr_mms,
        pmd=f.pmd,
        pud=f.pud,
        pte=int(f.pte.sum()),
        rejected=int(s.mappings.nr[f.rejected].sum()),
        ledger=account.counters,
        mm_ids=account.slots,
        references=_references(s, f, account.references, asleep),
        waiting=waiting(s, asleep),
        sharing=account.sharing,
        decisions=[
            Decided(d.question, pages, d.answer, d.reason, d.source) for pages, d in decisions(s, f, account.references)
        ],
        mappings=rows,
        mapping_rows=total,
        findings=found,
        looks_like=account.looks_like,
        what_if=what_if(s, f, operations) if operations else [],
        births=births(s, f),
        searched=s.search,
        gaps=s.gaps,
        not_sought=not_sought(s),
        rules_run=check,
        tables_complete=s.tables_complete,
        exit_code=int(_exit(account, found)),
    )


def _nothing(s: Snapshot, place: FoundPage, f: OneFolio) -> Explanation:
    """For a page whose struct page, or whose head's, is missing."""
    return Explanation(
        schema="folioscope.explain/3",
        place=place,
        head=None,
        about=["The struct page, or that of the folio's head, is not in the dump: nothing is known of the page."],
        scheme=s.scheme.name if s.scheme else None,
        order=0,
        pages=1,
        page_index=place.pfn - f.pfn,
        mms=0,
        pmd=0,
        pud=0,
        pte=0,
        rejected=0,
        ledger=[],
        mm_ids=[],
        references=None,
        waiting=[],
        sharing=[],
        decisions=[],
        mappings=[],
        mapping_rows=0,
        findings=[],
        looks_like=[],
        what_if=[],
        births=[],
        searched=s.search,
        gaps=[],
        not_sought=not_sought(s),
        rules_run=False,
        tables_complete=s.tables_complete,
        exit_code=int(Exit.INCOMPLETE),
    )


def _references(s: Snapshot, f: OneFolio, terms: ReferenceTerms, asleep: list[Waiter]) -> References | None:
    """None for a folio without references.

    Args:
        s: The snapshot.
        f: The folio.
        terms: What holds its references.
        asleep: The tasks that wait for it.
    """
    stored = int(terms.refcount[0])
    if stored <= 0:
        return None
    held = [
        Holding(name, meaning, int(terms.terms[name][0]), basis, holders(s, f, name))
        for name, basis, meaning in TERMS
        if terms.terms[name][0]
    ]
    rest = int(terms.remainder[0])
    by_stack: list[str] = []
    if rest > 0 and (f.is_anon or f.is_file):
        by_stack = [*waiting(s, [w for w in asleep if w.holds]), *naming(s, f, asleep)]
    return References(stored, held, int(terms.explained[0]), rest, [*by_stack, *suspects(s, f, rest)] if rest else [])


def _exit(account: FolioAccount, found: list[Finding]) -> Exit:
    if account.is_wrong or any(x.severity in ("fail", "warn") for x in found):
        return Exit.FINDINGS
    return account.exit_unless_wrong(readable=True)
