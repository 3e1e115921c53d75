"""The scripts for drgn: each runs under the drgn command on every kernel, and `folioscope scripts` hands them out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
DRGN = Path(sys.executable).with_name("drgn")

QUICK = ("rmap_by_hand", "walk_folios", "anon_vma_tree", "i_mmap")
"""Those in plain drgn, which another kernel's layout could break."""

SHOWS = {
    "anon_vma_tree": r"^anon_vma 0x\w+, root 0x\w+, refcount \d+\n +0x",
    "check": r"^verdict +consistent$",
    "check_mapcounts": r"^_mapcount +\d{5} compared, 0 differ\n.*\n.*\nevery count is that of its mappings$",
    "entries": r"^PMD: [1-9]\d* entries, \d+ kB\nPTE: [1-9]\d* entries, \d+ kB$",
    "explain": r"^what the kernel would do now$",
    "folio": r"^folio 0x\w+, order 9: [1-9]\d* mappings$",
    "i_mmap": r"^[1-9]\d* VMAs; i_mmap_writable \d+$",
    "mapcounts": r"^anon +9 ",
    "memory_kinds": r"^page cache +\d{4} ",
    "mthp": r"^process \d+ \(file-large\)$",
    "partly_mapped": r"^ +0x\w+  anon +9 +412 +100  yes$",
    "rmap_by_hand": r"^[1-9]\d* pages mapped; from the page tables inspector has \d+: the same$",
    "walk_folios": r"^inspector has the same compound pages$",
}
"""What each prints on any of the kernels, without arguments."""


def drgn(core: str, script: Path, *words: str, folder: Path = ROOT) -> str:
    command = [str(DRGN), "-q", "-c", core, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def marked(script: Path) -> object:
    return pytest.param(script, id=script.stem, marks=() if script.stem in QUICK else pytest.mark.long)


@pytest.mark.parametrize("script", map(marked, SCRIPTS))
def test_runs_under_drgn_without_arguments(script: Path, any_core: str) -> None:
    assert re.search(SHOWS[script.stem], drgn(any_core, script), re.MULTILINE)


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_sample_is_what_it_prints(script: Path) -> None:
    """Each line of the docstring behind the command is printed, in that order; "..." is for lines left out."""
    text = script.read_text("utf-8").split('"""')[1]
    found = re.search(r"^\$ (.*)\n((?:.*\n)+)", text, re.MULTILINE)
    assert found is not None
    words = shlex.split(found[1])
    assert words[:4] == ["drgn", "-c", "tests/fixtures/7.3.kdump", f"scripts/{script.name}"]
    printed = iter(drgn(words[2], ROOT / words[3], *words[4:]).splitlines())
    missing = [line for line in found[2].splitlines() if line != "..." and line not in printed]
    assert not missing


@pytest.mark.long
def test_a_copy_runs_anywhere(run: Run, core: Callable[[str], str], tmp_path: Path) -> None:
    assert run("scripts", "--copy", str(tmp_path / "mine")).code == 0
    assert "the same" in drgn(core("6.12"), tmp_path / "mine/rmap_by_hand.py", folder=tmp_path)


def test_listed_and_shown(run: Run) -> None:
    listed = run("scripts").out
    for script in SCRIPTS:
        assert f"\n{script.stem} " in listed
        assert run("scripts", script.stem).out == script.read_text("utf-8")
    assert run("scripts", "check.py") == run("scripts", "check")
    assert run("scripts", "chekc").code == 2


def test_copied_all_or_none_and_nothing_replaced_unasked(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    written = run("scripts", "--copy", str(folder), "--format", "json").object["copied"]
    assert written == [str(folder / script.name) for script in SCRIPTS]
    assert run("scripts", "--copy", str(folder)).out == "All of them are there already, unchanged.\n"
    (folder / "check.py").write_text("mine")
    (folder / "mthp.py").unlink()
    refused = run("scripts", "--copy", str(folder))
    assert refused.code == 2
    assert "1 file there would be replaced (check.py)" in refused.error
    assert (folder / "check.py").read_text() == "mine"
    assert not (folder / "mthp.py").exists()
    assert run("scripts", "--copy", str(folder), "mthp").out == f"{folder}/mthp.py\n"
    assert run("scripts", "--copy", str(folder), "--force").out == f"{folder}/check.py\n"
    assert (folder / "check.py").read_bytes() == (ROOT / "scripts/check.py").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [script.name for script in SCRIPTS]


def test_no_place_for_copies_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "the scripts cannot be written" in run("scripts", "--copy", str(tmp_path / "file")).error
    assert run("scripts", "--force").code == 2
