"""References left over: the likeliest holder fits what `check` finds of the same folio."""

from __future__ import annotations

from inspector.check.run import run_check
from inspector.report.references import build_references
from tests.faults.overlay import add, page_word, pfn_of, planted, sound
from tests.faults.plants import mapcount_at, pick, small_anon


def test_a_mapping_that_was_lost_kept_its_reference(any_core: str) -> None:
    s = sound(any_core)
    row = pick(small_anon(s, 1), "a private page")
    pfn = pfn_of(s, row)
    lost = add(s, mapcount_at(s, row), 1, 4), add(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1, 4)
    broken = planted(any_core, *lost)
    left = {x.pfn: x for x in build_references(broken).left}
    assert left[pfn].unexplained == 1
    assert left[pfn].likeliest.startswith("1 mapping that the folio counts and no page table holds")
    found = run_check(broken, ["mapcount-too-high"]).findings
    assert [f.subject.pfn for f in found] == [pfn]
    # A reference alone is no lost mapping.
    held = {x.pfn: x for x in build_references(planted(any_core, lost[1])).left}
    assert "no page table holds" not in held[pfn].likeliest
