"""The rule of pages that belong neither to the allocator nor to those that it gave pages to."""

from __future__ import annotations

from inspector.rules.needs import PAGES, ZONES
from inspector.rules.registry import Phase, rule
from inspector.rules.settling import settle_behind
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.text import counted
from inspector.violations import Violations, cannot_check, holds, unread_pages, violations
from inspector.windows.holders import runs_on, unknown_holders


@rule(
    "page-owner-missing",
    PAGE,
    "free",
    Phase.SUMS,
    needs=PAGES | ZONES | frozenset(("tasks",)),
    decides="10",
    settle=settle_behind,
)
def page_owner_missing(s: Snapshot) -> Violations:
    """A page without references is on no free list and can be part of no allocation: it is lost.

    Invariant: a page without references, but for those of a type that are counted otherwise, is in a free block, on a
        CPU's list, or behind the first page of an allocation of several, which begins at a multiple of its size.
    Why: mm/page_alloc.c, __free_one_page(), free_unref_page() and prep_new_page(): only the first page of several is
        counted. What bad_page() finds is left as it is, neither free nor given to a user.
    Consequence: the page is never allocated again; a block taken off its list without being used, or a page given up
        after "Bad page state", is gone until the next boot.
    Exceptions: a page behind one in use by the kernel that may begin an allocation so long (an odd page frame behind an
        even one, and the like) cannot be known from a part of it and is not checked; neither are first pages of
        compound pages, locked, reserved and poisoned pages, page tables, what is mapped or on any list, memory blocks
        that were taken offline, and zones whose lock is held, that accept memory lazily, or in which pages wait to be
        freed. While a task is in a function that has pages in hand (allocation, freeing, compaction, page reporting,
        offlining), while a kernel runs on, and where a stack is not known, nothing is checked.
    See also: folioscope page PFN
    """
    if runs_on(s):
        return holds(0, note="which pages are on their way into or out of the allocator changes while the kernel runs")
    lost = s.lost_pages
    some = ~lost.in_hand
    busy = int(lost.nr[~some].sum())
    note = (
        f"{counted(busy, 'page')} without references may be in the hands of tasks that allocate or free" if busy else ""
    )
    row, nr = lost.row[some], lost.nr[some]
    if len(row) and unknown_holders(s):
        why = "the kernel stacks or registers of some tasks are not known, and one of these may have the page in hand"
        return holds(0, cannot_check(int(nr.sum()), why), note)
    return violations(
        row,
        observed={"_refcount": s.pages.refcount[row], "pages": nr, "owner": "none"},
        expected={"owner": "a free list or an allocation"},
        checked=int(lost.nr.sum()) - busy,
        unread=unread_pages(s),
        facts={"flags": s.layout.flags.listed(s.pages.flags[row]), "mapping": s.pages.mapping[row]},
        note=note,
    )
