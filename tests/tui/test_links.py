"""Where findings of other kinds than pages lead."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from tests.faults.every import CATALOGUE
from tests.faults.overlay import core_path, planted, sound
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FolioPlace,
    MemoryPlace,
    MmPlace,
    RulePlace,
    SlotPlace,
    SubjectPlace,
    UserPlace,
    VmaPlace,
)
from tui.views.findings import links_of
from tui.views.links import text_links

LEADS = {
    "children-of-an-anon-vma-miscounted": [AnonVmaPlace, RulePlace],
    "swapped-pages-of-a-file-miscounted": [FilePlace, RulePlace],
    "vma-marked-as-detached": [VmaPlace, MmPlace, RulePlace],
    "rss-swapped-between-kinds": [MmPlace, RulePlace],
}


@pytest.mark.parametrize("fault", LEADS)
def test_a_finding_leads_to_what_it_is_about(fault: str) -> None:
    path = core_path("fixture", "7.3")
    ready = CATALOGUE[fault](sound(path))
    s = planted(path, *ready.patches)
    finding = run_check(s, ready.rules).findings[0]
    links = links_of(s, finding)
    assert [type(link.place) for link in links] == LEADS[fault]
    place, subject = links[0].place, finding.subject
    match place:
        case AnonVmaPlace(addr) | FilePlace(addr):
            assert addr == subject.address
        case VmaPlace(mm, vma, _):
            assert int(s.vmas.addr[vma]) == subject.vma
            assert int(s.mms.addr[mm]) == subject.mm
        case MmPlace(mm):
            assert int(s.mms.addr[mm]) == subject.mm


def test_a_page_table_has_no_reverse_map() -> None:
    path = core_path("fixture", "7.3")
    ready = CATALOGUE["table-entry-not-executable"](sound(path))
    s = planted(path, *ready.patches)
    finding = run_check(s, ready.rules).findings[0]
    assert finding.subject.kind == "table"
    assert [type(link.place).__name__ for link in links_of(s, finding)][0] == FolioPlace.__name__
    assert not any(type(link.place).__name__ == "RmapPlace" for link in links_of(s, finding))


def test_links_of_a_text() -> None:
    text_ = "pid 203 lazyfree, pfn 0x10; swap type 1, offset 0x2; mm 0xffff8880 of CPU 1 (address_space 0xffff) here"
    found = [(text_[x.start : x.end], x.place) for x in text_links(text_, {"here": MemoryPlace()}, FolioPlace(0x10))]
    assert found == [
        ("pid 203 lazyfree", UserPlace(203)),
        ("swap type 1, offset 0x2", SlotPlace(1, 2)),
        ("mm 0xffff8880", UserPlace(0xFFFF8880)),
        ("CPU 1", SubjectPlace("cpus")),
        ("address_space 0xffff", FilePlace(0xFFFF)),
        ("here", MemoryPlace()),
    ]
