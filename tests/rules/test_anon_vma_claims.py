"""An anon_vma that names no root and no parent puts no other anon_vma at fault."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.rules.rmap.anon_vma_family import anon_vma_root_mismatch
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, planted, put, sound

_NOWHERE = 0xFFFF_8880_0000_0008
"""A kernel address that no anon_vma has."""


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _last_used(s: Snapshot) -> int:
    table = s.anon_rmap.anon_vmas
    return int(np.flatnonzero(table.readable & (table.tree != 0))[-1])


def test_an_anon_vma_without_root_and_parent_is_at_fault_alone(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s, struct = sound(path), sound(path).layout.struct("struct anon_vma")
    addr = int(s.anon_rmap.anon_vmas.addr[_last_used(s)])
    broken = planted(path, *(put(s, addr + struct.field(name).offset, _NOWHERE) for name in ("root", "parent")))
    found = anon_vma_root_mismatch.run(broken)
    table = broken.anon_rmap.anon_vmas
    row = int(np.searchsorted(table.addr, np.uint64(addr)))
    assert row and row in found.rows.tolist()
    claims = found.details.claims.by_violation(len(found))[found.rows.tolist().index(row)]
    assert claims == [("anon_vma", row)]
    assert found.details.expected["root"][found.rows.tolist().index(row)] == 0
