"""A kernel that moves under every read: no exception, no walk without end, nothing reported that is none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import pytest

from inspector import cli
from inspector.arch.base import Level
from inspector.check import confirm
from inspector.check.confirm import check_target
from inspector.cli.params import Settings
from inspector.errors import Exit, FolioscopeError
from inspector.rules.zones.buddy import free_block_list_mismatch
from inspector.snapshot import Snapshot
from inspector.target.target import Target, TargetKind
from inspector.walk import pagetable
from inspector.walk.mappings import ENTRY_ID_SLOT_BITS, TABLE_MOVED
from tests.corrupt.commands import Commands
from tests.faults.overlay import KERNELS, Patch, core_path, opened, page_word, plant, put, sound
from tests.racing import Racing

PATH = core_path("fixture", "7.3")
ASKED = (["references"], ["uffd"], ["windows"], ["cache"])
"""Besides the command lines of `Commands`."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, and walks are given up soon."""
    monkeypatch.setattr(confirm, "FIRST_GAP", 0.01)
    monkeypatch.setattr("inspector.memory.WALK_SECONDS", 0.3)


@contextmanager
def reading_twice(*, twice: bool = True) -> Iterator[None]:
    """No leaf entries are kept: whoever wants them reads the page tables again, as those of large machines are."""
    with patch("inspector.walk.batches.RUNS_KEPT", 0 if twice else 1 << 18):
        yield


def check_racing(path: str, seed: int, other: str | None = None, rate: float = 0.02, looks: int = 2) -> None:
    with reading_twice(twice=seed % 2 == 0):
        report = check_target(Snapshot(Racing(path, seed, other=other, rate=rate).target), looks=looks)
    assert [(f.rule, f.severity, f.subject) for f in report.findings if f.severity != "info"] == []
    assert report.exit_code in (Exit.CLEAN, Exit.INCOMPLETE)


@lru_cache(maxsize=3)
def _commands(path: str) -> Commands:
    return Commands(sound(path))


