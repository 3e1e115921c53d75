"""After any legal sequence of operations the counters are what the closed form says of the mappings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from inspector.model.interface import SPECS, Op
from inspector.model.operations import apply, count_only
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import FolioKind, Stats, diff, fresh
from tests.examples import examples
from tests.model.agreement import disagreements
from tests.model.sequences import CASES, Run, folio_of, names_for, ops_for

SHORT = settings(examples(6), stateful_step_count=25, suppress_health_check=list(HealthCheck), database=None)


def machine_of(scheme: Scheme, shape: str) -> type[RuleBasedStateMachine]:
    """A state machine for one shape of folio on one generation of kernels."""
    plain = folio_of(scheme, shape)

    class Rmap(RuleBasedStateMachine):
        @initialize(pinned=st.booleans(), swapcache=st.booleans(), new=st.booleans())
        def begin(self, pinned: bool, swapcache: bool, new: bool) -> None:
            folio = replace(plain, pinned=pinned, swapcache=swapcache)
            if not new:
                # As swap-in finds it: anonymous since an earlier life.
                folio = replace(folio, anon_mapping=folio.kind.is_anon)
            self.run = Run(folio)

        @rule(op=ops_for(plain))
        def any_call(self, op: Op) -> None:
            name = op.name
            # A call that takes one page is not asked to take more: that would be refused each time.
            one = SPECS[name].level.value == "PTE" and not SPECS[name].batch
            nr = 1 if one else min(op.nr, plain.nr - op.page)
            self.run.step(replace(op, nr=nr))

        @rule(data=st.data(), exclusive=st.booleans())
        def undo_something(self, data: Any, exclusive: bool) -> None:
            folio = self.run.folio
            if folio.huge:
                mm = data.draw(st.sampled_from(folio.huge))[0]
                names = [n for n in names_for(folio) if SPECS[n].action in ("remove", "split", "zap", "freeze")]
                self.run.step(Op(data.draw(st.sampled_from(names)), mm, exclusive=exclusive))
            elif folio.ptes:
                (mm, page), _ = data.draw(st.sampled_from(folio.ptes))
                self.run.step(Op("folio_remove_rmap_pte", mm, page))

        @invariant()
        def agrees(self) -> None:
            if hasattr(self, "run"):
                self.run.check()

    Rmap.__name__ = f"{scheme.name} {shape}"
    return Rmap


@pytest.mark.parametrize(("scheme", "shape"), CASES, ids=[f"{s.name}-{n}" for s, n in CASES])
def test_operations_agree_with_the_closed_form(scheme: Scheme, shape: str) -> None:
    run_state_machine_as_test(machine_of(scheme, shape), settings=SHORT)


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_thp_is_born_forked_split_and_unmapped(scheme: Scheme) -> None:
    run = Run(fresh(scheme, 9, FolioKind.ANON))
    steps = [
        Op("folio_add_new_anon_rmap", 1, exclusive=True),
        Op("folio_try_dup_anon_rmap_pmd", 2),
        Op("split_huge_pmd", 1),
        Op("folio_remove_rmap_ptes", 1, 3, 16),
        Op("folio_remove_rmap_pmd", 2),
        Op("folio_remove_rmap_ptes", 1, 0, 3),
        Op("folio_remove_rmap_ptes", 1, 19, 493),
    ]
    seen = []
    for op in steps:
        run.step(op)
        run.check()
        seen.append(run.folio)
    assert len(run.done) == len(steps)
    born, forked, split, partly, one_left, _, last = seen
    assert born.stats == Stats(nr_anon_mapped=512, nr_anon_thps=512)
    assert born.exclusive == {0}
    assert not forked.exclusive
    assert forked.stats == born.stats
    assert split.double_map == (scheme is Scheme.OLD)
    assert split.word == (ENTIRELY_MAPPED + 512 if scheme.has_pages_mapped_word else 0)
    assert not split.deferred
    assert not partly.deferred
    assert one_left.deferred
    assert one_left.stats.nr_anon_mapped == (496 if scheme.has_page_mapcount else 512)
    assert last.stats == Stats()
    assert last.rss == ()
    assert last.refcount == 1
    assert set(diff(fresh(scheme, 9, FolioKind.ANON), last)) <= {"anon_mapping", "deferred", "partially_mapped"}


@pytest.mark.parametrize("scheme", list(Scheme))
def test_freezing_leaves_rss_and_takes_all_counts(scheme: Scheme) -> None:
    born = apply(folio_of(scheme, "THP"), Op("folio_add_new_anon_rmap", 1, exclusive=True)).folio
    frozen = apply(born, Op("split_huge_pmd_freeze", 1)).folio
    assert not disagreements(frozen)
    assert frozen.total == 0
    assert frozen.rss == ((1, 8),)
    assert frozen.migration == ((1, 8),)
    assert not frozen.exclusive
    fell_back = apply(replace(born, pinned=True), Op("split_huge_pmd_freeze", 1)).folio
    assert fell_back.total == 8
    assert fell_back.exclusive == set(range(8))
    assert not disagreements(fell_back)


@pytest.mark.parametrize("name", ["folio_try_dup_anon_rmap_pmd", "folio_try_share_anon_rmap_pmd"])
def test_pinned_pages_are_busy_not_refused(name: str) -> None:
    born = apply(folio_of(Scheme.LARGE, "THP"), Op("folio_add_new_anon_rmap", 1, exclusive=True)).folio
    pinned = replace(born, pinned=True)
    outcome = apply(pinned, Op(name, 2))
    assert outcome.busy
    assert outcome.folio == pinned
    free = apply(born, Op(name, 2))
    assert not free.busy
    assert not free.folio.exclusive


def test_dup_of_a_file_pmd_as_it_is_written() -> None:
    mapped = apply(folio_of(Scheme.MM_IDS, "file THP"), Op("folio_add_file_rmap_pmd", 1)).folio
    meant = apply(mapped, Op("folio_dup_file_rmap_pmd", 2)).folio
    assert not disagreements(meant)
    coded = apply(mapped, Op("folio_dup_file_rmap_pmd", 2, as_coded=True)).folio
    assert coded.pages == (0,) * 8
    assert coded.entire == 0
    assert any("entire mapcount" in text for text in disagreements(coded))


def test_mlock_by_generation() -> None:
    def after(scheme: Scheme, name: str) -> bool:
        folio = folio_of(scheme, "file THP")
        added = apply(folio, Op(name, 1, 0, 8 if name.endswith("s") else 1, vma_locked=True)).folio
        gone = apply(added, Op(name.replace("add_file", "remove"), 1, 0, 8 if name.endswith("s") else 1)).folio
        assert gone.mlocked == added.mlocked
        return added.mlocked

    assert [after(s, "folio_add_file_rmap_pmd") for s in Scheme] == [True, False, False, False, True, True]
    assert [after(s, "folio_add_file_rmap_ptes") for s in Scheme] == [False] * 4 + [True] * 2


def test_an_operation_too_many_counts_below_the_base() -> None:
    folio = folio_of(Scheme.MM_IDS, "THP")
    below = count_only(folio, Op("folio_remove_rmap_pte", 1, 2))
    assert below.pages[2] == -2
    assert below.word == -1
    assert below.large == -2


def test_a_state_reads_well() -> None:
    folio = apply(fresh(Scheme.LARGE, 9, FolioKind.SHMEM), Op("folio_add_file_rmap_ptes", 1, 3, 16)).folio
    text = repr(folio)
    assert text.startswith("<shmem folio of order 9, LARGE: pages -1*3 0*16 -1*493, large 15, word 16")
    assert "nr_file_mapped 16" in text
    assert hash(folio) == hash(replace(folio))
