"""A file for the screen: the VMAs that map it, and its page cache."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from inspector.report.file import FileReport, Mapper
from inspector.snapshot import Snapshot
from inspector.tables.files import ENTRY_KINDS
from inspector.text import counted
from inspector.walk.cache_view import CacheView
from tui.places import FolioPlace
from tui.views.rows import Rows, coded, number, sizes, words
from tui.views.vmas import vma_place


@dataclass(frozen=True)
class MapperLine:
    """A process that maps the file, or one of its VMAs below it.

    Attributes:
        vmas: Those that the line is about.
        is_process: Whether it is the process.
        more: How many VMAs can be shown below.
    """

    vmas: list[Mapper]
    is_process: bool
    more: int


def mapper_lines(report: FileReport, opened: Collection[int]) -> list[MapperLine]:
    """A line a process, in the report's order; below those opened, named by mm, a line a VMA."""
    by_mm: dict[int, list[Mapper]] = {}
    for mapper in report.mappers:
        by_mm.setdefault(mapper.mm, []).append(mapper)
    out = []
    for mm, vmas in by_mm.items():
        out.append(MapperLine(vmas, True, len(vmas) if len(vmas) > 1 else 0))
        if mm in opened and len(vmas) > 1:
            out += [MapperLine([vma], False, 0) for vma in vmas]
    return out


def _mark(line: MapperLine, opened: Collection[int]) -> str:
    return "" if not line.more else "-" if line.vmas[0].mm in opened else "+"


def _who(vma: Mapper) -> str:
    return (vma.comm or "") if vma.pid is not None else f"mm {vma.mm:#x}"


def mapper_rows(s: Snapshot, lines: list[MapperLine], opened: Collection[int]) -> Rows:
    """The processes that map a file, and the VMAs of those that are opened."""
    page = 1 << s.layout.arch.page_shift

    def where(line: MapperLine) -> str:
        first = line.vmas[0]
        return counted(line.more, "VMA") if line.more else f"{first.start:#x}-{first.end:#x}"

    def in_tree(line: MapperLine) -> str:
        missing = sum(not x.in_tree for x in line.vmas)
        return "in the tree" if not missing else "! MISSING" if len(line.vmas) == 1 else f"! {missing} MISSING"

    pids = [-1 if x.vmas[0].pid is None else x.vmas[0].pid for x in lines]
    return Rows(
        [
            words("", [_mark(line, opened) for line in lines], shade=lambda _: "info"),
            number(
                "pid",
                np.array(pids, np.int64),
                str,
                blank=-1,
            ),
            words("comm", [_who(x.vmas[0]) if x.is_process else "" for x in lines], stays=True),
            sizes("spans", np.array([sum(v.end - v.start for v in x.vmas) // page for x in lines], np.int64), page),
            words("VMAs", [where(line) for line in lines], shade=lambda _: "heat1"),
            words("perm", [" ".join(sorted({v.perms for v in x.vmas})) for x in lines], least=9),
            number("pgoff", np.array([min(v.pgoff for v in x.vmas) for x in lines], np.uint64), lambda n: f"{n:#x}"),
            words("i_mmap", [in_tree(line) for line in lines]),
        ],
        lambda row: vma_place(s, lines[row].vmas[0].vma),
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
