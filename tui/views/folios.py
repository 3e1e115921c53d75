"""All folios for the screen: in columns, and as a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, U8, AnyArray, Mask, Table
from inspector.snapshot import Snapshot
from inspector.walk.kinds import KINDS, kind_codes
from tui.places import FolioPlace
from tui.session import Session
from tui.views.map import finding_codes
from tui.views.rows import ColumnData, Rows, ViewColumn, number, sizes


@dataclass(frozen=True, slots=True)
class FolioColumns(Table):
    """One row a folio, those of users first, each by page frame number.

    Attributes:
        row: int64; of the head, in the pages.
        pfn: int64; of the head.
        kind: uint8; place in `inspector.walk.kinds.KINDS`.
        order: int64.
        mapped: int64; entries that map it, all pages and huge entries together.
        huge: int64; huge entries among them.
        touched: int64; pages of it that anything maps.
        mms: int64; address spaces that map it; -1 for a folio of one page, where none is counted.
        owner: int64; the address space that maps it by most entries, by its row; -1 where none is known.
        refs: int64; ``_refcount``.
        unmapped: int64; pages of one that is mapped in part which nothing maps.
        partial: bool; a large folio of which some page is mapped and another is not.
    """

    row: I64
    pfn: I64
    kind: U8
    order: I64
    mapped: I64
    huge: I64
    touched: I64
    mms: I64
    owner: I64
    refs: I64
    unmapped: I64
    partial: Mask


_OF_USERS = [KINDS.index(kind) for kind in ("anon", "ksm", "shmem", "file", "hugetlb")]


def folio_columns(s: Snapshot, *, small: bool) -> FolioColumns:
    """The columns of all large folios, or of folios of one page as well (free ones left out)."""
    f = s.folios
    large = f.row
    rows = large
    if small:
        alone = (s.folio_of_page < 0) & (s.pages.refcount > 0) & s.pages.readable
        rows = np.sort(np.concatenate([np.flatnonzero(alone), large]))
    folio = s.folio_of_page[rows].astype(np.int64)
    at = np.maximum(folio, 0)
    one = s.counts.page_mappings[rows].astype(np.int64)
    some = len(f) > 0

    def of(column: AnyArray, otherwise: AnyArray | int) -> I64:
        return np.where(folio >= 0, column[at], otherwise).astype(np.int64) if some else np.zeros(len(rows), np.int64)

    kinds = kind_codes(s.layout, s.pages, f, s.folio_of_page, rows)
    order = np.argsort(~np.isin(kinds, _OF_USERS), kind="stable")
    kinds = kinds[order]
    rows, folio, at, one = (column[order] for column in (rows, folio, at, one))
    touched = _pages_mapped(s)
    untouched = np.where((touched > 0) & (s.counts.entire == 0), f.nr_pages - touched, 0)
    return FolioColumns(
        row=rows,
        pfn=s.pages.memmap.pfns_of_rows(rows),
        kind=kinds,
        order=of(f.order, 0),
        mapped=of(s.folio_totals, one) if some else one,
        huge=of(s.counts.entire, 0),
        touched=of(np.where(s.counts.entire > 0, f.nr_pages, touched), (one > 0).astype(np.int64)),
        owner=of(_owners(s), -1) if some else np.full(len(rows), -1, np.int64),
        mms=of(s.counts.nr_mms, -1) if some else np.full(len(rows), -1, np.int64),
        refs=s.pages.refcount[rows].astype(np.int64),
        unmapped=of(untouched, 0),
        partial=of((touched > 0) & (touched < f.nr_pages) & (s.counts.entire == 0), 0).astype(np.bool_),
    )


def _owners(s: Snapshot) -> I64:
    """Row of the mm that maps each large folio by most entries; -1 for none."""
    c = s.counts
    order = np.lexsort((-c.pair_mm, c.pair_count))
    owner = np.full(len(s.folios), -1, np.int64)
    owner[c.pair_folio[order]] = c.pair_mm[order]
    return owner


def _pages_mapped(s: Snapshot) -> I64:
    """How many pages of each large folio some PTE maps."""
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(s.counts.page_mappings > 0)])
    end = np.minimum(s.folios.row + s.folios.nr_pages, len(s.pages))
    return (running[end] - running[s.folios.row]).astype(np.int64)


_FOUND = ("", "i info", "! warn", "! fail")


def folio_rows(session: Session, *, small: bool) -> Rows:
    """All large folios, or every folio in use: those of users first, each by page frame."""
    s = session.snapshot
    c = folio_columns(s, small=small)
    found = finding_codes(s.pages.memmap, len(s.pages), session.findings)[c.row]
    shift = s.layout.arch.page_shift
    owners = session.keep("owners", lambda: [session.process(mm) for mm in range(len(s.mms))])
    kinds = tuple(k.replace(" ", "-") for k in KINDS)
    return Rows(
        [
            number("pfn", c.pfn, lambda n: f"{n:#x}", shade=lambda _: "heat1"),
            ColumnData(
                ViewColumn("kind", least=6), c.kind, str, kinds, lambda k: KINDS[k] if KINDS[k] != "free" else ""
            ),
            number("order", c.order, str),
            sizes("size", np.int64(1) << c.order, 1 << shift),
            sizes("mapped", c.touched, 1 << shift, blank=0),
            sizes("wasted", c.unmapped, 1 << shift, blank=0, shade=lambda _: "warn"),
            number("entries", c.mapped, blank=0, drop=4),
            number("huge", c.huge, blank=0, drop=5),
            number("refs", c.refs, drop=2),
            number("mms", c.mms, blank=-1, drop=3),
            ColumnData(ViewColumn("owner", least=14), c.owner + 1, str, ("", *owners)),
            ColumnData(
                ViewColumn("partial", drop=6), c.partial.astype(np.uint8), str, ("", "partial"), lambda _: "warn"
            ),
            # Where nothing was found the room is for what follows.
            ColumnData(
                ViewColumn("findings", drop=0 if found.any() else 7),
                found,
                str,
                _FOUND,
                lambda n: "fail" if n > 1 else "",
                marked=False,
            ),
        ],
        lambda row: FolioPlace(int(c.pfn[row])),
        c.pfn,
    )