def ask_racing(path: str, seed: int, rate: float = 0.02) -> None:
    rng = np.random.default_rng(seed)
    words = ASKED[seed // 4 % len(ASKED)] if seed % 4 == 0 else _commands(path).some(rng)

    def open_racing(_symbols: object = (), *, types: object = "auto") -> Target:
        return Racing(path, seed, rate=rate).target

    def told(error: Exception, _settings: Settings) -> int:
        if isinstance(error, (FolioscopeError, click.ClickException)):
            return Exit.TARGET
        raise error

    with (
        patch("inspector.cli.opening.open_live", open_racing),
        patch("inspector.cli.report_error", told),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        code = cli.main(["-k", *words])
    # Nothing is wrong with the kernel: no command says so of one look at it.
    assert code in tuple(Exit)
    assert code != Exit.FINDINGS, words


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_check_of_a_racing_kernel(kernel: str) -> None:
    for seed in range(2):
        check_racing(core_path("fixture", kernel), seed)


@pytest.mark.parametrize("kernel", KERNELS)
def test_commands_on_a_racing_kernel(kernel: str) -> None:
    for seed in range(8):
        ask_racing(core_path("fixture", kernel), seed)


@pytest.mark.long
@pytest.mark.parametrize("kernel", KERNELS)
def test_many_checks_of_racing_kernels(kernel: str) -> None:
    # In so many, two looks that follow each other may miss the same page table, which is changed in both.
    for seed in range(100, 112):
        check_racing(core_path("fixture", kernel), seed, rate=(0.002, 0.01, 0.05)[seed % 3], looks=confirm.LOOKS)


@pytest.mark.long
@pytest.mark.parametrize("kernel", KERNELS)
def test_many_commands_on_racing_kernels(kernel: str) -> None:
    for seed in range(100, 148):
        ask_racing(core_path("fixture", kernel), seed, rate=(0.002, 0.01, 0.05)[seed % 3])


def _entry_place(s: Snapshot, at: int) -> tuple[int, int]:
    """Physical address and number of the second entry of a run."""
    m = s.mappings
    table, slot = int(m.table_idx[at]), int(m.slot[at]) + 1
    return (int(s.tables.pfn[table]) << 12) + 8 * slot, (table << ENTRY_ID_SLOT_BITS) | slot


@pytest.mark.parametrize("is_cleared", [False, True])
def test_entries_that_are_asked_for_again_when_the_table_has_changed(is_cleared: bool) -> None:
    """What was numbered as the beginning of a run is inside one by now, or is no entry any more."""
    still = sound(PATH)
    run = int(np.flatnonzero((still.mappings.nr >= 3) & (still.mappings.level == Level.PTE))[0])
    place, number = _entry_place(still, run)
    with reading_twice():
        target = replace(opened(PATH), kind="qemu", prstatus=())
        s = Snapshot(target)
        assert len(s.tables)
        if is_cleared:
            plant(target, Patch(place, bytes(8), physical=True))
        found = s.entries(np.array([number, number]))
    m = still.mappings
    assert found.entry_id.tolist() == [number, number]
    assert found.va.tolist() == [int(m.va[run]) + 4096] * 2
    assert found.vma_idx.tolist() == [int(m.vma_idx[run])] * 2
    assert found.mm_idx.tolist() == [int(m.mm_idx[run])] * 2
    if is_cleared:
        assert (found.pfn.tolist(), found.nr.tolist(), found.head_row.tolist()) == ([-1] * 2, [1] * 2, [-1] * 2)
    else:
        assert found.pfn.tolist() == [int(m.pfn[run]) + 1] * 2
        assert found.nr.tolist() == [int(m.nr[run]) - 1] * 2
        assert found.page_row.tolist() == [int(m.page_row[run]) + 1] * 2
        assert (found.head_row == still.pages.head_row[found.page_row]).all()


@pytest.mark.parametrize("is_live", [False, True])
def test_what_was_read_of_a_page_table_that_is_freed_meanwhile_is_no_entry(
    monkeypatch: pytest.MonkeyPatch, is_live: bool
) -> None:
    """Its page may be anything's by then: 512 wrong entries that never were."""
    still = sound(PATH)
    tables = still.tables
    row = int(still.mappings.table_idx[still.mappings.level == Level.PTE][0])
    slot = (int(tables.pfn[tables.parent[row]]) << 12) + 8 * int(tables.slot[row])
    target = replace(opened(PATH), kind="qemu" if is_live else "kdump", prstatus=())
    read = pagetable._read

    def freed_behind(*arguments: Any) -> pagetable.Batch:
        batch = read(*arguments)
        if batch.shape.level == Level.PTE:
            plant(target, Patch(slot, bytes(8), physical=True))
        return batch

    monkeypatch.setattr(pagetable, "_read", freed_behind)
    s = Snapshot(target)
    assert s.tables.pfn[row] == tables.pfn[row]
    assert (s.tables.state[row] == TABLE_MOVED) == is_live
    assert (s.mappings.table_idx == row).any() != is_live
    others = s.mappings.table_idx != row
    assert len(s.mappings.take(np.flatnonzero(others))) == int((still.mappings.table_idx != row).sum())


def test_blocks_behind_a_break_in_a_free_list_are_not_called_lost_while_the_kernel_runs_on() -> None:
    still = sound(PATH)
    blocks = still.buddy.blocks
    lists, nr = np.unique(blocks.list_idx, return_counts=True)
    on = blocks.row[blocks.list_idx == lists[nr >= 8][0]]
    pfn = int(still.pages.memmap.pfns_of_rows(on[3:4])[0])
    torn = put(still, page_word(still, pfn, "lru") + 8, 0)

    def wrong(kind: TargetKind) -> int:
        target = replace(opened(PATH), kind=kind)
        plant(target, torn)
        return len(free_block_list_mismatch.run(Snapshot(target)))

    assert 1 <= wrong("qemu") <= 2, "the one whose link is wrong is still found"
    assert wrong("kdump") > 2
