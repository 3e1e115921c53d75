"""A kernel that runs on: what is read again keeps its place, and what became different is marked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.target.target import Target, open_qemu
from inspector.walk.smaps import vma_figures
from tests.guests.live import running_guest
from tests.tui.driving import at, press, settle, snapshot_of, text
from tui.app import FolioscopeApp
from tui.places import MmPlace, ProcessesPlace
from tui.session import Session
from tui.views.processes import process_rows
from tui.views.rows import Rows, number, words


def _rows(keys: list[int], rss: list[int], names: list[str]) -> Rows:
    fields = [number("rss", np.array(rss), str), words("comm", names), number("findings", np.array(rss), marked=False)]
    return Rows(fields, lambda row: MmPlace(row), np.array(keys))


def _texts(rows: Rows) -> list[list[str]]:
    return [[text for text, _ in rows.cells(i)] for i in range(len(rows))]


def test_changed_values_and_new_rows_are_marked_by_signs() -> None:
    new = _rows([3, 1, 2, 4], [7, 5, 9, 1], ["c", "a", "b", "d"])
    new.mark_since(_rows([1, 2, 3], [5, 10, 6], ["a", "z", "c"]))
    assert _texts(new) == [["7↑", "c", "7"], ["5", "a", "5"], ["9↓", "b~", "9"], ["+1", "d", "1"]]


def test_marks_follow_order_and_filter_and_are_no_part_of_values() -> None:
    new = _rows([1, 2], [7, 8], ["a", "b"])
    new.mark_since(_rows([1, 2], [7, 3], ["a", "b"]))
    new.sort(0, descending=True)
    assert [row[0] for row in _texts(new)] == ["8↑", "7"]
    new.filter("rss=8")
    assert _texts(new) == [["8↑", "b", "8"]]
    assert new.values(0) == [8, "b", 8]


def test_a_table_that_was_empty_makes_every_row_new() -> None:
    new = _rows([1], [7], ["a"])
    new.mark_since(_rows([], [], []))
    assert _texts(new)[0][0] == "+7"


def test_the_cursor_finds_its_row_again() -> None:
    old, new = _rows([5, 6, 7], [1, 2, 3], ["a", "b", "c"]), _rows([7, 9, 6], [3, 4, 2], ["c", "d", "b"])
    assert [new.find_same(old, i) for i in range(3)] == [0, 2, 0]


@pytest.mark.asyncio
async def test_reading_again_keeps_order_and_cursor_and_marks_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "is_live", True)
    session = Session(snapshot_of("7.3"))
    session.check()
    async with at(session, ProcessesPlace(), (140, 45)) as pilot:
        await press(pilot, "greater_than_sign", "down", "down", "slash", *"rss>0", "enter")
        before = text(pilot)
        assert not {"↑", "↓", "~"} & set(before.replace("▼", ""))
        table = pilot.app.screen.query("ColumnTable").last()
        chosen = table.rows.place(table.cursor)  # type: ignore[attr-defined]
        grown = session.snapshot.mms.rss.copy()
        grown[chosen.mm_idx, 0] += 512
        plain = Snapshot.mms.func  # type: ignore[attr-defined]
        monkeypatch.setattr(Snapshot, "mms", property(lambda s: replace(plain(s), rss=grown)))
        await press(pilot, "r")
        await settle(pilot)
        assert table.rows.place(table.cursor) == chosen  # type: ignore[attr-defined]
        marked = [line for line in text(pilot).splitlines() if "↑" in line]
        assert len(marked) == 1
        assert str(int(session.snapshot.mms.pid[chosen.mm_idx])) in marked[0]


@pytest.mark.guest
@pytest.mark.asyncio
async def test_a_running_guest_is_browsed_while_it_races() -> None:
    with running_guest("6.12", is_busy=True) as socket:
        session = Session(Snapshot(open_qemu(str(socket))))
        app = FolioscopeApp(session, ProcessesPlace())
        seen: set[str] = set()
        async with app.run_test(size=(140, 45)) as pilot:
            await settle(pilot)
            for _ in range(3):
                await press(pilot, "r")
                seen |= set(text(cast("Any", pilot)))
            assert session.refreshes == 3
            assert session.report is not None
            for key in ("1", "2", "4", "5", "3", "enter"):
                await press(pilot, key)
                assert "cannot be shown" not in text(pilot)
        assert {"↑", "↓"} & seen
        assert len(process_rows(session, vma_figures(session.snapshot))) > 5
