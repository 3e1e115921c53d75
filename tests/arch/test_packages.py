"""Wheel and sdist are built, installed in clean environments, and work there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import packages

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("version", "installer"), [(HERE, "uv"), ("3.12", "pip"), ("3.13", "pipx")])
def test_what_is_installed_works(version: str, installer: str, tmp_path: Path) -> None:
    """One installer on each of three versions of Python, where this machine has them."""
    expected = "works" if packages.python_of(version) else "no such Python here"
    assert packages.try_all(tmp_path, [version], [installer]) == {version: {installer: expected}}


@pytest.mark.whole
@pytest.mark.timeout(1800)
def test_every_installer_on_every_python(tmp_path: Path) -> None:
    found = packages.try_all(tmp_path, packages.PYTHONS, tuple(packages.INSTALLERS))
    assert {cell for row in found.values() for cell in row.values()} <= {"works", "no such Python here"}
    assert found[HERE]["pip"] == "works"
