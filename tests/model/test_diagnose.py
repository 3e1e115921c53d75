"""The search names what was done to a folio: too much, too little, at the wrong level or page, or half of it."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest

from inspector.model.diagnose.evidence import RebuiltFolio, StoredCounters, at_rest, difference
from inspector.model.diagnose.moves import Candidate
from inspector.model.diagnose.search import diagnose
from inspector.model.interface import SPECS, Op
from inspector.model.operations import count_only
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.state import FREE, Folio, FolioKind
from tests.model.__main__ import sequence
from tests.model.agreement import mappings_by, rebuilt_of
from tests.model.sequences import CASES, Run, folio_of, names_for

COUNTS = ("add", "dup", "remove", "zap", "split")


def rebuilt_folio(folio: Folio) -> RebuiltFolio:
    columns, _ = rebuilt_of(folio)
    mms = sorted({mm for (mm, _), _ in folio.ptes} | {mm for mm, _ in folio.huge})
    return RebuiltFolio(
        folio.order,
        folio.kind,
        columns.page_mappings.astype(np.int64),
        sum(n for _, n in folio.huge),
        folio.double_map,
        tuple((mm, mappings_by(folio, mm)) for mm in mms),
        folio.pmd_order,
        folio.pud_order,
    )


def stored_of(folio: Folio) -> StoredCounters:
    pages = None if folio.kind.is_hugetlb else np.array(folio.pages, np.int64)
    return StoredCounters(pages, folio.entire, folio.large, folio.word)


def candidates(scheme: Scheme, rebuilt: RebuiltFolio, stored: StoredCounters) -> list[Candidate]:
    return list(diagnose(scheme, rebuilt, stored).candidates)


def changed(found: list[Candidate], change: str) -> set[tuple[str, int, int]]:
    """(name, page, pages) of each step of that change; batches of one page under the single name."""
    return {key(s.op) for c in found for s in c.steps if s.change == change}


def key(op: Op) -> tuple[str, int, int]:
    name = op.name.replace("zap_huge", "folio_remove_rmap")
    by_pte = name.endswith(("_pte", "_ptes"))
    return name.removesuffix("s"), op.page if by_pte else 0, op.nr if by_pte else 1


def seen(folio: Folio, op: Op) -> tuple[str, int, int]:
    """How an operation shows in the counters of that kernel."""
    name, page, nr = key(op)
    lost = not folio.scheme.has_page_mapcount and folio.is_large and name.endswith("_pte")
    return (name, -1, nr) if lost else (name, page, nr)


def states(scheme: Scheme, shape: str) -> list[Folio]:
    runs = [sequence(scheme, shape, random.Random(f"search {i}"), 15) for i in range(6)]
    return [folio_of(scheme, shape), *(run.folio for run in runs)]


def calls(folio: Folio, rng: random.Random) -> list[Op]:
    out = []
    for name in names_for(folio):
        if SPECS[name].action not in COUNTS:
            continue
        if name.endswith(("_pmd", "_pud")) and folio.order != (folio.pmd_order if "pmd" in name else folio.pud_order):
            continue
        page = rng.randrange(folio.nr)
        nr = rng.randint(1, folio.nr - page) if SPECS[name].batch else 1
        out.append(Op(name, 1, page, nr))
    return out


@pytest.mark.parametrize(("scheme", "shape"), CASES, ids=[f"{s.name}-{n}" for s, n in CASES])
def test_an_operation_too_many_is_named(scheme: Scheme, shape: str) -> None:
    rng = random.Random(shape)
    tried = 0
    for folio in states(scheme, shape):
        rebuilt = rebuilt_folio(folio)
        assert candidates(scheme, rebuilt, stored_of(folio)) == []
        for op in calls(folio, rng):
            if op.name == "split_huge_pmd" and not folio.huge:
                continue
            after = count_only(folio, op)
            # 6.1 takes back PG_double_map with the last PMD: the flag is read together with the counters.
            found = candidates(scheme, replace(rebuilt, double_map=after.double_map), stored_of(after))
            names = changed(found, "too many")
            hugetlb_dup = "hugetlb_try_dup" in op.name
            wanted = seen(folio, op)
            if hugetlb_dup:
                wanted = ("hugetlb_add_anon_rmap", 0, 1)
            if op.name.startswith("folio_dup_file_rmap_pmd") and scheme is Scheme.OLD:
                continue
            if scheme is Scheme.OLD and after.double_map != folio.double_map and folio.kind.is_anon:
                assert found
                continue
            assert wanted in names or "split" in op.name, (op, folio, after, [c.sentence for c in found])
            if "split" in op.name and scheme.has_page_mapcount:
                assert ("split_huge_pmd", 0, 1) in names, (folio, [c.sentence for c in found])
            tried += 1
    assert tried > 6


@pytest.mark.parametrize(("scheme", "shape"), CASES, ids=[f"{s.name}-{n}" for s, n in CASES])
def test_an_operation_missed_is_named(scheme: Scheme, shape: str) -> None:
    rng = random.Random(f"{shape} missed")
    tried = 0
    for folio in states(scheme, shape):
        for op in calls(folio, rng):
            if SPECS[op.name].action not in ("add", "remove"):
                continue
            run = Run(folio)
            run.step(op)
            if not run.done or run.folio.double_map != folio.double_map:
                continue
            found = candidates(scheme, rebuilt_folio(run.folio), stored_of(folio))
            assert seen(folio, op) in changed(found, "missing"), (op, folio, [c.sentence for c in found])
            tried += 1
    assert tried > 0


def big(scheme: Scheme, kind: FolioKind = FolioKind.ANON, entire: int = 1) -> tuple[RebuiltFolio, Folio]:
    ptes = np.zeros(512, np.int64)
    ptes[:16] = 1
    ptes[40] = 2
    rebuilt = RebuiltFolio(9, kind, ptes, entire)
    return rebuilt, at_rest(scheme, rebuilt)


def first(scheme: Scheme, rebuilt: RebuiltFolio, stored: StoredCounters) -> Candidate:
    return candidates(scheme, rebuilt, stored)[0]


@pytest.mark.parametrize("scheme", [s for s in Scheme if s.has_pages_mapped_word])
def test_sentences(scheme: Scheme) -> None:
    rebuilt, rest = big(scheme)
    new = scheme is not Scheme.SUBPAGES
    remove = "folio_remove_rmap_pte" if new else "page_remove_rmap"
    found = first(scheme, rebuilt, stored_of(count_only(rest, Op("folio_remove_rmap_pte", page=300))))
    assert found.sentence == f"one {remove}(page 300) too many: no entry was cleared for it"
    more = count_only(rest, Op("folio_add_anon_rmap_ptes", page=100, nr=15))
    batch = "folio_remove_rmap_ptes(" if new else "page_remove_rmap(each of "
    assert first(scheme, rebuilt, stored_of(more)).sentence.startswith(f"one {batch}pages 100 to 114) is missing")


@pytest.mark.parametrize("scheme", [Scheme.LARGE, Scheme.MM_IDS])
def test_a_lost_update_names_its_counter(scheme: Scheme) -> None:
    rebuilt, rest = big(scheme)
    found = first(scheme, rebuilt, stored_of(replace(rest, entire=rest.entire - 1)))
    assert found.how == "torn"
    assert found.sentence == "folio_add_anon_rmap_pmd() missed its _entire_mapcount: an update was lost"
    found = first(scheme, rebuilt, stored_of(replace(rest, word=rest.word - ENTIRELY_MAPPED)))
    assert found.sentence == "folio_add_anon_rmap_pmd() missed its _nr_pages_mapped: an update was lost"


def test_a_removal_that_stopped_in_the_middle() -> None:
    rebuilt, rest = big(Scheme.MM_IDS)
    stopped = replace(rest, large=rest.large - 1, entire=rest.entire - 1)
    found = candidates(Scheme.MM_IDS, rebuilt, stored_of(stopped))
    assert found[0].how == "torn"
    assert found[0].sentence == (
        "folio_remove_rmap_pmd() stopped in the middle, after _entire_mapcount and _large_mapcount and before"
        " _nr_pages_mapped: the PMD is still there"
    )
    half = tuple(n - (3 <= i < 7) for i, n in enumerate(rest.pages))
    found = candidates(Scheme.MM_IDS, rebuilt, stored_of(replace(rest, large=rest.large - 9, pages=half)))
    assert "folio_remove_rmap_ptes(pages 3 to 11) stopped in the middle" in found[0].sentence


@pytest.mark.parametrize("scheme", [s for s in Scheme if s.has_page_mapcount])
def test_a_pmd_removed_page_by_page(scheme: Scheme) -> None:
    rebuilt, rest = big(scheme, entire=0)
    before = count_only(rest, Op("folio_add_anon_rmap_pmd"))
    wrong = count_only(before, Op("folio_remove_rmap_ptes", page=0, nr=512))
    found = first(scheme, rebuilt, stored_of(wrong))
    assert [s.change for s in found.steps] == ["wrong level"]
    assert found.sentence.startswith("a PMD mapping was removed with ")


def test_a_split_that_was_not_counted() -> None:
    rebuilt = RebuiltFolio(9, FolioKind.ANON, np.ones(512, np.int64), 0)
    stored = stored_of(at_rest(Scheme.LARGE, RebuiltFolio(9, FolioKind.ANON, np.zeros(512, np.int64), 1)))
    found = candidates(Scheme.LARGE, rebuilt, stored)
    assert any(c.sentence.startswith("the split of a PMD was not counted") for c in found)


def test_the_wrong_page() -> None:
    rebuilt, rest = big(Scheme.LARGE)
    wrong = count_only(count_only(rest, Op("folio_add_anon_rmap_pte", page=3)), Op("folio_remove_rmap_pte", page=9))
    found = first(Scheme.LARGE, rebuilt, stored_of(wrong))
    assert found.sentence == "folio_remove_rmap_pte(page 9) was called in place of folio_remove_rmap_pte(page 3)"


def test_a_batch_cut_short() -> None:
    """Sixteen pages were unmapped, fifteen were changed."""
    rebuilt = RebuiltFolio(9, FolioKind.SHMEM, np.zeros(512, np.int64), 1)
    before = np.zeros(512, np.int64)
    before[15] = 1
    stored = stored_of(at_rest(Scheme.LARGE, replace(rebuilt, ptes=before)))
    found = candidates(Scheme.LARGE, rebuilt, stored)
    assert found[0].sentence.startswith("one folio_remove_rmap_pte(page 15) is missing")
    assert "a folio_remove_rmap_ptes() of a range that ends with page 15 was given 1 page too few" in [
        c.sentence for c in found
    ]


def test_without_page_counts_the_page_is_unknown() -> None:
    rebuilt, rest = big(Scheme.NO_PAGE_MAPCOUNT)
    found = first(Scheme.NO_PAGE_MAPCOUNT, rebuilt, stored_of(count_only(rest, Op("folio_remove_rmap_pte", page=3))))
    assert found.ambiguous
    assert found.steps[0].op.page == -1
    assert found.sentence.endswith("(pages unknown: no per-page counts are kept)")


@pytest.mark.parametrize("scheme", [Scheme.LARGE, Scheme.MM_IDS])
def test_pages_that_could_not_be_read(scheme: Scheme) -> None:
    rebuilt, rest = big(scheme)
    for page in (3, 40, 300):
        stored = replace(stored_of(count_only(rest, Op("folio_remove_rmap_pte", page=page))), pages=None)
        found = first(scheme, rebuilt, stored)
        assert found.steps[0].op.name == "folio_remove_rmap_pte"
        assert found.steps[0].change == "too many"
        assert found.sentence.endswith("(pages unknown: page counts could not be read)")


def test_an_entire_mapcount_that_could_not_be_read_is_inferred() -> None:
    rebuilt, rest = big(Scheme.LARGE)
    stored = replace(stored_of(count_only(rest, Op("folio_remove_rmap_pmd"))), entire=None)
    assert first(Scheme.LARGE, rebuilt, stored).sentence.startswith("one folio_remove_rmap_pmd() too many")


def test_a_flipped_bit_is_the_last_resort() -> None:
    rebuilt, rest = big(Scheme.LARGE)
    found = candidates(Scheme.LARGE, rebuilt, stored_of(replace(rest, word=rest.word ^ 1 << 27)))
    assert [c.how for c in found] == ["bit flip", "none"]
    assert found[0].sentence == "bit flip: _nr_pages_mapped differs from the expected value in bit 27 alone"


def test_garbage_is_not_explained() -> None:
    rebuilt, rest = big(Scheme.LARGE)
    found = candidates(Scheme.LARGE, rebuilt, stored_of(replace(rest, entire=77, pages=tuple(range(512)))))
    assert [c.how for c in found] == ["none"]
    assert found[0].sentence.startswith("nothing up to 3 operations explains it: _mapcount +")


def test_many_operations_are_summed_up() -> None:
    rebuilt, rest = big(Scheme.LARGE)
    for page in range(100, 120, 2):
        rest = count_only(rest, Op("folio_add_anon_rmap_pte", page=page))
    found = first(Scheme.LARGE, rebuilt, stored_of(rest))
    assert len(found.steps) == 10
    assert found.sentence.startswith("10 calls of folio_remove_rmap_pte() are missing, more than 3: the counters agree")


def test_mm_ids_name_the_mm() -> None:
    rebuilt, rest = big(Scheme.MM_IDS)
    rebuilt = replace(rebuilt, mms=((5, 12), (6, 7)))
    sound = replace(stored_of(rest), slots=((5, 11), (6, 6)), shared=True)
    assert candidates(Scheme.MM_IDS, rebuilt, sound) == []
    over = first(Scheme.MM_IDS, rebuilt, replace(sound, slots=((5, 13), FREE)))
    assert over.sentence.startswith("slot 0 credits mm id 5 with 2 too many")
    alone = first(Scheme.MM_IDS, rebuilt, replace(sound, shared=False))
    assert alone.sentence.startswith("FOLIO_MM_IDS_SHARED is clear though 2 mms map the folio")


def test_differences_are_taken_from_what_the_scheme_keeps() -> None:
    _, rest = big(Scheme.OLD)
    assert not difference(rest, StoredCounters(np.array(rest.pages), rest.entire, 99, 99)).counters()


def test_a_thousand_of_the_largest_take_little_time() -> None:
    """The work must not grow with the pages times the operations: a brute force over 512 pages would take minutes."""
    rebuilt, rest = big(Scheme.MM_IDS)
    stored = stored_of(count_only(count_only(rest, Op("folio_remove_rmap_pte", page=3)), Op("folio_remove_rmap_pmd")))
    start = time.process_time()
    small = RebuiltFolio(2, FolioKind.ANON, np.zeros(4, np.int64), 0)
    wrong = stored_of(count_only(at_rest(Scheme.MM_IDS, small), Op("folio_remove_rmap_pte", page=3)))
    for _ in range(50):
        candidates(Scheme.MM_IDS, small, wrong)
    unit = time.process_time() - start
    start = time.process_time()
    for _ in range(50):
        assert candidates(Scheme.MM_IDS, rebuilt, stored)
    assert time.process_time() - start < 128 * max(unit, 0.001)
