"""Wheel and sdist are built, installed in clean environments, and work there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import packages

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.long
def test_what_is_installed_works(tmp_path: Path) -> None:
    assert packages.try_all(tmp_path, [HERE], ["uv"]) == {HERE: {"uv": "works"}}


@pytest.mark.whole
@pytest.mark.timeout(1800)
def test_every_installer_on_every_python(tmp_path: Path) -> None:
    found = packages.try_all(tmp_path, packages.PYTHONS, tuple(packages.INSTALLERS))
    assert {cell for row in found.values() for cell in row.values()} <= {"works", "no such Python here"}
    assert found[HERE]["pip"] == "works"
