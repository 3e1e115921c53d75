"""What the mm-id slots may hold: every reason by hand and by slow loops, and silence on all that the kernel can do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import Mask
from inspector.model.mm_ids import Slots, above_mappings, in_use, malformed, not_empty, unshared_but_shared
from inspector.model.scheme import Scheme
from tests.model.build import machines
from tests.model.machine import Machine
from tests.model.slot_reasons import Credits, Reason, violations

MM_ID_SCHEMES = [s for s in Scheme if s.has_mm_ids]
LOCK, SHARED = 1 << 31, 1 << 63


def slots_of(*rows: tuple[int, int, int, int, int]) -> Slots:
    """Rows of (id0, count0, id1, count1, flags)."""
    return Slots(
        np.array([a | b << 32 | flags for a, _, b, _, flags in rows], np.uint64),
        np.array([c for _, c, _, _, _ in rows], np.int32),
        np.array([d for _, _, _, d, _ in rows], np.int32),
    )


def credits_of(*rows: dict[int, int], hugetlb: list[bool] | None = None, known: tuple[int, ...] = (1, 2, 3)) -> Credits:
    """For each folio its mappings by mm id."""
    flat = [(row, mm, n) for row, mms in enumerate(rows) for mm, n in mms.items()]
    return Credits(
        np.array(hugetlb or [False] * len(rows), np.bool_),
        np.array([row for row, _, _ in flat], np.int64),
        np.array([mm for _, mm, _ in flat], np.int64),
        np.array([n for _, _, n in flat], np.int64),
        np.array(known, np.uint32),
    )


def reasons(masks: dict[Reason, Mask], row: int) -> set[Reason]:
    return {reason for reason, mask in masks.items() if mask[row]}


@pytest.mark.parametrize(
    ("slot", "mms", "wanted"),
    [
        ((0, -1, 0, -1, 0), {}, set()),
        ((1, 3, 0, -1, 0), {1: 4}, set()),
        ((1, 2, 0, -1, 0), {1: 4}, set()),
        ((1, 3, 0, -1, SHARED), {1: 4}, set()),  # the flag may be stale
        ((1, 0, 2, 0, SHARED), {1: 1, 2: 1, 3: 9}, set()),
        ((0, -1, 0, -1, SHARED), {1: 1, 2: 1}, set()),  # no mm credited
        ((0, 0, 0, -1, 0), {1: 1}, {Reason.FREE_SLOT_WITH_COUNT}),
        ((0, -2, 0, -1, 0), {1: 1}, {Reason.FREE_SLOT_WITH_COUNT}),
        ((1, 0, 0, 7, 0), {1: 1}, {Reason.FREE_SLOT_WITH_COUNT}),
        ((1, -1, 0, -1, 0), {1: 1}, {Reason.USED_SLOT_WITHOUT_COUNT}),
        ((1, 0, 2, -7, SHARED), {1: 1, 2: 1}, {Reason.USED_SLOT_WITHOUT_COUNT}),
        ((1, 0, 1, 0, 0), {1: 4}, {Reason.DUPLICATE_ID}),
        ((1, 0, 0, -1, LOCK), {1: 1}, {Reason.LOCK_HELD}),
        ((1, 4, 0, -1, 0), {1: 4}, {Reason.SLOT_ABOVE_TRUE_COUNT}),
        ((1, 0, 2, 1, SHARED), {1: 1, 2: 1}, {Reason.SLOT_ABOVE_TRUE_COUNT}),
        ((1, 0, 2, 0, SHARED), {1: 1}, {Reason.SLOT_ABOVE_TRUE_COUNT}),
        ((1, (1 << 31) - 1, 0, -1, 0), {1: 1}, {Reason.SLOT_ABOVE_TRUE_COUNT}),
        ((9, 0, 0, -1, 0), {1: 1}, {Reason.ID_OF_NO_MM}),
        ((1, 0, 9, 0, SHARED), {1: 1}, {Reason.ID_OF_NO_MM}),
        ((1, 0, 0, -1, 0), {1: 1, 2: 1}, {Reason.UNSHARED_BUT_SEVERAL_MMS}),
        ((1, 0, 0, -1, 0), {}, {Reason.NOT_EMPTY_WHEN_UNMAPPED}),
        ((0, -1, 0, -1, SHARED), {}, {Reason.NOT_EMPTY_WHEN_UNMAPPED}),
        ((0x7FFFFFFF, 0, 0x7FFFFFFE, 0, SHARED), {}, {Reason.NOT_EMPTY_WHEN_UNMAPPED, Reason.ID_OF_NO_MM}),
    ],
)
def test_one_folio(slot: tuple[int, int, int, int, int], mms: dict[int, int], wanted: set[Reason]) -> None:
    assert reasons(violations(slots_of(slot), credits_of(mms)), 0) == wanted


@pytest.mark.parametrize("slot", [(1, 0, 0, -1, 0), (0, 0, 0, -1, 0), (0, -1, 0, -1, LOCK), (0, -1, 0, -1, SHARED)])
def test_hugetlb_has_one_reason_only(slot: tuple[int, int, int, int, int]) -> None:
    free = (0, -1, 0, -1, 0)
    masks = violations(slots_of(slot, free), credits_of({1: 5, 2: 5}, {1: 5, 2: 5}, hugetlb=[True, True]))
    assert reasons(masks, 0) == {Reason.HUGETLB_USES_SLOTS}
    assert reasons(masks, 1) == set()


@pytest.mark.parametrize("scheme", MM_ID_SCHEMES)
@given(data=st.data())
def test_silent_on_whatever_the_kernel_does(scheme: Scheme, data: st.DataObject) -> None:
    folios: list[Machine] = data.draw(st.lists(machines(scheme), max_size=4))
    rows = [(*m.slot[0], *m.slot[1], m.shared << 63) for m in folios]
    mms = []
    for machine in folios:
        count: Counter[int] = Counter()
        for (mm, _), n in machine.ptes.items():
            count[mm] += n
        count.update(machine.pmds)
        mms.append({mm: n for mm, n in count.items() if n})
    slots = slots_of(*[(int(a), int(b), int(c), int(d), int(f)) for a, b, c, d, f in rows])
    assert slots.ids.tolist() == [m.slot_words for m in folios]
    masks = violations(slots, credits_of(*mms, hugetlb=[m.hugetlb for m in folios], known=(1, 2, 3, 4)))
    assert {reason: rows.tolist() for reason, rows in masks.items() if rows.any()} == {}


COUNT = st.sampled_from([-2, -1, 0, 1, 2, (1 << 31) - 1])
SLOT = st.tuples(st.integers(0, 4), COUNT, st.integers(0, 4), COUNT, st.sampled_from([0, LOCK, SHARED, SHARED | LOCK]))


def slow_reasons(slot: tuple[int, int, int, int, int], mms: dict[int, int], known: tuple[int, ...]) -> set[Reason]:
    pairs = [(slot[0], slot[1]), (slot[2], slot[3])]
    used = [(i, c) for i, c in pairs if i]
    total = sum(mms.values())
    strangers = [i for i, _ in used if i not in known]
    out = set()
    if any(c != -1 for i, c in pairs if not i):
        out.add(Reason.FREE_SLOT_WITH_COUNT)
    if any(c < 0 for _, c in used):
        out.add(Reason.USED_SLOT_WITHOUT_COUNT)
    if len(used) == 2 and used[0][0] == used[1][0]:
        out.add(Reason.DUPLICATE_ID)
    if slot[4] & LOCK:
        out.add(Reason.LOCK_HELD)
    if strangers:
        out.add(Reason.ID_OF_NO_MM)
    elif total and any(c + 1 > max(mms.get(i, 0), 0) for i, c in used if c >= 0):
        out.add(Reason.SLOT_ABOVE_TRUE_COUNT)
    if len(mms) > 1 and not slot[4] & SHARED:
        out.add(Reason.UNSHARED_BUT_SEVERAL_MMS)
    if not total and (used or slot[4] & SHARED):
        out.add(Reason.NOT_EMPTY_WHEN_UNMAPPED)
    return out


@given(
    rows=st.lists(
        st.tuples(SLOT, st.dictionaries(st.integers(1, 4), st.integers(1, 3), max_size=3), st.booleans()), max_size=5
    ),
    known=st.sets(st.integers(1, 4)).map(tuple),
)
def test_equals_the_slow_loops(
    rows: list[tuple[tuple[int, int, int, int, int], dict[int, int], bool]], known: tuple[int, ...]
) -> None:
    slots = slots_of(*[slot for slot, _, _ in rows])
    found = credits_of(*[mms for _, mms, _ in rows], hugetlb=[h for _, _, h in rows], known=known)
    masks = violations(slots, found)
    assert set(masks) == set(Reason)
    for row, (slot, mms, hugetlb) in enumerate(rows):
        used = slot[0] or slot[2] or slot[4] or (slot[1], slot[3]) != (-1, -1)
        wanted = slow_reasons(slot, mms, known)
        if hugetlb:
            wanted = {Reason.HUGETLB_USES_SLOTS} if used else set()
        assert reasons(masks, row) == wanted
    own = [slow_reasons(slot, {1: 1}, (1, 2, 3, 4)) for slot, _, _ in rows]
    self_made = {
        Reason.FREE_SLOT_WITH_COUNT,
        Reason.USED_SLOT_WITHOUT_COUNT,
        Reason.DUPLICATE_ID,
        Reason.LOCK_HELD,
    }
    assert malformed(slots).tolist() == [bool(found & self_made) for found in own]


def test_the_parts_for_single_rules() -> None:
    slots = slots_of((1, 2, 2, 0, 0), (1, 2, 2, 0, SHARED), (0, -1, 0, -1, 0))
    assert slots.id0.tolist() == [1, 1, 0]
    assert slots.id1.tolist() == [2, 2, 0]
    assert slots.shared.tolist() == [False, True, False]
    assert slots.locked.tolist() == [False] * 3
    mapped = np.array([3, 2, 0])
    assert above_mappings(slots, mapped, np.array([1, 1, 0])).tolist() == [False, True, False]
    assert above_mappings(slots, mapped + 9, np.array([0, 1, 0])).tolist() == [True, False, False]
    assert unshared_but_shared(slots, np.array([2, 2, 2])).tolist() == [True, False, True]
    assert not_empty(slots, np.array([0, 0, 0])).tolist() == [True, True, False]
    assert not_empty(slots, np.array([1, 1, 1])).tolist() == [False] * 3
    assert in_use(slots).tolist() == [True, True, False]


def test_who_maps_what() -> None:
    found = credits_of({1: 2, 2: 5}, {}, {3: 1})
    assert found.nr_mms.tolist() == [2, 0, 1]
    assert found.total.tolist() == [7, 0, 1]
    assert found.mapped_by(np.array([2, 2, 2], np.uint64)).tolist() == [5, 0, 0]
