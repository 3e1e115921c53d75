"""Tables made by hand for unit tests."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from inspector.tables.vmas import Vmas


def vmas_at(stretches: list[tuple[int, int, int]]) -> Vmas:
    """VMAs of which only the row of the mm, the first address and the end are of interest; in that order."""
    n = len(stretches)
    empty = Vmas.empty()
    columns = {f.name: np.zeros(n, getattr(empty, f.name).dtype) for f in fields(Vmas)}
    for name, i in (("mm_idx", 0), ("start", 1), ("end", 2)):
        columns[name] = np.array([s[i] for s in stretches], columns[name].dtype)
    return Vmas(**columns)
