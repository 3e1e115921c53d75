"""Old and new names of the rmap operations: what one is called depends on the kernel.

The history of mm/rmap.c, 6.7 to 6.8: page_*() with a ``compound`` argument became folio_*_{pte,ptes,pmd}(), and
hugetlb got a family of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from inspector.model.ops import SPECS
from inspector.model.scheme import Scheme


@dataclass(frozen=True)
class Ancestor:
    """An operation under an older name.

    Attributes:
        name: The older name.
        successors: What it became; which one depends on its arguments.
        changed: Release in which the name went away.
        how: What tells the successors apart.
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
    """Today's names of an operation, asked for by any name; empty when it is none.

    A name that is today's already resolves to itself.
    """
    if name in SPECS:
        return (name,)
    ancestor = _BY_OLD.get(name)
    return ancestor.successors if ancestor else ()


def ancestors_of(name: str) -> tuple[Ancestor, ...]:
    """Older names of one of today's operations."""
    return tuple(a for a in ANCESTORS if name in a.successors)


def name_in(scheme: Scheme, name: str) -> str:
    """What a kernel of that scheme calls an operation; 6.3 to 6.9, which know both, are told by today's name."""
    if scheme not in (Scheme.OLD, Scheme.SUBPAGES):
        return name
    # The range form lived in 6.6 and 6.7 only.
    old = [a.name for a in ancestors_of(name) if a.name != "folio_add_file_rmap_range"]
    # Fork duplicated hugetlb mappings of files; a fault added them.
    return old[-1] if name == "hugetlb_add_file_rmap" else old[0] if old else name
