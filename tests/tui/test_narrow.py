"""Screens at 40 columns and 10 lines, and what belongs together on a line."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len

from inspector.coverage import lost_words
from inspector.folio.account import account_of
from inspector.report.explain import explain_account
from inspector.report.hugetlb import build_hugetlb_report
from inspector.report.pages import build_place
from inspector.report.rmap import build_rmap
from inspector.text import clean
from inspector.walk.kinds import KINDS
from inspector.walk.page_numbers import NumberMeaning
from tests.tui.driving import at, lines, press, session_of, settle, snapshot_of, text
from tests.tui.scenes import broken, places
from tui.palette import COMMANDS
from tui.places import FindingsPlace, OverviewPlace, ProcessesPlace, SubjectPlace, VmaPlace
from tui.views.map import MODES, build_layer
from tui.views.overview import top_processes
from tui.views.strip import LEGEND
from tui.views.subjects import SUBJECTS
from tui.widgets.column_table import ColumnTable

SMALL = (40, 10)
SCENES = (
    *("overview", "findings", "finding", "rule", "processes", "mm", "vma", "folios", "folio", "rmap", "anon_vma"),
    *("file", "memory", "more", "slot", "memory-list", *(name for name in SUBJECTS if name != "memory")),
)


def test_all_are_tried() -> None:
    assert set(SCENES) == set(places(broken("mapcount")))


@pytest.mark.parametrize("name", SCENES)
async def test_forty_columns(name: str) -> None:
    """The verdict is whole, one sees where one is, and help is offered."""
    session = broken("mapcount")
    place = places(session)[name]
    async with at(session, place, SMALL) as pilot:
        shown = lines(pilot)
        here = clean(session.crumb(place))
        assert shown[0].rstrip().endswith("✗ 1 finding")
        assert here in shown[1] or ("…" in shown[1] and shown[1].rstrip().endswith(here[-20:]))
        assert "? Help" in shown[-1]
        assert all(cell_len(line) == SMALL[0] for line in shown)
        # At this width nothing of the keys is cut.
        assert shown[-1] != shown[-1].rstrip() or not shown[-1].endswith(tuple("abcdefghijklmnopqrstuvwxyz"))


async def test_keys_come_back_when_there_is_room() -> None:
    async with at(session_of("7.3"), OverviewPlace(), SMALL) as pilot:
        assert "q Quit" not in lines(pilot)[-1] or "g Jump" in lines(pilot)[-1]
        await pilot.resize_terminal(100, 24)
        await settle(pilot)
        assert "g Jump" in lines(pilot)[-1]
        assert "? Help" in lines(pilot)[-1]
        assert "q Quit" in lines(pilot)[-1]


@pytest.mark.parametrize("columns", [48, 62, 71, 80, 97])
async def test_a_name_stays_with_its_value(columns: int) -> None:
    session = broken("mapcount")
    vma = places(session)["vma"]
    assert isinstance(vma, VmaPlace)
    async with at(session, vma, (columns, 24)) as pilot:
        shown = text(pilot)
        vmas = session.snapshot.vmas
        assert f"pgoff {int(vmas.pgoff[vma.vma_idx]):#x}" in shown
        assert f"vma {int(vmas.addr[vma.vma_idx]):#x}" in shown
        assert f"anon_vma {int(vmas.anon_vma[vma.vma_idx]):#x}" in shown


@pytest.mark.parametrize("name", ["folio", "rmap", "file", "anon_vma", "mm"])
@pytest.mark.parametrize("columns", [57, 80])
async def test_titles_end_between_words_that_belong_together(name: str, columns: int) -> None:
    session = broken("mapcount")
    async with at(session, places(session)[name], (columns, 24)) as pilot:
        for line in lines(pilot)[2:6]:
            assert not line.rstrip().endswith((" order", " inode", " root", " mm", " address_space", " KiB,", "rmap"))


async def test_an_empty_list_says_why() -> None:
    """A VMA of which nothing is mapped."""
    session = session_of("7.3")
    s = session.snapshot
    used = {*s.mappings.vma_idx.tolist(), *s.nonpresent.vma_idx.tolist()}
    row = next(i for i in range(len(s.vmas)) if i not in used)
    async with at(session, VmaPlace(int(s.vmas.mm_idx[row]), row)) as pilot:
        assert "no page of it is mapped" in text(pilot)


async def test_what_has_the_focus_is_seen() -> None:
    """The overview of a low terminal begins with the findings."""
    async with at(broken("mapcount"), OverviewPlace(), SMALL) as pilot:
        assert "✗ fail" in text(pilot)
    async with at(session_of("7.3"), OverviewPlace(), SMALL) as pilot:
        assert "✓ consistent" in "\n".join(lines(pilot)[2:])


@pytest.mark.parametrize("mode", MODES)
def test_every_glyph_has_one_meaning(mode: str) -> None:
    """Also in capitals, which fuller cells have."""
    look = build_layer(snapshot_of("7.3"), mode).look
    glyphs = look.glyphs if look.worst else look.glyphs.upper()
    assert len(set(glyphs)) == len(glyphs) == len(look.labels)
    if mode == "kind":
        assert look.labels == KINDS


def test_the_strip_too() -> None:
    assert len({glyph for glyph, _, _ in LEGEND}) == len(LEGEND)


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_hugetlb_folios_have_a_node(kernel: str) -> None:
    """Folios in use of each node are what its pool has and does not have free."""
    report = build_hugetlb_report(snapshot_of(kernel))
    assert report.folios
    for size in report.sizes:
        for node in size.nodes:
            used = [f for f in report.folios if f.order == size.order and f.where == "in use" and f.node == node.node]
            assert len(used) == node.nr - node.free


def test_an_address_space_without_a_task_is_called_by_its_address() -> None:
    s = snapshot_of("7.3")
    rows = top_processes(s, len(s.mms))
    names = [rows.values(row)[1] for row in range(len(rows))]
    assert "no task" not in names
    for mm in s.mms.addr[s.mms.pid < 0].tolist():
        assert f"mm {mm:#x}" in names


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("tasks", "1 task"),
        ("per-CPU batches", "1 per-CPU batch"),
        ("holders of mms", "1 holder of mms"),
        ("files and address_spaces", "1 file or address_space"),
        ("KSM nodes and items", "1 KSM node or item"),
        ("VMA tree nodes", "1 VMA tree node"),
    ],
)
def test_one_that_is_missing(kind: str, one: str) -> None:
    assert lost_words({kind: 1, "struct pages": 2000}) == [one, "2,000 struct pages"]
    assert lost_words({kind: 2}) == [f"2 {kind}"]


def test_titles_of_a_list_differ() -> None:
    """A filter goes by them."""
    s = snapshot_of("7.3")
    for subject in SUBJECTS.values():
        report = subject.build(s)
        for listed in subject.tables:
            titles = [column(listed.rows(report)).column.title for column in listed.columns]
            assert len(set(titles)) == len(titles)


async def test_a_subject_begins_with_a_list_that_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are a key away."""
    ksm = SUBJECTS["ksm"]
    nodes, processes = ksm.tables
    monkeypatch.setitem(SUBJECTS, "ksm", replace(ksm, tables=(replace(nodes, rows=lambda _report: ()), processes)))
    async with at(session_of("7.3"), SubjectPlace("ksm")) as pilot:
        assert "no rows" not in text(pilot)
        await press(pilot, "v")
        assert "no rows" in text(pilot)


