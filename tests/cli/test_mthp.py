"""The inventory of large folios."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.snapshot import Snapshot
from inspector.tables.mthp_stats import read_mthp_stats
from inspector.target.target import open_core
from inspector.walk.counts import EntryClass
from inspector.walk.kinds import KINDS
from inspector.walk.mthp import large_folios
from tests.cli.conftest import Run
from tests.cli.test_reverse import asked
from tests.faults.overlay import sound
from tests.guests.cache import dump_path


def mapped_pages(s: Snapshot) -> dict[int, set[int]]:
    """Places of the pages that entries map, by folio, entry by entry."""
    m, out = s.mappings, defaultdict[int, set[int]](set)
    for run in np.flatnonzero((m.entry_class == EntryClass.NORMAL) & (m.page_row >= 0)).tolist():
        folio = int(s.folio_of_page[m.page_row[run : run + 1]][0])
        if folio >= 0:
            pages = int(m.nr[run]) if m.level[run] == Level.PTE else 1 << s.layout.pmd_order
            first = int(m.page_row[run]) - int(s.folios.row[folio])
            out[folio].update(range(first, first + pages))
    return out


def test_every_large_folio_is_counted_by_what_maps_it(run: Run, any_core: str) -> None:
    s = sound(any_core)
    report, large, mapped = asked(run, any_core, "mthp"), large_folios(s), mapped_pages(s)
    whole, partly, none, wasted = Counter[Any](), Counter[Any](), Counter[Any](), Counter[Any]()
    for folio, kind in zip(large.folio.tolist(), large.kind.tolist(), strict=True):
        nr, pages = int(s.folios.nr_pages[folio]), len(mapped[folio])
        key = KINDS[kind], int(s.folios.order[folio])
        (whole if pages == nr else partly if pages else none)[key] += 1
        wasted[key] += (nr - pages) * 4096 if pages else 0
    assert len(report["sizes"]) > 4
    for each in report["sizes"]:
        key = each["kind"], each["order"]
        assert each["by_pmd"] + each["by_ptes"] == whole[key], key
        assert (each["partly"], each["unmapped"], each["unmapped_bytes"]) == (partly[key], none[key], wasted[key]), key
        assert each["folios"] == whole[key] + partly[key] + none[key]
    assert sum(each["folios"] for each in report["sizes"]) == len(large)
    assert sum(partly.values()) >= 2
    assert sum(each["queued"] for each in report["sizes"]) == int(s.split_links.queued.sum()) >= 2


def test_processes_that_map_folios_in_part_are_named(run: Run, any_core: str) -> None:
    s = sound(any_core)
    report, large, m = asked(run, any_core, "mthp"), large_folios(s), s.mappings
    of_run = np.where(m.page_row >= 0, s.folio_of_page[np.maximum(m.page_row, 0)], -1)
    expected = {}
    for mm in np.unique(m.mm_idx).tolist():
        folios = np.isin(large.folio, of_run[(m.mm_idx == mm) & (m.entry_class == EntryClass.NORMAL)])
        if (folios & large.partly).any():
            wasted = int(large.unmapped_pages[folios].sum()) * 4096
            expected[hex(int(s.mms.addr[mm]))] = int((folios & large.partly).sum()), wasted
    assert {p["mm"]: (p["partly"], p["unmapped_bytes"]) for p in report["processes"]} == expected
    assert "thp-partial" in [p["comm"] for p in report["processes"]]
    sizes = [p["unmapped_bytes"] for p in report["processes"]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.guest
@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
@pytest.mark.parametrize("dump", ["rest", "busy", "zoo"])
def test_the_kernel_counts_as_many(kernel: str, dump: str) -> None:
    s = Snapshot(open_core(str(dump_path(kernel, dump))))
    stats, anon = read_mthp_stats(s.layout), s.folios.is_anon & ~s.folios.is_hugetlb & (s.folios.order > 1)
    rebuilt = np.bincount(s.folios.order[anon], minlength=len(stats["NR_ANON"]))
    assert rebuilt[2:].tolist() == stats["NR_ANON"][2:]
    marked = np.bincount(s.folios.order[anon & s.folios.partially_mapped], minlength=len(rebuilt))
    assert marked[2:].tolist() == stats["NR_ANON_PARTIALLY_MAPPED"][2:]
    assert rebuilt.sum() > 5
