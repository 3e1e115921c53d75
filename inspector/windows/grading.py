"""Which violations work in flight explains: counts may rightly be out of step with page tables in a stopped kernel.

Two things show it. Locks say where work may be going on: the folio is locked (migration, split, collapse, reclaim), or
an mm that may map it has its mmap_lock taken for writing (collapse, fork, mremap), has unmappings whose pages wait for
a TLB flush (mmu_gather), or is being torn down. Stacks say whether any task is at work there: which tasks are in which
window, on which mms (windows/catalogue.py, windows/in_flight.py). Where all stacks are known they decide, and the
window says which way a counter may be off; where they are not, locks are all there is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, AnyArray, Mask, distinct, rows_of, take_or
from inspector.layout.flags import MAPPING_TAGS
from inspector.model.counters import directions
from inspector.subjects import FOLIO, VMA, SubjectKind, in_changed_file_tree, reached
from inspector.tables.stacks import How
from inspector.target.prstatus import all_registers, maps_for_user
from inspector.text import clean_bytes, counted
from inspector.violations import Violations
from inspector.windows.catalogue import WINDOWS
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect, FoliosWorkedOn, Scope, Way

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

IN_FLIGHT = "in_flight"
"""Name of the fact that says which work explains a violation."""


def count_in_flight(s: Snapshot, head_rows: AnyArray) -> Mask:
    """Folios whose counts may be ahead of the page tables, by locks.

    Args:
        s: The snapshot.
        head_rows: Rows of the folios' heads in the memory map; -1 for none.
    """
    if not len(head_rows):
        return np.zeros(0, np.bool_)
    return _locked(s, head_rows) | reached(s, head_rows, mm_in_flight(s))


def _locked(s: Snapshot, head_rows: AnyArray) -> Mask:
    return _has_flag(s, head_rows, "locked")


def _has_flag(s: Snapshot, head_rows: AnyArray, name: str) -> Mask:
    """Which folios have a flag; no folio (-1) has one."""
    found: Mask = s.layout.flags.test(s.pages.flags[np.maximum(head_rows, 0)], name) & (head_rows >= 0)
    return found


_COUNTS = frozenset({Effect.PAGE, Effect.ENTIRE, Effect.LARGE, Effect.PAGES_MAPPED})
"""Mapcounts of a folio."""

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
        Effect.LRU_SIZES,
        Effect.LARGE_FOLIOS,
        Effect.NOTIFIERS,
    }
)
"""What moves under page-table locks or none, so that a task in the right window is evidence enough. Anything else must
show a lock or another mark of work as well."""


def grade(s: Snapshot, about: SubjectKind, effect: Effect | None, found: Violations) -> Violations:
    """Decide which violations work in flight explains, and name the work.

    Args:
        s: The snapshot.
        about: What the violations are about.
        effect: What the rule compares; None where no window can explain a violation.
        found: What the rule found, ``transient`` where locks are held.

    Returns:
        The same with ``transient`` decided, and the fact `IN_FLIGHT` that names task, function and window.
    """
    details = found.details
    # A rule that names the work itself has looked for it in its own way.
    if not len(found) or effect is None or IN_FLIGHT in details.facts:
        return found
    by_lock = np.zeros(len(found), np.bool_) if details.transient is None else details.transient
    ways = _directions(found)
    unknown = s.stacks.incomplete
    if unknown:
        by_lock = by_lock | _split_shown(s, about, effect, found, ways)
        work = np.where(by_lock, f"locks are held; the stacks of {counted(unknown, 'task')} are not known", "")
        return _graded(found, by_lock, work)
    work = _work(s, about, effect, found, ways, by_lock)
    return _graded(found, work != "", work)


def work_of_known_stacks(s: Snapshot, about: SubjectKind, effect: Effect | None, found: Violations) -> AnyArray:
    """The work that tasks whose stacks are known have in flight and that explains violations, in words; "" for none.

    Of a kernel that runs on: a task that runs is elsewhere in the next look, but one that waits for a CPU or for
    something else may stay in its window for all of them.
    """
    details = found.details
    if not len(found) or effect is None or IN_FLIGHT not in details.facts:
        return np.zeros(len(found), "U1")
    by_lock = np.zeros(len(found), np.bool_) if details.transient is None else details.transient
    return _work(s, about, effect, found, _directions(found), by_lock)


def explained(found: Violations, work: AnyArray) -> Violations:
    """The same, those in flight that some work explains, besides what held locks do."""
    details = found.details
    by_lock = np.zeros(len(found), np.bool_) if details.transient is None else details.transient
    words = details.facts.get(IN_FLIGHT, np.full(len(found), ""))
    return _graded(found, by_lock | (work != ""), np.where(work != "", work, words))


def _work(  # noqa: PLR0913, PLR0917
    s: Snapshot, about: SubjectKind, effect: Effect, found: Violations, ways: AnyArray, by_lock: Mask
) -> AnyArray:
    """The work that explains each violation, in words; "" for none."""
    witness = _witnesses(s, about, effect, found, ways, by_lock)
    if found.details.beyond is not None:
        witness[found.details.beyond] = -1
    names = {row: describe(s, row) for row in np.unique(witness[witness >= 0]).tolist()}
    return np.array([names.get(row, "") for row in witness.tolist()], dtype=np.str_)


def unknown_stacks(s: Snapshot) -> str:
    """A sentence for the coverage when not all stacks are known, so that locks alone decide; "" otherwise."""
    unknown = s.stacks.incomplete
    if not unknown:
        return ""
    return f"the kernel stacks of {counted(unknown, 'task')} are not known: held locks alone show what was in flight"


def _graded(found: Violations, transient: Mask, work: AnyArray) -> Violations:
    details = replace(found.details, transient=transient, facts={**found.details.facts, IN_FLIGHT: work})
    return replace(found, details=details)


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
    for name, stored in found.details.observed.items():
        expected = found.details.expected.get(name)
        if expected is not None and stored.dtype.kind in "iu" and expected.dtype.kind in "iu":
            return directions(stored, expected)
    return out


def _witnesses(  # noqa: PLR0913, PLR0917
    s: Snapshot, about: SubjectKind, effect: Effect, found: Violations, ways: AnyArray, by_lock: Mask
) -> I64:
    """For each violation a row of ``s.in_flight`` that explains it, -1 for none."""
    out = np.full(len(found), -1, np.int64)
    vague = out.copy()
    flight = s.in_flight
    heads = about.heads(s, found.rows)
    locked, addresses = _locked(s, heads), about.addresses(s, found.rows)
    held = locked | (heads < 0) | ~_has_flag(s, heads, "lru")
    # 6.1 counts a new page before it says whose it is (mm/rmap.c, page_add_new_anon_rmap()): only the stack knows.
    unlinked = (heads >= 0) & (s.pages.mapping[np.maximum(heads, 0)] == 0) & (effect in _COUNTS)
    doubly = _doubly_mapped(s, effect, heads)
    in_hand = _InHand(s, about, heads)
    seen: dict[bytes, Mask] = {}
    for row in range(len(flight)):
        window, mms = WINDOWS[flight.window[row]], flight.mms[row]
        able = _able(window.effects, effect, ways, doubly)
        if not (able & (out < 0)).any():
            continue
        if effect in window.made:
            mms = mms[s.mms.nr_tasks[mms] == 0]
        if window.write_locked:
            mms = mms[s.mms.locked[mms]]
        key = mms.tobytes()
        if key not in seen:
            marked = np.zeros(len(s.mms), np.bool_)
            marked[mms] = True
            seen[key] = about.owned(s, found.rows, marked)
            if about is VMA and effect is Effect.FILE_RMAP:
                seen[key] = seen[key] | in_changed_file_tree(s, found.rows, marked)
        near = seen[key] if effect in _BY_STACK_ALONE else seen[key] & by_lock
        if window.scope is Scope.LOCKED_FOLIOS:
            near = (near & held) | locked
        named = _named(in_hand.words(row), addresses)
        if window.scope is not Scope.MM:
            near = near | named | about.of_the_machine
        allowed = in_hand.of(row)
        near = (near & allowed) | (unlinked & in_hand.named(row))
        out[able & near & (out < 0)] = row
        # Work on whatever it comes across, or on an mm that its stack does not name: a lock must show the place.
        anywhere = not len(flight.mms[row]) or (window.scope is not Scope.MM and not about.of_one_mm)
        place = by_lock & held if window.scope is Scope.LOCKED_FOLIOS else by_lock
        vague[able & place & allowed & anywhere & (vague < 0)] = row
    return np.where(out >= 0, out, vague)


class _InHand:
    """Which of some violations are about folios that a task may have left half changed (`FoliosWorkedOn`).

    Args:
        s: The snapshot.
        about: What the violations are about.
        heads: Rows of the folios' heads in the memory map; -1 for none.
    """

    def __init__(self, s: Snapshot, about: SubjectKind, heads: I64) -> None:
        self._s, self._heads = s, heads
        self._known = (heads >= 0) & about.mapped

    def of(self, row: int) -> Mask:
        """By a row of ``s.in_flight``; what is no page or folio may be anything's."""
        s, flight = self._s, self._s.in_flight
        head = np.maximum(self._heads, 0)
        match WINDOWS[flight.window[row]].folios:
            case FoliosWorkedOn.FILE:
                allowed = (s.pages.mapping[head] & np.uint64(MAPPING_TAGS)) == 0
            case FoliosWorkedOn.HUGETLB:
                allowed = take_or(s.folios.is_hugetlb, s.folio_of_page[head], False)
            case FoliosWorkedOn.IN_HAND:
                words = self._words(row)
                allowed = np.ones(len(head), np.bool_) if words is None else np.isin(head, self._heads_named(words))
            case _:
                return np.ones(len(head), np.bool_)
        return allowed | ~self._known

    def named(self, row: int) -> Mask:
        """Folios that a row's stack names, or its registers where they are known."""
        return np.isin(self._heads, self._heads_named(self.words(row)))

    def words(self, row: int) -> U64:
        """What a row's stack holds, and its registers where they are known; ascending."""
        words = self._words(row)
        return self._s.in_flight.words[row] if words is None else distinct(words)

    def _words(self, row: int) -> U64 | None:
        """What the stack and the registers of a task hold; None where the registers are not known."""
        s, task = self._s, self._s.in_flight.task_idx[row]
        words: U64 = s.in_flight.words[row]
        note = int(s.stacks.note[task])
        if not s.stacks.running[task]:
            return words
        registers = all_registers(s.layout.target.prstatus[note]) if note >= 0 else None
        return None if registers is None else np.concatenate([words, registers])

    def _heads_named(self, words: U64) -> I64:
        """Heads of the folios whose struct pages are among some words, or that entries among them map."""
        pages, arch = self._s.pages, self._s.layout.arch
        entries = words[maps_for_user(words)]
        pfns = [pages.memmap.pfns(words)]
        pfns += [arch.leaf_pfn(level, entries).astype(np.int64) for level in (Level.PTE, Level.PMD)]
        rows = pages.memmap.rows(np.concatenate(pfns))
        found: I64 = take_or(pages.head_row, rows, -1).astype(np.int64)
        return np.unique(found[found >= 0])


