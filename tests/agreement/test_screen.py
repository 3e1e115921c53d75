"""The folio screen and the command line: one verdict on work in flight, and the command that shows the same."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from inspector.report.explain import build_explanation
from inspector.report.folio import build_folio
from inspector.report.pages import build_place
from inspector.snapshot import Snapshot
from inspector.walk.page_cache import CachedFolios, cached_folios
from inspector.walk.page_numbers import NumberMeaning
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, Patch, add, core_path, flags_xor, pfn_of, planted, sound, without_stacks
from tests.faults.plants import mapcount_at, pick, small_anon
from tui.places import FolioPlace, RmapPlace
from tui.screens.folio import FolioScreen
from tui.screens.rmap import RmapScreen
from tui.session import Session


def locked_and_counted(kernel: str) -> tuple[int, tuple[Patch, Patch]]:
    """A private page that is locked and counts one mapping too many."""
    s = sound(core_path("fixture", kernel))
    row = pick(small_anon(s, 1), "a private page", 7)
    pfn = pfn_of(s, row)
    return pfn, (add(s, mapcount_at(s, row), 1, 4), flags_xor(s, pfn, "locked"))


def verdicts(s: Snapshot, pfn: int) -> set[str]:
    """On the ``_mapcount`` of a small page, by every view."""
    place = build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    screen = FolioScreen(Session(s), FolioPlace(pfn)).load()
    short = build_folio(s, place).counters
    out: set[str] = {x.verdict for x in short if x.name == "_mapcount"}
    for ledger in (screen.explanation.ledger, build_explanation(s, pfn).ledger):
        out |= {x.verdict for x in ledger if x.counter == "_mapcount"}
    assert screen.pages.wrong.tolist() == [out == {"WRONG"}]
    return out


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_locked_folio_is_in_flight_in_every_view(kernel: str) -> None:
    pfn, patches = locked_and_counted(kernel)
    s = without_stacks(core_path("fixture", kernel), *patches)
    (finding,) = run_check(s).findings
    assert (finding.severity, finding.exactness) == ("info", "transient")
    assert verdicts(s, pfn) == {"in flight"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_lock_that_no_task_in_a_window_holds_explains_nothing(kernel: str) -> None:
    pfn, patches = locked_and_counted(kernel)
    s = planted(core_path("fixture", kernel), *patches)
    (finding,) = run_check(s).findings
    assert (finding.rule, finding.severity) == ("mapcount-too-high", "fail")
    assert verdicts(s, pfn) == {"WRONG"}


def test_the_screen_names_the_command_that_shows_the_same() -> None:
    assert FolioPlace(0x5800).command == "explain 0x5800"
    assert RmapPlace(0x5800).command == "rmap 0x5800"


@pytest.mark.parametrize("kernel", KERNELS)
def test_both_views_of_a_folio_that_nothing_maps(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    cached = CachedFolios.concat(list(cached_folios(s)))
    head = int(next(r for r in cached.head_row[cached.is_head] if not s.counts.page_mappings[r]))
    data = RmapScreen(Session(s), RmapPlace(pfn_of(s, head))).load()
    assert (data.report.by_tables, data.report.agree) == (0, True)
    assert len(data.rows) == len(data.sides)


@pytest.mark.parametrize("kernel", KERNELS)
def test_names_with_an_underscore_are_the_kernels(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    structs = [s.layout.struct(name) for name in ("struct page", "struct folio")]
    fault = CATALOGUE["entire-mapcount-of-an-anon-thp-raised"](s)
    (finding,) = run_check(planted(path, *fault.patches)).findings
    name = next(iter(finding.observed))
    assert name == ("compound_mapcount" if kernel == "6.1" else "_entire_mapcount")
    assert any(struct.has(name) or struct.has(f"{name}.counter") for struct in structs)
