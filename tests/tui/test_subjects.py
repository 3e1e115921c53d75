"""The interface browses everything: each command's subject has a screen, and what is asked is a few keys away."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest

from inspector.check.run import run_check
from inspector.cli import COMMANDS
from inspector.hex_json import encode_json
from inspector.report.notifiers import NotifiedMm, NotifiersReport
from tests.faults.overlay import add, planted, sound
from tests.faults.plants import folio_at, head_field, pmd_mapped
from tests.fixtures import fixture_path
from tests.tui.driving import at, lines, press, session_of, text
from tests.tui.scenes import LARGE
from tui.export import write_report
from tui.jump import goals
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FindingsPlace,
    FolioPlace,
    MemoryPlace,
    MmPlace,
    OverviewPlace,
    Place,
    ProcessesPlace,
    RmapPlace,
    RulePlace,
    SubjectPlace,
    VmaPlace,
)
from tui.session import Session
from tui.views.subjects import SUBJECTS, table_rows

PATH = str(fixture_path("7.3"))

NO_SUBJECT = {"capture", "tui", "cache", "scripts", "manual", "help", "watch", "guard", "batch", "report", "doctor"}
"""Commands that do something, or are about this program and this machine."""

TWO_TARGETS = {"compare"}
"""A screen is of one target."""

ASKED = {"what"}
"""What it answers, the line that leads to a place answers (`tui.jump`)."""

SHOWN_BESIDE = {"folio": FolioPlace, "explain": FolioPlace}
"""Two commands about one thing."""


def test_every_commands_subject_has_a_screen() -> None:
    session = session_of("7.3")
    some: list[Place] = [
        *(OverviewPlace(), FindingsPlace(), ProcessesPlace(), RulePlace("mapcount-too-low"), MemoryPlace(LARGE)),
        *(MmPlace(3), VmaPlace(3, 3), FolioPlace(LARGE), RmapPlace(LARGE), AnonVmaPlace(1 << 63), FilePlace(1 << 63)),
        *(SubjectPlace(name) for name in SUBJECTS),
    ]
    shown = {session.command(place).split(PATH)[-1].split()[0] for place in some}
    assert shown | set(SHOWN_BESIDE) == set(COMMANDS) - NO_SUBJECT - TWO_TARGETS - ASKED


@pytest.mark.parametrize("name", SUBJECTS)
async def test_every_subject_opens_and_its_rows_lead_on(name: str) -> None:
    session = session_of("7.3")
    async with at(session, SubjectPlace(name)) as pilot:
        for _ in SUBJECTS[name].tables:
            shown = lines(pilot)
            assert "This cannot be shown" not in "\n".join(shown)
            assert all(len(line) <= 80 for line in shown)
            await press(pilot, "v")
    report = SUBJECTS[name].build(session.snapshot)
    for listed in SUBJECTS[name].tables:
        rows, shown_rows = table_rows(listed, report)
        assert len(shown_rows) == len(rows)
        for i in range(min(len(rows), 5)):
            assert all(isinstance(value, (int, str, type(None))) for value in shown_rows.values(i))
            shown_rows.place(i)


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_is_exported_as_its_command_prints_it(name: str, tmp_path: Path) -> None:
    subject = SUBJECTS[name]
    report = subject.build(session_of("7.3").snapshot)
    for form in ("txt", "json"):
        write_report(subject.render, report, tmp_path / f"x.{form}", form)
    assert (tmp_path / "x.txt").read_text().strip()
    assert json.loads((tmp_path / "x.json").read_text())["schema"].startswith("folioscope.")


@pytest.mark.parametrize(
    ("words", "name"), [("cpu", "cpus"), ("thp", "mthp"), ("leak", "references"), ("zram", "swap")]
)
def test_words_for_screens(words: str, name: str) -> None:
    assert SubjectPlace(name) in [goal.place for goal in goals(session_of("7.3"), words)]


KEYS = {
    "who leaked this THP": ("6", "end", "enter"),
    "why is the refcount 5": ("4", "enter", "pagedown"),
    "who maps this file": ("6", "down", "enter", "enter"),
    "where did the memory go": ("5",),
    "which processes have partly mapped THPs, and how much they waste": ("3", "S", "e"),
    "which sizes of large folios are mapped in part": ("6", "down", "down", "enter"),
    "what was CPU 1 doing": ("6", "enter", "down"),
}
"""Keys at 80x24 from the overview."""

SHOWS = {
    "who leaked this THP": ("anon", "explained", "likeliest", f"{1 << 9}"),
    "why is the refcount 5": ("_refcount", "page-table entries"),
    "who maps this file": ("mapped by", "pid"),
    "where did the memory go": ("free 393M", "anon 68M", "page table"),
    "which processes have partly mapped THPs, and how much they waste": ("thp-partial", "404K", "wasted▼"),
    "which sizes of large folios are mapped in part": ("thp-partial", "404K", "partly mapped", "wasted"),
    "what was CPU 1 doing": ("1     0  swapper/1  idle",),
}


@lru_cache(maxsize=1)
def _leaked() -> Session:
    """A THP with many references too many."""
    s = sound(PATH)
    folio = int(pmd_mapped(s, anon=True)[0])
    snapshot = planted(PATH, add(s, folio_at(s, folio, head_field(s, "_refcount.counter", "_refcount")), 1 << 9, 4))
    return Session(snapshot, run_check(snapshot))


@pytest.mark.parametrize("question", KEYS)
async def test_a_question_is_a_few_keys_away(question: str) -> None:
    keys = KEYS[question]
    assert len(keys) <= 4
    session = _leaked() if question == "who leaked this THP" else session_of("7.3")
    async with at(session, OverviewPlace(), (80, 24)) as pilot:
        await press(pilot, *keys)
        seen = text(pilot)
        for words in SHOWS[question]:
            assert words in seen, words + seen


def test_the_questions_are_in_the_documentation() -> None:
    names = {"enter": "Enter", "down": "↓", "end": "End", "pagedown": "PgDn"}
    page = (Path(__file__).parents[2] / "docs/tui.md").read_text("utf-8")
    for question, keys in KEYS.items():
        assert f"| {question} | {' '.join(f'`{names.get(key, key)}`' for key in keys)} |" in page, question


def test_a_damaged_counter_of_64_bits_is_shown_whole() -> None:
    mms = [NotifiedMm(1, "a", 0x1000, 0x2000, 1, 0, number, has_intervals=True) for number in (3, (1 << 64) - 2, 0)]
    report = NotifiersReport("folioscope.notifiers/1", known=True, notifiers=[], mms=mms, unreadable=0)
    _, rows = table_rows(SUBJECTS["notifiers"].tables[1], report)
    column = next(field for field in rows.fields if field.name == "sequence")
    assert [column.written(row) for row in range(3)] == ["3", f"{(1 << 64) - 2:,}", ""]
    rows.sort(rows.fields.index(column), descending=True)
    assert [rows.row(nr) for nr in range(3)] == [1, 0, 2]
    assert json.loads(encode_json(mms[1]))["sequence"] == hex((1 << 64) - 2)
