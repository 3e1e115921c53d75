"""A capture of a kernel that runs on says so, and claims no more than it can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inspector.capture.capture import capture
from inspector.check.run import run_check
from inspector.cli import main, opening
from inspector.errors import Exit
from inspector.snapshot import Snapshot
from inspector.target.target import Target, open_core, open_qemu
from tests.fixtures import fixture_path
from tests.guests.live import running_guest


def opened(path: Path) -> Target:
    return open_core(str(path), types="btf")


@pytest.mark.guest
def test_running_guest_is_captured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_guest("7.3") as socket:
        report = capture(open_qemu(str(socket), types="btf"), out)
    assert report.ran_on
    assert report.same_answers is None
    assert opened(out).kind == "kdump"
    found = run_check(Snapshot(opened(out)))
    assert int(found.summary["mms"] or 0) > 100
    assert any("ran on while it was captured" in note for note in found.coverage.notes)


@pytest.mark.long
def test_capture_of_a_running_kernel_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frozen source in the place of a running one: what is said does not depend on what happened to change."""
    source, out = fixture_path("6.12"), tmp_path / "out"
    monkeypatch.setattr(opening, "open_target", lambda *_: replace(opened(source), kind="qemu"))
    assert main(["-c", str(source), "capture", str(out)]) == Exit.CLEAN
    said = " ".join(capsys.readouterr().out.split())
    assert "The kernel ran on while it was captured" in said
    assert "same report" not in said
    target = opened(out)
    assert (target.kind, target.is_live, target.ran_on) == ("kdump", False, True)
    notes = run_check(Snapshot(target)).coverage.notes
    assert [note for note in notes if "ran on while it was captured" in note]
    again = capture(target, tmp_path / "again")
    assert again.ran_on, "a capture of such a capture is one"
    assert again.same_answers, "but its source stands still"
    assert opened(tmp_path / "again").ran_on
    assert not opened(source).ran_on
