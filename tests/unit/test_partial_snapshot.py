"""A snapshot of some struct pages has their tables and refuses the others."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.aimed.pages import partial_of_folio, sample_of
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.faults.overlay import KERNELS, core_path


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_part_has_the_pages_of_the_whole_and_no_other_table(kernel: str) -> None:
    s = Snapshot(open_core(core_path("fixture", kernel), types="btf"))
    large = int(np.flatnonzero((s.folios.order > 1) & s.folios.readable)[0])
    head, nr = int(s.folios.pfn[large]), 1 << int(s.folios.order[large])
    part = partial_of_folio(s, head + nr - 1)
    pfns = np.arange(head, head + nr)
    here, there = part.pages.memmap.rows(pfns), s.pages.memmap.rows(pfns)
    assert len(part.pages) < len(s.pages)
    assert (part.pages.mapcount_raw[here] == s.pages.mapcount_raw[there]).all()
    assert set(part.folios.pfn[part.folio_of_page[here]].tolist()) == {head}
    for table in ("mms", "mappings", "counts", "links", "expected", "in_flight"):
        with pytest.raises(AttributeError, match=f"a partial snapshot has no {table}"):
            getattr(part, table)


def test_a_sample_of_a_small_memory_map_is_the_whole() -> None:
    s = Snapshot(open_core(core_path("fixture", KERNELS[-1]), types="btf"))
    assert sample_of(s, len(s.pages))[0] is s
    sample, read = sample_of(s, 4096)
    assert read == len(sample.pages) <= 4096
    assert sample.scheme == s.scheme
