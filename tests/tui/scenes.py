"""One scene a screen, all of one broken vmcore: what is compared with pictures, and what the README shows."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from tests.cli.planting import raised_mapcount
from tui.jump import goals
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FindingPlace,
    FindingsPlace,
    FolioPlace,
    FoliosPlace,
    MemoryPlace,
    MmPlace,
    OverviewPlace,
    Place,
    ProcessesPlace,
    RmapPlace,
    RulePlace,
    SlotPlace,
    SubjectPlace,
    SubjectsPlace,
    VmaPlace,
)
from tui.session import Session
from tui.views.subjects import SUBJECTS

ROOT = Path(__file__).parents[2]
CORE = "tests/fixtures/7.3.kdump"
"""Named from the repository's root, so that pictures are the same wherever it lies."""

LARGE = 0x13D60
"""An anonymous folio of order 4 that three processes map, in parts."""


@lru_cache(maxsize=2)
def broken(*rules: str) -> Session:
    """A vmcore with the _mapcount of one page raised, checked by some rules or by all."""
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        snapshot = Snapshot(raised_mapcount(CORE)(CORE))
        return Session(snapshot, run_check(snapshot, rules))
    finally:
        os.chdir(here)


def places(session: Session) -> dict[str, Place]:
    """A place for every screen."""
    s = session.snapshot
    mapping = session.findings[0].evidence.mappings[0]
    mm = int(np.flatnonzero(s.mms.addr == np.uint64(mapping.mm))[0])
    inside = (s.vmas.mm_idx == mm) & (s.vmas.start <= np.uint64(mapping.va)) & (s.vmas.end > np.uint64(mapping.va))
    files = [g.place for g in goals(session, "/bin/") if isinstance(g.place, FilePlace)]
    slot = int(s.swap.slots.cache_pfn.argmax())
    return {
        "overview": OverviewPlace(),
        "findings": FindingsPlace(),
        "finding": FindingPlace(0),
        "rule": RulePlace("mapcount-too-high"),
        "processes": ProcessesPlace(),
        "mm": MmPlace(mm),
        "vma": VmaPlace(mm, int(np.flatnonzero(inside)[0]), mapping.va),
        "folios": FoliosPlace("anon order>=2"),
        "folio": FolioPlace(LARGE),
        "rmap": RmapPlace(LARGE),
        "anon_vma": AnonVmaPlace(int(s.pages.mapping[s.pages.memmap.row(LARGE)]) & ~3),
        "file": files[0],
        "memory": MemoryPlace(LARGE),
        "more": SubjectsPlace(),
        # The map of physical memory has that name already.
        **{f"{name}-list" if name == "memory" else name: SubjectPlace(name) for name in SUBJECTS},
        "slot": SlotPlace(int(s.swap.slots.entry[slot]) >> 58, int(s.swap.slots.offset[slot])),
    }


DIALOGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "jump": ("overview", ("g", *"mthp")),
    "help": ("finding", ("question_mark",)),
    "export": ("folios", ("e",)),
    "sort": ("processes", ("S",)),
    "note": ("findings", ("w",)),
}
"""Dialogs: the scene they open over, and the keys that open them."""
