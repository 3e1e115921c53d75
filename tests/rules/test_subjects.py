"""Which folios an mm maps or may map: what decides whether work on the mm explains what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.columns import expand_runs
from inspector.subjects import anon_vmas_of, mapped_by
from inspector.walk.lost_vmas import lead_to_lost_vmas
from tests.faults.overlay import KERNELS, core_path, sound


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", str(request.param))


def test_an_mm_maps_each_folio_of_a_run_of_entries(path: str) -> None:
    s = sound(path)
    m, heads = s.mappings, np.flatnonzero(~s.pages.is_tail[:])
    assert (m.nr > 1).any()
    for mm in np.flatnonzero(np.bincount(m.mm_idx, minlength=len(s.mms)))[::7].tolist():
        rows = np.flatnonzero((m.mm_idx == mm) & (m.page_row >= 0))
        pages = expand_runs(m.page_row[rows].astype(np.int64), m.nr[rows].astype(np.int64))
        mapped = np.unique(s.pages.head_row[pages])
        assert heads[mapped_by(s, heads, np.arange(len(s.mms)) == mm)].tolist() == mapped[mapped >= 0].tolist()


def test_no_folio_is_mapped_by_no_mm(path: str) -> None:
    s = sound(path)
    heads = np.array([-1, 5, 0, 5])
    assert not mapped_by(s, heads, np.zeros(len(s.mms), np.bool_)).any()
    assert not mapped_by(s, heads[:1], np.ones(len(s.mms), np.bool_)).any()


def test_an_anon_vma_alone_leads_to_the_mms_of_its_tree(path: str) -> None:
    """Its tree of chains does, as the lists of the VMAs do while they are in the tree of their mm."""
    s = sound(path)
    addrs = s.anon_rmap.anon_vmas.addr
    for mm in range(0, len(s.mms), 9):
        mms = np.arange(len(s.mms)) == mm
        assert lead_to_lost_vmas(s, addrs, mms).tolist() == anon_vmas_of(s, mms).tolist()
