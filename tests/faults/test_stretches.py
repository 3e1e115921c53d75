"""Stretches of memory in which something else was written: one finding, and every other fault still found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check.run import run_check
from inspector.columns import I64
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.tables.overwritten import looks_like, shown
from inspector.walk.counts import EntryClass
from tests.faults.overlay import KERNELS, Patch, add, core_path, pfn_of, planted, sound
from tests.faults.plants import mapcount_at, pick, small_anon, small_file

RULE = "memory-stretch-damaged"

_TEXT = b"Nov 27 08:46:17 guest systemd[1]: Started Daily apt download activities.\n" * 64


def edits(name: str) -> list[Patch]:
    """A case of the field: lines `phys|virt ADDRESS HEXBYTES`."""
    lines = (Path(__file__).parent / "cases" / f"{name}.edits").read_text().splitlines()
    words = [line.split() for line in lines if not line.startswith("#")]
    return [Patch(int(address, 16), bytes.fromhex(data), kind == "phys") for kind, address, data in words]


def _told(report: Report) -> list[tuple[str, int | None]]:
    return sorted((f.rule, f.subject.pfn) for f in report.findings)


def _ghost(s: Snapshot, *avoid: int) -> tuple[Patch, tuple[str, int]]:
    """A mapping too many of an anonymous page, away from some page frames, and what must be found of it."""
    rows = small_anon(s, 1)
    far = np.all([np.abs(s.pages.memmap.pfns_of_rows(rows) - pfn) > 4096 for pfn in (0, *avoid)], axis=0)
    row = pick(rows[far], "a page elsewhere", 7)
    return add(s, mapcount_at(s, row), 1, 4), ("mapcount-too-high", pfn_of(s, row))


def _fullest(s: Snapshot, level: Level) -> int:
    """Row of the page table of a user's mm with the most entries of all of its level."""
    t, m = s.tables, s.mappings
    if level == Level.PTE:
        counted = m.counted & (m.entry_class == EntryClass.NORMAL) & (m.level == level)
        entries = np.bincount(m.table_idx[counted], m.nr[counted], len(t))
    else:
        entries = np.bincount(t.parent[t.parent >= 0], minlength=len(t)).astype(np.float64)
    wanted = (t.level == level) & t.first & (s.mms.users[t.mm_idx] > 0) & ~s.mm_in_motion[t.mm_idx]
    return int(np.where(wanted, entries, -1).argmax())


def _used_slot(s: Snapshot, table: int, nr: int) -> int:
    """A slot of a table that begins a line and so many entries, most of which are present."""
    words, _ = s.layout.memory.words(
        (np.uint64(s.tables.pfn[table]) << np.uint64(12)) + np.arange(512, dtype=np.uint64) * np.uint64(8),
        physical=True,
    )
    present = np.lib.stride_tricks.sliding_window_view(words & np.uint64(1), nr).sum(axis=1)[::8]
    return 8 * int(present.argmax())


