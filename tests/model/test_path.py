"""Sequences that lead one state to another: found again after operations were done, of the fewest steps, bounded."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from inspector.model.births import COLLAPSE, newborn
from inspector.model.interface import Op
from inspector.model.operations import apply
from inspector.model.path import REUSE, born, lead, unmapped
from inspector.model.preconditions import RefusedError
from inspector.model.scheme import Scheme
from inspector.model.state import Folio, FolioKind, fresh

PMD = 4
SHAPES = [(scheme, order) for scheme in Scheme for order in (0, 2, PMD) if (scheme, order) != (Scheme.OLD, 2)]
OPS = (
    "folio_try_dup_anon_rmap_pmd",
    "folio_try_dup_anon_rmap_ptes",
    "folio_remove_rmap_ptes",
    "folio_remove_rmap_pmd",
    "split_huge_pmd",
)


def start(scheme: Scheme, order: int) -> Folio:
    found = newborn(COLLAPSE, fresh(scheme, order, FolioKind.ANON, PMD))
    assert found is not None
    return found


def walked(folio: Folio, seed: int, steps: int) -> tuple[Folio, int]:
    """Some operations that the kernel allows, and how many there were."""
    chosen, done = random.Random(seed), 0
    for _ in range(40):
        if done == steps:
            break
        name = chosen.choice(OPS)
        first = chosen.randrange(folio.nr)
        nr = chosen.randint(1, folio.nr - first) if name.endswith("ptes") else 1
        mms = sorted({mm for (mm, _), _ in folio.ptes} | {mm for mm, _ in folio.huge})
        mm = max(mms, default=0) + 1 if "dup" in name else chosen.choice(mms or [1])
        try:
            folio = apply(folio, Op(name, mm=mm, page=first, nr=nr)).folio
        except RefusedError:
            continue
        done += 1
    return folio, done


@pytest.mark.parametrize(("scheme", "order"), SHAPES)
def test_what_operations_did_is_found_again(scheme: Scheme, order: int) -> None:
    before = start(scheme, order)
    for seed in range(12):
        after, done = walked(before, seed, 2)
        found = lead(before, after)
        assert found is not None, (seed, before, after)
        assert len(found) <= done
        assert lead(after, after) == []


def test_names_and_the_fewest_steps() -> None:
    before = start(Scheme.MM_IDS, 2)
    forked = apply(before, Op("folio_try_dup_anon_rmap_ptes", mm=2, nr=4)).folio
    cut = apply(forked, Op("folio_remove_rmap_ptes", mm=1, page=1, nr=2)).folio
    assert [s.name for s in lead(before, cut) or []] == ["folio_try_dup_anon_rmap_ptes", "folio_remove_rmap_ptes"]
    alone = apply(forked, Op("folio_remove_rmap_ptes", mm=2, nr=4)).folio
    assert [s.name for s in lead(alone, before) or []] == [REUSE]
    assert [s.name for s in lead(before, alone) or []] == ["folio_try_share_anon_rmap_pte"]
    assert [s.name for s in unmapped(forked)] == ["folio_remove_rmap_ptes"] * 2
    assert [s.name for s in born(cut) or []][0] == "folio_add_new_anon_rmap"


def test_none_leads_there() -> None:
    before = start(Scheme.LARGE, 2)
    assert lead(before, replace(before, large=7)) is None
    assert lead(before, replace(before, pages=(0, 0, 1, 0))) is None
    assert lead(before, start(Scheme.LARGE, 0)) is None
    many = before
    for mm in range(2, 10):
        many = apply(many, Op("folio_try_dup_anon_rmap_ptes", mm=mm, nr=4)).folio
    assert lead(before, many) is None
    assert len(lead(before, many, max_steps=8) or []) == 8
