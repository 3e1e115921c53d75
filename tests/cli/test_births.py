"""explain: what may have made a folio, as people and programs see it."""

from __future__ import annotations

from tests.cli.conftest import Run
from tests.faults.overlay import sound
from tests.folio.kinds import KINDS


def test_the_command_line(run: Run, any_core: str) -> None:
    pfn = hex(KINDS["thp by pmd"](sound(any_core)))
    text = run("explain", pfn, "-c", any_core).out
    assert "\nmay have been made by\n  huge page fault [mm/huge_memory.c, do_huge_pmd_anonymous_page()]\n" in text
    assert "other births cannot have been; --births lists all\n" in text
    full = run("explain", pfn, "--births", "-c", any_core).out
    assert "\ncannot have been made by\n" in full
    assert "entry: a PMD; young, dirty" in full
    found = run("explain", pfn, "-c", any_core, "--format", "json").object["births"]
    assert [b["possible"] for b in found[:2]] == [True, True]
