"""A page whose references are gone while it is mapped: no view says less than the finding."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import inspector.cli.opening
from inspector.check.run import run_check
from inspector.target.target import Target, open_core
from tests.cli.conftest import Run
from tests.cli.planting import plant_virtual
from tests.faults.overlay import page_word, pfn_of, planted, put, sound
from tests.faults.plants import small_anon, small_file
from tests.tui.driving import at, text
from tui.places import FolioPlace, RmapPlace
from tui.session import Session


def place(path: str, kind: str) -> tuple[int, int]:
    """Page frame of a mapped page, and the address of its reference count."""
    s = sound(path)
    row = int((small_anon(s, 1) if kind == "anon" else small_file(s, 2))[5])
    return pfn_of(s, row), page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount")


@pytest.mark.parametrize("kind", ["anon", "file"])
def test_every_command_shows_the_entry_that_may_not_be_there(
    kind: str, run: Run, any_core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pfn, word = place(any_core, kind)

    def opener(core: str, *_: object, **__: object) -> Target:
        target = open_core(core, types="btf")
        plant_virtual(target, word, bytes(4))
        return target

    monkeypatch.setattr(inspector.cli.opening, "open_core", opener)

    def asked(*words: str) -> str:
        result = run(*words, "-c", any_core, "--no-cache")
        assert result.code == 1, words
        return " ".join(result.out.split())

    checked = asked("check")
    assert "free-page-mapping-unexpected" in checked
    assert "diagnosis: early free" in checked
    entries = 1 if kind == "anon" else len(sound(any_core).mappings_of(pfn, 1))
    for everything in ((), ("--all",)):
        for command in ("folio", "explain"):
            found = asked(command, *everything, hex(pfn))
            assert "may not map it" in found
            assert "[free]" in found
            assert "leak: a mapping is counted" not in found
            assert "looks like" not in found
        assert "(early free)" in found
        walked = asked("rmap", *everything, hex(pfn))
        assert "[free]" in walked
        assert "may not map it: the folio is free." in walked
        assert kind == "file" or "holds another page" not in walked
        report = run("rmap", *everything, hex(pfn), "-c", any_core, "--no-cache", "--format", "json").object
        assert report["rejected"] == report["by_tables"] == report["by_walk"] == entries
    assert "diagnosis: early free" in asked("explain", "--all", hex(pfn))


async def test_the_interface_shows_it(core: Callable[[str], str]) -> None:
    path = core("7.3")
    pfn, word = place(path, "anon")
    s = planted(path, put(sound(path), word, 0, 4))
    session = Session(s, run_check(s))
    async with at(session, FolioPlace(pfn), (140, 45)) as pilot:
        shown = text(pilot)
        assert "[free]" in shown
        assert "leak" not in shown
    async with at(session, RmapPlace(pfn), (140, 45)) as pilot:
        shown = text(pilot)
        assert "≠ 1 entry that may not map it" in shown
        assert "[free]" in shown
