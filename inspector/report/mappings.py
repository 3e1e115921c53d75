"""Mappings as rows: who maps a page where, at which level, with which attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I64, take_or
from inspector.hex_json import Hex
from inspector.report.screen import TableColumn
from inspector.text import counted
from inspector.walk.counts import EntryClass
from inspector.walk.lookup import decode_entry
from inspector.walk.mappings import entry_pages
from inspector.walk.names import owner_of, owners_of

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


class MappingRow(msgspec.Struct, frozen=True, rename={"entry_class": "sort"}):
    """One entry, or a run of neighbouring PTEs that map consecutive pages alike."""

    mm: Hex
    pid: int | None
    comm: str | None
    va: Hex
    level: str
    entries: int
    pages: int
    pfn: int
    page_index: int
    """Which page of the folio is mapped first."""
    entry: Hex
    """The first entry as stored."""
    present: bool
    """False for migration and device entries, which have taken the place of an entry of the page."""
    kind: str
    bits: list[str]
    vma: Hex | None
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


NOT_ALLOWED = ("entry that may not map it", "entries that may not map it")


def rejected_words(number: int) -> str:
    """What to add to the number of mappings where some entries may not be there."""
    return f"; beside {counted(number, *NOT_ALLOWED)}" if number else ""


def bit_words(bits: Bit, *, invalidated: bool = False) -> list[str]:
    """The attributes of an entry in words; a huge entry that is invalidated for a moment is not called prot-none."""
    if invalidated:
        return [*bit_words(bits & ~Bit.PROT_NONE), "invalidated"]
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
    mm, va = np.concatenate([m.mm_idx[rows], n.mm_idx[away]]), np.concatenate([m.va[rows], n.va[away]])
    pid = s.mms.pid[mm].astype(np.int64)
    present = np.repeat([True, False], [len(rows), len(away)])
    order = np.lexsort((np.concatenate([rows, away]), present, va, np.where(pid >= 0, pid, 1 << 40)))[:limit]
    here, gone = order[present[order]], order[~present[order]]
    head = _head(s, pfn)
    made = dict(zip(here.tolist(), _present(s, rows[here], pfn, nr, head), strict=True))
    made.update(
        (at, _absent(s, row, head)) for at, row in zip(gone.tolist(), away[gone - len(rows)].tolist(), strict=True)
    )
    return [made[at] for at in order.tolist()], len(mm)


def _head(s: Snapshot, pfn: int) -> int:
    """Page frame of the head of the folio that a page belongs to: pages are counted from there, as everywhere."""
    row = s.pages.memmap.row(pfn)
    head = int(s.pages.head_row[row]) if row >= 0 else -1
    return int(s.pages.memmap.pfns_of_rows(np.array([head], np.int64))[0]) if head >= 0 else pfn


def _present(s: Snapshot, rows: I64, pfn: int, nr: int, head: int) -> list[MappingRow]:
    """Rows of the mappings, cut to the pages asked for."""
    m, arch = s.mappings.take(rows), s.layout.arch
    pte = m.level == Level.PTE
    skip = np.where(pte, np.maximum(pfn - m.pfn, 0), 0)
    entries = np.where(pte, np.minimum(m.nr - skip, pfn + nr - m.pfn - skip), m.nr)
    first = m.pfn + skip
    gone = arch.invalidated(m.level, m.entry).tolist()
    columns = zip(
        owners_of(s, m.mm_idx),
        (m.va + (skip.astype(np.uint64) << np.uint64(arch.page_shift))).tolist(),
        m.level.tolist(),
        entries.tolist(),
        (entries * entry_pages(s.layout, m.level)).tolist(),
        first.tolist(),
        (m.entry + skip.astype(np.uint64) * arch.leaf_step(Level.PTE, m.entry)).tolist(),
        zip(m.bits.tolist(), gone, strict=True),
        take_or(s.vmas.addr, m.vma_idx, 0).tolist(),
        m.counted.tolist(),
        m.entry_class.tolist(),
        strict=True,
    )
    levels = {int(level): level.name for level in Level}
    classes = {int(each): each.name.lower() for each in EntryClass}
    words = {key: bit_words(Bit(key[0]), invalidated=key[1]) for key in set(zip(m.bits.tolist(), gone, strict=True))}
    leaf = kind_words(Kind.LEAF)
    return [
        MappingRow(
            mm=owner[0],
            pid=owner[1],
            comm=owner[2],
            va=va,
            level=levels[level],
            entries=nr_entries,
            pages=pages,
            pfn=at,
            page_index=at - head,
            entry=entry,
            present=True,
            kind=leaf,
            bits=words[bits],
            vma=vma or None,
            counted=counted,
            entry_class=classes[entry_class],
        )
        for owner, va, level, nr_entries, pages, at, entry, bits, vma, counted, entry_class in columns
    ]


def _absent(s: Snapshot, row: int, head: int) -> MappingRow:
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
        page_index=int(n.pfn[row]) - head,
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
