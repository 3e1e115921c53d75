"""Stretches of memory in which something else was written: found by what rules find wrong side by side.

A page table that was overwritten breaks a rule for each of its entries, and as many for pages that lost a mapping.
Where several neighbouring words are impossible, the stretch is one cause: what is in it is not read, and everything
else is judged once more as if it were not in the dump (`inspector.walk.unread_tables`), so that what the stretch
explains is found no more and any other fault still is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, Mask, UnknownColumn, distinct, is_among, page_key, rows_of_unordered
from inspector.findings import Subject
from inspector.layout.flags import MAPPING_TAGS
from inspector.rules.entries.targets import entry_pfn_invalid, special_entry_unexpected
from inspector.rules.folios.mapcount import mapcount_mapping_missing, mapcount_too_high, mapcount_too_low
from inspector.rules.mms.rss import rss_mismatch
from inspector.rules.page_tables.bytes import pgtables_bytes_mismatch
from inspector.rules.page_tables.kernel_half import kernel_half_mismatch
from inspector.rules.page_tables.page_tables import entry_invalid, huge_swap_entry_unexpected, page_table_type_mismatch
from inspector.rules.registry import Rule
from inspector.rules.swap.swap import swap_entry_slot_invalid
from inspector.subjects import ENTRY, NONPRESENT, PAGE, TABLE, mm_of
from inspector.tables.overwritten import Stretch, looks_like, shown
from inspector.tables.pages import MANY_REFERENCES
from inspector.tables.vmalloc import vmalloc_pfns
from inspector.tables.zone_spans import of_no_zone
from inspector.walk.lost_places import lost_places
from inspector.walk.mappings import ENTRY_ID_SLOT_BITS
from inspector.walk.unread_tables import tables_not_followed
from inspector.windows.window import Effect

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot
    from inspector.violations import Violations

Results = list[tuple[Rule, "Violations"]]

_PAGE = 4096

_SLOTS = 1 << ENTRY_ID_SLOT_BITS

_LINE = 8
"""Words of a cache line: nothing smaller is written by chance, and wrong words nearer than that belong together."""

_FAR_SLOT = np.uint64(1 << 34)
"""Beyond the slots of any swap device: 64 TiB."""

_FAR_PFN = 1 << 39
"""In the upper half of the addresses that an entry can hold: no machine has memory or devices there."""

_AROUND = 2048
"""Struct pages that are examined around those that are at fault."""

_MAX_STRETCHES = 64
"""Stretches of either kind: more are no damage here and there, but a target that is not understood."""

_MAX_PLACES = 1 << 20
"""Violations of one rule that are examined: more are no stretch, but a target that is not understood."""

_LOST_MAPPINGS = (mapcount_mapping_missing, mapcount_too_high)

_MAX_LOST = 1 << 12
"""Pages that lost a mapping whose places are looked for: eight tables full of them."""

_GAP = 4
"""Struct pages between two that are overwritten that may look sound by chance."""


def find_stretches(s: Snapshot, results: Results) -> tuple[Stretch, ...]:
    """The stretches that violations lie in side by side, by their addresses.

    Args:
        s: The snapshot that the rules judged.
        results: Rules with what each found.
    """
    return (
        *islice(_in_page_tables(s, results), _MAX_STRETCHES),
        *islice(_in_memory_map(s, results), _MAX_STRETCHES),
    )


def together(s: Snapshot, stretches: tuple[Stretch, ...], more: tuple[Stretch, ...]) -> tuple[Stretch, ...]:
    """Stretches that were known and some that showed without them: those of one page table are made one."""
    out = list(stretches)
    for new in more:
        same = [each for each in out if new.physical and each.physical and each.subject.pfn == new.subject.pfn]
        out = [each for each in out if each not in same]
        if not same:
            out.append(new)
            continue
        row = int(np.flatnonzero(s.tables.pfn == new.subject.pfn)[0])
        first = min(each.address for each in (new, *same)) % _PAGE // 8
        last = max((each.address + each.size - 8) % _PAGE for each in (new, *same)) // 8
        out.append(_stretch_of_table(s, row, first, last))
    return tuple(out)


def with_what_broke(stretches: tuple[Stretch, ...], before: Results, after: Results) -> tuple[Stretch, ...]:
    """The stretches with what is found no more when they are not read."""
    left = {rule.slug: len(found) for rule, found in after}
    gone = Counter({rule.slug: len(found) - left.get(rule.slug, 0) for rule, found in before})
    words = ", ".join(f"{nr:,} {slug}" for slug, nr in gone.most_common() if nr > 0)
    together = f" (with the other {len(stretches) - 1})" if len(stretches) > 1 else ""
    return tuple(replace(each, broke=words + together) for each in stretches)


# -- page tables ------------------------------------------------------------------------------------------------------


class _Entries(NamedTuple):
    """Entries of page tables: row of the table and index in it."""

    table: I64
    slot: I64


def _in_page_tables(s: Snapshot, results: Results) -> Iterator[Stretch]:
    whole = [*_copied_tables(s, results), *_without_kernel_half(results)]
    for row in dict.fromkeys(whole):
        yield _stretch_of_table(s, row, 0, _SLOTS - 1)
    if whole:
        # What lies below them is no page table: the next round finds what else there is.
        return
    wrong_alone = (_impossible(s, rule, found) for rule, found in results)
    wrong = _places(s, (_entries_of(s, rule, found.rows) for rule, found in results if len(found) <= _MAX_PLACES))[1]
    table, place = _places(s, [*wrong_alone, _lost(s, results, wrong), _lost_tables(s, results)])
    clusters = np.split(np.arange(len(place)), np.flatnonzero(np.diff(place) > _LINE) + 1)
    clusters = [each for each in clusters if len(each) > 1]
    if not clusters:
        return
    rows = {int(s.tables.pfn[row]): row for row in reversed(distinct(table).tolist())}
    for pfn in distinct(place[np.concatenate(clusters)] // _SLOTS).tolist():
        start = pfn * _SLOTS
        own = wrong[(wrong >= start) & (wrong < start + _SLOTS)] - start
        parts = [place[each[[0, -1]]] - start for each in clusters if place[each[0]] // _SLOTS == pfn]
        for first, last in _joined([_grown(int(part[0]), int(part[1]), own) for part in parts]):
            yield _stretch_of_table(s, rows[pfn], first, last)


def _without_kernel_half(results: Results) -> list[int]:
    """Rows of top tables whose kernel's half is wrong in more than lines here and there."""
    for rule, found in results:
        if rule is kernel_half_mismatch and len(found):
            return [int(row) for row in found.rows[found.details.facts["entries"] > 2 * _LINE]]
    return []


