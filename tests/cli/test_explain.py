"""explain as people and programs see it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

import inspector.cli.opening
from inspector.snapshot import Snapshot
from tests.cli.conftest import Run
from tests.cli.planting import raised_mapcount
from tests.cli.test_commands import schema_of
from tests.faults.overlay import pfn_of, sound
from tests.folio.kinds import KINDS


def test_a_sound_folio(run: Run, any_core: str) -> None:
    s = sound(any_core)
    pfn = KINDS["thp by pmd"](s)
    text = run("explain", hex(pfn), "-c", any_core)
    assert (text.code, text.err) == (0, "")
    assert "\nverdict  consistent\n" in text.out
    assert "found by its reverse map; --all walks" in text.out
    assert text.out.endswith("--all runs them.\n")
    proven = run("explain", hex(pfn), "--all", "-c", any_core)
    assert (proven.code, proven.err) == (0, "")
    assert proven.out.endswith("\nverdict  consistent\n")
    assert "counted over all page tables" in proven.out
    assert "what the kernel would do now" in text.out
    found = run("explain", hex(s.layout.memmap.page_addr(pfn)), "-c", any_core, "--format", "json").object
    jsonschema.validate(found, schema_of(run, "explain"))
    assert (found["place"]["taken_for"], found["head"]["pfn"]) == ("page", pfn)
    assert len(found["mappings"]) == found["mapping_rows"]
    assert found["references"]["unexplained"] == 0


def test_long_lists_of_mappings_are_cut_and_can_be_had_whole(run: Run, any_core: str) -> None:
    s = sound(any_core)
    pages = s.counts.page_mappings.copy()
    pages[s.folio_of_page >= 0] = 0
    pfn = hex(pfn_of(s, int(pages.argmax())))
    cut = run("explain", pfn, "--no-check", "--all", "-c", any_core).out
    whole = run("explain", pfn, "--no-check", "--all", "--limit", "0", "-c", any_core).out
    assert "more; --limit 0 lists all" in cut
    assert "--limit" not in whole
    assert len(whole.splitlines()) > len(cut.splitlines())
    assert len(run("explain", pfn, "--no-check", "--limit", "3", "-c", any_core).out.splitlines()) < 60


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_broken_folio(run: Run, any_core: str, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    broken = raised_mapcount(any_core)
    monkeypatch.setattr(inspector.cli.opening, "open_core", broken)
    s, sound_one = Snapshot(broken(any_core)), sound(any_core)
    pfn = int(s.pages.memmap.pfns_of_rows((s.pages.mapcount_raw != sound_one.pages.mapcount_raw).nonzero()[0])[0])
    left_open = run("explain", hex(pfn), "-c", any_core, "--format", form)
    assert (left_open.code, left_open.err) == (4, "")
    result = run("explain", hex(pfn), "--all", "-c", any_core, "--format", form)
    assert (result.code, result.err) == (1, "")
    if form == "text":
        assert "not checked  _mapcount + 1 = PTE 1 = 1" in left_open.out
        assert "the reverse map leads to fewer" in left_open.out
    if form == "text":
        assert "WRONG        _mapcount + 1 = PTE 1 = 1, stored 2" in result.out
        assert "mapcount-too-high" in result.out
        return
    wrong: list[dict[str, Any]] = [x for x in result.object["ledger"] if x["verdict"] == "WRONG"]
    assert [(x["counter"], x["stored"], x["expected"]) for x in wrong] == [("_mapcount", 1, 0)]
    assert [x["rule"] for x in result.object["findings"]] == ["mapcount-too-high"]


def test_references_of_all_folios(run: Run, any_core: str) -> None:
    found = run("references", "-c", any_core, "--format", "json").object
    assert found["pins"] == found["pins_counted"] > 0
    assert found["exact"] + found["left_folios"] == found["folios"]
    assert (
        sum(x["references"] for x in found["terms"]) + sum(x["unexplained"] for x in found["left"])
        == (found["references"])
    )
    assert [x["unexplained"] for x in found["left"]] == [1, 1]
    assert any("dump_user_range()" in x["likeliest"] for x in found["left"])
    assert len(run("references", "--limit", "1", "-c", any_core, "--format", "json").object["left"]) == 1
    text = run("references", "--limit", "1", "-c", any_core).out
    assert "are explained to the last reference." in text
    assert text.endswith("... and 1 more; --limit 0 lists all\n")
