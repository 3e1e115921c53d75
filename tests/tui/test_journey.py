"""From a broken vmcore to its finding, folio, reverse map and VMA, and back, in six keystrokes or fewer each way."""

from __future__ import annotations

import pytest

from inspector.snapshot import Snapshot
from tests.cli.planting import raised_mapcount
from tests.conftest import SIZES
from tests.fixtures import fixture_path
from tests.tui.driving import press, settle, text
from tui.app import FolioscopeApp
from tui.places import FindingPlace, FolioPlace, OverviewPlace, RmapPlace, VmaPlace
from tui.session import Session

PATH = str(fixture_path("7.3"))
THERE = ("enter", "enter", "x", "enter")
BACK = ("backspace",) * 4


def opened() -> Snapshot:
    return Snapshot(raised_mapcount(PATH)(PATH))


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "140x45"])
async def test_from_the_overview_to_the_vma_behind_a_finding_and_back(size: tuple[int, int]) -> None:
    assert len(THERE) <= 6
    assert len(BACK) <= 6
    app = FolioscopeApp(Session(opener=opened))
    async with app.run_test(size=size) as pilot:
        for _ in range(3):
            await settle(pilot)
        await pilot.pause(0.25)
        finding = app.session.findings[0]
        pfn, mapping = finding.subject.pfn, finding.evidence.mappings[0]
        assert pfn is not None

        await press(pilot, *THERE)

        places = [place for place, _ in app.history]
        assert places[:4] == [OverviewPlace(), FindingPlace(0), FolioPlace(pfn), RmapPlace(pfn)]
        vma = places[4]
        assert isinstance(vma, VmaPlace)
        s = app.session.snapshot
        assert s.vmas.start[vma.vma_idx] <= mapping.va < s.vmas.end[vma.vma_idx]
        assert int(s.mms.addr[vma.mm_idx]) == mapping.mm
        assert f"{int(s.vmas.start[vma.vma_idx]):#x}" in text(pilot)

        await press(pilot, *BACK)
        assert app.at == 0
        assert app.screen is app.current
        assert "mapcount-too-high" in text(pilot)