def _copied_tables(s: Snapshot, results: Results) -> list[int]:
    """Rows of tables above the last level with faults below half of their entries that hold what the page beside holds.

    Two such tables in use are never alike, but for entries of hugetlb's shared tables: all else below belongs to one.
    """
    t, memory, shift = s.tables, s.layout.memory, s.layout.memmap.page_shift
    found = [_entries_of(s, rule, each.rows).table for rule, each in results if len(each) <= _MAX_PLACES]
    at_fault = np.zeros(len(t), np.bool_)
    at_fault[np.concatenate([tables_not_followed(s), *found])] = True
    for level in sorted(set(t.level.tolist())):
        below = np.flatnonzero(at_fault & (t.level == level) & (t.parent >= 0))
        at_fault[t.parent[below]] = True
    led = t.parent >= 0
    all_below = np.bincount(t.parent[led], minlength=len(t))
    wrong = np.bincount(t.parent[led & at_fault], minlength=len(t))
    rows = np.flatnonzero(at_fault & t.first & (t.level > Level.PTE) & (2 * wrong >= all_below))
    out = []
    for row in rows[np.argsort(-wrong[rows], kind="stable")][:_MAX_STRETCHES].tolist():
        at = int(t.pfn[row]) << shift
        before, own, behind = (memory.read(at + step, _PAGE, physical=True) for step in (-_PAGE, 0, _PAGE))
        if own is None or not any(own) or own not in (before, behind):
            continue
        twin = t.pfn == t.pfn[row] + (1 if own == behind else -1)
        if not (twin & (t.level == t.level[row])).any() or len(set(memoryview(own).cast("Q"))) > 2:
            out.append(row)
    return out


