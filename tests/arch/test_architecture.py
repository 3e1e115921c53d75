"""ARCHITECTURE.md names the rooms that exist, in the order of the import contract, and files that are there."""

from __future__ import annotations

import re
import tomllib

from setuptools import find_namespace_packages

from tests.arch.docs import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def _rooms() -> list[list[str]]:
    """The rows of the table of rooms."""
    table = TEXT.partition("| room | owns |\n| --- | --- |\n")[2].partition("\n\n")[0]
    return [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()]


def test_rooms_are_the_packages_that_exist() -> None:
    inspector = ROOT / "inspector"
    packages = {path.parent.name for path in inspector.glob("*/__init__.py")}
    modules = {path.stem for path in inspector.glob("*.py")} - {"__init__", "__main__"}
    named = [room for row in _rooms() for room in row]
    assert sorted(named) == sorted({*packages, *modules, "tui"})


def test_rooms_are_in_the_order_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    contract = [{name.strip() for name in layer.split("|")} for layer in layers if layer != "__main__"]
    assert [set(row) for row in _rooms() if row != ["tui"]] == contract


def test_files_named_exist() -> None:
    named = set(re.findall(r"`((?:inspector|tui|tests|scripts)/[\w./]*)`", TEXT))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_nothing_else_is_at_the_top_of_an_installation() -> None:
    """The packages that a build takes; the scripts are within one of ours."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]["find"]
    packages = find_namespace_packages(str(ROOT), **settings)
    assert {name.partition(".")[0] for name in packages} == {"inspector", "tui"}
    assert "inspector.scripts" in packages
    assert (ROOT / "inspector/scripts").resolve() == ROOT / "scripts"
