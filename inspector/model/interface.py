"""The rmap interface: its operations, what a call is made of, and what older kernels call it.

include/linux/rmap.h and mm/rmap.c of 6.8 and later. Before, page_*() with a ``compound`` argument did what
folio_*_{pte,ptes,pmd}() do since, and hugetlb had no family of its own.
"""

from __future__ import annotations

from enum import Enum

from inspector.model.scheme import Scheme
from inspector.records import dataclass


class OpLevel(Enum):
    """The level of the page tables that the entry is at."""

    PTE = "PTE"
    PMD = "PMD"
    PUD = "PUD"
    FOLIO = "folio"
    """The operation concerns the folio as a whole, whatever maps it."""


@dataclass(frozen=True)
class Op:
    """One call.

    Attributes:
        name: Of the operation, a key of `SPECS`.
        mm: The mm whose entries change; of a fork the child.
        page, nr: Pages concerned; an operation on the whole folio ignores them.
        exclusive: RMAP_EXCLUSIVE.
        vma_locked: Whether the VMA has VM_LOCKED.
        src: The mm that forks, 0 when any that maps the pages will do.
        as_coded: Do what folio_dup_file_rmap_pmd() is written to do in 6.12 and 7.3 (it passes the PTE level), not
            what it is meant to do.
    """

    name: str
    mm: int = 1
    page: int = 0
    nr: int = 1
    exclusive: bool = False
    vma_locked: bool = False
    src: int = 0
    as_coded: bool = False


@dataclass(frozen=True)
class Spec:
    """What an operation is.

    Attributes:
        action: "add", "new", "dup", "share", "remove", "move", "split", "freeze" or "zap".
        level: Of the entries.
        wants: "anon", "file" or "any".
        family: "hugetlb" or "ordinary".
        batch: Whether it takes a number of pages.
    """

    action: str
    level: OpLevel
    wants: str
    family: str = "ordinary"
    batch: bool = False


def _family(name: str, action: str, wants: str, levels: str = "pte ptes pmd") -> dict[str, Spec]:
    found = {"pte": OpLevel.PTE, "ptes": OpLevel.PTE, "pmd": OpLevel.PMD, "pud": OpLevel.PUD}
    return {f"{name}_{word}": Spec(action, found[word], wants, batch=word == "ptes") for word in levels.split()}


SPECS: dict[str, Spec] = {
    **_family("folio_add_anon_rmap", "add", "anon"),
    "folio_add_new_anon_rmap": Spec("new", OpLevel.FOLIO, "anon"),
    **_family("folio_add_file_rmap", "add", "file", "pte ptes pmd pud"),
    **_family("folio_dup_file_rmap", "dup", "file"),
    **_family("folio_try_dup_anon_rmap", "dup", "anon"),
    **_family("folio_try_share_anon_rmap", "share", "anon", "pte pmd"),
    **_family("folio_remove_rmap", "remove", "any", "pte ptes pmd pud"),
    "folio_move_anon_rmap": Spec("move", OpLevel.FOLIO, "anon"),
    "hugetlb_add_anon_rmap": Spec("add", OpLevel.FOLIO, "anon", "hugetlb"),
    "hugetlb_add_new_anon_rmap": Spec("new", OpLevel.FOLIO, "anon", "hugetlb"),
    "hugetlb_add_file_rmap": Spec("add", OpLevel.FOLIO, "file", "hugetlb"),
    "hugetlb_try_dup_anon_rmap": Spec("dup", OpLevel.FOLIO, "anon", "hugetlb"),
    "hugetlb_try_share_anon_rmap": Spec("share", OpLevel.FOLIO, "anon", "hugetlb"),
    "hugetlb_remove_rmap": Spec("remove", OpLevel.FOLIO, "any", "hugetlb"),
    "split_huge_pmd": Spec("split", OpLevel.PMD, "anon"),
    "split_huge_pmd_freeze": Spec("freeze", OpLevel.PMD, "anon"),
    "zap_huge_pmd": Spec("zap", OpLevel.PMD, "any"),
}
"""All operations: the interface of 6.8 and later, and what mm/huge_memory.c puts together from it."""


