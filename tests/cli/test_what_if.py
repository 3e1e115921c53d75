"""explain --op: operations tried on a folio from the command line."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Run
from tests.faults.overlay import sound
from tests.folio.kinds import KINDS


def test_the_command_line(run: Run, any_core: str) -> None:
    pfn = hex(KINDS["thp by pmd"](sound(any_core)))
    words = ("explain", pfn, "--no-check", "--op", "split_huge_pmd,folio_remove_rmap_pte:0", "-c", any_core)
    text = run(*words)
    assert (text.code, text.err) == (0, "")
    assert "\nif split_huge_pmd(pid " in text.out
    found = run(*words, "--format", "json").object["what_if"]
    assert [bool(x["changes"]) for x in found] == [True, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("folio_remove_rmap_pt:3", "there is no such rmap operation: folio_remove_rmap_pt. Did you mean"),
        ("folio_remove_rmap_pte:3:4", "this is no operation: folio_remove_rmap_pte:3:4. Give NAME"),
        ("folio_remove_rmap_pte:zz", "this is no number: zz."),
        ("folio_remove_rmap_pte:1@4000000", "there is no task of that pid: 4000000. See folioscope ps."),
        ("folio_remove_rmap_pte:1@2", "this task has no address space: 2. See folioscope ps."),
    ],
)
def test_words_that_are_no_operation(words: str, message: str, run: Run, any_core: str) -> None:
    pfn = hex(KINDS["anon"](sound(any_core)))
    result = run("explain", pfn, "--no-check", "--op", words, "-c", any_core)
    assert result.code == 2
    assert result.error.startswith(f"folioscope: error: {message}")
