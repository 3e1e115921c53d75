"""Faults of memory cgroups in guests of two nodes with three of them, one removed: counters, and what is charged."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.report.memcg import build_memcg
from inspector.snapshot import Snapshot
from inspector.tables.memcg_counters import MemcgCounters
from inspector.tables.pages import page_words
from tests.faults.overlay import Patch, add, only_finding, page_word, pfn_of, put, sound
from tests.fixtures import KERNELS
from tests.guests.numa import NUMA

pytestmark = pytest.mark.guest


@pytest.fixture(params=KERNELS)
def numa(request: pytest.FixtureRequest) -> str:
    """Path of the small guest of two nodes: captures do not hold what memory cgroups count yet."""
    path = NUMA.path(request.param)
    assert path.is_file(), f"{path} is missing"
    return str(path)


def _counters(s: Snapshot) -> MemcgCounters:
    assert s.memcg_counters is not None
    return s.memcg_counters


def _named(s: Snapshot, path: str) -> int:
    return next(row for row in range(len(s.lru.memcgs)) if s.lru.memcgs.path(row) == path)


def _member(s: Snapshot, path: str, *names: str) -> int:
    """Address of a member of a memory cgroup."""
    return int(s.lru.memcgs.addr[_named(s, path)]) + s.layout.struct("struct mem_cgroup").field(*names).offset


def _of_cpu(s: Snapshot, path: str, item: str, delta: int, cpu: int = 1) -> Patch:
    """What a CPU counted of an item for a memory cgroup."""
    start = s.layout.memory.read_u64(_member(s, path, "vmstats_percpu")) or 0
    field = s.layout.struct("struct memcg_vmstats_percpu").field("state")
    at = (start + int(s.layout.per_cpu_offsets[cpu])) % (1 << 64)
    return add(s, at + field.offset + 8 * _counters(s).items[item], delta)


def _of_vector(s: Snapshot, path: str, node: int, item: str, delta: int, cpu: int = 0) -> Patch:
    """What a CPU counted of an item for a memory cgroup on a node."""
    memcg, lru = _named(s, path), s.lru
    row = int(np.flatnonzero((lru.lruvecs.memcg == memcg) & (lru.lruvecs.node == node))[0])
    per_node = s.layout.struct("struct mem_cgroup_per_node")
    base = int(lru.lruvecs.addr[row]) - per_node.field("lruvec").offset
    start = s.layout.memory.read_u64(base + per_node.field("lruvec_stats_percpu").offset) or 0
    field = s.layout.struct("struct lruvec_stats_percpu").field("state")
    at = (start + int(s.layout.per_cpu_offsets[cpu])) % (1 << 64)
    return add(s, at + field.offset + 8 * _counters(s).node_items[item], delta)


def test_every_counter_is_that_of_the_folios(numa: str) -> None:
    s = sound(numa)
    report = build_memcg(s)
    assert report.known
    assert not report.unknown_charges
    # From 7.x on what is charged to a removed one goes to its parent, and the memory cgroup with it.
    assert {each.path for each in report.memcgs} == {"/", "/even", "/odd", *(() if s.lru.is_by_objcg else ("/gone",))}
    assert [each.charged for each in report.memcgs] == [each.usage for each in report.memcgs]
    assert [each.pages for each in report.statistics] == [each.stored for each in report.statistics]
    assert {(each.node, each.path) for each in report.statistics} >= {(0, "/even"), (1, "/odd")}
    for each in report.memcgs:
        # Nothing but folios keeps the one that was removed: each has a reference.
        assert each.references == (None if each.online else each.folios)


@pytest.mark.parametrize("delta", [-1, 1, 64])
def test_usage(numa: str, delta: int) -> None:
    s = sound(numa)
    at = _member(s, "/even", "memory.usage", "memory.usage.counter")
    finding = only_finding(numa, "memcg-usage-mismatch", add(s, at, delta))
    assert finding.subject.name == "/even"


def test_kernel_memory_counted_twice(numa: str) -> None:
    """Its ancestors count it too, and are not reported."""
    finding = only_finding(numa, "memcg-usage-mismatch", _of_cpu(sound(numa), "/odd", "MEMCG_KMEM", 2))
    assert finding.subject.name == "/odd"


def test_flushed_statistic_of_kernel_memory(numa: str) -> None:
    s = sound(numa)
    start = s.layout.memory.read_u64(_member(s, "/even", "vmstats")) or 0
    place = s.layout.struct("struct memcg_vmstats").field("state").offset
    patch = add(s, start + place + 8 * _counters(s).items["MEMCG_KMEM"], 1)
    assert only_finding(numa, "memcg-usage-mismatch", patch).subject.name == "/even"


def test_slot_that_lost_its_reference(numa: str) -> None:
    s = sound(numa)
    finding = only_finding(
        numa, "memcg-swap-mismatch", add(s, _member(s, "/odd", "id.ref.refs.counter", "id.ref"), 1, 4)
    )
    assert finding.subject.name == "/odd"


@pytest.mark.parametrize("item", ["NR_ANON_MAPPED", "NR_FILE_MAPPED", "NR_SLAB_UNRECLAIMABLE_B", "NR_SHMEM"])
def test_statistic_of_a_memory_cgroup_alone(numa: str, item: str) -> None:
    finding = only_finding(numa, "memcg-stat-mismatch", _of_cpu(sound(numa), "/even", item, 50))
    assert finding.subject.name == "/even"


@pytest.mark.parametrize("item", ["NR_SWAPCACHE", "NR_FILE_PAGES", "NR_SHMEM"])
def test_cached_pages_of_a_memory_cgroup(numa: str, item: str) -> None:
    """Both of its counters are changed, so that they agree."""
    s = sound(numa)
    patches = _of_vector(s, "/odd", 1, item, 5), _of_cpu(s, "/odd", item, 5)
    if item != "NR_SWAPCACHE" and not s.layout.struct("struct vm_area_struct").has("__vm_anon_pgoff_lo"):
        return  # A collapse may have left these counts anywhere.
    assert only_finding(numa, "memcg-cache-mismatch", *patches).subject.name == "node 1 of /odd"


def test_cached_pages_of_a_node_alone(numa: str) -> None:
    s = sound(numa)
    finding = only_finding(numa, "memcg-cache-mismatch", _of_vector(s, "/even", 0, "NR_SWAPCACHE", 5))
    assert finding.evidence.also == ["memcg-stat-mismatch"]


def test_folio_charged_to_a_memory_cgroup_that_was_freed(numa: str) -> None:
    """What folios are charged to leads to memory of memory cgroups in which there is none."""
    s = sound(numa)
    memcgs, charges = s.lru.memcgs, s.charges
    freed = int(memcgs.addr[0]) + 2 * s.layout.struct("struct mem_cgroup").size
    odd = int(memcgs.addr[_named(s, "/odd")])
    if s.lru.is_by_objcg:
        place = s.layout.struct("struct obj_cgroup").field("memcg").offset
        words, _ = s.layout.memory.words(charges.memcg_data + np.uint64(place))
        word = int(charges.memcg_data[np.flatnonzero((words == np.uint64(odd)) & charges.is_lru)[0]])
        patches = [put(s, word + place, freed)]
    else:
        word = freed
        rows = np.flatnonzero(s.layout.flags.test(s.pages.flags[: len(s.pages)], "lru"))
        data, _ = page_words(s.layout, s.pages, rows, "memcg_data")
        two = rows[data == np.uint64(odd)][:2]
        patches = [put(s, page_word(s, pfn_of(s, row), "memcg_data"), freed) for row in two.tolist()]
    finding = only_finding(numa, "memcg-charge-unreachable", *patches)
    assert finding.observed["memcg_data"] == word
