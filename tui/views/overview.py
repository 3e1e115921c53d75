"""The target at a glance: what it is, what its memory is used for, who uses most of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64
from inspector.report.info import TARGET_KINDS
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.text import clean, clean_bytes, duration, size
from tui.places import MmPlace
from tui.views.map import Layer
from tui.views.rows import ColumnData, Rows, number, sizes, words


def identity_lines(s: Snapshot, *, is_early: bool = False) -> list[tuple[str, str]]:
    """Names and values of the target that is shown.

    Args:
        s: A snapshot of it.
        is_early: Whether the memory map is not read yet, and need not be for this.
    """
    target, who = s.target, s.target.identity
    scheme = s.layout.scheme.scheme if is_early else s.scheme
    kernel = [f"Linux {clean(who.release) if who.release else 'of unknown release'}", who.architecture or ""]
    host = [clean(who.hostname) if who.hostname else "", f"{who.nr_cpus} CPUs" if who.nr_cpus else ""]
    host += [size(who.memory_bytes) if who.memory_bytes else "", f"up {duration(who.uptime)}" if who.uptime else ""]
    panic = clean(who.panic_message) if who.panic_message else ""
    lines = [
        ("kernel", ", ".join(w for w in kernel if w)),
        ("machine", ", ".join(w for w in host if w)),
        ("opened", f"{TARGET_KINDS.get(target.kind, target.kind)}, types from {target.types_from}"),
        ("counting", f"{scheme.name}: {scheme.value}" if scheme else "to be read" if is_early else "unknown"),
    ]
    return lines + ([("panic", panic)] if panic else [])


@dataclass(frozen=True)
class Bar:
    """One bar: how much of memory is of a kind or in folios of an order.

    Attributes:
        label: What.
        shade: Its colour, as in the memory map.
        pages: How many pages.
        share: Of all pages, 0 to 1.
    """

    label: str
    shade: str
    pages: int
    share: float


def bars(layer: Layer, most: int) -> list[Bar]:
    """The codes of a layer as bars, the commonest first; the smallest are gathered when there are too many."""
    found = sorted(layer.totals(), key=lambda t: -t[3])
    total = sum(pages for *_, pages in found) or 1
    shown = found if len(found) <= most else found[: most - 1]
    out = [Bar(label, shade, pages, pages / total) for label, _, shade, pages in shown]
    rest = sum(pages for *_, pages in found[len(shown) :])
    return [*out, Bar("others", "free", rest, rest / total)] if rest else out


def order_bars(layer: Layer) -> list[Bar]:
    """Pages in use by the order of their folio, small orders first; free pages are left out."""
    found = [t for t in layer.totals() if t[0] != "free"]
    found.sort(key=lambda t: layer.look.labels.index(t[0]))
    total = sum(pages for *_, pages in found) or 1
    return [Bar(label, shade, pages, pages / total) for label, _, shade, pages in found]


def top_processes(s: Snapshot, most: int) -> Rows:
    """The address spaces with the largest rss."""
    mms = s.mms
    rss = mms.rss[:, [RSS_ANON, RSS_FILE, RSS_SHMEM]].sum(axis=1)
    top: I64 = np.argsort(-rss, kind="stable")[:most]
    shift = s.layout.arch.page_shift

    def pages_of(title: str, pages: I64, drop: int = 0) -> ColumnData:
        return sizes(title, pages, 1 << shift, drop=drop, blank=0)

    comm = [clean_bytes(bytes(mms.comm[i])) if mms.pid[i] >= 0 else f"mm {int(mms.addr[i]):#x}" for i in top.tolist()]
    fields = [
        number("pid", mms.pid[top].astype(np.int64), str, blank=-1),
        words("name", comm),
        pages_of("rss", rss[top]),
        pages_of("anon", mms.rss[top, RSS_ANON], 1),
        pages_of("file", mms.rss[top, RSS_FILE], 2),
        pages_of("shmem", mms.rss[top, RSS_SHMEM], 3),
        pages_of("swap", mms.rss[top, RSS_SWAP], 4),
    ]
    return Rows(fields, lambda row: MmPlace(int(top[row])))
