"""`import inspector` is all that a script needs, costs nothing until it is used, and drgn runs the scripts."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import inspector
from inspector.api import TABLES

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
DRGN = Path(sys.executable).with_name("drgn")


def test_import_takes_neither_drgn_nor_numpy() -> None:
    code = "import sys, inspector; print(*{'drgn', '_drgn', 'numpy', 'msgspec', 'click'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_there() -> None:
    assert all(getattr(inspector, name) is not None for name in inspector.__all__)
    assert {*inspector.__all__} <= {*dir(inspector)}
    with pytest.raises(AttributeError, match="nonsense"):
        inspector.nonsense  # noqa: B018


def test_check_and_explain(core: Callable[[str], str]) -> None:
    import inspector.check.run  # the package of that name must not hide the function

    snapshot = inspector.Snapshot(inspector.open_core(core("7.3")))
    report = inspector.check(snapshot, ["mapcount-too-low"])
    assert isinstance(report, inspector.Report)
    assert (report.exit_code, report.findings) == (inspector.Exit.CLEAN, [])
    assert inspector.as_text(report).splitlines()[-1].endswith("consistent")
    folio = inspector.explain(snapshot, 0x7200, check=False)
    same = inspector.explain(snapshot, f"{folio.place.page:#x}", check=False)
    assert (same.ledger, same.mappings, same.place.taken_for) == (folio.ledger, folio.mappings, "page")
    assert (folio.place.pfn, folio.order) == (0x7200, 9)
    assert "0x7200" in inspector.as_text(folio)
    with pytest.raises(inspector.UsageError, match="no memory of this target"):
        inspector.explain(snapshot, 1 << 50)


def test_a_kernel_that_runs_on_is_checked_in_several_looks(core: Callable[[str], str]) -> None:
    """A script has no false alarm of one look into a moving kernel, either."""
    running = replace(inspector.open_core(core("7.3")), kind="qemu", prstatus=())
    for report in (running.check(["rss-mismatch"]), inspector.check(inspector.Snapshot(running), ["rss-mismatch"])):
        assert report.confirmation is not None
        assert report.findings == []


def test_a_program_must_be_open() -> None:
    code = "import inspector; inspector.from_program()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "drgn has no program open" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_need_nothing_else(script: Path) -> None:
    named = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
        for node in ast.walk(ast.parse(script.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert "inspector" in named
    assert named - set(sys.stdlib_module_names) <= {"inspector", "drgn", "numpy"}


@pytest.mark.parametrize(
    ("script", "words", "shown"),
    [
        ("check", [], "consistent"),
        pytest.param("folio", ["0x7200"], "folio 0x7200, order 9: 512 mappings\n", marks=pytest.mark.long),
        ("folio", ["0xffffffff"], "no memory of this target has that"),
        pytest.param("mapcounts", [], "\nanon         9", marks=pytest.mark.long),
    ],
)
def test_scripts_run_under_drgn(script: str, words: list[str], shown: str, core: Callable[[str], str]) -> None:
    path = next(path for path in SCRIPTS if path.stem == script)
    command = [str(DRGN), "-q", "-c", core("7.3"), str(path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_examples_of_the_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = doctest.testfile(str(ROOT / "inspector/manual/python.md"), module_relative=False)
    assert done.attempted > 10
    assert done.failed == 0


def test_tables_in_every_form(any_core: str) -> None:
    kernel = inspector.open_core(any_core)
    assert isinstance(kernel, inspector.Target)
    assert set(TABLES) <= {*dir(kernel.tables)}
    for name, table in kernel.tables.items():
        columns, arrow = table.numpy(), table.arrow()
        assert [*columns] == arrow.column_names == [*table], name
        assert {len(column) for column in columns.values()} == {len(table)} == {arrow.num_rows}, name
        assert name in repr(table)
    assert kernel.tables.pages["pfn"][-1] == kernel.snapshot.layout.memmap.max_pfn - 1
    assert (kernel.tables.tasks.arrow()["comm"][0].as_py(), kernel.tables.tasks["pid"][0]) == ("keeper", 1)
    with pytest.raises(KeyError, match="mms has no column 'nonsense'"):
        kernel.tables.mms["nonsense"]
    with pytest.raises(AttributeError, match="there is no table 'nonsense'"):
        kernel.tables.nonsense  # noqa: B018
    again = kernel.look_again()
    assert again.snapshot is not kernel.snapshot
    assert kernel.check(["mapcount-too-low"]).findings == again.check(["mapcount-too-low"]).findings == []


@pytest.mark.parametrize("form", ["pandas", "polars"])
def test_tables_of_packages_that_are_extras(form: str, core: Callable[[str], str]) -> None:
    table = inspector.open_core(core("6.12")).tables.mms
    if importlib.util.find_spec(form) is None:
        with pytest.raises(
            inspector.UsageError, match=rf"^{form} is not installed. pip install 'folioscope\[{form}\]'"
        ):
            getattr(table, form)()
    else:
        assert [*getattr(table, form)().columns] == [*table.columns]
