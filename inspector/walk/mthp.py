"""Large folios of user memory by what maps them: whole, in part, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U8, Mask, Table
from inspector.records import dataclass
from inspector.walk.kinds import KINDS, kind_codes

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class LargeFolios(Table):
    """One row a large folio of user memory: anonymous, of a file or of shmem; none of hugetlb.

    Attributes:
        folio: int64; row in `inspector.tables.folios.Folios`.
        kind: uint8; place in `inspector.walk.kinds.KINDS`.
        nr_pages: int64.
        mapped: int64; pages of it that anything maps.
        by_pmd: bool; a PMD maps it whole.
    """

    folio: I64
    kind: U8
    nr_pages: I64
    mapped: I64
    by_pmd: Mask

    @property
    def partly(self) -> Mask:
        """Some of its pages are mapped, and some are not."""
        return (self.mapped > 0) & (self.mapped < self.nr_pages)

    @property
    def unmapped_pages(self) -> I64:
        """Pages of a partly mapped folio that nothing maps, 0 for all others: what splitting an anonymous one frees."""
        return np.where(self.partly, self.nr_pages - self.mapped, 0)


def large_folios(s: Snapshot) -> LargeFolios:
    """All of them."""
    folios, expected = s.folios, s.expected
    user = folios.readable & (folios.order > 0) & ~folios.is_hugetlb & (folios.is_anon | folios.is_rmappable)
    rows = np.flatnonzero(user)
    kind = kind_codes(s.layout, s.pages, folios, s.folio_of_page, folios.row[rows])
    of_users = np.isin(kind, [KINDS.index(name) for name in ("anon", "ksm", "shmem", "file")])
    rows, kind = rows[of_users], kind[of_users]
    entire = s.counts.entire[rows] > 0
    mapped = np.zeros(len(rows), np.int64) if expected is None else expected.nr_mapped_pages[rows].astype(np.int64)
    nr = folios.nr_pages[rows]
    return LargeFolios(
        rows,
        kind,
        nr,
        np.where(entire, nr, np.minimum(mapped, nr)),
        entire,
    )
