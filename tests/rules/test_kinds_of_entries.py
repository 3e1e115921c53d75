"""Leaf entries and links by kind: the compiled loops and NumPy give the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest

from inspector import loops
from inspector.columns import Table
from inspector.loops import is_compiled
from inspector.snapshot import Snapshot
from inspector.walk.batches import Kinds
from inspector.walk.linear import LinkKinds, link_kinds, links_of
from tests.faults.overlay import KERNELS, core_path, sound


@pytest.fixture(params=KERNELS)
def s(request: pytest.FixtureRequest) -> Iterator[Snapshot]:
    yield sound(core_path("fixture", request.param))


@pytest.fixture
def numpy_alone(s: Snapshot) -> Iterator[pytest.MonkeyPatch]:
    """What is built before is built by either."""
    assert s.page_index.all_known
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_COMPILED", None)
        yield patch


def columns(table: Table) -> dict[str, list[int]]:
    return {each.name: getattr(table, each.name).tolist() for each in fields(table)}


def of_links(kinds: LinkKinds) -> list[object]:
    some = np.arange(len(kinds.nr)) % 3 == 1
    return [
        columns(kinds.examples),
        kinds.nr.tolist(),
        columns(kinds.links(some)),
        columns(kinds.links(some & False)),
        columns(kinds.links(some | True)),
    ]


def test_runs_are_sorted_alike(s: Snapshot, numpy_alone: pytest.MonkeyPatch) -> None:
    m = s.mappings
    expected = Kinds.of(s, m)
    numpy_alone.undo()
    found = Kinds.of(s, m)
    assert columns(found.m) == columns(expected.m)
    for name in ("kind", "runs", "entries", "alike"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    assert not found.alike.all()


def test_links_are_sorted_alike(s: Snapshot, numpy_alone: pytest.MonkeyPatch) -> None:
    m = s.mappings
    expected = of_links(link_kinds(s, m))
    numpy_alone.undo()
    kinds = link_kinds(s, m)
    assert of_links(kinds) == expected
    assert columns(kinds.links(kinds.nr > 0)) == columns(links_of(s, m))


@pytest.mark.skipif(not is_compiled(), reason="the extension is not built: its tables have no room to run out of")
def test_more_kinds_than_there_is_room_for(s: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    m = s.mappings
    kinds, links = Kinds.of(s, m), of_links(link_kinds(s, m))
    monkeypatch.setattr(loops, "_FEW_KINDS", 1)
    assert Kinds.of(s, m).entries.tolist() == kinds.entries.tolist()
    assert of_links(link_kinds(s, m)) == links


def test_no_runs_are_of_no_kind(s: Snapshot) -> None:
    none = s.mappings.take(slice(0))
    assert not len(Kinds.of(s, none).m)
    assert not len(link_kinds(s, none).nr)
