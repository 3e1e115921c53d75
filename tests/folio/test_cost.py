"""A question about one folio reads that folio and what its reverse map leads to, whatever else there is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from inspector.aimed.folio import FolioSnapshot
from inspector.folio.look import look_at
from inspector.model.scheme import Scheme
from inspector.report.explain import build_explanation
from inspector.report.folio import build_folio
from inspector.report.pages import build_place
from inspector.report.rmap import build_rmap
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from inspector.walk.page_numbers import NumberMeaning
from tests.faults.overlay import KERNELS, core_path, sound
from tests.folio.kinds import KINDS

KIB = 1024
OF_ONE_FOLIO = 360 * KIB
"""What is read for a folio itself: its struct pages (512 of a huge one), the roots of trees, per-CPU batches."""
FOR_A_VMA = 24 * KIB
"""A node of the tree, the VMA, its mm and file, its page tables and their struct pages, the nodes above it."""
OF_ALL_TASKS = 3 * KIB * KIB
SAMPLE = 2 * KIB * KIB
"""Struct pages that show whether page mapcounts are kept, from 6.15 on."""
ALL = {"_sweep", "mms", "_vmas", "_walked", "anon_rmap", "file_rmap", "files", "ksm", "buddy", "open_files", "gathers"}
"""Tables of the whole that no such question may build."""


@dataclass
class Reads:
    """What was read."""

    calls: int = 0
    nbytes: int = 0
    of_the_memory_map: int = 0


def counting(s: Snapshot) -> Reads:
    """Count all reads from now on."""
    reads, memmap = Reads(), s.layout.memmap
    first, last = memmap.page_addr(0), memmap.page_addr(memmap.max_pfn)

    def count(address: int, size: int, physical: bool) -> None:
        reads.calls += 1
        reads.nbytes += size
        reads.of_the_memory_map += size if first <= address < last and not physical else 0

    s.layout.memory.on_read = count
    return reads


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folio_costs_what_the_folio_costs(kernel: str, kind: str) -> None:
    path = core_path("fixture", kernel)
    pfn = KINDS[kind](sound(path))
    s = Snapshot(open_core(path, types="btf"))
    reads = counting(s)
    place = build_place(s, hex(pfn), NumberMeaning("pfn", pfn, 0, ""), [])
    f = look_at(s, pfn)
    assert isinstance(f, FolioSnapshot)
    assert build_folio(f, place).exit_code in (0, 4)
    assert build_rmap(f, place).exit_code in (0, 4)
    assert build_explanation(f, pfn).exit_code in (0, 4)
    in_trees = len(f.anon_rmap.avcs) + len(f.file_rmap.nodes)
    most = OF_ONE_FOLIO + in_trees * FOR_A_VMA
    most += SAMPLE if f.layout.scheme.scheme is Scheme.MM_IDS else 0
    # Of few processes the names are had from their mms, of many from all tasks at once, some 9 KiB a task.
    most += OF_ALL_TASKS if "tasks" in vars(s) else 0
    assert "tasks" not in vars(s) or len(f.mms) > 4 or kind == "kernel"
    assert reads.nbytes < most
    assert reads.calls < 600 + 16 * in_trees
    assert not ALL & set(vars(s))
    assert not s.has_walked


@pytest.mark.parametrize("kernel", KERNELS)
def test_where_all_page_tables_were_walked_they_are_used(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    s.counts  # noqa: B018
    assert look_at(s, KINDS["anon"](s)) is s
    fresh = Snapshot(s.target)
    assert look_at(fresh, KINDS["anon"](s), everything=True) is fresh
