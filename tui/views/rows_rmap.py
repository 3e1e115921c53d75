"""Tables about reverse mapping for the screen: both views of a folio, an interval tree, a file's VMAs and cache."""

from __future__ import annotations

import numpy as np

from inspector.report.anon_vma import AnonVmaReport
from inspector.report.file import FileReport
from inspector.snapshot import Snapshot
from inspector.tables.files import ENTRY_KINDS
from inspector.tables.vmas import vma_rows
from inspector.walk.cache_view import CacheView
from tui.places import FolioPlace, VmaPlace
from tui.views.rmap import SideRow, draw_interval_tree, mapping_text, place_text
from tui.views.rows import Rows, number, words
from tui.views.rows_mm import coded

_SHADES = {"=": "ok", "·": "free", "≠": "fail", "<": "fail"}


def _vma_place(s: Snapshot, address: int, va: int | None = None) -> VmaPlace | None:
    row = int(vma_rows(s.vmas, np.array([address], np.uint64))[0])
    return VmaPlace(int(s.vmas.mm_idx[row]), row, va) if row >= 0 else None


def rmap_rows(s: Snapshot, sides: list[SideRow]) -> Rows:
    """The rmap walk on the left, page tables on the right."""

    def leads(row: int) -> VmaPlace | None:
        side = sides[row]
        if side.mapping is not None:
            return _vma_place(s, side.mapping.vma or 0, side.mapping.va)
        return _vma_place(s, side.place.vma, side.place.va) if side.place else None

    return Rows(
        [
            words("process", [r.who for r in sides]),
            words("rmap walk checks", [place_text(r.place) for r in sides]),
            words("", [r.mark for r in sides], shade=lambda m: _SHADES[m]),
            words("the page tables hold", [mapping_text(r.mapping) for r in sides]),
            words("attributes", [" ".join(r.mapping.bits) if r.mapping else r.note for r in sides], drop=1),
        ],
        leads,
    )


def tree_rows(s: Snapshot, report: AnonVmaReport) -> Rows:
    """The interval tree of an anon_vma, drawn."""
    lines = draw_interval_tree(report)
    chains = [line.chain for line in lines]
    odd = ["" if c.on_list else "! not on its VMA's list" for c in chains]
    for i, c in enumerate(chains):
        if c.subtree_last != c.true_subtree_last:
            odd[i] = f"! subtree last {c.subtree_last:#x}, must be {c.true_subtree_last:#x}"
    bounds = [f"{c.start:#x}-{c.end:#x}" if c.start is not None else f"{c.vma:#x}" for c in chains]
    return Rows(
        [
            words("tree", [line.branch + ("○" if line.chain.red else "●") for line in lines]),
            words("where its offsets lie", [line.bar for line in lines], drop=2, shade=lambda _: "heat2"),
            words("offsets", [f"{c.first:#x}-{c.last:#x}" for c in chains]),
            words("process", [f"{c.pid} {c.comm}" if c.pid is not None else "no task" for c in chains]),
            words("VMA", bounds, drop=1),
            words("chain", [f"{c.address:#x}" for c in chains], drop=3),
            words("", odd, shade=lambda _: "fail"),
        ],
        lambda row: _vma_place(s, chains[row].vma),
    )


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
        lambda row: _vma_place(s, m[row].vma),
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
