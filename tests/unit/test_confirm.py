"""Kernels that run on: what changes between two looks is counted, what stays wrong is reported."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import drgn
import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check import confirm, own
from inspector.check.confirm import check_target
from inspector.columns import AnyArray
from inspector.findings import Report, Subject
from inspector.folio.account import account_of
from inspector.folio.look import look_at, settled
from inspector.report.check import render_report
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from inspector.subjects import MM, PAGE, SubjectKind, stored_at
from inspector.violations import Violations, holds, violations
from inspector.windows.grading import work_of_known_stacks
from inspector.windows.window import Effect
from tests.faults.overlay import Patch, core_path, opened, pfn_of, plant, sound
from tests.faults.plants import mapcount_at, pick, small_anon
from tui.session import Session

PATH = core_path("fixture", "7.3")

Answer = Callable[[int], bytes]
"""What is read at a place, by the number of the look."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once."""
    monkeypatch.setattr(confirm, "FIRST_GAP", 0.02)


class Moving:
    """A guest that runs on: the fixture, in which some words are other ones in each look.

    Args:
        answers: By address and size, what a look reads there.
        physical: The same by physical address.
    """

    def __init__(
        self, answers: dict[tuple[int, int], Answer], physical: dict[tuple[int, int], Answer] | None = None
    ) -> None:
        self.target = replace(opened(PATH), kind="qemu")
        self.looks = 0
        for is_physical, each in ((False, answers), (True, physical or {})):
            for (address, size), answer in each.items():
                self.target.prog.add_memory_segment(address, size, self._reader(answer), is_physical)

    def _reader(self, answer: Answer) -> Callable[[int, int, int, bool], bytes]:
        def read(_address: int, count: int, offset: int, _physical: bool) -> bytes:
            return answer(self.looks)[offset : offset + count]

        return read

    def step(self, what: str, done: int, _steps: int) -> None:
        """Counts the looks."""
        self.looks += what.endswith("memory map")

    def check(self, looks: int = 3) -> Report:
        return check_target(Snapshot(self.target), looks=looks, progress=self.step)


def shared_page() -> tuple[int, int, int]:
    """An anonymous page with two mappings: pfn, address of its _mapcount, and what is stored there."""
    s = sound(PATH)
    row = pick(small_anon(s, 2), "an anonymous page with two mappings")
    at = mapcount_at(s, row)
    data = s.layout.memory.read(at, 4)
    assert data is not None
    return pfn_of(s, row), at, struct.unpack("<i", data)[0]


def word(value: int) -> bytes:
    return struct.pack("<i", value)


def gone_in_each_other(number: int, stored: bytes) -> Answer:
    return lambda look: bytes(len(stored)) if look % 2 == number else stored


def test_a_sound_kernel_is_looked_at_once() -> None:
    report = Moving({}).check()
    assert (report.exit_code, report.findings) == (0, [])
    assert report.confirmation is not None
    assert (report.confirmation.looks, report.confirmation.suspects, report.confirmation.why) == (1, 0, {})


def test_what_is_wrong_in_every_look_is_reported() -> None:
    pfn, at, stored = shared_page()
    report = Moving({(at, 4): lambda _look: word(stored + 1)}).check(looks=4)
    assert [(f.rule, f.subject.pfn, f.severity) for f in report.findings] == [("mapcount-too-high", pfn, "fail")]
    assert report.exit_code == 1
    assert report.confirmation is not None
    assert report.confirmation.looks == 4
    assert report.confirmation.dismissed == report.confirmation.suspects - 1
    assert len(report.confirmation.seconds) == 4


@pytest.mark.parametrize("wrong_in", [{1}, {1, 2}, {1, 3}])
def test_what_is_gone_in_any_look_is_counted_and_not_reported(wrong_in: set[int]) -> None:
    _, at, stored = shared_page()
    report = Moving({(at, 4): lambda look: word(stored + (look in wrong_in))}).check()
    assert (report.exit_code, report.findings) == (0, [])
    assert report.confirmation is not None
    assert report.confirmation.dismissed == report.confirmation.suspects > 0
    assert report.confirmation.rules["mapcount-too-high"] == 1
    text = "\n".join(render_report(Screen(width=200), report))
    assert "changed under us and are not reported" in text
    assert "FAIL" not in text
    assert text.endswith("consistent")


