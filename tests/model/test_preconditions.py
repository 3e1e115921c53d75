"""Every precondition: the call that breaks it is refused, by the kernel's name for it and with the right reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from inspector.model.interface import ANCESTORS, SPECS, Op, ancestors_of, name_in, resolve
from inspector.model.operations import apply
from inspector.model.preconditions import UNTESTED, RefusedError
from inspector.model.scheme import Scheme
from inspector.model.state import Folio
from tests.model.sequences import folio_of

NEW, OLD, LARGE, NO_PAGE = Scheme.MM_IDS, Scheme.OLD, Scheme.LARGE, Scheme.NO_PAGE_MAPCOUNT
BORN = Op("folio_add_new_anon_rmap", 1, exclusive=True)
TWICE = "would be exclusive twice"


def after(scheme: Scheme, shape: str, *ops: Op, **changes: bool) -> Folio:
    folio = folio_of(scheme, shape)
    for op in ops:
        folio = apply(folio, op).folio
    return replace(folio, **changes)  # type: ignore[arg-type]


def anon(scheme: Scheme, shape: str, *ops: Op, **changes: bool) -> Folio:
    """Anonymous since an earlier life."""
    folio = replace(folio_of(scheme, shape), anon_mapping=True)
    for op in ops:
        folio = apply(folio, op).folio
    return replace(folio, **changes)  # type: ignore[arg-type]


Case = tuple[Folio, Op, str, str]
REFUSED: Sequence[Case] = [
    (folio_of(NEW, "hugetlb file"), Op("folio_add_file_rmap_pte"), "VM_WARN_ON_FOLIO(hugetlb)", "hugetlb_*() family"),
    (folio_of(OLD, "hugetlb file"), Op("folio_remove_rmap_pmd"), "VM_BUG_ON_PAGE(hugetlb)", "hugetlb_*() family"),
    (folio_of(NEW, "file THP"), Op("hugetlb_add_file_rmap"), "VM_WARN_ON_FOLIO(not hugetlb)", "not hugetlb"),
    (folio_of(LARGE, "dax PUD"), Op("folio_add_file_rmap_pud"), UNTESTED, "PUDs map folios as a whole from 6.15"),
    (
        after(OLD, "file THP", Op("folio_add_file_rmap_pmd")),
        Op("folio_dup_file_rmap_pmd", 2),
        UNTESTED,
        "fork leaves PMDs of files to page faults",
    ),
    (folio_of(OLD, "mTHP"), BORN, UNTESTED, "one page and of PMD size only"),
    (folio_of(NEW, "file THP"), Op("folio_add_file_rmap_pmd", as_coded=True), UNTESTED, "written otherwise"),
    (folio_of(NEW, "large file"), Op("folio_add_file_rmap_pmd"), "VM_WARN_ON_FOLIO(N is not HPAGE_PMD_NR)", "order 2"),
    (folio_of(OLD, "large file"), Op("folio_add_file_rmap_pmd"), "VM_BUG_ON_PAGE(not a THP)", "order 2"),
    (folio_of(NEW, "file THP"), Op("folio_add_file_rmap_pud"), "VM_WARN_ON_FOLIO(N is not HPAGE_PUD_NR)", "order 3"),
    (folio_of(NEW, "file THP"), Op("folio_add_file_rmap_ptes", 1, 0, 0), "VM_WARN_ON_ONCE(no pages)", "no pages"),
    (folio_of(NEW, "file THP"), Op("folio_add_file_rmap_pte", 1, 0, 2), UNTESTED, "it takes one page, not 2"),
    (
        folio_of(NEW, "file THP"),
        Op("folio_add_file_rmap_pte", 1, 8),
        "VM_WARN_ON_FOLIO(page of another folio)",
        "page 8 is not one of the folio's 8",
    ),
    (
        folio_of(NEW, "file THP"),
        Op("folio_add_file_rmap_ptes", 1, 6, 3),
        "VM_WARN_ON_FOLIO(last page of another folio)",
        "the range ends after",
    ),
    (anon(NEW, "THP"), Op("folio_add_file_rmap_pte"), "VM_WARN_ON_FOLIO(anon)", "the folio is anonymous"),
    (folio_of(NEW, "file THP"), Op("folio_add_anon_rmap_pte"), "VM_WARN_ON_FOLIO(not anon)", "is not anonymous"),
    (folio_of(NEW, "THP"), Op("folio_add_anon_rmap_pte"), "VM_WARN_ON_FOLIO(not anon)", "not anonymous yet"),
    (after(NEW, "THP", BORN), BORN, UNTESTED, "the folio is not new"),
    (folio_of(Scheme.RMAP68, "THP"), replace(BORN, exclusive=False), UNTESTED, "exclusive always"),
    (folio_of(NEW, "hugetlb anon"), Op("hugetlb_add_new_anon_rmap"), UNTESTED, "exclusive always"),
    (
        after(NEW, "THP", locked=False),
        replace(BORN, exclusive=False),
        "VM_WARN_ON_FOLIO(neither exclusive nor locked)",
        "must be locked",
    ),
    (after(NEW, "THP", BORN, locked=False), Op("folio_move_anon_rmap"), "VM_BUG_ON_FOLIO(not locked)", "not held"),
    (anon(OLD, "THP", locked=False), Op("folio_add_anon_rmap_pte"), "VM_BUG_ON_PAGE(not locked)", "not held"),
    (folio_of(NEW, "file THP"), Op("folio_remove_rmap_pte", 2, 3), UNTESTED, "no PTE of mm 2 maps page 3"),
    (folio_of(NEW, "file THP"), Op("folio_dup_file_rmap_pte", 2, 3), UNTESTED, "no PTE maps page 3"),
    (folio_of(NEW, "file THP"), Op("folio_dup_file_rmap_pmd", 2), UNTESTED, "nothing maps the folio as a whole"),
    (
        after(NEW, "file THP", Op("folio_add_file_rmap_pmd", 1)),
        Op("folio_remove_rmap_pmd", 2),
        UNTESTED,
        "mm 2 does not map the folio as a whole",
    ),
    (anon(NEW, "THP"), Op("split_huge_pmd", 2), UNTESTED, "mm 2 does not map the folio as a whole"),
    (folio_of(NEW, "hugetlb file"), Op("hugetlb_remove_rmap", 2), UNTESTED, "mm 2 does not map the folio as a whole"),
    (
        anon(NEW, "THP", Op("folio_add_anon_rmap_pte", 1)),
        Op("folio_try_share_anon_rmap_pte", 1),
        "VM_WARN_ON_FOLIO(not PageAnonExclusive)",
        "page 0 is not exclusive",
    ),
    (
        anon(OLD, "THP", Op("folio_add_anon_rmap_pte", 1)),
        Op("folio_add_anon_rmap_pte", 2, exclusive=True),
        "VM_BUG_ON_PAGE(not first, RMAP_EXCLUSIVE)",
        "page 0 is mapped already",
    ),
    (
        anon(OLD, "THP", Op("folio_add_anon_rmap_pte", 1, exclusive=True)),
        Op("folio_add_anon_rmap_pte", 2),
        "VM_BUG_ON_PAGE(not first, PageAnonExclusive)",
        "page 0 is exclusive to another mapping",
    ),
    (
        anon(NEW, "THP", Op("folio_add_anon_rmap_pte", 1, exclusive=True)),
        Op("folio_add_anon_rmap_pte", 2),
        "VM_WARN_ON_FOLIO(_mapcount above 0, PageAnonExclusive)",
        TWICE,
    ),
    (
        anon(NO_PAGE, "THP", Op("folio_add_anon_rmap_pmd", 1, exclusive=True)),
        Op("folio_add_anon_rmap_pmd", 2),
        "VM_WARN_ON_FOLIO(entire mapcount above 1, PageAnonExclusive)",
        TWICE,
    ),
    (
        anon(NEW, "hugetlb anon", Op("hugetlb_add_anon_rmap", 1, exclusive=True)),
        Op("hugetlb_add_anon_rmap", 2),
        "VM_WARN_ON_FOLIO(entire mapcount above 1, PageAnonExclusive)",
        TWICE,
    ),
]


@pytest.mark.parametrize(("folio", "op", "condition", "reason"), REFUSED, ids=[f"{c[1].name}:{c[3]}" for c in REFUSED])
def test_refused_by_name(folio: Folio, op: Op, condition: str, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        apply(folio, op)
    assert caught.value.condition == condition
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"{op.name}(): ")


def test_without_page_counts_the_kernel_cannot_see_a_page_exclusive_twice() -> None:
    folio = anon(NO_PAGE, "THP", Op("folio_add_anon_rmap_pte", 1, exclusive=True))
    assert not apply(folio, Op("folio_add_anon_rmap_pte", 2)).busy


def test_every_ancestor_leads_to_operations_that_exist() -> None:
    for ancestor in ANCESTORS:
        assert resolve(ancestor.name) == ancestor.successors
        assert set(ancestor.successors) <= set(SPECS)
        assert ancestor.changed in ("6.7", "6.8")
        assert all(ancestor in ancestors_of(name) for name in ancestor.successors)
    assert resolve("folio_remove_rmap_pte") == ("folio_remove_rmap_pte",)
    assert resolve("copy_page_range") == ()


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("folio_remove_rmap_ptes", "page_remove_rmap"),
        ("hugetlb_remove_rmap", "page_remove_rmap"),
        ("folio_add_anon_rmap_pmd", "page_add_anon_rmap"),
        ("folio_add_file_rmap_ptes", "page_add_file_rmap"),
        ("hugetlb_add_file_rmap", "page_dup_file_rmap"),
        ("hugetlb_add_anon_rmap", "hugepage_add_anon_rmap"),
        ("folio_move_anon_rmap", "page_move_anon_rmap"),
        ("split_huge_pmd", "split_huge_pmd"),
    ],
)
def test_what_an_older_kernel_calls_it(name: str, old: str) -> None:
    assert name_in(Scheme.OLD, name) == old
    assert name_in(Scheme.RMAP68, name) == name
