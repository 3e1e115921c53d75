"""Why a dump lacks what it should hold, and what that leaves unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import spans
from inspector.coverage import Missing
from inspector.layout.kernel import Layout
from inspector.text import counted
from inspector.walk.names import owners_of
from inspector.walk.unread_tables import tables_not_followed

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_IN_SLAB = frozenset(
    (
        "tasks",
        "mms",
        "VMA tree nodes",
        "VMAs",
        "anon_vmas and chains",
        "files and address_spaces",
        "page cache trees",
        "open files",
    )
)
"""Kinds of missing things that are slab objects of the kernel: no dump level of makedumpfile leaves those out."""

_UNKNOWN_SINCE = (7, 1)
"""makedumpfile up to 1.7.8 does not know how these kernels mark compound pages and slabs in struct page."""


def likely_reason(layout: Layout, missing: Missing) -> str:
    """Why slab objects are missing from a dump, a sentence; "" where none are."""
    if layout.target.kind != "kdump" or not _IN_SLAB & missing.counts.keys():
        return ""
    what = "slab objects are missing, which no dump level leaves out"
    if layout.version is None or layout.version < _UNKNOWN_SINCE:
        return what
    return (
        f"{what}: makedumpfile up to 1.7.8 does not know kernels from 7.1 on and takes a part of their slab pages for"
        " pages to leave out; dump with a newer one, or with -d 1"
    )


_NAMED = 3
"""Page tables that are named in one sentence."""


def tables_left_out(s: Snapshot) -> str:
    """Which page tables could not be followed, and how many pages they may map, a sentence; "" where all could."""
    rows = tables_not_followed(s)
    if not len(rows):
        return ""
    tables = s.tables.take(rows[:_NAMED])
    where = [
        f"{f'pid {pid}' if pid is not None else f'mm {mm:#x}'} from {va:#x}"
        for (mm, pid, _), va in zip(owners_of(s, tables.mm_idx), tables.va.tolist(), strict=True)
    ]
    more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    nr = len(s.pages)
    pages = (np.arange(piece.start, piece.stop) for piece in spans(nr))
    behind = sum(int(np.count_nonzero(s.may_be_mapped_unseen(some))) for some in pages)
    return (
        f"{counted(len(rows), 'page table')} cannot be followed ({', '.join(where)}{more}): {behind:,} of {nr:,} pages"
        " may be mapped there, and counts of their mappings are known as lower bounds only"
    )