def test_other_wrong_values_in_each_look_are_motion() -> None:
    _, at, stored = shared_page()
    report = Moving({(at, 4): lambda look: word(stored + 1 + look)}).check()
    assert (report.exit_code, report.findings) == (0, [])


def test_a_subject_that_changes_between_the_looks_is_motion_though_every_look_sees_the_same() -> None:
    """A page that comes and goes may be seen in the same state by chance; its other words give it away."""
    _, at, stored = shared_page()
    refcount = at + 4
    data = sound(PATH).layout.memory.read(refcount, 4)
    assert data is not None
    reads = count(1)

    def busy(_look: int) -> bytes:
        return data if next(reads) % 3 else word(struct.unpack("<i", data)[0] + 1)

    moving = Moving({(at, 4): lambda _look: word(stored + 1), (refcount, 4): busy})
    report = moving.check()
    assert [f for f in report.findings if f.severity == "fail"] == []
    assert report.confirmation is not None
    assert sum(report.confirmation.why.values()) == report.confirmation.suspects


def test_a_mapping_of_another_process_missed_in_each_look_is_motion_though_the_number_is_the_same() -> None:
    s = sound(PATH)
    m, pfn = s.mappings, shared_page()[0]
    rows = np.flatnonzero((m.pfn == pfn) & (m.level == Level.PTE)).tolist()
    assert len(rows) == 2
    entries: dict[tuple[int, int], Answer] = {}
    for number, row in enumerate(rows):
        at = (int(s.tables.pfn[m.table_idx[row]]) << 12) + 8 * int(m.slot[row])
        entries[at, 8] = gone_in_each_other(number, s.layout.target.prog.read(at, 8, physical=True))
    report = Moving({}, entries).check()
    assert (report.exit_code, report.findings) == (0, [])
    assert report.confirmation is not None
    assert report.confirmation.looks == 2
    assert report.confirmation.why["were mapped elsewhere in another look"] >= 1


def test_what_cannot_be_read_in_one_look_only_is_not_missing() -> None:
    s = sound(PATH)
    page = s.pages.memmap.page_addr(shared_page()[0]) // 4096 * 4096
    whole = s.layout.memory.read(page, 4096)
    assert whole is not None
    moving = Moving({})

    def read(address: int, count: int, offset: int, _physical: bool) -> bytes:
        if moving.looks == 1:
            raise drgn.FaultError("not now", address)
        return whole[offset : offset + count]

    moving.target.prog.add_memory_segment(page, 4096, read, False)
    report = moving.check()
    assert report.coverage.missing == {}
    assert report.coverage.complete
    assert report.exit_code == 0


def test_memory_of_the_inspector_itself_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = sound(PATH)
    row, fields = int(np.argmax(s.mms.pid)), ["0"] * 52
    target = replace(opened(PATH), kind="live")
    for name, place in own._PLACES.items():
        fields[place - 1] = str(0x5500_0000_0000 + place)
        at = int(s.mms.addr[row]) + s.layout.struct("struct mm_struct").field(name).offset
        value = struct.pack("<Q", 0x5500_0000_0000 + place)
        plant(target, Patch(at - s.layout.memory.direct_map_base, value, physical=True))
    stat = tmp_path / "stat"
    stat.write_text(f"1 (a ) b) {' '.join(fields[2:])}\n")
    monkeypatch.setattr(own, "_STAT", stat)
    assert np.flatnonzero(own.own_mms(Snapshot(target))).tolist() == [row]
    assert not own.own_mms(s).any(), "another kernel's processes are not ours"


def test_the_interface_shows_nothing_of_a_single_look() -> None:
    _, at, stored = shared_page()
    moving = Moving({(at, 4): lambda look: word(stored + (look == 1))})
    session = Session(Snapshot(moving.target))
    seen: list[int] = []
    plain = session.note_progress

    def step(what: str, done: int, steps: int) -> None:
        moving.step(what, done, steps)
        seen.append(len(session.findings))
        plain(what, done, steps)

    session.note_progress = step  # type: ignore[method-assign]
    report = session.check()
    assert moving.looks > 1
    assert set(seen) == {0}
    assert (session.findings, report.exit_code) == ([], 0)


