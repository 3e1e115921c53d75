"""The rmap walk of a folio and the page tables agree, for every mapped folio."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from inspector.walk.rmap import ANON, FILE, KSM
from tests.fixtures import KERNELS, fixture_path
from tests.guests import dump_path
from tests.oracle.both_views import compare_views, mapped_heads

DUMPS = [
    *(pytest.param("fixture", k, id=f"fixture-{k}") for k in KERNELS),
    *(pytest.param("rest", k, id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
]


@pytest.mark.parametrize(("kind", "kernel"), DUMPS)
def test_every_mapped_folio_is_found_both_ways(kind: str, kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = fixture_path(kernel) if kind == "fixture" else dump_path(kernel, kind)
    s = Snapshot(open_core(str(path)))
    view = compare_views(s, mapped_heads(s))
    ours = np.isin(view.kind, (ANON, FILE))
    ksm = s.ksm_entries
    entries, candidates = int(view.by_tables[ours].sum()), int(view.candidates.sum())
    with capsys.disabled():
        print(
            f"\n  {kind} {kernel}: {int(ours.sum()):,} folios with {entries:,} entries by {candidates:,} candidates, "
            f"{len(ksm)} entries of KSM pages; {int((view.kind == 0).sum())} folios of drivers have no rmap walk"
        )
    assert int(ours.sum()) > 3000
    assert (view.by_rmap[ours] == view.by_tables[ours]).all()
    assert len(ksm) == int(view.by_tables[view.kind == KSM].sum())
    assert ksm.reached.all()
    # What no rmap walk reaches is mapped by drivers: packet and io_uring rings, the vDSO. It has no mapping at all.
    assert (s.pages.mapping[view.head_row[view.kind == 0]] == 0).all()
