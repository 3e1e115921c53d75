"""Mappings as rows: who maps a page where, at which level, with which attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.report.screen import TableColumn
from inspector.walk.counts import EntryClass
from inspector.walk.lookup import decode_entry
from inspector.walk.mappings import entry_pages
from inspector.walk.names import owner_of

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


class MappingRow(msgspec.Struct, frozen=True, rename={"entry_class": "sort"}):
    """One entry, or a run of neighbouring PTEs that map consecutive pages alike."""

    mm: int
    pid: int | None
    comm: str | None
    va: int
    level: str
    entries: int
    pages: int
    pfn: int
    page_index: int
    """Which page of the folio is mapped first."""
    entry: int
    """The first entry as stored."""
    present: bool
    """False for migration and device entries, which have taken the place of an entry of the page."""
    kind: str
    bits: list[str]
    vma: int | None
    counted: bool
    """False where a page table that several processes share was reached again: no mapping of its own."""
    entry_class: str
    """"normal" for what the rmap counts; else why it does not count."""


COLUMNS = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("va", right=True),
    TableColumn("level"),
    TableColumn("pages", right=True),
    TableColumn("pfn", right=True),
    TableColumn("page", right=True),
    TableColumn("entry", right=True),
    TableColumn("attributes"),
)

_BIT_WORDS = {
    Bit.WRITE: "write",
    Bit.EXEC: "exec",
    Bit.DIRTY: "dirty",
    Bit.YOUNG: "young",
    Bit.SPECIAL: "special",
    Bit.UFFD_WP: "uffd-wp",
    Bit.SOFT_DIRTY: "soft-dirty",
    Bit.PROT_NONE: "prot-none",
    Bit.DEVMAP: "devmap",
    Bit.EXCLUSIVE: "exclusive",
    Bit.CONT: "cont",
    Bit.SHADOW_STACK: "shadow-stack",
}


def bit_words(bits: Bit) -> list[str]:
    """The attributes of an entry in words."""
    return [word for bit, word in _BIT_WORDS.items() if bits & bit]


def kind_words(kind: Kind) -> str:
    """The kind of an entry in words."""
    return kind.name.lower().replace("_", " ")


def mapping_rows(s: Snapshot, pfn: int, nr: int, limit: int | None) -> tuple[list[MappingRow], int]:
    """The mappings of the pages [pfn, pfn + nr), migration and device entries included, by process and address.

    Returns:
        The first ``limit`` of them, and how many rows there are in all.
    """
    rows = s.mappings_of(pfn, nr)
    m, n = s.mappings, s.nonpresent
    away = np.flatnonzero((n.pfn >= 0) & (n.pfn < pfn + nr) & (n.pfn + entry_pages(s.layout, n.level) > pfn))
    keys = [(*_key(s, int(m.mm_idx[r]), int(m.va[r])), True, r) for r in rows.tolist()]
    keys += [(*_key(s, int(n.mm_idx[r]), int(n.va[r])), False, r) for r in away.tolist()]
    keys.sort()
    chosen = keys if limit is None else keys[:limit]
    made = [_present(s, k[3], pfn, nr) if k[2] else _absent(s, k[3], pfn) for k in chosen]
    return made, len(keys)


def _key(s: Snapshot, mm_idx: int, va: int) -> tuple[int, int]:
    pid = int(s.mms.pid[mm_idx])
    return pid if pid >= 0 else 1 << 40, va


def _present(s: Snapshot, row: int, pfn: int, nr: int) -> MappingRow:
    """One row of the mappings, cut to the pages asked for."""
    m, arch = s.mappings, s.layout.arch
    level = Level(int(m.level[row]))
    each = next((1 << (a.shift - arch.page_shift) for a in arch.shapes if a.level == level), 1)
    first, entries = int(m.pfn[row]), int(m.nr[row])
    skip = max(0, pfn - first) if level == Level.PTE else 0
    entries = min(entries - skip, pfn + nr - first - skip) if level == Level.PTE else entries
    raw = (
        m.entry[row : row + 1] + np.uint64(skip) * arch.leaf_step(Level.PTE, m.entry[row : row + 1])
        if skip
        else (m.entry[row : row + 1])
    )
    vma = int(m.vma_idx[row])
    mm, pid, comm = owner_of(s, int(m.mm_idx[row]))
    return MappingRow(
        mm=mm,
        pid=pid,
        comm=comm,
        va=int(m.va[row]) + (skip << arch.page_shift),
        level=level.name,
        entries=entries,
        pages=entries * each,
        pfn=first + skip,
        page_index=first + skip - pfn,
        entry=int(raw[0]),
        present=True,
        kind=kind_words(Kind.LEAF),
        bits=bit_words(Bit(int(s.mappings.bits[row]))),
        vma=int(s.vmas.addr[vma]) if vma >= 0 else None,
        counted=bool(m.counted[row]),
        entry_class=EntryClass(int(s.mappings.entry_class[row])).name.lower(),
    )


def _absent(s: Snapshot, row: int, pfn: int) -> MappingRow:
    """A non-present entry that names a page."""
    n = s.nonpresent
    level, kind = Level(int(n.level[row])), Kind(int(n.kind[row]))
    _, bits, _ = decode_entry(s.layout.arch, level, kind, n.entry[row : row + 1])
    vma = int(n.vma_idx[row])
    mm, pid, comm = owner_of(s, int(n.mm_idx[row]))
    return MappingRow(
        mm=mm,
        pid=pid,
        comm=comm,
        va=int(n.va[row]),
        level=level.name,
        entries=1,
        pages=int(entry_pages(s.layout, n.level[row : row + 1])[0]),
        pfn=int(n.pfn[row]),
        page_index=int(n.pfn[row]) - pfn,
        entry=int(n.entry[row]),
        present=False,
        kind=kind_words(kind),
        bits=bit_words(bits),
        vma=int(s.vmas.addr[vma]) if vma >= 0 else None,
        counted=bool(n.counted[row]),
        entry_class="not present",
    )


def cells(row: MappingRow) -> tuple[str, ...]:
    """The row for people."""
    words = [*row.bits]
    if not row.present:
        words.insert(0, row.kind)
    elif row.entry_class != "normal":
        words.insert(0, f"[{row.entry_class}]")
    if not row.counted:
        words.append("(shared table)")
    pid = "-" if row.pid is None else str(row.pid)
    return (
        pid,
        row.comm or "(no task)",
        f"{row.va:#x}",
        row.level,
        str(row.pages),
        f"{row.pfn:#x}",
        f"+{row.page_index}",
        f"{row.entry:#018x}",
        " ".join(words),
    )


__all__ = ["COLUMNS", "MappingRow", "bit_words", "cells", "kind_words", "mapping_rows", "owner_of"]
