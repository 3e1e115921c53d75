"""Bounds of pins and references: what is wrong is named, and nothing else looks wrong beside it."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.folio.account import account_of
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, only_finding, page_word, planted, put, sound
from tests.faults.plants import folio_at, head_field, pmd_mapped


def mapped_thp(s: Snapshot) -> int:
    """Row of a THP that huge entries map."""
    return int(pmd_mapped(s, anon=True)[0])


def refcount_at(s: Snapshot, pfn: int) -> int:
    return page_word(s, pfn, "_refcount.counter", "_refcount")


@pytest.mark.parametrize("kernel", KERNELS)
def test_negative_pins_are_told_as_that(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    folio = mapped_thp(s)
    field = head_field(s, "_pincount.counter", tail=("compound_pincount.counter",))
    broken = planted(path, put(s, folio_at(s, folio, field), -9, 4))
    line = next(x for x in account_of(broken, int(s.folios.pfn[folio])).counters if x.counter.endswith("pincount"))
    assert (line.stored, line.relation, line.expected, line.verdict) == (-9, "at least", 0, "WRONG")
    assert "-9" in line.formula


@pytest.mark.parametrize("kernel", KERNELS)
def test_negative_references_bound_no_pins(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = int(s.folios.pfn[mapped_thp(s)])
    counters = account_of(planted(path, put(s, refcount_at(s, pfn), -5, 4)), pfn).counters
    pins = next(x for x in counters if x.counter.endswith("pincount"))
    assert (pins.relation, pins.expected, pins.verdict) == ("none", None, "")


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tail_with_a_reference_lacks_no_mapping(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = int(s.folios.pfn[mapped_thp(s)])
    tail = pfn + 1
    finding = only_finding(path, "tail-page-damaged", put(s, refcount_at(s, tail), 1, 4))
    assert (finding.observed["_refcount"], finding.expected["_refcount"]) == (1, 0)
    assert finding.expected["mapping"] == finding.observed["mapping"]
    assert int(np.uint64(finding.observed["mapping"] or 0)) != 0xDEAD000000000400
    broken = planted(path, put(s, refcount_at(s, tail), 1, 4))
    lines = [x for x in account_of(broken, pfn).counters if x.counter == "_refcount" and x.first == 1]
    assert [(x.stored, x.expected, x.verdict) for x in lines] == [(1, 0, "WRONG")]
    assert account_of(broken, pfn).is_wrong