def _joined(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Parts of one table in ascending order, those made one that are no further apart than either is long."""
    out: list[tuple[int, int]] = []
    for first, last in parts:
        if out and first - out[-1][1] <= max(last - first, out[-1][1] - out[-1][0], _LINE):
            out[-1] = (min(first, out[-1][0]), max(last, out[-1][1]))
        else:
            out.append((first, last))
    return out


def _places(s: Snapshot, found: Iterable[_Entries]) -> tuple[I64, I64]:
    """Distinct entries in the order of their places in memory: the row of a table, and a number of the place."""
    parts = [_Entries(np.empty(0, np.int64), np.empty(0, np.int64)), *found]
    table, slot = (np.concatenate(column) for column in zip(*parts, strict=True))
    # A table that several mms share is damaged once.
    place, at = np.unique(s.tables.pfn[table] * _SLOTS + slot, return_index=True)
    return table[at], place


def _grown(first: int, last: int, wrong: I64) -> tuple[int, int]:
    """The stretch from one entry to another with those that are at fault beside it, no further off than it is long."""
    while True:
        reach = max(last - first, _LINE)
        near = wrong[(wrong >= first - reach) & (wrong <= last + reach)]
        low, high = min(first, int(near.min(initial=first))), max(last, int(near.max(initial=last)))
        if (low, high) == (first, last):
            return first, last
        first, last = low, high


def _impossible(s: Snapshot, rule: Rule, found: Violations) -> _Entries:
    """Entries that are wrong by themselves, whatever the VMA and the page that they lead to hold."""
    observed = found.details.observed
    wrong = np.zeros(len(found), np.bool_)
    if not len(found) or len(found) > _MAX_PLACES:
        pass
    elif rule in (entry_invalid, huge_swap_entry_unexpected):
        wrong[:] = True
    elif rule is entry_pfn_invalid:
        wrong = observed["target"] == "no_page"
    elif rule is swap_entry_slot_invalid:
        wrong = (observed["swap_offset"] >= _FAR_SLOT) | ~np.isin(observed["swap_type"], s.swap.devices.type_)
    elif rule is special_entry_unexpected:
        wrong = s.entries(found.rows).pfn >= _FAR_PFN
    elif rule is page_table_type_mismatch:
        wrong = observed["table_page"] == "no struct page"
    return _entries_of(s, rule, found.rows[wrong])


def _lost(s: Snapshot, results: Results, wrong: I64) -> _Entries:
    """Entries that mapped pages which count more mappings than there are, in mms that count more pages than they map.

    Nothing says of a single one that it was there: a page of a file need not be mapped where its VMA is. Where an entry
    was overwritten with another's copy, the mm counts what it maps: there a page is mapped whose place is elsewhere, or
    one that counts fewer mappings than there are. An entry that maps a page rightly was not overwritten.

    Args:
        s: The snapshot.
        results: What rules found.
        wrong: int64[n]; the places of entries that are wrong, as `_places` numbers them.
    """
    pages = [found.rows[_lasting(found)] for rule, found in results if rule in _LOST_MAPPINGS]
    excess = np.zeros(len(s.mms), np.int64)
    for rule, found in results:
        if rule is rss_mismatch:
            names = found.details.observed.keys()
            more = [found.details.observed[name] - found.details.expected[name] for name in names]
            excess[found.rows] = np.sum(more, axis=0) * _lasting(found)
    rows = np.concatenate([np.empty(0, np.int64), *pages])
    # What is in a table that hangs nowhere was mapped there.
    rows = rows[~is_among(rows, s.lost_tables.page)][:_MAX_LOST] if len(rows) else rows
    mm_astray, page_astray = _mapped_astray(s, results)
    low = [found.rows[_lasting(found)] for rule, found in results if rule is mapcount_too_low]
    has_copies = np.zeros(len(s.mms), np.bool_)
    has_copies[mm_astray] = True
    if not len(rows) or not (excess.any() or has_copies.any()):
        return _Entries(rows[:0], rows[:0])
    places = lost_places(s, rows, (excess > 0) | has_copies)
    # Pages that another mm lost may have been mapped in all of its family.
    mm = s.tables.mm_idx[places.table_idx]
    kept = (excess[mm] > 0) & (2 * excess[mm] >= np.bincount(mm, minlength=len(s.mms))[mm])
    page = (s.tables.va[places.table_idx] >> np.uint64(s.layout.memmap.page_shift)) + places.slot.astype(np.uint64)
    is_astray = np.isin(page_key(mm, page), page_key(mm_astray, page_astray))
    maps = s.layout.arch.leaf_mask(Level.PTE, places.entry)
    numbers = s.tables.pfn[places.table_idx].astype(np.int64) * _SLOTS + places.slot
    mapped = s.pages.memmap.rows(s.layout.arch.leaf_pfn(Level.PTE, places.entry).astype(np.int64))
    is_copy = has_copies[mm] & maps & is_among(mapped, np.concatenate([np.empty(0, np.int64), *low]))
    kept = (kept & (~maps | np.isin(numbers, wrong))) | is_astray | is_copy
    return _Entries(places.table_idx[kept], places.slot[kept])


def _mapped_astray(s: Snapshot, results: Results) -> tuple[I64, U64]:
    """Where pages are mapped whose words name another place: rows of the mms, and the page numbers there."""
    vma, va = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for rule, found in results:
        if rule.about is PAGE and {"va", "vma"} <= found.details.facts.keys():
            lasting = _lasting(found)
            vma.append(found.details.facts["vma"][lasting])
            va.append(found.details.facts["va"][lasting])
    row = rows_of_unordered(s.vmas.addr, np.concatenate(vma)).astype(np.int64)
    page = np.concatenate(va) >> np.uint64(s.layout.memmap.page_shift)
    return s.vmas.mm_idx[row[row >= 0]].astype(np.int64), page[row >= 0]


def _lost_tables(s: Snapshot, results: Results) -> _Entries:
    """Entries, empty now, that led to tables which hang nowhere, in mms that count more tables than they have.

    Each such table was led to by the entry that most of its pages lead back to.
    """
    off = np.zeros(len(s.mms), np.bool_)
    for rule, found in results:
        if rule is pgtables_bytes_mismatch and len(found):
            more = found.details.observed["pgtables_bytes"] > found.details.expected["pgtables_bytes"]
            off[found.rows[more & _lasting(found)]] = True
    none = np.empty(0, np.int64)
    if not off.any():
        return _Entries(none, none)
    lost = s.lost_tables
    table = lost.table[lost.leaf]
    some = np.flatnonzero((lost.below[table] == 0) & (lost.page >= 0))[:_MAX_LOST]
    places = lost_places(s, lost.page[some], off, Level.PMD)
    places = places.take(np.flatnonzero(places.entry == 0))
    keys = np.stack([table[some[places.asked]], places.table_idx, places.slot])
    each, nr = np.unique(keys, axis=1, return_counts=True)
    order = np.lexsort((-nr, each[0]))
    _, first = np.unique(each[0][order], return_index=True)
    _, table, slot = each[:, order[first]]
    return _Entries(table, slot)


def _lasting(found: Violations) -> Mask:
    """Violations that work in flight does not explain, as far as the locks of this kernel are known."""
    transient = found.details.transient
    if transient is None:
        return np.ones(len(found), np.bool_)
    return np.zeros(len(found), np.bool_) if isinstance(transient, UnknownColumn) else ~transient


def _entries_of(s: Snapshot, rule: Rule, rows: I64) -> _Entries:
    """The entries that some violations are about; none where they are about something else."""
    if rule.about is ENTRY:
        return _Entries(rows >> ENTRY_ID_SLOT_BITS, rows & (_SLOTS - 1))
    if rule.about is NONPRESENT:
        return _Entries(s.nonpresent.table_idx[rows].astype(np.int64), s.nonpresent.slot[rows].astype(np.int64))
    if rule.about is TABLE:
        rows = rows[s.tables.parent[rows] >= 0]
        return _Entries(s.tables.parent[rows].astype(np.int64), s.tables.slot[rows].astype(np.int64))
    return _Entries(rows[:0], rows[:0])


def _stretch_of_table(s: Snapshot, row: int, first: int, last: int) -> Stretch:
    """Of a table the lines that hold the entries from ``first`` to ``last``; all of it where that is most of it."""
    t, memmap = s.tables, s.layout.memmap
    shape = next(each for each in s.layout.arch.shapes if each.level == t.level[row])
    first, end = first // _LINE * _LINE, (last // _LINE + 1) * _LINE
    if 2 * (end - first) >= shape.entries:
        first, end = 0, shape.entries
    pfn = int(t.pfn[row])
    subject = Subject(
        kind="memory",
        pfn=pfn,
        address=(pfn << memmap.page_shift) + s.layout.memory.direct_map_base + 8 * first,
        va=int(t.va[row]) + (first << shape.shift),
        name=f"entries {first} to {end - 1} of a {shape.level.name} page table",
        **mm_of(s, int(t.mm_idx[row])),  # type: ignore[arg-type]
    )
    return _described(s, subject, (pfn << memmap.page_shift) + 8 * first, 8 * (end - first), "page-table entries")


def _described(s: Snapshot, subject: Subject, address: int, size: int, instead: str) -> Stretch:
    """A stretch with what is in it."""
    memory, physical = s.layout.memory, instead == "page-table entries"
    data = memory.read(address, size, physical=physical) or bytes(size)
    before, behind = (memory.read(at, size, physical=physical) for at in (address - size, address + size))
    return Stretch(subject, address, size, physical, instead, looks_like(data, before, behind), *shown(data))


# -- the memory map ---------------------------------------------------------------------------------------------------


def _in_memory_map(s: Snapshot, results: Results) -> Iterator[Stretch]:
    # A folio on an LRU list is at fault where its neighbour there was overwritten.
    rows = _heads_at_fault(s, [(rule, found) for rule, found in results if rule.effect is not Effect.LRU])
    if not len(rows):
        return
    yield from _copies(s, rows)
    strange = rows[_of_no_zone(s, rows)]
    for start in distinct(strange // _AROUND * _AROUND)[:_MAX_STRETCHES].tolist():
        around = np.arange(start, min(start + _AROUND, len(s.pages)))
        own = np.zeros(len(around), np.bool_)
        own[rows[(rows >= start) & (rows < start + _AROUND)] - start] = True
        wrong = np.flatnonzero(_of_no_zone(s, around))
        odd = np.zeros(len(around), np.bool_)
        odd[wrong] = ~_may_be_struct_pages(s, around[wrong])
        for run in np.split(wrong, np.flatnonzero(np.diff(wrong) > _GAP) + 1):
            if len(run) > 1 or odd[run].any():
                # One that is overwritten in part may have kept its zone.
                first = int(run[0]) - int(run[0] > 0 and own[run[0] - 1])
                end = int(run[-1]) + 1
                end += int(end < len(own) and own[end])
                yield _stretch_of_pages(s, start + first, start + end)


def _copies(s: Snapshot, rows: I64) -> Iterator[Stretch]:
    """Pages of the memory map with struct pages at fault that hold what the page beside them holds.

    Struct pages in use have links, owners and counts of their own. Tails of one folio have not: a page of the memory
    map full of these is like its neighbour in every dump. And of hugetlb folios several pages of struct pages are one
    page, by the kernel's page tables (mm/hugetlb_vmemmap.c); where these are missing, what begins with a head or a tail
    may be such pages.
    """
    memmap = s.layout.memmap
    nr = _PAGE // memmap.page_size
    if _PAGE % memmap.page_size:
        return
    pfn = memmap.pfns_of_rows(rows)
    for first in (distinct(pfn // nr)[:_MAX_STRETCHES] * nr).tolist():
        before, own, behind = (
            s.layout.memory.read(memmap.page_addr(start), _PAGE) if memmap.row(start) >= 0 else None
            for start in (first - nr, first, first + nr)
        )
        if own is None or own not in (before, behind) or own == own[: memmap.page_size] * nr:
            continue
        row, twin = memmap.row(first), first - nr if own == before else first + nr
        here, there = vmalloc_pfns(s.layout, memmap.page_addrs(np.array([first, twin]))).tolist()
        is_known = here >= 0 and there >= 0
        may_share = s.pages.is_tail[row] or s.layout.flags.test(s.pages.flags[np.array([row])], "head")[0]
        if here == there if is_known else may_share:
            continue
        # Of two that are alike the one is the copy in which more is at fault.
        other = memmap.row(twin)
        mine, theirs = (np.count_nonzero((rows >= start) & (rows < start + nr)) for start in (row, other))
        if mine >= theirs:
            yield _stretch_of_pages(s, row, row + nr)


def _of_no_zone(s: Snapshot, rows: I64) -> Mask:
    """Which struct pages name none of the zones that span them."""
    pfn = s.pages.memmap.pfns_of_rows(rows)
    return s.pages.readable[rows] & of_no_zone(s.zone_spans, s.layout.zone_bits, pfn, s.pages.flags[rows])


def _heads_at_fault(s: Snapshot, results: Results) -> I64:
    """Rows of the struct pages that violations are about, and of those that entries at fault lead to; ascending."""
    found = [np.empty(0, np.int64)]
    for rule, violations in results:
        if len(violations) and len(violations) <= _MAX_PLACES and rule.about.of_folios:
            rows = violations.rows
            found.append(rule.about.heads(s, rows))
            own = rule.about.pfns(s, rows)
            found.append(s.pages.memmap.rows(own[own >= 0]).astype(np.int64))
        elif rule.about is TABLE and len(violations) <= _MAX_PLACES:
            found.append(s.pages.memmap.rows(s.tables.pfn[violations.rows]).astype(np.int64))
    rows = distinct(np.concatenate(found))
    return rows[rows >= 0]


def _may_be_struct_pages(s: Snapshot, rows: I64) -> Mask:
    """Which struct pages may be some, if of another zone: they have sane words where all struct pages have the same."""
    layout = s.layout
    raw = layout.memory.gather(layout.memmap.page_addrs(s.pages.memmap.pfns_of_rows(rows)), layout.memmap.page_size)
    words: U64 = raw.bytes.view(np.uint64)
    refcount, mapping = s.pages.refcount[rows].astype(np.int64), s.pages.mapping[rows]
    pointer = mapping & ~np.uint64(MAPPING_TAGS)
    odd = ~words.any(axis=1) | (words == words[:, :1]).all(axis=1)
    odd |= np.abs(refcount) > MANY_REFERENCES
    odd |= (pointer != 0) & (pointer < np.uint64(1 << 63))
    return ~odd | ~raw.valid


def _stretch_of_pages(s: Snapshot, first: int, end: int) -> Stretch:
    memmap = s.layout.memmap
    pfn = s.pages.memmap.pfn(first)
    nr = end - first
    subject = Subject(
        kind="memory",
        pfn=pfn,
        page=memmap.page_addr(pfn),
        name=f"struct pages {pfn:#x} to {pfn + nr - 1:#x}" if nr > 1 else "its struct page",
    )
    return _described(s, subject, memmap.page_addr(pfn), nr * memmap.page_size, "struct pages")
