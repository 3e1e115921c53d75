"""Struct pages as rows: what each is used for, its flags, counts and folio; equal neighbours folded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.aimed.pages import partial_of_pages
from inspector.columns import I64, Mask, take_or
from inspector.hex_json import Hex
from inspector.report.letters import legend, page_letters
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.snapshot import Snapshot
from inspector.text import counted
from inspector.walk.kinds import page_kinds
from inspector.walk.page_numbers import NumberMeaning


class PageRow(msgspec.Struct, frozen=True):
    """One struct page, or several neighbours that are alike."""

    pfn: int
    pages: int
    """How many pages the row is about."""
    kind: str
    readable: bool
    flags: list[str]
    """Names of the page flags of the folio."""
    flags_word: Hex
    """The page's own flags word as stored; tails keep other things in it."""
    letters: str
    """The letters of page-types."""
    refcount: int
    mapcount_raw: int
    """The word shared by _mapcount and the page type, as stored: -1 is no mapping."""
    head_pfn: int
    """Of the folio; the page itself when it is no tail, -1 when the head cannot be found."""
    order: int
    mapping: Hex
    """The mapping word of the page, as stored."""
    alias: bool
    """Its struct page is one that all such tails of hugetlb folios share: the own one is optimised away. One that is
    read with PG_head is a fake head."""
    mlock_count: int | None
    """VMAs that mlocked the folio, of an unevictable one that is counted on its LRU list: others have links there."""


class FoundPage(msgspec.Struct, frozen=True):
    """What was asked for and what it was taken for."""

    asked: str
    taken_for: str
    """pfn, phys, page, virt, kernel (another address that the kernel's page tables map), user (PID:ADDRESS) or file
    (FILE@PGOFF)."""
    why: str
    pfn: int
    offset: int
    """Bytes into the struct page, or into the page."""
    page: Hex
    """Address of the struct page."""
    physical: Hex
    virtual: Hex
    """Address in the direct map."""
    other_readings: list[str]


class PagesReport(msgspec.Struct, frozen=True):
    """The object that ``page --format json`` prints."""

    schema: Literal["folioscope.page/2"]
    places: list[FoundPage]
    pages: list[PageRow]
    complete: bool
    """False when a struct page could not be read."""


def build_place(s: Snapshot, asked: str, taken: NumberMeaning, others: list[NumberMeaning]) -> FoundPage:
    """Where a number leads, and what else it could have meant."""
    memmap = s.layout.memmap
    physical = taken.pfn << memmap.page_shift
    return FoundPage(
        asked,
        taken.form,
        taken.why,
        taken.pfn,
        taken.offset,
        memmap.page_addr(taken.pfn),
        physical,
        s.layout.memory.direct_map_base + physical,
        [f"--as {r.form} it would be pfn {r.pfn:#x}" for r in others],
    )


def build_pages(s: Snapshot, places: list[FoundPage], ranges: list[tuple[int, int]]) -> PagesReport:
    """Read the struct pages of some ranges [first, last] of page frames, and of no others but their heads'."""
    rows: list[PageRow] = []
    for first, last in ranges:
        part = partial_of_pages(s, first, last)
        pfns = part.pages.memmap.pfns_of_rows(np.arange(len(part.pages)))
        rows += page_rows(part, np.flatnonzero((pfns >= first) & (pfns <= last)))
    return PagesReport("folioscope.page/2", places, rows, all(row.readable for row in rows))


def page_rows(s: Snapshot, rows: I64) -> list[PageRow]:
    """The given pages, in ascending order, neighbours alike in everything folded into one row."""
    if not len(rows):
        return []
    pages = s.pages
    kinds = page_kinds(s.layout, pages, s.folios, s.folio_of_page, rows)
    pfn, head = pages.memmap.pfns_of_rows(rows), pages.head_row[rows].astype(np.int64)
    same = (kinds[1:] == kinds[:-1]) & (pfn[1:] == pfn[:-1] + 1)
    large = s.folio_of_page[rows] >= 0
    for column in (pages.flags, pages.mapcount_raw, pages.refcount, pages.mapping, pages.readable):
        same &= column[rows[1:]] == column[rows[:-1]]
    alias = _aliases(s, rows)
    locks = _mlock_counts(s, rows)
    same &= (alias[1:] == alias[:-1]) & (locks[1:] == locks[:-1])
    same &= (head[1:] == head[:-1]) | (~large[1:] & ~large[:-1])
    starts = np.concatenate([[0], np.flatnonzero(~same) + 1])
    nr = np.diff(starts, append=len(rows))
    letters = page_letters(s, rows[starts])
    return [
        _row(s, int(rows[at]), int(n), str(kinds[at]), letters[i], (bool(alias[at]), int(locks[at])))
        for i, (at, n) in enumerate(zip(starts.tolist(), nr.tolist(), strict=True))
    ]


def _aliases(s: Snapshot, rows: I64) -> Mask:
    """Pages of optimised hugetlb folios beyond the struct pages that the folio keeps (mm/hugetlb_vmemmap.c)."""
    index = rows - s.pages.head_row[rows]
    return take_or(s.hvo_folio, s.folio_of_page[rows], False) & (index >= s.layout.memmap.structs_a_page)


