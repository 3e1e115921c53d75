"""Folios of every shape and sequences of operations on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from inspector.model.interface import SPECS, Op
from inspector.model.operations import apply
from inspector.model.preconditions import RefusedError
from inspector.model.scheme import Scheme
from inspector.model.state import Folio, FolioKind, fresh
from tests.model.agreement import disagreements

SHAPES: dict[str, tuple[int, FolioKind]] = {
    "small anon": (0, FolioKind.ANON),
    "small file": (0, FolioKind.FILE),
    "small shmem": (0, FolioKind.SHMEM),
    "mTHP": (2, FolioKind.ANON),
    "THP": (3, FolioKind.ANON),
    "large file": (2, FolioKind.FILE),
    "file THP": (3, FolioKind.FILE),
    "shmem THP": (3, FolioKind.SHMEM),
    "dax PUD": (4, FolioKind.DAX),
    "hugetlb anon": (3, FolioKind.HUGETLB_ANON),
    "hugetlb file": (3, FolioKind.HUGETLB_FILE),
}
"""Order and kind; a PMD maps order 3 here and a PUD order 4, so that sequences stay quick and readable."""


def folio_of(scheme: Scheme, shape: str) -> Folio:
    order, kind = SHAPES[shape]
    return fresh(scheme, order, kind, pmd_order=3, pud_order=4)


def exists(scheme: Scheme, shape: str) -> bool:
    """6.1 has no anonymous folios between one page and a THP; PUDs map files from 6.15 on."""
    return not (scheme is Scheme.OLD and shape == "mTHP") and (shape != "dax PUD" or scheme.has_mm_ids)


CASES = [(scheme, shape) for scheme in Scheme for shape in SHAPES if exists(scheme, shape)]


def names_for(folio: Folio) -> list[str]:
    """Operations of the folio's own family and kind."""
    family = "hugetlb" if folio.kind.is_hugetlb else "ordinary"
    wants = "anon" if folio.kind.is_anon else "file"
    return [name for name, spec in SPECS.items() if spec.family == family and spec.wants in (wants, "any")]


@dataclass
class Run:
    """A folio and what was done to it."""

    folio: Folio
    done: list[Op] = field(default_factory=list)
    refused: int = 0
    busy: int = 0
    exact: bool = True

    def step(self, op: Op) -> None:
        """Carry out the operation if it is legal."""
        before = self.folio
        try:
            outcome = apply(before, op)
        except RefusedError:
            self.refused += 1
            return
        if outcome.busy:
            assert outcome.folio == before
            self.busy += 1
            return
        self.folio = outcome.folio
        self.done.append(op)
        self.exact = self.exact and not _counted_twice(before, op)

    def check(self) -> None:
        """Operations and closed form agree."""
        problems = disagreements(self.folio, stats=self.exact)
        assert not problems, "\n".join([*problems, *map(str, self.done), repr(self.folio)])


def _counted_twice(before: Folio, op: Op) -> bool:
    """What 6.1 counts twice: pages of an anonymous THP that a PMD and PTEs map which come from no split of it."""
    if before.scheme is not Scheme.OLD or before.kind is not FolioKind.ANON or not before.is_large:
        return False
    action, by_pmd = SPECS[op.name].action, op.name.endswith("_pmd")
    if action == "add" and not by_pmd:
        return before.entire >= 0 and not before.double_map
    return action == "add" and by_pmd and before.entire < 0 and bool(before.ptes)


def ops_for(folio: Folio) -> st.SearchStrategy[Op]:
    """Calls that may be legal."""
    return st.builds(
        Op,
        st.sampled_from(names_for(folio)),
        st.integers(1, 3),
        st.integers(0, folio.nr - 1),
        st.integers(1, folio.nr),
        exclusive=st.booleans(),
        vma_locked=st.booleans(),
    )