def _page_of_pointers(s: Snapshot) -> bytes:
    """A page of VMAs."""
    data = s.layout.memory.read(int(s.vmas.addr[len(s.vmas) // 2]) & ~4095, 4096)
    assert data is not None
    return data


def _contents(s: Snapshot, what: str, size: int) -> bytes:
    other = int(s.tables.pfn[_fullest(s, Level.PMD)]) << 12
    whole = {
        "text": _TEXT,
        "zeros": bytes(4096),
        "pattern": b"\x6b" * 4096,
        "ones": b"\xff" * 4096,
        "pointers": _page_of_pointers(s),
        "table": s.layout.memory.read(other, 4096, physical=True) or b"",
    }
    return whole[what][:size]


_LOOKS = {
    "text": "text",
    "zeros": "zeros",
    "pattern": "one byte, 0x6b, again and again",
    "ones": "one byte, 0xff, again and again",
}


@pytest.mark.parametrize(
    ("name", "pfn", "where"),
    [
        ("table_overwritten.7.3", 0x247D, "entries 0 to 511 of a PTE page table"),
        ("memmap_scribble.7.3", 0x33C0, "struct pages 0x33c0 to 0x33df"),
    ],
)
def test_a_case_of_the_field_is_one_finding(name: str, pfn: int, where: str) -> None:
    path = core_path("fixture", "7.3")
    ghost, other = _ghost(sound(path), pfn)
    report = run_check(planted(path, *edits(name)))
    assert _told(report) == [(RULE, pfn)]
    assert report.findings[0].subject.name == where
    assert report.findings[0].evidence.facts["broke"]
    assert _told(run_check(planted(path, *edits(name), ghost))) == sorted([(RULE, pfn), other])


@pytest.mark.parametrize(
    ("what", "nr"), [("text", 8), ("zeros", 16), ("pattern", 64), ("ones", 16), ("pointers", 512), ("table", 512)]
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_entries_of_one_table_that_are_wrong_together_are_one_finding(kernel: str, what: str, nr: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    table = _fullest(s, Level.PTE)
    pfn, slot = int(s.tables.pfn[table]), _used_slot(s, table, nr)
    damage = Patch((pfn << 12) + 8 * slot, _contents(s, what, 8 * nr), physical=True)
    ghost, other = _ghost(s, pfn)
    report = run_check(planted(path, damage, ghost))
    assert _told(report) == sorted([(RULE, pfn), other])
    (found,) = (f for f in report.findings if f.rule == RULE)
    assert found.expected == {"holds": "page-table entries"}
    assert found.observed["holds"] == _LOOKS.get(what, found.observed["holds"])
    assert found.subject.pid is not None


@pytest.mark.parametrize("what", ["text", "pattern", "pointers"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_entries_of_an_upper_table_are_one_finding(kernel: str, what: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    table = _fullest(s, Level.PMD)
    pfn, slot = int(s.tables.pfn[table]), _used_slot(s, table, 16)
    damage = Patch((pfn << 12) + 8 * slot, _contents(s, what, 128), physical=True)
    ghost, other = _ghost(s, pfn)
    assert _told(run_check(planted(path, damage, ghost))) == sorted([(RULE, pfn), other])


def _mapped_pages(s: Snapshot) -> I64:
    """Rows of small file pages, the first of pages of struct pages where most are mapped."""
    rows = small_file(s, 1)
    blocks, numbers = np.unique(rows // 64, return_counts=True)
    return blocks[np.argsort(-numbers, kind="stable")] * 64


@pytest.mark.parametrize(
    ("what", "nr", "skip"),
    [("zeros", 64, 0), ("text", 3, 24), ("pattern", 32, 0), ("pointers", 16, 0), ("ones", 2, 0), ("table", 8, 0)],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_struct_pages_that_are_wrong_together_are_one_finding(kernel: str, what: str, nr: int, skip: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    first = pfn_of(s, int(_mapped_pages(s)[0]))
    damage = Patch(s.layout.memmap.page_addr(first) + skip, _contents(s, what, 64 * nr))
    ghost, other = _ghost(s, first)
    report = run_check(planted(path, damage, ghost))
    assert _told(report) == sorted([(RULE, first), other])
    (found,) = (f for f in report.findings if f.rule == RULE)
    assert found.expected == {"holds": "struct pages"}
    assert found.evidence.facts["bytes"] == 64 * (nr + (skip > 0))


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_beside_the_stretch_is_judged_as_before(kernel: str) -> None:
    """The next struct page behind it, in the same page of the memory map, has a mapping too many."""
    path = core_path("fixture", kernel)
    s = sound(path)
    rows = small_anon(s, 1)
    beside = rows[(rows % 64 >= 8) & (s.pages.readable[rows - rows % 64])]
    row = pick(beside, "a page behind others", 11)
    first = pfn_of(s, row - row % 64)
    damage = Patch(s.layout.memmap.page_addr(first), b"\x6b" * 256)
    report = run_check(planted(path, damage, add(s, mapcount_at(s, row), 1, 4)))
    assert _told(report) == sorted([(RULE, first), ("mapcount-too-high", pfn_of(s, row))])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(64), "zeros"),
        (b"\xaa" * 64, "one byte, 0xaa, again and again"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08" * 8, "one word, 0x807060504030201, again and again"),
        (_TEXT[:64], "text"),
        (b"/usr/lib/libc.so\0\0\0\0\0\0\0\0" * 2, "text"),
        (np.arange(0xFFFF888000001000, 0xFFFF888000001008, dtype=np.uint64).tobytes(), "pointers of the kernel"),
        ((np.arange(8, dtype=np.uint64) << np.uint64(12) | np.uint64(0x67)).tobytes(), "page-table entries"),
        (bytes(range(64)), "other data"),
    ],
)
def test_what_bytes_look_like(data: bytes, words: str) -> None:
    assert looks_like(data, None, None) == words
    assert looks_like(bytes(range(64)), data, bytes(range(64))) == "a copy of its neighbour"


def test_bytes_are_shown_without_control_characters() -> None:
    hexadecimal, text = shown(b"\x1b[31mred\x00\xff" + bytes(80))
    assert hexadecimal.startswith("1b5b33316d726564 00ff")
    assert text == ".[31mred" + 56 * "." + " ..."
