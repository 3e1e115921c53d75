"""The commands that show a family of anon_vmas or a file tell that what they show is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inspector.cli import main
from inspector.cli.params import Settings
from inspector.errors import Exit
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, Patch, add, core_path, planted, put, sound


def _run(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, s: Snapshot, words: list[str]
) -> tuple[int, list[str]]:
    """Exit code of a command on a snapshot, and the damage that it tells."""
    patch.setattr(Settings, "snapshot", lambda _: s)
    code = main([*words, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)["damage"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_anon_vma_exits_1_when_damaged(
    kernel: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s = sound(core_path("fixture", kernel))
    table, field = s.anon_rmap.anon_vmas, s.layout.struct("struct anon_vma").field("num_children")
    row = int(np.flatnonzero((table.tree != 0) & (table.parent_idx >= 0))[3])
    address = int(table.addr[row])
    other = int(table.addr[np.flatnonzero((table.tree != 0) & (table.root != table.root[row]))[0]])
    patch: Patch = add(s, address + field.offset, 1, field.size)
    broken = planted(core_path("fixture", kernel), patch)
    core = core_path("fixture", kernel)
    words = ["anon-vma", hex(address), "--core", core]
    assert _run(capsys, monkeypatch, s, words) == (Exit.CLEAN, [])
    assert _run(capsys, monkeypatch, broken, words) == (Exit.FINDINGS, ["anon-vma-counters-mismatch"])
    assert _run(capsys, monkeypatch, broken, ["anon-vma", hex(other), "--core", core]) == (Exit.CLEAN, [])


@pytest.mark.parametrize("kernel", KERNELS)
def test_file_exits_1_when_damaged(
    kernel: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s, core = sound(core_path("fixture", kernel)), core_path("fixture", kernel)
    nodes, spaces = s.file_rmap.nodes, s.file_rmap.address_spaces
    row = int(
        np.flatnonzero(
            (nodes.vma_idx >= 0) & np.isin(spaces.addr[nodes.address_space_idx], s.files.address_spaces.addr)
        )[0]
    )
    field = s.layout.struct("struct vm_area_struct").field("shared.rb_subtree_last")
    broken = planted(core, put(s, int(nodes.vma[row]) + field.offset, int(nodes.subtree_last[row]) + 5))
    words = ["file", hex(int(spaces.addr[nodes.address_space_idx[row]])), "--core", core]
    assert _run(capsys, monkeypatch, s, words) == (Exit.CLEAN, [])
    assert _run(capsys, monkeypatch, broken, words) == (Exit.FINDINGS, ["i-mmap-tree-damaged"])
