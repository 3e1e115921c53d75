"""Rules of LRU lists: their links, who is on which, and who is on none."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, Mask, take_or
from inspector.rules.needs import NO_CGROUPS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import LRUVEC, PAGE
from inspector.tables.lru_pages import DAMAGED, MISSING, NEXT, PREV, UNEXPECTED, LruPages
from inspector.tables.memcgs import CLASSIC
from inspector.violations import Unread, Violations, cannot_check, holds, violations
from inspector.windows.holders import runs_on
from inspector.windows.window import Effect

LIVE = "folios change their LRU lists while the kernel runs"
NO_FIELDS = "where this kernel's page flags hold node and zone is not known"


def looked_at(s: Snapshot) -> LruPages | str:
    """What is on LRU lists, or why it is not asked."""
    if runs_on(s):
        return LIVE
    return s.lru_pages or NO_FIELDS


def _unread(found: LruPages) -> Unread:
    return cannot_check(found.nr_unknown, "struct pages are missing")


def _locked(s: Snapshot, list_: I32) -> Mask:
    """Lists whose lock is held; of those that are not known, whether any is."""
    lruvec = take_or(s.lru_pages.lists.lruvec, list_, -1) if s.lru_pages is not None else list_
    # Without the heads it is not known whether a lock is held: tasks in windows decide.
    locked = s.lru.lruvecs.locked | ~s.lru.lruvecs.readable
    anywhere = bool(locked.any()) or not s.lru.whole
    return np.where(lruvec >= 0, take_or(locked, lruvec, False), anywhere)


def _odd(s: Snapshot, why: int) -> Violations:
    found = looked_at(s)
    if isinstance(found, str):
        return holds(0, note=found)
    odd = found.odd
    at = np.flatnonzero(odd.why == why)
    flags = s.pages.flags[odd.row[at]]
    return violations(
        odd.row[at],
        observed={
            "lru": s.layout.flags.test(flags, "lru"),
            "unevictable": s.layout.flags.test(flags, "unevictable"),
            "on_a_list": np.full(len(at), why != MISSING),
            "next_points_back": (odd.misfit[at] & NEXT) == 0,
            "prev_points_here": (odd.misfit[at] & PREV) == 0,
        },
        expected=_EXPECTED[why],
        facts={"next": odd.following[at], "prev": odd.before[at]},
        checked=found.nr - found.nr_unknown,
        unread=_unread(found),
        transient=_locked(s, np.full(len(at), -1, np.int32)),
    )


_EXPECTED: dict[int, dict[str, bool]] = {
    DAMAGED: {"next_points_back": True, "prev_points_here": True},
    MISSING: {"on_a_list": True},
    UNEXPECTED: {"on_a_list": False},
}


@rule("lru-list-damaged", PAGE, "lru", Phase.STRUCTURES, effect=Effect.LRU, decides="97")
def lru_list_damaged(s: Snapshot) -> Violations:
    """The links of an LRU list do not fit together at a folio.

    Invariant: what lru.next of a folio on an LRU list leads to has it as prev, and what prev leads to has it as next;
        each list comes back to one head, which is in an LRU vector. Of two neighbours that do not fit together the one
        is named whose link leads to no folio on a list, or to one that fits another.
    Why: include/linux/mm_inline.h, lruvec_add_folio() and lruvec_del_folio().
    Consequence: reclaim follows the list into memory that holds something else, or never comes to what is behind.
    Exceptions: none of a kernel at rest; a task that holds lru_lock is at work on the list.
    See also: folioscope folio PFN
    """
    return _odd(s, DAMAGED)


@rule(
    "lru-list-missing",
    PAGE,
    "lru",
    Phase.STRUCTURES,
    after=("lru-list-damaged",),
    effect=Effect.LRU,
    decides="96",
)
def lru_list_missing(s: Snapshot) -> Violations:
    """A folio with PG_lru is on no LRU list.

    Invariant: a folio with PG_lru is on the list of its class, unless PG_unevictable is set: unevictable folios are
        counted, and on no list.
    Why: mm/swap.c (mm/folio.c from 7.x on), lru_add(): PG_lru is set when the folio is on its list; include/linux/
        mm_inline.h, lruvec_add_folio().
    Consequence: reclaim never sees it. When it is freed, its links are written to as if neighbours were there.
    Exceptions: none of a kernel at rest; a task that holds lru_lock is at work on the list.
    See also: folioscope folio PFN
    """
    return _odd(s, MISSING)


@rule(
    "lru-folio-unexpected",
    PAGE,
    "lru",
    Phase.STRUCTURES,
    after=("lru-list-damaged",),
    effect=Effect.LRU,
    decides="96",
)
def lru_folio_unexpected(s: Snapshot) -> Violations:
    """A page without PG_lru, or with PG_unevictable, is on an LRU list.

    Invariant: what is on an LRU list has PG_lru, and not PG_unevictable.
    Why: mm/swap.c (mm/folio.c from 7.x on), lru_add(), __page_cache_release(); mm/vmscan.c, folio_isolate_lru(): who
        clears PG_lru takes the folio off its list.
    Consequence: it is freed without being taken off, and the list leads to what its memory is used for next.
    Exceptions: a task has cleared PG_lru and is about to take the folio off: its stack names it.
    See also: folioscope folio PFN
    """
    return _odd(s, UNEXPECTED)


@rule(
    "lru-list-mismatch",
    PAGE,
    "lru",
    Phase.SUMS,
    effect=Effect.LRU,
    decides="98 99 107",
)
def lru_list_mismatch(s: Snapshot) -> Violations:
    """A folio is on another LRU list than its flags, its node and its memory cgroup say.

    Invariant: a folio is on a list of its node and memory cgroup. Without a generation it is on the list that
        PG_swapbacked (anonymous and shmem, or file) and PG_active say. With one it is on a list of its type and its
        zone, of any generation: these are changed when it is found to be accessed, and lists when reclaim comes by;
        PG_active is not set there.
    Why: include/linux/mm_inline.h, folio_lru_list() and lru_gen_add_folio(); include/linux/memcontrol.h,
        folio_lruvec(): the cgroup is memcg_data, or what the obj_cgroup there leads to (from 7.x on).
    Consequence: it is counted on one list and taken off another: sizes go wrong, and limits of a cgroup are kept with
        the memory of another.
    Exceptions: none of a kernel at rest. Where the heads of the lists are not in the dump, a list is judged by most of
        its members.
    See also: folioscope folio PFN
    """
    found = looked_at(s)
    if isinstance(found, str):
        return holds(0, note=found)
    wrong, lists, classes = found.misplaced, found.lists, found.classes
    of = classes.take(wrong.class_.astype(np.int64))
    lruvec = lists.lruvec[wrong.list_]
    known = lruvec >= 0
    facts = {
        "list": np.array([_place(s, int(place)) for place in lists.place[wrong.list_]], np.str_),
        "list_node": take_or(s.lru.lruvecs.node, lruvec, -1),
        "list_memcg": _memcgs(s, take_or(s.lru.lruvecs.memcg, lruvec, -2)),
        "memcg_data": of.memcg_data,
    }
    shown = {name: column for name, column in facts.items() if known.any() or name == "memcg_data"}
    return violations(
        wrong.row,
        observed={
            "node": of.node,
            "zone": of.zone,
            "file": of.file,
            "active": of.active,
            "generation": of.gen,
            "memcg": _memcgs(s, of.memcg),
            "on_its_list": False,
        },
        expected={"on_its_list": True},
        facts=shown,
        checked=found.nr - found.nr_unknown,
        unread=_unread(found),
        transient=_locked(s, wrong.list_),
    )


def _place(s: Snapshot, place: int) -> str:
    """A list of a vector in words."""
    if place < 0:
        return "not known"
    if place < CLASSIC:
        return f"{'active' if place % 2 else 'inactive'} {'file' if place >= CLASSIC // 2 else 'anon'}"
    gen, rest = divmod(place - CLASSIC, 2 * s.lru.shape.zones)
    kind, zone = divmod(rest, s.lru.shape.zones)
    return f"generation {gen} {'file' if kind else 'anon'} zone {zone}"


def _memcgs(s: Snapshot, rows: I32) -> I64:
    paths = {
        row: s.lru.memcgs.path(row) if row >= 0 else "none" if row == -1 else "not known" for row in set(rows.tolist())
    }
    return np.array([paths[row] for row in rows.tolist()], np.str_)


@rule("lru-head-invalid", LRUVEC, "lru", Phase.STRUCTURES, after=("lru-list-damaged",), effect=Effect.LRU, decides="97")
def lru_head_invalid(s: Snapshot) -> Violations:
    """The head of an LRU list does not lead to its first and last folio.

    Invariant: what a head leads to as next and prev leads back to it; the head of an empty list leads to itself.
    Why: include/linux/list.h; mm/mmzone.c, lruvec_init(); mm/vmscan.c, lru_gen_init_lruvec().
    Consequence: reclaim finds none of the folios there, or follows the list into memory that holds something else.
    Exceptions: none of a kernel at rest; a task that holds lru_lock is at work on the list.
    See also: folioscope info
    """
    found = looked_at(s)
    if isinstance(found, str):
        return holds(0, note=found)
    if not len(s.lru.lruvecs):
        return holds(0, note=NO_CGROUPS)
    lruvec, place = found.odd_heads.T
    links = s.lru.links[lruvec, place]
    return violations(
        lruvec,
        observed={"next": links[:, 0], "prev": links[:, 1]},
        expected={"leads": "to what leads back"},
        facts={
            "list": np.array([_place(s, each) for each in place.tolist()], np.str_),
            "head": s.lru.heads[lruvec, place],
        },
        checked=int(s.lru.lruvecs.readable.sum()) * s.lru.shape.nr_lists,
        unread=cannot_check(int((~s.lru.lruvecs.readable).sum()), NO_CGROUPS),
        transient=s.lru.lruvecs.locked[lruvec],
    )
