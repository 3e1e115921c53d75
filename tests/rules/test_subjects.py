"""Which folios an mm maps or may map: what decides whether work on the mm explains what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.columns import expand_runs
from inspector.subjects import SWAP_SLOT, anon_vmas_of, mapped_by, stored_at
from inspector.walk.lost_vmas import lead_to_lost_vmas
from inspector.walk.swap import slot_users
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


def test_what_is_stored_of_a_swap_slot_is_its_word(path: str) -> None:
    """A kernel that runs on is asked for it again and again: whoever takes the slot anew changes it."""
    s = sound(path)
    slots = s.swap.slots
    for row in np.flatnonzero(s.swap_refs.pte_refs > 0)[:40].tolist():
        subject = SWAP_SLOT.describe(s, row)
        ((address, size),) = stored_at(s, subject)
        word = s.layout.memory.read(address, size)
        assert word is not None
        assert int.from_bytes(word, "little") == int(slots.raw[row])


def test_who_refers_to_a_swap_slot_tells_slots_apart(path: str) -> None:
    s = sound(path)
    rows = np.flatnonzero(s.swap_refs.pte_refs + s.swap_refs.shmem_refs > 0)
    sums = slot_users(s, rows)
    assert (sums != 0).all()
    assert len(np.unique(sums)) == len(rows)
    assert slot_users(s, rows[::-1]).tolist() == sums[::-1].tolist()
    unused = np.flatnonzero(s.swap_refs.pte_refs + s.swap_refs.shmem_refs == 0)
    assert not slot_users(s, unused).any()