@dataclass(frozen=True)
class Ancestor:
    """An operation under an older name.

    Attributes:
        name: The older name.
        successors: What it became; which one depends on its arguments.
        changed: Release in which the name went away.
        how: What distinguishes the successors.
    """

    name: str
    successors: tuple[str, ...]
    changed: str
    how: str


def _levels(stem: str, *words: str) -> tuple[str, ...]:
    return tuple(f"{stem}_{word}" for word in words)


_COMPOUND = "the PMD level in place of compound=true (RMAP_COMPOUND), hugetlb in its own family"

ANCESTORS: tuple[Ancestor, ...] = (
    Ancestor("page_add_anon_rmap", _levels("folio_add_anon_rmap", "pte", "ptes", "pmd"), "6.8", _COMPOUND),
    Ancestor("page_add_new_anon_rmap", ("folio_add_new_anon_rmap",), "6.8", "takes the folio"),
    Ancestor(
        "page_add_file_rmap",
        (*_levels("folio_add_file_rmap", "pte", "ptes", "pmd"), "hugetlb_add_file_rmap"),
        "6.8",
        _COMPOUND,
    ),
    Ancestor(
        "folio_add_file_rmap_range",
        _levels("folio_add_file_rmap", "ptes", "pmd"),
        "6.8",
        "since 6.6: the PMD level in place of compound=true",
    ),
    Ancestor(
        "page_dup_file_rmap",
        (*_levels("folio_dup_file_rmap", "pte", "ptes", "pmd"), "hugetlb_add_file_rmap"),
        "6.8",
        _COMPOUND,
    ),
    Ancestor(
        "page_try_dup_anon_rmap",
        (*_levels("folio_try_dup_anon_rmap", "pte", "ptes", "pmd"), "hugetlb_try_dup_anon_rmap"),
        "6.8",
        _COMPOUND,
    ),
    Ancestor(
        "page_try_share_anon_rmap",
        (*_levels("folio_try_share_anon_rmap", "pte", "pmd"), "hugetlb_try_share_anon_rmap"),
        "6.8",
        "the level became explicit",
    ),
    Ancestor(
        "page_remove_rmap",
        (*_levels("folio_remove_rmap", "pte", "ptes", "pmd"), "hugetlb_remove_rmap"),
        "6.8",
        _COMPOUND,
    ),
    Ancestor("page_move_anon_rmap", ("folio_move_anon_rmap",), "6.7", "PG_anon_exclusive is left to the caller"),
    Ancestor("hugepage_add_anon_rmap", ("hugetlb_add_anon_rmap",), "6.8", "renamed"),
    Ancestor("hugepage_add_new_anon_rmap", ("hugetlb_add_new_anon_rmap",), "6.8", "renamed"),
)
"""Every renamed operation."""

_BY_OLD = {a.name: a for a in ANCESTORS}


def resolve(name: str) -> tuple[str, ...]:
    """Today's names of an operation, by any of its names; empty when no operation has it.

    A name that is today's already resolves to itself.
    """
    if name in SPECS:
        return (name,)
    ancestor = _BY_OLD.get(name)
    return ancestor.successors if ancestor else ()


def ancestors_of(name: str) -> tuple[Ancestor, ...]:
    """Older names of one of today's operations."""
    return tuple(a for a in ANCESTORS if name in a.successors)


def has_folio_names(scheme: Scheme) -> bool:
    """Whether kernels of that scheme have today's names; 6.3 to 6.9, of which 6.8 renamed them, are taken to."""
    return scheme not in (Scheme.OLD, Scheme.SUBPAGES)


def name_in(scheme: Scheme, name: str, *, folio_names: bool | None = None) -> str:
    """What a kernel calls an operation.

    Args:
        scheme: Of the kernel.
        name: Today's name.
        folio_names: Whether the kernel has today's names, where its symbols show that; None: by the scheme.
    """
    if has_folio_names(scheme) if folio_names is None else folio_names:
        return name
    # The range form lived in 6.6 and 6.7 only.
    old = [a.name for a in ancestors_of(name) if a.name != "folio_add_file_rmap_range"]
    # Fork duplicated hugetlb mappings of files; a fault added them.
    return old[-1] if name == "hugetlb_add_file_rmap" else old[0] if old else name
