"""What the differences of a folio's counters come to, against a folio counted step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.model.diagnose.evidence import RebuiltFolio, StoredCounters, at_rest
from inspector.model.diagnose.moves import FolioDiagnosis
from inspector.model.diagnose.names import OperationNames
from inspector.model.diagnose.search import diagnose
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import FolioKind
from tests.model.machine import Machine

ORDER = 3
NR = 1 << ORDER


def counted(scheme: Scheme, maps: list[tuple[int, int]], huge: int, *, anon: bool = True) -> Machine:
    """A folio with PTE mappings (page, mm) and huge ones."""
    machine = Machine(scheme, ORDER, anon)
    for mm in range(huge):
        machine.add_pmd(100 + mm)
    for page, mm in maps:
        machine.add_ptes(mm, page, 1)
    return machine


def stored(machine: Machine, references: int | None = 0) -> StoredCounters:
    pages = np.array(machine.page, np.int64)
    return StoredCounters(pages, machine.entire, machine.large, machine.word, references=references)


def rebuilt(machine: Machine) -> RebuiltFolio:
    pages = np.zeros(NR, np.int64)
    for (_, page), n in machine.ptes.items():
        pages[page] += n
    kind = FolioKind.ANON if machine.anon else FolioKind.FILE
    return RebuiltFolio(ORDER, kind, pages, sum(machine.pmds.values()), machine.double_map, pmd_order=ORDER)


def read(scheme: Scheme, true: RebuiltFolio, found: StoredCounters) -> list[FolioDiagnosis]:
    """The diagnosis, where something is wrong."""
    out = diagnose(scheme, true, found, folio_names=True)
    return [out] if out.sentence else []


MAPS = st.lists(st.tuples(st.integers(0, NR - 1), st.integers(1, 3)), min_size=1, max_size=12)


@given(scheme=st.sampled_from(list(Scheme)), maps=MAPS, huge=st.integers(0, 2), anon=st.booleans())
def test_nothing_is_read_into_a_sound_folio(scheme: Scheme, maps: list[tuple[int, int]], huge: int, anon: bool) -> None:
    machine = counted(scheme, maps, huge, anon=anon)
    assert read(scheme, rebuilt(machine), stored(machine)) == []


@given(scheme=st.sampled_from(list(Scheme)), maps=MAPS, huge=st.integers(0, 2), lost=st.integers(1, 12))
def test_entries_cleared_without_the_rmap(scheme: Scheme, maps: list[tuple[int, int]], huge: int, lost: int) -> None:
    machine = counted(scheme, maps, huge)
    before = stored(machine)
    lost = min(lost, len(maps))
    left = counted(scheme, maps[lost:], huge)
    found = read(scheme, rebuilt(left), before)
    assert [r.net_calls for r in found] == [(("folio_remove_rmap_pte", -lost),)]
    assert found[0].sentence.startswith(f"{'one' if lost == 1 else lost} folio_remove_rmap_pte()")
    assert " too few" in found[0].sentence


@given(scheme=st.sampled_from(list(Scheme)), maps=MAPS, huge=st.integers(0, 2), extra=st.integers(1, 12))
def test_removals_of_entries_that_stay(scheme: Scheme, maps: list[tuple[int, int]], huge: int, extra: int) -> None:
    extra = min(extra, len(maps))
    found = read(scheme, rebuilt(counted(scheme, maps, huge)), stored(counted(scheme, maps[extra:], huge)))
    assert [r.net_calls for r in found] == [(("folio_remove_rmap_pte", extra),)]
    assert " too many, or " in found[0].sentence


@given(scheme=st.sampled_from(list(Scheme)), maps=MAPS, huge=st.integers(1, 3), anon=st.booleans())
def test_a_huge_entry_lost(scheme: Scheme, maps: list[tuple[int, int]], huge: int, anon: bool) -> None:
    before = stored(counted(scheme, maps, huge, anon=anon), references=1)
    found = read(scheme, rebuilt(counted(scheme, maps, huge - 1, anon=anon)), before)
    assert [r.net_calls for r in found] == [(("folio_remove_rmap_pmd", -1),)]
    assert found[0].references.endswith("they were not dropped either")


@pytest.mark.parametrize("scheme", [Scheme.LARGE, Scheme.MM_IDS])
def test_one_counter_alone_is_no_operation(scheme: Scheme) -> None:
    machine = counted(scheme, [(0, 1), (1, 1)], 0)
    machine.large += 4
    (found,) = read(scheme, rebuilt(machine), stored(machine))
    assert found.net_calls == ()
    assert found.sentence == (
        "only _large_mapcount is off, by +4, and no operation moves it alone: a lost update, or bit 2 flipped"
    )
    machine.large += 2
    (found,) = read(scheme, rebuilt(machine), stored(machine))
    assert found.sentence.endswith("memory that was overwritten")


@pytest.mark.parametrize(("sign", "words"), [(1, "was not taken back"), (-1, "was taken away")])
def test_the_whole_bit(sign: int, words: str) -> None:
    machine = counted(Scheme.LARGE, [(0, 1)], 0 if sign > 0 else 1)
    machine.word += sign * ENTIRELY_MAPPED
    (found,) = read(Scheme.LARGE, rebuilt(machine), stored(machine))
    assert words in found.sentence


def test_a_small_page_far_off_is_damaged() -> None:
    page = RebuiltFolio(0, FolioKind.ANON, np.ones(1, np.int64), 0)
    found = diagnose(Scheme.LARGE, page, StoredCounters(np.array([1 << 14]), references=0))
    assert found.net_calls == ()
    assert found.sentence == "only _mapcount is off, by +16384: a lost update, or bit 14 flipped"
    assert found.references == "the reference count is right: only the mapcounts went wrong"


def test_counters_that_disagree_are_not_explained_away() -> None:
    machine = counted(Scheme.LARGE, [(0, 1), (3, 1)], 0)
    machine.page[3] += 1
    machine.word += 5
    (found,) = read(Scheme.LARGE, rebuilt(machine), stored(machine))
    assert found.net_calls == ()
    assert "(_mapcount +1, _nr_pages_mapped +5)" in found.sentence


def test_what_became_of_the_references() -> None:
    before, left = counted(Scheme.LARGE, [(0, 1), (3, 1)], 0), counted(Scheme.LARGE, [(0, 1)], 0)
    assert "of page 3 too few" in read(Scheme.LARGE, rebuilt(left), stored(before))[0].sentence
    assert "only the mapcounts went wrong" in read(Scheme.LARGE, rebuilt(left), stored(before))[0].references
    assert "off by -2, mapcounts by +1" in read(Scheme.LARGE, rebuilt(left), stored(before, -2))[0].references
    sound = read(Scheme.LARGE, rebuilt(before), stored(before, -2))
    assert [r.net_calls for r in sound] == [(("folio_put", 2),)]
    assert read(Scheme.LARGE, rebuilt(before), stored(before, 3)) == []


def test_names_follow_the_kernel() -> None:
    def names(kind: FolioKind, *, folio_names: bool) -> OperationNames:
        return OperationNames(Scheme.RMAP68, RebuiltFolio(9, kind, np.zeros(512, np.int64), 0), folio_names)

    old = names(FolioKind.ANON, folio_names=False)
    assert old.called(old.pte(add=False, nr=1)) == "page_remove_rmap"
    file = names(FolioKind.FILE, folio_names=True)
    assert file.called(file.huge(add=True)) == "folio_add_file_rmap_pmd"
    hugetlb = names(FolioKind.HUGETLB_FILE, folio_names=True)
    assert hugetlb.called(hugetlb.huge(add=True)) == "hugetlb_add_file_rmap"


def test_many_runs_of_pages_come_to_one_number() -> None:
    ptes = np.zeros(512, np.int64)
    before, after = RebuiltFolio(9, FolioKind.ANON, ptes + 1, 0), RebuiltFolio(9, FolioKind.ANON, ptes.copy(), 0)
    after.ptes[1::2] = 1
    state = at_rest(Scheme.LARGE, before)
    kept = StoredCounters(np.array(state.pages, np.int64), state.entire, state.large, state.word, references=256)
    found = diagnose(Scheme.LARGE, after, kept)
    assert found.net_calls == (("folio_remove_rmap_pte", -256),)
    assert found.sentence.startswith("256 folio_remove_rmap_pte() of 256 pages from 0 to 510 too few")
    assert found.references == "the references went with the counters: they were not dropped either"
