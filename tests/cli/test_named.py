"""What people call processes, addresses and files: the command line and the jump of the interface take the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inspector.cli import main
from inspector.errors import UsageError
from inspector.places.processes import find_process, processes_called
from inspector.places.words import split_address
from inspector.report.places import find_place, find_ranges
from inspector.report.what import build_what
from inspector.snapshot import Snapshot
from tests.fixtures import KERNELS, fixture_path
from tests.tui.driving import session_of, snapshot_of
from tui.jump import goals
from tui.places import FilePlace, FolioPlace, MmPlace, VmaPlace


@pytest.fixture(params=KERNELS)
def s(request: pytest.FixtureRequest) -> Snapshot:
    return snapshot_of(request.param)


def _mapped_address(s: Snapshot) -> tuple[int, str, int, int]:
    """Pid, name, a mapped address and its pfn of a process whose name is no other's."""
    names = [bytes(c) for c in s.mms.comm]
    for mm in range(len(s.mms)):
        if s.mms.pid[mm] < 0 or names.count(names[mm]) > 1 or b":" in names[mm]:
            continue
        rows = np.flatnonzero((s.mappings.mm_idx == mm) & (s.mappings.level == 1))
        if len(rows):
            row = int(rows[0])
            name = names[mm].rstrip(b"\0").decode()
            return int(s.mms.pid[mm]), name, int(s.mappings.va[row]), int(s.mappings.pfn[row])
    raise AssertionError


def test_an_address_of_a_process_is_a_place(s: Snapshot) -> None:
    pid, name, va, pfn = _mapped_address(s)
    for who in (str(pid), name, f"{int(s.mms.addr[s.mms.pid == pid][0]):#x}"):
        found = find_place(s, f"{who}:{va + 5:#x}", None)
        assert (found.pfn, found.offset, found.taken_for) == (pfn, 5, "user")
        assert find_ranges(s, (f"{who}:{va:#x}",), None)[1] == [(pfn, pfn)]
        assert [r.kind for r in build_what(s, f"{who}:{va:#x}").meanings] == ["user address"]
    with pytest.raises(UsageError, match="no page is mapped there"):
        find_place(s, f"{pid}:0x10", None)
    with pytest.raises(UsageError, match="not a user address"):
        find_place(s, f"{pid}:0xffff800000000000", None)
    with pytest.raises(UsageError, match="no range"):
        find_ranges(s, (f"{name}:{va:#x}+2",), None)


def test_processes_by_name(s: Snapshot) -> None:
    pid, name, _, _ = _mapped_address(s)
    assert find_process(s, name) == pid
    assert find_process(s, name.upper()) == pid
    assert find_process(s, str(pid)) == pid
    assert processes_called(s, "") == []
    several = processes_called(s, "ksm-sharer")
    assert len(several) > 1
    with pytest.raises(UsageError, match=f"Give a pid: {several[0][0]} "):
        find_process(s, "ksm-sharer")
    with pytest.raises(UsageError, match="no process of that name"):
        find_process(s, "no such thing")
    assert split_address("a:b") == ("a", 0xB)
    assert split_address("a:zz") is None
    assert split_address(":0x1") is None


def test_addresses_and_symbols_of_the_kernel_lead_to_their_pages(s: Snapshot) -> None:
    address = s.target.symbol("init_mm")
    assert address is not None
    found = find_place(s, f"{address:#x}", None)
    assert found.taken_for == "kernel"
    assert find_place(s, "init_mm", None).pfn == find_place(s, f"kernel:{address:#x}", None).pfn == found.pfn
    flags = s.pages.flags[s.pages.memmap.row(found.pfn) : s.pages.memmap.row(found.pfn) + 1]
    assert s.layout.flags.test(flags, "reserved").all()


def test_the_interface_takes_what_the_command_line_takes() -> None:
    session = session_of("7.3")
    s = session.snapshot
    pid, name, va, pfn = _mapped_address(s)
    mm = int(np.flatnonzero(s.mms.pid == pid)[0])
    for words in (f"{pid}:{va:#x}", f"{name}:{va:#x}"):
        vma = goals(session, words)[0].place
        assert isinstance(vma, VmaPlace)
        assert (vma.mm_idx, vma.va) == (mm, va)
    assert MmPlace(mm) in [goal.place for goal in goals(session, f"{name}:")]
    assert goals(session, name)[0].place == MmPlace(mm)
    kernel = find_place(s, "init_mm", None)
    for words in ("init_mm", f"kernel:{s.target.symbol('init_mm'):#x}", f"pfn:{kernel.pfn:#x}"):
        assert FolioPlace(kernel.pfn) in [goal.place for goal in goals(session, words)], words
    assert [g.place for g in goals(session, f"pfn:{pfn:#x}")] == [FolioPlace(pfn)]
    inode = int(s.files.address_spaces.ino[s.files.address_spaces.nrpages.argmax()])
    assert any(isinstance(g.place, FilePlace) for g in goals(session, str(inode)))


def test_commands_take_names(capsys: pytest.CaptureFixture[str]) -> None:
    core = str(fixture_path("7.3"))
    pid, name, va, pfn = _mapped_address(snapshot_of("7.3"))
    for words in (("vmas", name), ("va", f"{name}:{va:#x}"), ("va", name, f"{va:#x}"), ("va", f"{pid}:{va:#x}")):
        assert main(["-c", core, *words, "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["pid"] == pid
    for command in ("folio", "explain", "rmap"):
        assert main(["-c", core, command, f"{name}:{va:#x}", "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["place"]["pfn"] == pfn
        assert main(["-c", core, command, f"{name}:{va:#x}"]) == 0
        assert f"{pfn:#x}" in capsys.readouterr().out
    assert main(["-c", core, "folio", "init_mm"]) == 0
    assert main(["-c", core, "va", name]) == 2
    assert "PID:ADDRESS" in capsys.readouterr().err
    assert main(["-c", core, "what", "/bin/keeper"]) == 0
    assert "file 0x" in capsys.readouterr().out
