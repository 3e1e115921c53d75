"""Births of folios in the model: what each leaves agrees with itself, and lasting words exclude the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inspector.model.births import (
    BIRTHS,
    COLLAPSE,
    COPY_ON_WRITE,
    DRIVER,
    SWAP_IN,
    Birth,
    FolioSeen,
    judge_births,
    newborn,
)
from inspector.model.interface import Op
from inspector.model.operations import apply
from inspector.model.scheme import Scheme
from inspector.model.state import Folio, FolioKind, fresh

PMD = 4
"""Folios are small here: orders that one PMD maps."""

EVERY = [(scheme, order) for scheme in Scheme for order in (0, 2, PMD) if (scheme, order) != (Scheme.OLD, 2)]


def seen(state: Folio, birth: Birth, **known: object) -> FolioSeen:
    as_born = FolioSeen(
        state=state,
        flags=birth.flags | {"uptodate"},
        in_file_vma=birth.vma == "file",
        in_anon_vma=birth.vma != "file",
        is_ksm=False,
        entry_dirty=True,
        collapses_less=True,
    )
    return replace(as_born, **known)  # type: ignore[arg-type]


def verdicts(what: FolioSeen) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {j.birth.name: (j.against, j.since) for j in judge_births(what)}


@pytest.mark.parametrize(("scheme", "order"), EVERY)
@pytest.mark.parametrize("birth", BIRTHS, ids=lambda b: b.name)
def test_a_newborn_folio_is_as_its_birth_leaves_it(birth: Birth, scheme: Scheme, order: int) -> None:
    for kind in birth.kinds:
        born = newborn(birth, fresh(scheme, order, kind, PMD))
        if born is None:
            assert birth.exclusive is not True
            continue
        against, since = verdicts(seen(born, birth))[birth.name]
        assert against or since == ()
        assert born.total == (1 if order >= PMD or kind.is_hugetlb else born.nr)
        assert born.exclusive == frozenset(range(born.nr) if order < PMD and not kind.is_hugetlb else (0,))


def test_lasting_words_exclude_births() -> None:
    small = newborn(COPY_ON_WRITE, fresh(Scheme.LARGE, 0, FolioKind.ANON, PMD))
    huge = newborn(COLLAPSE, fresh(Scheme.LARGE, PMD, FolioKind.ANON, PMD))
    mthp = newborn(COLLAPSE, fresh(Scheme.LARGE, 2, FolioKind.ANON, PMD))
    assert small is not None
    assert huge is not None
    assert mthp is not None
    of_small, of_huge = verdicts(seen(small, COPY_ON_WRITE)), verdicts(seen(huge, COLLAPSE))
    assert {name for name, (against, _) in of_huge.items() if not against} == {
        "huge page fault",
        "collapse by khugepaged or MADV_COLLAPSE",
        "migration",
    }
    assert of_small["huge page fault"][0] == ("it makes folios of the size a PMD, and this one has order 0",)
    assert of_small["swap-in"][0] == ()
    assert of_small["first write to a private mapping of a file"][0]
    in_file = verdicts(seen(small, COPY_ON_WRITE, in_file_vma=True, in_anon_vma=False))
    assert in_file["page fault on anonymous memory"][0]
    assert not in_file["first write to a private mapping of a file"][0]
    never = verdicts(seen(mthp, COLLAPSE, collapses_less=False))
    assert never[COLLAPSE.name][0] == ("on this kernel it makes no folios of order 2",)


def test_what_has_happened_since() -> None:
    born = newborn(COPY_ON_WRITE, fresh(Scheme.LARGE, 0, FolioKind.ANON, PMD))
    assert born is not None
    forked = apply(born, Op("folio_try_dup_anon_rmap_pte", mm=2)).folio
    assert verdicts(seen(forked, COPY_ON_WRITE))[COPY_ON_WRITE.name] == ((), ("fork shared it: 2 processes map it",))
    alone = apply(forked, Op("folio_remove_rmap_pte", mm=1)).folio
    assert len(verdicts(seen(alone, COPY_ON_WRITE))[COPY_ON_WRITE.name][1]) == 1
    cached = seen(replace(alone, swapcache=True), SWAP_IN)
    assert judge_births(cached)[0].birth is SWAP_IN
    assert judge_births(cached)[0].since == ()
    gone = apply(alone, Op("folio_remove_rmap_pte", mm=2)).folio
    assert "it was unmapped" in verdicts(seen(gone, COPY_ON_WRITE))[COPY_ON_WRITE.name][1]
    huge = newborn(COLLAPSE, fresh(Scheme.LARGE, PMD, FolioKind.ANON, PMD))
    assert huge is not None
    split = apply(huge, Op("split_huge_pmd")).folio
    assert "its PMD was split" in verdicts(seen(split, COLLAPSE))[COLLAPSE.name][1][0]


def test_pages_of_files_and_of_drivers() -> None:
    page = replace(fresh(Scheme.LARGE, 0, FolioKind.FILE, PMD), pages=(0,), ptes=(((1, 0), 1),))
    read = "read or fault of a file"
    for flags, agrees, differs in (({"uptodate", "lru"}, read, DRIVER.name), (set(), DRIVER.name, read)):
        found = verdicts(seen(page, DRIVER, flags=frozenset(flags)))
        assert found[agrees] == ((), ())
        assert found[differs][0]
