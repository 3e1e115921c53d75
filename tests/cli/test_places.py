"""Every kind of name given to every command that takes a place: the right answer, or one line that says what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from inspector.cli import main
from inspector.snapshot import Snapshot
from inspector.tables.files import FOLIO
from inspector.text import clean_bytes
from inspector.walk.names import file_paths
from tests.fixtures import KERNELS, fixture_path
from tests.tui.driving import session_of, snapshot_of
from tui.jump import goals
from tui.places import FolioPlace, MmPlace


@dataclass(frozen=True)
class Found:
    """A page of an anonymous VMA of a process of a name of its own, and a file, by each of their names."""

    names: dict[str, str]
    pfn: int
    file_pfn: int
    pid: int
    va: int
    start: int
    space: int
    anon_vma: int


def _a_page(s: Snapshot) -> tuple[int, int]:
    """Row of a mapping, and of its VMA."""
    comms = [bytes(c) for c in s.mms.comm]
    single = [i for i, c in enumerate(comms) if comms.count(c) == 1 and s.mms.pid[i] > 1]
    for vma in np.flatnonzero((s.vmas.anon_vma != 0) & (s.vmas.file == 0) & np.isin(s.vmas.mm_idx, single)).tolist():
        m, v = s.mappings, s.vmas
        inside = (m.mm_idx == v.mm_idx[vma]) & (m.va >= v.start[vma]) & (m.va < v.end[vma]) & (m.level == 1)
        rows = np.flatnonzero(inside)
        if len(rows):
            return int(rows[0]), vma
    raise AssertionError


def _a_file(s: Snapshot) -> tuple[int, str, int, int]:
    """Row of an address_space that is mapped, its path, and an offset and pfn in its page cache."""
    rows = np.flatnonzero((s.vmas.file != 0) & (s.file_rmap.address_space_of_vma >= 0))
    mapped = s.file_rmap.address_spaces.addr[s.file_rmap.address_space_of_vma[rows]].tolist()
    paths = dict(zip(mapped, file_paths(s.layout, s.vmas.file[rows]), strict=True))
    for space, path in sorted(paths.items(), key=lambda one: one[1]):
        last = path.rpartition("/")[2].lower()
        row = np.flatnonzero(s.files.address_spaces.addr == np.uint64(space))
        if "(deleted)" in path or not len(row) or sum(last in other.lower() for other in paths.values()) > 1:
            continue
        entries = s.files.of_space(int(row[0]))
        here = np.flatnonzero(entries.kind == FOLIO)
        inos = s.files.address_spaces.ino
        if len(here) and (inos == inos[row[0]]).sum() == 1 and not any(last in _name(s, i) for i in range(len(s.mms))):
            return int(row[0]), path, int(entries.index[here[0]]), int(entries.pfn[here[0]])
    raise AssertionError


def _name(s: Snapshot, mm: int) -> str:
    return clean_bytes(bytes(s.mms.comm[mm])).lower()


@cache
def found_in(kernel: str) -> Found:
    """Names of each kind."""
    s = snapshot_of(kernel)
    row, vma = _a_page(s)
    file, path, pgoff, file_pfn = _a_file(s)
    mm, va, pfn = int(s.mappings.mm_idx[row]), int(s.mappings.va[row]), int(s.mappings.pfn[row])
    pid, comm, spaces = int(s.mms.pid[mm]), _name(s, mm), s.files.address_spaces
    device = np.flatnonzero(s.swap.devices.in_use).tolist()
    names = {
        "pfn": f"{pfn:#x}",
        "physical": f"phys:{pfn << 12:#x}",
        "struct page": f"{s.layout.memmap.page_addr(pfn):#x}",
        "direct map": f"{s.layout.memory.direct_map_base + (pfn << 12):#x}",
        "kernel image": f"{s.target.symbol('init_mm'):#x}",
        "symbol": "init_mm",
        "pid": str(pid),
        "pid:va": f"{pid}:{va:#x}",
        "name": comm,
        "name:va": f"{comm}:{va:#x}",
        "path": path,
        "part of a path": path.rpartition("/")[2],
        "path@offset": f"{path}@{pgoff:#x}",
        "part@offset": f"{path.rpartition('/')[2]}@{pgoff:#x}",
        "address_space": f"{int(spaces.addr[file]):#x}",
        "inode": f"{int(spaces.host[file]):#x}",
        "inode number": str(int(spaces.ino[file])),
        "anon_vma": f"{int(s.vmas.anon_vma[vma]):#x}",
        "VMA": f"{int(s.vmas.addr[vma]):#x}",
        "mm_struct": f"{int(s.mms.addr[mm]):#x}",
        "task_struct": f"{int(s.tasks.addr[np.flatnonzero(s.tasks.pid == pid)[0]]):#x}",
        "kernel task": "kthreadd",
        "memcg": s.lru.memcgs.path(0) if len(s.lru.memcgs) else "/",
        "slot": f"{int(s.swap.devices.type_[device[0]]) if device else 0}:0x1",
        "cpu": "cpu 0",
        "screen": "memory",
        "none": "no such thing",
        "several": "ksm-sharer",
        "empty": "",
        "signs": "@:+-",
        "far": "0xffffffffffffffff",
    }
    start, anon_vma = int(s.vmas.start[vma]), int(s.vmas.anon_vma[vma])
    return Found(names, pfn, file_pfn, pid, va, start, int(spaces.addr[file]), anon_vma)


_OF_PAGE = ("pfn", "physical", "struct page", "direct map", "pid:va", "name:va")
_OF_FILE_PAGE = ("path@offset", "part@offset")
_MAY_BE_PAGES = (
    *("kernel image", "symbol", "pid", "address_space", "inode", "inode number", "anon_vma", "VMA", "mm_struct"),
    "task_struct",
)
"""Every address of the direct map is one of a page, shown with what it was taken for; so are numbers of page frames."""


def _pages(report: dict[str, Any]) -> Any:
    place = report["place"] if "place" in report else report["places"][0]
    return place["pfn"]


def _slot(report: dict[str, Any]) -> Any:
    return report["slot"]["offset"]


TAKEN: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {
    **dict.fromkeys((("folio",), ("page",), ("rmap",), ("explain",)), {"pfn": _OF_PAGE, "file_pfn": _OF_FILE_PAGE}),
    ("vmas",): {"pid": ("pid", "name", "mm_struct", "task_struct")},
    ("va",): {"va": ("pid:va", "name:va"), "start": ("VMA",)},
    ("anon-vma",): {"anon_vma": ("anon_vma", "VMA", "pid:va", "name:va")},
    ("file",): {"space": ("path", "part of a path", "address_space", "inode", "inode number")},
    ("swap",): {"slot": ("slot",)},
    ("windows", "--stack"): {"pid": ("pid", "name", "task_struct", "mm_struct")},
}
"""By command: what of `Found` the answer must be about, by the names that it takes."""

MAY: dict[tuple[str, ...], tuple[str, ...]] = {
    # kthreadd is a symbol of the kernel, too.
    **dict.fromkeys((("folio",), ("page",), ("rmap",), ("explain",)), (*_MAY_BE_PAGES, "kernel task")),
    ("windows", "--stack"): ("cpu", "kernel task"),
    ("vmas",): ("inode number",),
    ("file",): ("pfn", "pid"),
    ("swap",): ("pfn", "pid", "inode number"),
}
"""Names that may lead somewhere else: a number is many things."""

_MEMBER = {"va": "va", "start": "va", "space": "address_space", "anon_vma": "address", "pid": "pid"}


def _about(report: dict[str, Any], member: str) -> int | None:
    if member in {"pfn", "file_pfn"}:
        return int(_pages(report))
    if member == "slot":
        return int(str(_slot(report)), 0)
    value = report[_MEMBER[member]]
    return int(value, 0) if isinstance(value, str) else value


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("command", TAKEN, ids=" ".join)
def test_every_name_at_every_command(command: tuple[str, ...], kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, wrong = found_in(kernel), []
    wanted = {kind: member for member, kinds in TAKEN[command].items() for kind in kinds}
    has_swap = bool(snapshot_of(kernel).swap.devices.in_use.any())
    for kind, name in found.names.items():
        code = main(["-c", str(fixture_path(kernel)), "--format", "json", *command, name])
        out, err = capsys.readouterr()
        member = wanted.get(kind) if kind != "slot" or has_swap else None
        if member is not None:
            expected = 1 if member == "slot" else getattr(found, member)
            right = code in {0, 1, 4} and _about(json.loads(out), member) == expected
        elif kind in MAY.get(command, ()):
            right = code in {0, 1, 4} or (code == 2 and len(err.splitlines()) == 1)
        else:
            right = code == 2 and len(err.splitlines()) == 1
        if not right or "unexpected" in err or "Traceback" in err:
            wrong.append((kind, name, code, err, out[:300]))
    assert not wrong


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_knows_every_name(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, name in found_in(kernel).names.items():
        code = main(["-c", str(fixture_path(kernel)), "what", name])
        out, err = capsys.readouterr()
        unknown = kind in {"none", "empty", "signs", "far"} or (kind == "slot" and code == 2)
        assert code == (0 if not unknown else code), (kind, name, err)
        assert "unexpected" not in err
        assert out or err.count("\n") == 1, (kind, name)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_jump_knows_every_name(kernel: str) -> None:
    session, found = session_of(kernel), found_in(kernel)
    for kind, name in found.names.items():
        known = goals(session, name)
        assert known or kind in {"none", "signs", "far", "slot", "memcg", "kernel task"}, (kind, name)
    for kind in _OF_FILE_PAGE:
        assert goals(session, found.names[kind])[0].place == FolioPlace(found.file_pfn)
    mm = int(np.flatnonzero(session.snapshot.mms.pid == found.pid)[0])
    assert goals(session, found.names["task_struct"])[0].place == MmPlace(mm)


@pytest.mark.parametrize("kernel", KERNELS)
def test_operations_take_processes_by_name(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, answers = found_in(kernel), []
    for kind in ("pid", "name", "mm_struct", "task_struct"):
        operation = f"folio_remove_rmap_pte:0@{found.names[kind]}"
        assert main(["-c", str(fixture_path(kernel)), "explain", found.names["pfn"], "--op", operation]) in {0, 1, 4}
        answers.append(capsys.readouterr().out)
    assert len(set(answers)) == 1
    for kind, words in (
        ("several", "several processes"),
        ("path", "this command takes a process"),
        ("none", "no process"),
    ):
        operation = f"folio_remove_rmap_pte:0@{found.names[kind]}"
        assert main(["-c", str(fixture_path(kernel)), "explain", found.names["pfn"], "--op", operation]) == 2
        assert words in capsys.readouterr().err