def _named(words: U64, addresses: U64) -> Mask:
    """Which addresses a stack holds."""
    return (rows_of(words, addresses) >= 0) & (addresses != 0)


def _able(effects: dict[Effect, Way], effect: Effect, ways: AnyArray, doubly: Mask) -> Mask:
    """Which violations a window with these effects may leave behind."""
    way = effects.get(effect)
    out = np.full(len(ways), way is Way.EITHER) | ((ways >= 0) & (way is Way.HIGH))
    return out | (doubly & (Effect.DOUBLY_MAPPED in effects))


def _doubly_mapped(s: Snapshot, effect: Effect, heads: I64) -> Mask:
    """Pages whose count also says that their folio is mapped both ways (6.1, PG_double_map)."""
    if effect is not Effect.PAGE or not len(s.folios):
        return np.zeros(len(heads), np.bool_)
    folio = s.folio_of_page[np.maximum(heads, 0)]
    return (heads >= 0) & take_or(s.folios.double_map, folio, False)


def _split_shown(s: Snapshot, about: SubjectKind, effect: Effect, found: Violations, ways: AnyArray) -> Mask:
    """Folios whose counts are too low while the lock of a page table that maps them as a whole is held (W10)."""
    out = np.zeros(len(found), np.bool_)
    if about is not FOLIO or effect not in (Effect.ENTIRE, Effect.LARGE, Effect.PAGES_MAPPED):
        return out
    held = np.flatnonzero((s.tables.level != Level.PTE) & s.page_tables_locked)
    for m in s.entry_batches(held) if len(held) else ():
        out |= np.isin(found.rows, s.folio_of_page[np.maximum(m.head_row[m.counted], 0)])
    return (ways < 0) & out
