"""The table of folios for the screen."""

from __future__ import annotations

import numpy as np

from inspector.walk.kinds import KINDS
from tui.places import FolioPlace
from tui.session import Session
from tui.views.folios import folio_columns
from tui.views.map import finding_codes
from tui.views.rows import Column, ColumnData, Rows, number
from tui.views.rows_mm import short

_FOUND = ("", "i info", "! warn", "! fail")


def folio_rows(session: Session, *, small: bool) -> Rows:
    """All large folios by page frame, or every folio in use."""
    s = session.snapshot
    c = folio_columns(s, small=small)
    found = finding_codes(s.pages.memmap, len(s.pages), session.findings)[c.row]
    shift = s.layout.arch.page_shift
    kinds = tuple(k.replace(" ", "-") for k in KINDS)
    return Rows(
        [
            number("pfn", c.pfn, lambda n: f"{n:#x}", shade=lambda _: "heat1"),
            ColumnData(Column("kind"), c.kind, str, kinds, lambda k: KINDS[k] if KINDS[k] != "free" else ""),
            number("order", c.order, str),
            number("size", np.int64(1) << c.order, lambda n: short(n << shift), drop=3),
            number("mapped", c.mapped, blank=0),
            number("huge", c.huge, blank=0, drop=2),
            number("mms", c.mms, blank=-1, drop=1),
            number("refs", c.refs),
            ColumnData(Column("partial", drop=1), c.partial.astype(np.uint8), str, ("", "partial"), lambda _: "warn"),
            ColumnData(Column("findings"), found, str, _FOUND, lambda n: "fail" if n > 1 else "", marked=False),
        ],
        lambda row: FolioPlace(int(c.pfn[row])),
        c.pfn,
    )