def _mlock_counts(s: Snapshot, rows: I64) -> I64:
    """folio->mlock_count of heads and small pages that are unevictable (mm/mlock.c), -1 for all others."""
    flags, pages, out = s.layout.flags, s.pages, np.full(len(rows), -1, np.int64)
    words = pages.flags[rows]
    wanted = flags.test(words, "lru") & flags.test(words, "unevictable") & (pages.head_row[rows] == rows)
    field = s.layout.struct("struct folio").find("mlock_count") or s.layout.struct("struct page").find("mlock_count")
    at = np.flatnonzero(wanted)
    if field is not None and len(at):
        own = s.layout.memmap.page_addrs(pages.memmap.pfns_of_rows(rows[at]))
        raw = s.layout.memory.gather(own + np.uint64(field.offset), field.size)
        out[at] = np.where(raw.valid, raw.bytes.view(np.uint32)[:, 0].astype(np.int64), -1)
    return out


def _row(s: Snapshot, row: int, nr: int, kind: str, letters: str, more: tuple[bool, int]) -> PageRow:
    alias, locks = more
    pages, folio, head = s.pages, int(s.folio_of_page[row]), int(s.pages.head_row[row])
    return PageRow(
        pfn=pages.memmap.pfn(row),
        pages=nr,
        kind=kind,
        readable=bool(pages.readable[row]),
        flags=s.layout.flags.names(int(pages.flags[max(head, 0)])),
        flags_word=int(pages.flags[row]),
        letters=letters,
        refcount=int(pages.refcount[row]),
        mapcount_raw=int(pages.mapcount_raw[row]),
        head_pfn=pages.memmap.pfn(head) if head >= 0 else -1,
        order=int(s.folios.order[folio]) if folio >= 0 else 0,
        mapping=int(pages.mapping[row]),
        alias=alias,
        mlock_count=locks if locks >= 0 else None,
    )


_COLUMNS = (
    TableColumn("pfn", right=True, style="bold"),
    TableColumn("pages", right=True),
    TableColumn("kind"),
    TableColumn("flags"),
    TableColumn("refs", right=True),
    TableColumn("_mapcount", right=True),
    TableColumn("folio", right=True),
    TableColumn("order", right=True),
    TableColumn("mapping", right=True),
)


def render_pages(screen: Screen, report: PagesReport) -> Iterator[str]:
    """The report for people: places, then a table; one page alone is shown in full."""
    for place in report.places:
        yield from render_place(screen, place)
    if len(report.pages) == 1 and report.pages[0].pages == 1:
        yield from _one(screen, report.pages[0])
        return
    yield from render_table(screen, _COLUMNS, [_cells(row) for row in report.pages])
    letters = "".join(row.letters for row in report.pages)
    if letters:
        yield ""
        yield from screen.wrap(f"flags as in page-types: {legend(letters)}")


def render_place(screen: Screen, place: FoundPage) -> Iterator[str]:
    """What a number was taken for."""
    inside = f", byte {place.offset:#x} of the {'struct page' if place.taken_for == 'page' else 'page'}"
    forms = {
        "pfn": "a page frame number",
        "phys": "a physical address",
        "page": "the address of a struct page",
        "virt": "a kernel address of the page itself",
        "kernel": "a kernel address of the page itself",
        "user": "an address of a process",
        "file": "a page of a file",
    }
    words = f"{place.asked} taken for {forms[place.taken_for]} ({place.why}){inside if place.offset else ''}"
    others = f"; {', '.join(place.other_readings)}" if place.other_readings else ""
    yield from screen.wrap(words + others)
    yield from screen.wrap(
        f"pfn {place.pfn:#x} ({place.pfn}), struct page {place.page:#x}, physical {place.physical:#x}, "
        f"direct map {place.virtual:#x}",
        hang="    ",
    )


def _one(screen: Screen, row: PageRow) -> Iterator[str]:
    facts = [("kind", row.kind)]
    if row.readable:
        tail = row.head_pfn not in (row.pfn, -1)
        part = f"page {row.pfn - row.head_pfn} of folio {row.head_pfn:#x}, order {row.order}"
        facts += [
            ("flags", " ".join(row.flags) or "none"),
            ("letters", row.letters or "none"),
            ("_refcount", str(row.refcount)),
            ("_mapcount", _mapcount(row)),
            ("mapping", f"{row.mapping:#x}"),
            *([("mlock_count", str(row.mlock_count))] if row.mlock_count is not None else []),
            *([("struct page", "shared by all such tails (vmemmap optimisation)")] if row.alias else []),
            ("folio", part if tail else f"its head, order {row.order}" if row.order else "a folio of one page"),
        ]
    yield from render_facts(screen, facts)


def _mapcount(row: PageRow) -> str:
    if row.mapcount_raw < -1:
        return f"{row.mapcount_raw & 0xFFFFFFFF:#010x}: a page type"
    return f"{row.mapcount_raw} ({counted(row.mapcount_raw + 1, 'mapping')})"


def _cells(row: PageRow) -> tuple[str, ...]:
    folded = str(row.pages) if row.pages > 1 else "1"
    if not row.readable:
        return f"{row.pfn:#x}", folded, row.kind, row.letters, "", "", "", "", ""
    count = f"{row.mapcount_raw & 0xFFFFFFFF:#x}" if row.mapcount_raw < -1 else str(row.mapcount_raw)
    folio = f"{row.head_pfn:#x}" if row.order else ""
    order = str(row.order) if row.order else ""
    mapping = f"{row.mapping:#x}" if row.mapping else ""
    kind = f"{row.kind} (alias)" if row.alias else row.kind
    return f"{row.pfn:#x}", folded, kind, row.letters, str(row.refcount), count, folio, order, mapping
