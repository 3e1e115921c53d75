"""Dumps in which nearly everything is broken at once, or data is missing: nearly every rule has something to find."""

from __future__ import annotations

from functools import lru_cache

import drgn
import numpy as np

from inspector.columns import Mask
from inspector.snapshot import Snapshot
from inspector.target.target import Target
from inspector.violations import Columns, Things, Violations
from tests.faults.every import CATALOGUE
from tests.faults.overlay import Patch, core_path, opened, planted, sound
from tests.faults.plants import MissingError

HIDE_TABLES = frozenset(("linked-page-table-freed",))
"""Faults that hide page tables, so that counts can only be shown to be too low."""


@lru_cache(maxsize=1)
def patches(kernel: str) -> tuple[Patch, ...]:
    """All faults that the captured dump can have, together."""
    found: list[Patch] = []
    for name, fault in CATALOGUE.items():
        if name not in HIDE_TABLES:
            try:
                found += fault(sound(core_path("fixture", kernel))).patches
            except MissingError:
                continue
    return tuple(found)


def broken(kernel: str) -> Snapshot:
    """The captured dump with all of these faults; each call opens it anew."""
    return planted(core_path("fixture", kernel), *patches(kernel))


def with_holes(kernel: str) -> Snapshot:
    """The captured dump without some pages that hold structures of each kind; each call opens it anew."""
    path = core_path("fixture", kernel)
    s, target = sound(path), opened(path)
    base, size = s.layout.memory.direct_map_base, 1 << s.layout.memmap.page_shift
    columns = (s.vmas.addr, s.mms.addr, s.anon_rmap.anon_vmas.addr, s.file_rmap.address_spaces.addr, s.ksm.nodes.addr)
    physical = [int(column[len(column) // 3]) - base for column in columns if len(column)]
    physical.append(int(s.tables.pfn[len(s.tables) // 2]) * size)
    for address in sorted({x & -size for x in physical}):
        make_hole(target, address, size, physical=True)
    make_hole(target, s.layout.memmap.page_addr(int(s.folios.pfn[len(s.folios) // 2])) & -size, size, physical=False)
    return Snapshot(target)


def make_hole(target: Target, address: int, size: int, *, physical: bool) -> None:
    """Let a piece of memory be missing from the dump."""

    def read(address: int, _count: int, _offset: int, _physical: bool) -> bytes:
        raise drgn.FaultError("not in the dump", address)

    target.prog.add_memory_segment(address, size, read, physical)


def same(one: Violations, other: Violations) -> bool:
    """Whether a rule found the same twice."""
    a, b = one.details, other.details
    return (
        (one.checked, one.unread, one.note) == (other.checked, other.unread, other.note)
        and np.array_equal(one.rows, other.rows)
        and all(equal(getattr(a, name), getattr(b, name)) for name in ("observed", "expected", "facts"))
        and all(related(getattr(a, name)) == related(getattr(b, name)) for name in ("claims", "depends"))
        and all(masks(getattr(a, name), getattr(b, name)) for name in ("transient", "beyond"))
    )


def equal(one: Columns, other: Columns) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def related(things: Things) -> list[tuple[str, list[int], list[int]]]:
    return [(kind, at.tolist(), ids.tolist()) for kind, at, ids in things.parts]


def masks(one: Mask | None, other: Mask | None) -> bool:
    return one is other if one is None or other is None else bool(np.array_equal(one, other))
