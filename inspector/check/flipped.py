"""Flipped bits of page-table entries: a page that lost a mapping, and the entry that is its own but for one bit.

A flipped bit makes two faults: the page that the entry mapped counts a mapping too many, and the entry maps another
page, or none. The reverse map of the page leads back to the entry (mm/rmap.c), and what is there shows the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inspector.arch.base import Level
from inspector.columns import U64
from inspector.findings import Diagnosis
from inspector.rules.cause import Cause, Causes
from inspector.rules.folios.mapcount import mapcount_mapping_missing, mapcount_too_high
from inspector.rules.mms.mm_lives import mmlist_entry_missing
from inspector.rules.mms.rss import rss_mismatch
from inspector.subjects import MM, NONPRESENT
from inspector.walk.lost_places import lost_places

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_LOST = (mapcount_mapping_missing, mapcount_too_high)

_MOST = 64
"""Pages that lost a mapping whose entries are looked for: so many flipped bits are none."""


class _Flipped(NamedTuple):
    """An entry that maps a page with one of its bits turned back: the bit, the page, and where the entry is."""

    bit: int
    pfn: int
    table: int
    slot: int
    entry: int


def join_flipped(s: Snapshot, causes: Causes) -> None:
    """Make one cause of a page that lost a mapping and of what its entry is taken for since a bit of it flipped."""
    lost = [c for c in causes if c.rule in _LOST and len(c.positions) == 1 and _excess(c) == 1]
    if not lost or len(lost) > _MOST or s.search != "all page tables":
        return
    found = _flipped(s, lost)
    for cause in lost:
        each = found.get(cause.first_row)
        if each is None:
            continue
        joined = sorted({*_of_entry(s, causes, each), cause}, key=list(causes).index)
        # What is wrong with the entry comes first: the page is the one that was robbed.
        root = next((c for c in joined if c is not cause), cause)
        for other in joined:
            if other is not root:
                root.facts.update(other.facts)
                causes.attach(other, root)
        _explain(s, root, each)


def _excess(cause: Cause) -> int:
    return int(cause.observed("_mapcount")[0]) - int(cause.expected("_mapcount")[0])


def _flipped(s: Snapshot, lost: list[Cause]) -> dict[int, _Flipped]:
    """By row of a page the one entry that maps it with one bit turned back; pages with several such have none."""
    rows = np.array([cause.first_row for cause in lost], np.int64)
    places = lost_places(s, rows, np.ones(len(s.mms), np.bool_))
    places = places.take(np.flatnonzero(places.entry))
    pfns = s.pages.memmap.pfns_of_rows(rows)
    arch, bits = s.layout.arch, np.uint64(1) << np.arange(64, dtype=np.uint64)
    out: dict[int, list[_Flipped]] = {}
    columns = (places.asked, places.table_idx, places.slot, places.entry)
    for asked, table, slot, entry in zip(*(column.tolist() for column in columns), strict=True):
        turned: U64 = np.uint64(entry) ^ bits
        pfn = int(pfns[asked])
        hit = arch.leaf_mask(Level.PTE, turned) & (arch.leaf_pfn(Level.PTE, turned).astype(np.int64) == pfn)
        if hit.any():
            # A bit that makes it present comes before those that it would mean something else with.
            each = _Flipped(int(hit.argmax()), pfn, table, slot, entry)
            out.setdefault(int(rows[asked]), []).append(each)
    return {row: found[0] for row, found in out.items() if len(found) == 1}


def _of_entry(s: Snapshot, causes: Causes, each: _Flipped) -> list[Cause]:
    """What is wrong with the entry, with the page that it maps, and with the sums of its mm."""
    entry: U64 = np.array([each.entry], np.uint64)
    mm = int(s.tables.mm_idx[each.table])
    out = [
        cause
        for cause in causes
        if (cause.rule.about is NONPRESENT and _is_of(s, cause, each))
        or (cause.rule.about is MM and cause.first_row == mm and _is_of_one_entry(cause))
    ]
    if s.layout.arch.leaf_mask(Level.PTE, entry)[0]:
        stray = int(s.layout.arch.leaf_pfn(Level.PTE, entry)[0])
        row = s.pages.memmap.row(stray)
        head = int(s.pages.head_row[row]) if row >= 0 else -1
        named = s.pages.memmap.pfn(head) if head >= 0 else stray
        known = causes.of_folio.get(named)
        out += [known] if known is not None and known in list(causes) else []
    return out


def _is_of(s: Snapshot, cause: Cause, each: _Flipped) -> bool:
    n, rows = s.nonpresent, cause.rows
    return bool(((n.table_idx[rows] == each.table) & (n.slot[rows] == each.slot)).any())


def _is_of_one_entry(cause: Cause) -> bool:
    """Whether what is wrong with an mm is what one entry makes.

    That is rss with a page too many of one kind, and one too few of another at most; and a single swap entry of an mm
    that has none otherwise, so that it is not on the list of those that have (mm/swapfile.c, try_to_unuse()).
    """
    if cause.rule is mmlist_entry_missing:
        return int(cause.fact("swap_entries")[0]) == 1
    if cause.rule is not rss_mismatch:
        return False
    off = [int(cause.observed(name)[0]) - int(cause.expected(name)[0]) for name in cause.violations.details.observed]
    return max(off) <= 1 and min(off) >= -1 and 0 < sum(map(abs, off)) <= 2


def _explain(s: Snapshot, root: Cause, each: _Flipped) -> None:
    tables, shift = s.tables, s.layout.memmap.page_shift
    pid = int(s.mms.pid[tables.mm_idx[each.table]])
    va = int(tables.va[each.table]) + (each.slot << shift)
    was = each.entry ^ (1 << each.bit)
    where = f"the entry of pid {pid} at {va:#x}" if pid >= 0 else f"the entry at {va:#x}"
    root.facts["flipped_bit"] = each.bit
    root.facts["entry_before"] = was
    root.diagnosis = Diagnosis(
        "flipped bit",
        [
            f"{where} is {each.entry:#x}: it differs in bit {each.bit} from {was:#x}, which maps pfn {each.pfn:#x}",
            f"pfn {each.pfn:#x} counts one mapping more than there are, and its reverse map leads to that entry",
        ],
    )