async def test_findings_at_fifty_columns() -> None:
    """What was seen stays in sight, the other columns come by arrows, and letters move as in vi."""
    session = broken("mapcount")
    async with at(session, FindingsPlace(), (50, 24)) as pilot:
        assert "→" in lines(pilot)[2]
        assert "about" not in lines(pilot)[2]
        await press(pilot, "right")
        assert "about" in lines(pilot)[2]
        await press(pilot, "left", "s")
        assert lines(pilot)[3].split()[1:3] == ["1", "·"]
        await press(pilot, "k", "s")
        assert "·" not in lines(pilot)[3]
    async with at(session, ProcessesPlace()) as pilot:
        table = pilot.app.screen.query_one("#processes", ColumnTable)
        await press(pilot, "j", "j", "k")
        assert table.cursor == 1


async def test_the_palette_keeps_to_lines() -> None:
    async with at(session_of("7.3"), OverviewPlace()) as pilot:
        for name in COMMANDS:
            assert len(name) + 6 < pilot.app.size.width - 4


def test_one_chain_is_called_so() -> None:
    """In the steps of an rmap walk and in what the kernel would do."""
    s = snapshot_of("7.3")
    rows = np.flatnonzero(
        s.pages.is_anon(np.arange(len(s.pages))) & (s.counts.page_mappings == 1) & (s.pages.refcount == 1)
    )
    said = set()
    for pfn in s.pages.memmap.pfns_of_rows(rows[:20]).tolist():
        place = build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
        steps = build_rmap(s, place).steps
        said |= {value for name, value in steps.items() if name == "interval tree"}
        said |= {d.reason for d in explain_account(account_of(s, pfn), place, limit=1, check=False).decisions}
    assert any(words.startswith("1 chain,") for words in said)
    assert not [words for words in said if re.match("1 (chains|references|VMAs)", words)]
