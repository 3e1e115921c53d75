"""A file is there whole under its name, or what was there before still is."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.new_file import new_file


@pytest.mark.parametrize("is_beside", [True, False])
def test_it_gets_its_name_at_the_end(is_beside: bool, tmp_path: Path) -> None:
    path, other = tmp_path / "name", tmp_path / "folder"
    other.mkdir()
    path.write_bytes(b"old")
    with new_file(path, None if is_beside else other) as (file, part):
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert part.parent == (tmp_path if is_beside else other)
    assert path.read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "name"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_begun_is_gone(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "name"
    path.write_bytes(b"old")
    with pytest.raises(error), new_file(path) as (file, _):
        file.write(b"new")
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("name", b"old")]


def test_a_private_one_is_its_owners_alone(tmp_path: Path) -> None:
    with new_file(tmp_path / "name", is_private=True):
        pass
    assert (tmp_path / "name").stat().st_mode & 0o777 == 0o600
