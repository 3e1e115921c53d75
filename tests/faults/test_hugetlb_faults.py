"""hugetlb's pools, free lists, counters and shared page tables damaged."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.layout.flags import VM_MAYSHARE
from inspector.report.hugetlb import build_hugetlb_report
from inspector.rules import find_rule
from inspector.tables.hugetlb import ON_ACTIVE, ON_FREE
from inspector.walk.smaps import vma_figures
from tests.faults.hugetlb_plants import folio_on, pool_word, share_count_word
from tests.faults.overlay import (
    KERNELS,
    add,
    also_broken,
    core_path,
    findings,
    only_finding,
    page_word,
    planted,
    put,
    without_stacks,
    word,
)
from tests.faults.overlay import sound as sound_snapshot
from tests.guests import load_oracle

RULES = [
    "hugetlb-free-folio-state-unexpected",
    "hugetlb-pool-mismatch",
    "hugetlb-reserved-high",
    "hugetlb-share-count-mismatch",
    "hugetlb-shared-table-mismatch",
    "hugetlb-usage-mismatch",
]


@pytest.mark.parametrize("rule", RULES)
def test_sound_dump_breaks_no_rule(path: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(path))
    assert len(found) == 0
    assert found.checked > 0
    assert found.unread.nr == 0


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_pools_are_what_meminfo_said(kernel: str) -> None:
    s = sound_snapshot(core_path("rest", kernel))
    said, h = load_oracle(kernel).meminfo, s.hugetlb.hstates
    default = int(np.flatnonzero(h.order == 9)[0])
    assert int(h.nr[default]) == said["HugePages_Total"] == int(h.nr_active[default] + h.nr_listed_free[default])
    assert int(h.free[default]) == said["HugePages_Free"] == int(h.nr_listed_free[default])
    assert int(h.resv[default]) == said["HugePages_Rsvd"]
    assert int(h.surplus[default]) == said["HugePages_Surp"]
    assert len(s.hugetlb.folios) == said["HugePages_Total"]


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_hugetlb_memory_is_what_smaps_said(kernel: str) -> None:
    s, oracle = sound_snapshot(core_path("rest", kernel)), load_oracle(kernel)
    figures, checked = vma_figures(s), 0
    vmas = {(p.pid, v.start): v.kb for p in oracle.processes for v in p.vmas}
    for row in s.hugetlb.vmas.vma_idx.tolist():
        said = vmas[int(s.mms.pid[s.vmas.mm_idx[row]]), int(s.vmas.start[row])]
        assert int(figures.hugetlb_private[row]) * 4 == said["Private_Hugetlb"]
        assert int(figures.hugetlb_shared[row]) * 4 == said["Shared_Hugetlb"]
        checked += 1
    assert checked == 18


def test_shared_table(path: str) -> None:
    s = sound_snapshot(path)
    report = build_hugetlb_report(s)
    assert [len(t.sharers) for t in report.shared_tables] == [3]
    assert report.shared_tables[0].share_count == 2
    assert report.tables > 10
    locks = s.hugetlb.vmas
    shared = s.vmas.has(VM_MAYSHARE)[locks.vma_idx]
    assert (locks.lock_vma[shared] == s.vmas.addr[locks.vma_idx[shared]]).all()
    assert {v.shared for v in report.vmas} == {False, True}


@pytest.mark.parametrize("name", ["free_huge_pages", "nr_huge_pages", "surplus_huge_pages"])
def test_counter_of_a_pool(path: str, name: str) -> None:
    s = sound_snapshot(path)
    assert also_broken(path, "hugetlb-pool-mismatch", add(s, pool_word(s, name), 1)) == []


def test_counter_of_a_node(path: str) -> None:
    s = sound_snapshot(path)
    assert also_broken(path, "hugetlb-pool-mismatch", add(s, pool_word(s, "free_huge_pages_node"), 1, 4)) == []


def test_free_list_that_runs_in_a_circle(path: str) -> None:
    s = sound_snapshot(path)
    link = page_word(s, folio_on(s, ON_FREE), "lru")
    found = findings(path, put(s, link, link))
    assert [f.rule for f in found] == ["hugetlb-pool-mismatch"]
    assert found[0].observed["lists_whole"] is False


def test_folio_off_its_list(path: str) -> None:
    s = sound_snapshot(path)
    link = page_word(s, folio_on(s, ON_ACTIVE, 3), "lru")
    after, before = word(s, link), word(s, link + 8)
    off = put(s, before, after), put(s, after + 8, before)
    # A folio that is on no list may be on its way, as far as anybody can tell who sees no stacks: told, but no failure.
    found = run_check(without_stacks(path, *off)).findings
    assert [(f.rule, f.severity, f.exactness) for f in found] == [("hugetlb-pool-mismatch", "info", "transient")]
    # Where the stacks show nobody at work it is lost.
    only_finding(path, "hugetlb-pool-mismatch", *off)


def test_back_link(path: str) -> None:
    s = sound_snapshot(path)
    link = page_word(s, folio_on(s, ON_ACTIVE, 3), "lru")
    assert also_broken(path, "hugetlb-pool-mismatch", put(s, link + 8, link)) == []


def test_reference_of_a_free_folio(path: str) -> None:
    s = sound_snapshot(path)
    address = page_word(s, folio_on(s, ON_FREE), "_refcount.counter", "_refcount")
    assert also_broken(path, "hugetlb-free-folio-state-unexpected", put(s, address, 1, 4)) == []


def test_subpool_of_a_free_folio(path: str) -> None:
    s = sound_snapshot(path)
    head = s.layout.memmap.page_addr(folio_on(s, ON_FREE))
    field = s.layout.struct("struct folio").find("_hugetlb_subpool")
    page = s.layout.struct("struct page")
    offset = field.offset if field is not None else page.size + page.field("private").offset
    also_broken(path, "hugetlb-free-folio-state-unexpected", put(s, head + offset, s.layout.memory.direct_map_base))


def test_more_reserved_than_free(path: str) -> None:
    s = sound_snapshot(path)
    found = findings(path, add(s, pool_word(s, "resv_huge_pages"), 100))
    assert [(f.rule, f.severity) for f in found] == [("hugetlb-reserved-high", "warn")]


@pytest.mark.parametrize("delta", [1, -1])
def test_count_of_sharers(path: str, delta: int) -> None:
    s = sound_snapshot(path)
    address, pfn = share_count_word(s)
    found = findings(path, add(s, address, delta, 4))
    assert [(f.rule, f.subject.pfn) for f in found] == [("hugetlb-share-count-mismatch", pfn)]
    assert found[0].evidence.also == []


def test_count_of_sharers_of_a_table_nobody_shares(path: str) -> None:
    s = sound_snapshot(path)
    address, pfn = share_count_word(s)
    tables, _ = s.hugetlb_tables
    alone = int(tables.pfn[np.argmin(tables.nr_sharers)])
    also_broken(path, "hugetlb-share-count-mismatch", add(s, address + (alone - pfn) * s.layout.memmap.page_size, 1, 4))


def test_sharer_at_another_offset(path: str) -> None:
    s = sound_snapshot(path)
    tables, sharers = s.hugetlb_tables
    row = int(sharers.vma_idx[tables.first[np.argmax(tables.nr_sharers)] + 1])
    address = int(s.vmas.addr[row]) + s.layout.struct("struct vm_area_struct").field("vm_pgoff").offset
    found = findings(path, add(s, address, 512))
    assert len(found) == 1
    assert "hugetlb-shared-table-mismatch" in (found[0].rule, *found[0].evidence.also)


def test_usage_of_a_process(path: str) -> None:
    s = sound_snapshot(path)
    private = s.hugetlb.vmas.vma_idx[~s.vmas.has(VM_MAYSHARE)[s.hugetlb.vmas.vma_idx]]
    mm = int(s.mms.addr[s.vmas.mm_idx[private[0]]])
    address = mm + s.layout.struct("struct mm_struct").field("hugetlb_usage.counter").offset
    found = findings(path, add(s, address, 512))
    assert [(f.rule, f.severity) for f in found] == [("hugetlb-usage-mismatch", "warn")]


@pytest.mark.guest
@pytest.mark.parametrize("value", [0xFFFFFFFFFFFFFFFF, 0xDEAD000000000122])
def test_garbage_never_raises(path: str, value: int) -> None:
    s = sound_snapshot(path)
    names = ("hugepage_activelist", "hugepage_freelists", "nr_huge_pages", "order")
    places = [*(pool_word(s, x) for x in names), s.layout.symbol("hugetlb_max_hstate")]
    for address in (*places, page_word(s, folio_on(s, ON_ACTIVE), "lru")):
        run_check(planted(path, put(s, address, value)), ["hugetlb"])


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rule", RULES)
def test_busy_dump_fails_nothing(kernel: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(core_path("busy", kernel)))
    assert len(found) == 0 or (found.details.transient is not None and found.details.transient.all())
