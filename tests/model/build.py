"""Small worlds of folios and pages for the tests of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from inspector.columns import I32
from inspector.model.expectation import Rebuilt
from inspector.model.scheme import Scheme
from tests.model.machine import Machine

Op = tuple[int, int, int, int]

OPS: st.SearchStrategy[list[Op]] = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 7), st.integers(1, 8)), max_size=40
)


def run(machine: Machine, ops: Sequence[Op]) -> Machine:
    """Carry out those operations that are possible in turn; only anonymous folios split their huge entries."""
    for op, mm, page, n in ops:
        page %= machine.nr
        if machine.hugetlb:
            op = op % 2 * 2 + 1  # huge entries only: 1 adds, 3 removes
        if op == 0:
            machine.add_ptes(mm, page, min(n, machine.nr - page))
        elif op == 1:
            machine.add_pmd(mm)
        elif op == 2 and machine.ptes[mm, page] > 0:
            machine.remove_pte(mm, page)
        elif op == 3 and machine.pmds[mm] > 0:
            machine.remove_pmd(mm)
        elif op == 4 and machine.anon and machine.pmds[mm] > 0:
            machine.split_pmd(mm)
    return machine


@st.composite
def machines(draw: st.DrawFn, scheme: Scheme, *, hugetlb: bool | None = None) -> Machine:
    """A folio after any sequence of operations."""
    huge = draw(st.booleans()) if hugetlb is None else hugetlb
    machine = Machine(scheme, draw(st.integers(1, 3)), draw(st.booleans()), huge)
    return run(machine, draw(OPS))


def rebuilt_of(machines: Sequence[Machine], small: Sequence[int] = ()) -> tuple[Rebuilt, I32]:
    """What the page tables would say: small pages with the given mappings between the folios, and who owns a page."""
    pages: list[int] = []
    owner: list[int] = []
    heads: list[int] = []
    spare = list(small)
    for row, machine in enumerate(machines):
        heads.append(len(pages))
        counts = [0] * machine.nr
        for (_, i), n in machine.ptes.items():
            counts[i] += n
        pages += counts
        owner += [row] * machine.nr
        if spare:
            pages.append(spare.pop())
            owner.append(-1)
    pages += spare
    owner += [-1] * len(spare)
    rebuilt = Rebuilt(
        page_mappings=np.array(pages, np.int32),
        head_row=np.array(heads, np.int64),
        order=np.array([m.order for m in machines], np.uint8),
        entire=np.array([sum(m.pmds.values()) for m in machines], np.int32),
        is_hugetlb=np.array([m.hugetlb for m in machines], np.bool_),
        is_anon=np.array([m.anon for m in machines], np.bool_),
        double_map=np.array([m.double_map for m in machines], np.bool_),
    )
    return rebuilt, np.array(owner, np.int32)
