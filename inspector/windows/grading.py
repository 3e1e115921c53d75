"""Windows in which a stopped kernel's counts may rightly be out of step with its page tables.

Two things tell. Locks say where work may be going on: the folio is locked (migration, split, collapse, reclaim), or an
mm that may map it has its mmap_lock taken for writing (collapse, fork, mremap), has unmappings whose pages wait for a
TLB flush (mmu_gather), or is being torn down. Stacks say whether anybody works there: which tasks stand in which
window, on which mms (model/windows.py, walk/in_flight.py). Where all stacks are known they decide, and which way a
counter may be off is the window's to say; where they are not, locks are all there is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, AnyArray, Mask, rows_of
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.model.counters import directions
from inspector.rules.registry import Rule, Violations
from inspector.snapshot import Snapshot
from inspector.tables.stacks import How
from inspector.text import clean_bytes, counted
from inspector.windows.catalogue import WINDOWS
from inspector.windows.window import Effect, Scope, Way

IN_FLIGHT = "in_flight"
"""Name of the fact that tells which work explains a violation."""


def mm_in_flight(s: Snapshot) -> Mask:
    """Mms whose entries and counters may be out of step."""
    mms = s.mms
    return mms.locked | (mms.tlb_flush_pending > 0) | (mms.users <= 0)


def count_in_flight(s: Snapshot, head_rows: AnyArray) -> Mask:
    """Folios whose counts may be ahead of the page tables, by locks.

    Args:
        s: The snapshot.
        head_rows: Rows of the folios' heads in the page table; -1 for none.
    """
    if not len(head_rows):
        return np.zeros(0, np.bool_)
    return _locked(s, head_rows) | reached(s, head_rows, mm_in_flight(s))


def _locked(s: Snapshot, head_rows: AnyArray) -> Mask:
    locked: Mask = s.layout.flags.test(s.pages.flags[np.maximum(head_rows, 0)], "locked") & (head_rows >= 0)
    return locked


def reached(s: Snapshot, head_rows: AnyArray, mms: Mask) -> Mask:
    """Folios that one of the marked mms may map: the reverse map leads to a VMA of it."""
    head = np.maximum(head_rows, 0)
    vma = mms[s.vmas.mm_idx] if len(s.vmas) else np.zeros(0, np.bool_)
    if not vma.any():
        return np.zeros(len(head_rows), np.bool_)
    mapping = s.pages.mapping[head]
    tag = mapping & np.uint64(MAPPING_TAGS)
    pointer = mapping & ~np.uint64(MAPPING_TAGS)
    anon = _touched(s.anon_rmap.anon_vmas.addr, pointer, _anon_vmas_of(s, vma)) & (tag == MAPPING_ANON)
    file = _touched(s.file_rmap.spaces.addr, pointer, _spaces_of(s, vma)) & (tag == 0)
    return (anon | file) & (head_rows >= 0)


def _touched(addrs: AnyArray, wanted: AnyArray, busy: Mask) -> Mask:
    at = rows_of(addrs, wanted)
    return (at >= 0) & busy[np.maximum(at, 0)] if len(addrs) else at >= 0


def _anon_vmas_of(s: Snapshot, vma: Mask) -> Mask:
    """anon_vmas whose interval tree holds one of the marked VMAs."""
    avcs = s.anon_rmap.avcs
    out = np.zeros(len(s.anon_rmap.anon_vmas), np.bool_)
    rows = np.flatnonzero((avcs.vma_idx >= 0) & (avcs.tree_idx >= 0))
    out[avcs.tree_idx[rows[vma[avcs.vma_idx[rows]]]]] = True
    return out


def _spaces_of(s: Snapshot, vma: Mask) -> Mask:
    """address_spaces that one of the marked VMAs maps."""
    space = s.file_rmap.space_of_vma
    out = np.zeros(len(s.file_rmap.spaces), np.bool_)
    out[space[vma & (space >= 0)]] = True
    return out


_BY_SLUG = {
    "large-mapcount-mismatch": Effect.LARGE,
    "cache-counters-mismatch": Effect.STATISTIC,
    "node-mapped-mismatch": Effect.STATISTIC,
    "mm-count-low": Effect.MM_COUNT,
}
_BY_GROUP = {
    "mapcount": Effect.PAGE,
    "entire": Effect.ENTIRE,
    "pages-mapped": Effect.PAGES_MAPPED,
    "mm-ids": Effect.MM_IDS,
    "rss": Effect.RSS,
    "refcount": Effect.REFCOUNT,
    "nonpresent": Effect.ENTRIES,
    "exclusive": Effect.ENTRIES,
    "writable": Effect.ENTRIES,
    "page-tables": Effect.TABLES,
    "vma": Effect.VMAS,
    "anon-rmap": Effect.ANON_RMAP,
    "file-rmap": Effect.FILE_RMAP,
    "page-cache": Effect.PAGE_CACHE,
    "swap": Effect.SWAP,
    "swap-cache": Effect.SWAP,
    "ksm": Effect.KSM,
    "hugetlb": Effect.HUGETLB,
    "compound": Effect.PAGES,
    "free": Effect.PAGES,
}
"""What each family of rules looks at. Of those that are not here nothing is ever in flight: no entry may point to a
free page at any moment."""

_BY_STACK_ALONE = frozenset(
    {
        Effect.PAGE,
        Effect.DOUBLY_MAPPED,
        Effect.ENTIRE,
        Effect.LARGE,
        Effect.PAGES_MAPPED,
        Effect.MM_IDS,
        Effect.RSS,
        Effect.TABLES,
        Effect.VMAS,
        Effect.STATISTIC,
        Effect.MM_COUNT,
    }
)
"""What moves under page-table locks or none, so that a task in the right window is evidence enough. Anything else must
show a lock or another mark of work as well."""


_OF_ONE_MM = ("mm", "vma", "table")
"""What a task in a window must name the mm of."""


def effect_of(rule: Rule) -> Effect | None:
    """What a rule looks at, in the terms of the windows; None where no window can explain it."""
    return _BY_SLUG.get(rule.slug, _BY_GROUP.get(rule.group))


def grade(s: Snapshot, rule: Rule, found: Violations) -> Violations:
    """Decide which violations work in flight explains, and name the work.

    Args:
        s: The snapshot.
        rule: The rule.
        found: What it found, ``transient`` where locks are held.

    Returns:
        The same with ``transient`` decided, and the fact `IN_FLIGHT` that names task, function and window.
    """
    effect = effect_of(rule)
    # A rule that names the work itself has looked for it in its own way.
    if not len(found) or effect is None or IN_FLIGHT in found.facts:
        return found
    by_lock = np.zeros(len(found), np.bool_) if found.transient is None else found.transient
    ways = _directions(found)
    unknown = s.stacks.incomplete
    if unknown:
        by_lock = by_lock | _split_shown(s, effect, found, ways)
        s.missing.note(
            f"the kernel stacks of {counted(unknown, 'task')} are not known: held locks alone tell what was in flight"
        )
        said = np.where(by_lock, f"locks are held; the stacks of {counted(unknown, 'task')} are not known", "")
        return replace(found, transient=by_lock, facts={**found.facts, IN_FLIGHT: said})
    witness = _witnesses(s, effect, found, ways, by_lock)
    if found.beyond is not None:
        witness[found.beyond] = -1
    told = {row: describe(s, row) for row in np.unique(witness[witness >= 0]).tolist()}
    said = np.array([told.get(row, "") for row in witness.tolist()], dtype=np.str_)
    return replace(found, transient=witness >= 0, facts={**found.facts, IN_FLIGHT: said})


def describe(s: Snapshot, row: int) -> str:
    """A row of ``s.in_flight`` in words: task, function, window."""
    flight, tasks, frames = s.in_flight, s.tasks, s.stacks.frames
    task, frame, window = int(flight.task_idx[row]), int(flight.frame[row]), WINDOWS[flight.window[row]]
    place = s.stacks.places[int(frames.ip[frame])]
    unsure = ", perhaps" if frames.how[frame] == How.SCAN else ""
    comm = clean_bytes(bytes(tasks.comm[task]))
    return f"pid {int(tasks.pid[task])} {comm} in {place} ({window.id}{unsure}): {window.title}"


def _directions(found: Violations) -> AnyArray:
    """int8; the sign of stored minus expected, 0 where that is no matter of more or less."""
    out = np.zeros(len(found), np.int8)
    for name, stored in found.observed.items():
        expected = found.expected.get(name)
        if expected is not None and stored.dtype.kind in "iu" and expected.dtype.kind in "iu":
            return directions(stored, expected)
    return out


def _witnesses(s: Snapshot, effect: Effect, found: Violations, ways: AnyArray, by_lock: Mask) -> I64:
    """For each violation a row of ``s.in_flight`` that explains it, -1 for none."""
    out = np.full(len(found), -1, np.int64)
    vague = out.copy()
    flight = s.in_flight
    heads = _heads(s, found)
    locked, things = _locked(s, heads), _things(s, found, heads)
    doubly = _doubly_mapped(s, effect, heads)
    seen: dict[bytes, Mask] = {}
    for row in range(len(flight)):
        window, mms = WINDOWS[flight.window[row]], flight.mms[row]
        able = _able(window.effects, effect, ways, doubly)
        if not (able & (out < 0)).any():
            continue
        key = mms.tobytes()
        if key not in seen:
            marked = np.zeros(len(s.mms), np.bool_)
            marked[mms] = True
            seen[key] = _touches(s, found, heads, marked)
        near = seen[key] if effect in _BY_STACK_ALONE else seen[key] & by_lock
        if window.scope is Scope.LOCKED_FOLIOS:
            near = near | locked
        if window.scope is not Scope.MM:
            near = near | _named(flight.words[row], things) | (found.subject == "vmstat")
        out[able & near & (out < 0)] = row
        # Work on whatever it comes across, or on an mm that its stack does not name: a lock must show the place.
        anywhere = not len(mms) or (window.scope is not Scope.MM and found.subject not in _OF_ONE_MM)
        vague[able & by_lock & anywhere & (vague < 0)] = row
    return np.where(out >= 0, out, vague)


def _things(s: Snapshot, found: Violations, heads: I64) -> U64:
    """Address of the thing that each violation is about, 0 where a stack could not name it."""
    rows = found.rows
    match found.subject:
        case "page" | "folio" | "mapping":
            pfns = s.pages.memmap.pfns_of_rows(np.maximum(heads, 0)).astype(np.uint64)
            addr = np.uint64(s.layout.memmap.vmemmap) + pfns * np.uint64(s.layout.memmap.page_size)
            return np.where(heads >= 0, addr, np.uint64(0))
        case "cached_space":
            return s.files.spaces.addr[rows]
        case "cache_entry":
            return s.files.spaces.addr[s.files.entries.space_idx[rows]]
        case "anon_vma":
            return s.anon_rmap.anon_vmas.addr[rows]
        case "space":
            return s.file_rmap.spaces.addr[rows]
        case "stable_node":
            return s.ksm.nodes.addr[rows]
        case "swap_device":
            return s.swap.devices.addr[rows]
        case "swap_cluster":
            return s.swap_clusters.clusters.addr[rows]
        case "swap_cluster_list":
            return s.swap.devices.addr[s.swap_clusters.lists.device_idx[rows]]
        case _:
            return np.zeros(len(rows), np.uint64)


def _named(words: U64, things: U64) -> Mask:
    """Which things a stack names."""
    return (rows_of(words, things) >= 0) & (things != 0)


def _able(effects: dict[Effect, Way], effect: Effect, ways: AnyArray, doubly: Mask) -> Mask:
    """Which violations a window with these effects may leave behind."""
    way = effects.get(effect)
    out = np.full(len(ways), way is Way.EITHER) | ((ways >= 0) & (way is Way.HIGH))
    return out | (doubly & (Effect.DOUBLY_MAPPED in effects))


def _heads(s: Snapshot, found: Violations) -> I64:
    """Row in the page table of the head of each violation's folio, -1 where it is about none."""
    if found.subject == "page":
        return s.pages.head_row[found.rows].astype(np.int64)
    if found.subject == "folio":
        return s.folios.row[found.rows].astype(np.int64)
    if found.subject == "mapping":
        return s.counts.head_row[found.rows].astype(np.int64)
    return np.full(len(found), -1, np.int64)


