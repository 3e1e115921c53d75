"""Locks that somebody holds: what a task's stack names is at work, and where stacks are missing nothing is decided."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.tables.stacks import How, stack_words
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, Patch, core_path, findings, flags_xor, page_word, put, sound, without_stacks
from tests.faults.overlay import planted as planted_in
from tests.faults.plants import pick

LOCKS = ("anonymous-page-left-locked", "thp-left-locked", "clean-page-of-a-file-left-locked")


def on_a_stack(s: Snapshot, address: int) -> Patch:
    """An address on the live part of the stack of some task that sleeps, where no function returns to."""
    frames = s.stacks.frames
    for task in np.flatnonzero((s.tasks.mm != 0) & ~s.stacks.running).tolist():
        at, words = stack_words(s.layout, s.stacks, task)
        mine = frames.task_idx == task
        if not len(at) or (frames.how[mine] == How.SCAN).any():
            continue
        # Not what the unwinder goes by: saved registers and return addresses are pointers or lie beside one.
        idle = np.flatnonzero((words == 0) & (at > frames.sp[mine][1]) & (at < frames.sp[mine][-1]))
        if len(idle):
            return put(s, int(at[pick(idle, "an unused word", 1)]), address)
    raise AssertionError("no stack has an unused word")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", LOCKS)
def test_a_folio_that_a_stack_names_is_at_work(kernel: str, name: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    planted = CATALOGUE[name](s)
    assert planted.pfn is not None
    # Some byte of the folio's last struct page: a waiter has the address of its flags, a batch that of a tail.
    row = s.pages.memmap.row(planted.pfn)
    nr = int(s.folios.nr_pages[s.folio_of_page[row]]) if s.folio_of_page[row] >= 0 else 1
    named = on_a_stack(s, s.layout.memmap.page_addr(planted.pfn + nr - 1) + 8)
    assert not findings(path, *planted.patches, named)
    beside = on_a_stack(s, s.layout.memmap.page_addr(planted.pfn + nr))
    assert [f.rule for f in findings(path, *planted.patches, beside)] == list(planted.rules)


@pytest.mark.parametrize("kernel", KERNELS)
def test_where_a_stack_is_missing_no_lock_is_without_a_holder(kernel: str) -> None:
    path = core_path("fixture", kernel)
    planted = CATALOGUE["anonymous-page-left-locked"](sound(path))
    report = run_check(without_stacks(path, *planted.patches), list(planted.rules))
    assert not report.findings
    (covered,) = report.coverage.rules
    assert (covered.checked, covered.unchecked) == (0, 1)
    assert "stacks or registers of some tasks are not known" in covered.reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_folio_that_is_read_or_written_or_put_aside_is_locked_by_whoever_is_at_it(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = CATALOGUE["anonymous-page-left-locked"](s).pfn
    assert pfn is not None
    for flag in ("uptodate", "lru"):
        rules = [f.rule for f in findings(path, flags_xor(s, pfn, "locked", flag))]
        assert "folio-lock-holder-missing" not in rules


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_that_a_stack_names_is_on_its_way(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    planted = CATALOGUE["free-block-taken-and-given-to-nobody"](s)
    assert planted.pfn is not None
    # The last page of the block: what is allocated is in hand as a whole.
    named = on_a_stack(s, s.layout.memmap.page_addr(planted.pfn + 7))
    report = run_check(planted_in(path, *planted.patches, named))
    assert not report.findings
    assert any("8 pages without references may be in the hands of tasks" in note for note in report.coverage.notes)
    (found,) = findings(path, *planted.patches)
    assert (found.observed["pages"], found.subject.pfn) == (8, planted.pfn)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_on_some_list_is_not_lost(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    planted = CATALOGUE["free-page-taken-and-given-to-nobody"](s)
    assert planted.pfn is not None
    link = page_word(s, planted.pfn, "lru")
    # A list of which it is the only page: its head is in memory that is not used otherwise.
    head = int(s.tasks.stack[np.flatnonzero(s.tasks.stack)[0]]) + 64
    on_list = (put(s, link, head), put(s, link + 8, head), put(s, head, link), put(s, head + 8, link))
    assert not findings(path, *planted.patches, *on_list)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_may_be_part_of_an_allocation_is_left_alone(kernel: str) -> None:
    """The kernel's allocations of several pages have one counted page each."""
    s = sound(core_path("fixture", kernel))
    uncounted = (s.pages.refcount[:] == 0) & (s.pages.type_[:] == 0) & ~s.pages.is_tail[:] & s.pages.readable[:]
    uncounted[s.buddy_pages] = False
    uncounted[s.buddy.cpu_page_row] = False
    assert uncounted.sum() > 500
    assert not len(s.lost_pages)