def test_numbers_that_no_address_can_be_made_of_are_watched_nowhere() -> None:
    s = sound(PATH)
    for pfn in (-1, 1 << 39, 1 << 52):
        assert stored_at(s, Subject(kind="entry", pfn=pfn, va=0x1000)) == []
    assert stored_at(s, Subject(kind="address_space", address=(1 << 64) - 8)) == []
    assert stored_at(s, Subject(kind="anon_vma", address=0)) == []


def test_what_cannot_be_read_in_several_looks_is_worth_more_of_them() -> None:
    s = sound(PATH)
    page = s.pages.memmap.page_addr(shared_page()[0]) // 4096 * 4096
    whole = s.layout.memory.read(page, 4096)
    assert whole is not None

    def reading(last_without: int) -> Report:
        moving = Moving({})

        def read(address: int, count: int, offset: int, _physical: bool) -> bytes:
            if moving.looks <= last_without:
                raise drgn.FaultError("not now", address)
            return whole[offset : offset + count]

        moving.target.prog.add_memory_segment(page, 4096, read, False)
        return moving.check(looks=2)

    late = reading(3)
    assert late.confirmation is not None
    assert (late.exit_code, late.coverage.complete, late.confirmation.looks) == (0, True, 4)
    never = reading(99)
    assert never.confirmation is not None
    assert (never.exit_code, never.coverage.complete, never.confirmation.looks) == (4, False, 4)


def test_a_task_that_stays_in_its_window_for_all_looks_explains_what_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a CPU: nothing changes, and its stack is known although those of running tasks are not."""
    _, at, stored = shared_page()
    asked: list[str] = []

    def work(_s: Snapshot, about: SubjectKind, _effect: Effect | None, found: Violations) -> AnyArray:
        asked.append(about.name)
        return np.full(len(found), "race 7 in try_to_unmap_one" if len(asked) == 1 else "")

    monkeypatch.setattr(confirm, "work_of_known_stacks", work)
    report = Moving({(at, 4): lambda _look: word(stored + 1)}).check()
    found = next(f for f in report.findings if f.rule == "mapcount-too-high")
    assert asked.count("page") > 1
    assert (report.exit_code, found.severity, found.exactness) == (0, "info", "transient")
    assert found.evidence.facts["in_flight"] == "race 7 in try_to_unmap_one"


def test_no_work_is_made_up_where_no_task_does_any() -> None:
    s = sound(PATH)
    nothing = holds(0)
    assert work_of_known_stacks(s, PAGE, Effect.PAGE, nothing).tolist() == []
    one = violations(np.array([0]), observed={"x": 1}, expected={"x": 2}, checked=1, facts={"in_flight": ""})
    assert work_of_known_stacks(s, PAGE, None, one).tolist() == [""]
    assert work_of_known_stacks(s, PAGE, Effect.PAGE, one).tolist() == [""]


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_of_an_mm_what_only_running_changes_is_not_watched(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    mm, struct_mm = s.layout.struct("struct mm_struct"), int(s.mms.addr[0])
    places = stored_at(s, MM.describe(s, 0))

    def is_watched(*names: str) -> bool:
        field = mm.field(*names)
        return any(at <= struct_mm + field.offset < at + size for at, size in places)

    assert all(map(is_watched, ("total_vm", "map_count", "mm_mt.ma_root", "mmap_lock", "pgtables_bytes")))
    assert not any(map(is_watched, ("membarrier_state", "context", "mm_count")))


def test_a_folio_read_at_different_moments_is_read_again() -> None:
    pfn, at, stored = shared_page()
    asked: list[bool] = []

    def is_wrong_in(looks: int) -> bool:
        moving = Moving({(at, 4): lambda _look: word(stored - (len(asked) < looks))})
        asked.clear()

        def ask(s: Snapshot) -> bool:
            wrong = account_of(look_at(s, pfn), pfn).is_wrong
            asked.append(wrong)
            return wrong

        return settled(Snapshot(moving.target), ask, bool)

    assert not is_wrong_in(2)
    assert asked == [True, True, False]
    assert is_wrong_in(9)
    assert asked == [True] * 3


def test_a_dump_is_asked_once() -> None:
    assert settled(sound(PATH), lambda _s: True, bool)