def _doubly_mapped(s: Snapshot, effect: Effect, heads: I64) -> Mask:
    """Pages whose count also says that their folio is mapped both ways (6.1, PG_double_map)."""
    if effect is not Effect.PAGE or not len(s.folios):
        return np.zeros(len(heads), np.bool_)
    folio = s.folio_of_page[np.maximum(heads, 0)]
    return (heads >= 0) & (folio >= 0) & s.folios.double_map[np.maximum(folio, 0)]


def _touches(s: Snapshot, found: Violations, heads: I64, mms: Mask) -> Mask:
    """Which violations are about something of one of the marked mms."""
    rows, vma = found.rows, mms[s.vmas.mm_idx] if len(s.vmas) else np.zeros(0, np.bool_)
    match found.subject:
        case "mm":
            return mms[rows]
        case "vma":
            return vma[rows]
        case "mapping":
            return mms[s.mappings.mm_idx[rows]]
        case "nonpresent":
            return mms[s.nonpresent.mm_idx[rows]]
        case "table":
            return mms[s.tables.mm_idx[rows]]
        case "page" | "folio":
            return reached(s, heads, mms) | _mapped_by(s, heads, mms)
        case "avc":
            owner = s.anon_rmap.avcs.vma_idx[rows]
            return (owner >= 0) & vma[np.maximum(owner, 0)]
        case "anon_vma":
            return _anon_vmas_of(s, vma)[rows]
        case "space":
            return _spaces_of(s, vma)[rows]
        case "i_mmap":
            return _spaces_of(s, vma)[s.file_rmap.nodes.space_idx[rows]]
        case _:
            return np.zeros(len(rows), np.bool_)


def _mapped_by(s: Snapshot, heads: I64, mms: Mask) -> Mask:
    """Folios that one of the marked mms maps, by its page tables."""
    counts, m = s.counts, s.mappings
    mapped = np.zeros(len(s.pages) + 1, np.bool_)
    mapped[counts.head_row[mms[m.mm_idx]]] = True
    # Row -1 is the last one, which is nobody's.
    mapped[-1] = False
    return mapped[heads]


def _split_shown(s: Snapshot, effect: Effect, found: Violations, ways: AnyArray) -> Mask:
    """Folios whose counts are too low while the lock of a page table that maps them as a whole is held (W10)."""
    from inspector.windows.swap import tables_locked  # noqa: PLC0415  (which rests on this module)

    out = np.zeros(len(found), np.bool_)
    if found.subject != "folio" or effect not in (Effect.ENTIRE, Effect.LARGE, Effect.PAGES_MAPPED):
        return out
    m = s.mappings
    huge = np.flatnonzero((m.level != Level.PTE) & m.counted)
    held = huge[tables_locked(s, m.table_idx[huge])]
    folios = s.folio_of_page[np.maximum(s.counts.head_row[held], 0)]
    return (ways < 0) & np.isin(found.rows, folios)
