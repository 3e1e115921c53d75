"""Shares of the node counters and rss, against the operations that move them and against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.model.expectation import expect
from inspector.model.scheme import Scheme
from inspector.model.stats import (
    NodeStats,
    PagePlacement,
    RssKind,
    expect_node_stats,
    expect_rss,
    mapped_pages,
    pmd_mapped_pages,
    rss_kind,
)
from tests.model.build import OPS, Op, machines, rebuilt_of, run
from tests.model.machine import Machine

SCHEMES = list(Scheme)
NAMES = ("nr_anon_mapped", "nr_file_mapped", "nr_anon_thps", "nr_shmem_pmdmapped", "nr_file_pmdmapped")


def run_exactly(machine: Machine, ops: list[Op]) -> Machine:
    """Without what 6.1 counts twice: an anonymous THP mapped by a PMD and by PTEs that come from no split of it."""
    for op in ops:
        unsplit = op[0] == 0 or (op[0] == 1 and machine.entire < 0 and sum(machine.ptes.values()) > 0)
        if not (machine.scheme is Scheme.OLD and machine.anon and unsplit):
            run(machine, [op])
    return machine


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("anon", [True, False])
@given(order=st.integers(1, 3), ops=OPS)
def test_shares_equal_what_operations_leave_behind(scheme: Scheme, anon: bool, order: int, ops: list[Op]) -> None:
    machine = run_exactly(Machine(scheme, order, anon), ops)
    rebuilt, owner = rebuilt_of([machine])
    expected = expect(scheme, rebuilt, owner)
    assert mapped_pages(scheme, rebuilt, expected).tolist() == [machine.mapped]
    assert pmd_mapped_pages(rebuilt, order).tolist() == [machine.thps]


@pytest.mark.parametrize("ops", [[(1, 1, 0, 1), (0, 2, 0, 1)], [(0, 2, 0, 1), (1, 1, 0, 1)]])
def test_6_1_counts_page_mappings_of_a_pmd_mapped_anonymous_thp_again(ops: list[Op]) -> None:
    """The known inexactness: the model gives what is right, the kernel counts the page twice."""
    machine = run(Machine(Scheme.OLD, 2, True), ops)
    rebuilt, owner = rebuilt_of([machine])
    assert mapped_pages(Scheme.OLD, rebuilt, expect(Scheme.OLD, rebuilt, owner)).tolist() == [4]
    assert machine.mapped == 5


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_node_totals_equal_slow_loops(scheme: Scheme, data: st.DataObject) -> None:
    folios: list[Machine] = data.draw(st.lists(machines(scheme), max_size=4))
    small = data.draw(st.lists(st.integers(0, 3), max_size=6))
    rebuilt, owner = rebuilt_of(folios, small)
    n, nodes, pmd_order = len(owner), 3, 2
    node = data.draw(st.lists(st.integers(0, nodes - 1), min_size=n, max_size=n))
    anon = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    backed = data.draw(st.lists(st.booleans(), min_size=len(folios), max_size=len(folios)))
    places = PagePlacement(
        owner,
        np.array(node, np.int8),
        np.array(anon, np.bool_),
        np.array([node[int(head)] for head in rebuilt.head_row], np.int8),
        np.array(backed, np.bool_),
    )
    wanted = {name: [0] * nodes for name in NAMES}
    for page in range(n):
        if owner[page] < 0 and rebuilt.page_mappings[page] > 0:
            wanted["nr_anon_mapped" if anon[page] else "nr_file_mapped"][node[page]] += 1
    for row, m in enumerate(folios):
        if m.hugetlb:
            continue
        at = node[int(rebuilt.head_row[row])]
        whole = sum(m.pmds.values()) > 0
        pages = {i for (_, i), count in m.ptes.items() if count}
        if pages and scheme is Scheme.NO_PAGE_MAPCOUNT:
            whole = True
        share = m.nr if whole else len(pages)
        wanted["nr_anon_mapped" if m.anon else "nr_file_mapped"][at] += share
        if sum(m.pmds.values()) and m.order == pmd_order:
            kind = "nr_anon_thps" if m.anon else "nr_shmem_pmdmapped" if backed[row] else "nr_file_pmdmapped"
            wanted[kind][at] += m.nr
    found = expect_node_stats(scheme, rebuilt, expect(scheme, rebuilt, owner), places, nodes, pmd_order)
    assert {name: getattr(found, name).tolist() for name in NAMES} == wanted
    assert all(getattr(found, name).dtype == np.int64 for name in NAMES)


def test_stats_of_pieces_add_up() -> None:
    one = NodeStats(*(np.array([k, 1]) for k in range(5)))
    both = one + one
    assert [getattr(both, name).tolist() for name in NAMES] == [[2 * k, 2] for k in range(5)]


def test_a_pud_mapping_is_no_pmd_mapping() -> None:
    machine = Machine(Scheme.MM_IDS, 3, anon=False)
    machine.add_pmd(1)
    rebuilt, owner = rebuilt_of([machine])
    assert pmd_mapped_pages(rebuilt, 2).tolist() == [0]
    assert mapped_pages(Scheme.MM_IDS, rebuilt, expect(Scheme.MM_IDS, rebuilt, owner)).tolist() == [8]


def test_rss_kinds() -> None:
    anon, backed = np.array([True, True, False, False]), np.array([True, False, True, False])
    # A lazily freed anonymous page lost PG_swapbacked and stays anonymous.
    assert rss_kind(anon, backed).tolist() == [RssKind.ANON, RssKind.ANON, RssKind.SHMEM, RssKind.FILE]
    assert [int(k) for k in (RssKind.FILE, RssKind.ANON, RssKind.SWAP, RssKind.SHMEM)] == [0, 1, 2, 3]


@given(entries=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(RssKind), st.sampled_from([1, 16, 512, 1 << 18]))))
def test_rss_equals_a_slow_loop(entries: list[tuple[int, RssKind, int]]) -> None:
    wanted = [[0] * 4 for _ in range(5)]
    for mm, kind, nr in entries:
        wanted[mm][kind] += nr
    columns = (
        np.array([e[0] for e in entries], np.int32),
        np.array([e[1] for e in entries], np.uint8),
        np.array([e[2] for e in entries], np.uint32),
    )
    found = expect_rss(*columns, 5)
    assert found.dtype == np.int64
    assert found.tolist() == wanted


def test_rss_of_no_mm() -> None:
    none = np.empty(0, np.int64)
    assert expect_rss(none, none, none, 0).shape == (0, 4)
