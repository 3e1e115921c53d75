"""The huge zero folio: what the kernel keeps in variables about it."""

from __future__ import annotations

import numpy as np

from inspector.layout.kernel import Layout
from inspector.records import dataclass


@dataclass(frozen=True)
class HugeZero:
    """The huge zero folio by the variables of mm/huge_memory.c.

    Attributes:
        pfn: Page frame that huge_zero_folio (huge_zero_page before 6.10) points to, -1 for none.
        number: huge_zero_pfn, -1 for none (all ones), None where it cannot be read.
        users: huge_zero_refcount, None where it cannot be read.
    """

    pfn: int
    number: int | None
    users: int | None


def read_huge_zero(layout: Layout) -> HugeZero:
    """Read the variables."""
    page = layout.variable("huge_zero_folio", "huge_zero_page") or 0
    number = layout.variable("huge_zero_pfn")
    return HugeZero(
        int(layout.memmap.pfns(np.array([page], np.uint64))[0]) if page else -1,
        -1 if number == (1 << 64) - 1 else number,
        layout.variable("huge_zero_refcount", size=4),
    )
