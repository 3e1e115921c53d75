"""The site: every link leads somewhere, every page has its place, nothing is loaded from elsewhere."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.arch import site
from tests.arch.docs import DOCS


def test_the_site_is_whole(tmp_path: Path) -> None:
    assert site.make_site(tmp_path) == []
    for page in ("docs/tutorial.html", "docs/rules/mapcount.html", "inspector/manual/schemes.html"):
        assert (tmp_path / page).is_file()
    assert "mapcount-too-high" in (tmp_path / "search/search_index.json").read_text("utf-8")


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.stage

    def stage(folder: Path) -> None:
        before(folder)
        page = folder / "docs/model.md"
        added = "\n\n[a](gone.md) [b](rules.md#gone) ![c](gone.png) <img src='https://example.com/x.png'>\n"
        page.write_text(page.read_text("utf-8") + added, "utf-8")

    monkeypatch.setattr(site, "stage", stage)
    wrong = site.make_site(tmp_path)
    assert len(wrong) == 4
    assert all("model" in line for line in wrong)


UNITS = sorted((DOCS / "systemd").iterdir())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_units_are_sound() -> None:
    words = ["systemd-analyze", "verify", "--man=no", *map(str, UNITS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("code", "text"), [(0, "metrics"), (1, "metrics"), (3, "metrics"), (3, "")])
def test_the_unit_replaces_its_file_whole(code: int, text: str, tmp_path: Path) -> None:
    (service,) = [unit for unit in UNITS if unit.suffix == ".service"]
    (line,) = [one for one in service.read_text("utf-8").splitlines() if one.startswith("ExecStart=")]
    program, out = tmp_path / "folioscope", tmp_path / "out.prom"
    program.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
    program.chmod(0o755)
    out.write_text("before")
    words = shlex.split(line.removeprefix("ExecStart="))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUT": str(out)}
    assert subprocess.run(words, env=env, check=False).returncode == code
    assert out.read_text() == (text or "before")
