"""A file for the screen: the VMAs that map it, and its page cache."""

from __future__ import annotations

import numpy as np

from inspector.report.file import FileReport
from inspector.snapshot import Snapshot
from inspector.tables.files import ENTRY_KINDS
from inspector.walk.cache_view import CacheView
from tui.places import FolioPlace
from tui.views.rows import Rows, coded, number, words
from tui.views.vmas import vma_place


def mapper_rows(s: Snapshot, report: FileReport) -> Rows:
    """The VMAs that map a file."""
    m = report.mappers
    return Rows(
        [
            number("pid", np.array([-1 if x.pid is None else x.pid for x in m], np.int64), str, blank=-1),
            words("comm", [x.comm or "(no task)" for x in m]),
            number("start", np.array([x.start for x in m], np.uint64), lambda n: f"{n:#x}", shade=lambda _: "heat1"),
            number("end", np.array([x.end for x in m], np.uint64), lambda n: f"{n:#x}", drop=1),
            words("perm", [x.perms for x in m]),
            number("pgoff", np.array([x.pgoff for x in m], np.uint64), lambda n: f"{n:#x}"),
            words("i_mmap", ["in the tree" if x.in_tree else "! MISSING" for x in m]),
        ],
        lambda row: vma_place(s, m[row].vma),
    )


_CACHE_FLAGS = ("dirty", "writeback", "locked", "swapcache")


def cache_rows(view: CacheView) -> Rows:
    """The page cache of a file, by index."""
    flags = np.zeros(len(view), np.uint8)
    columns = (view.dirty, view.writeback, view.locked, view.swapcache, ~view.uptodate)
    for bit, column in enumerate(columns):
        flags |= (column & (view.pfn >= 0)).astype(np.uint8) << bit
    names = (*_CACHE_FLAGS, "not uptodate")
    return Rows(
        [
            number("index", view.index, lambda n: f"{n:#x}", shade=lambda _: "heat1"),
            number("pages", view.nr),
            coded("entry", view.kind, lambda k: ENTRY_KINDS[k]),
            number("pfn", view.pfn, lambda n: f"{n:#x}", blank=-1),
            number("order", view.order, str, blank=-1),
            coded("flags", flags, lambda word: " ".join(n for bit, n in enumerate(names) if word >> bit & 1)),
        ],
        lambda row: FolioPlace(int(view.pfn[row])) if view.pfn[row] >= 0 else None,
    )
