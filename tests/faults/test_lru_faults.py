"""Faults of LRU vectors and of split queues in the guest of two nodes: heads, lengths, and who is whose."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.loops import is_compiled
from inspector.snapshot import Snapshot
from inspector.subjects import MTHP_COUNTERS
from inspector.tables.lru_pages import _Links
from tests.faults.lru_catalogue import lru_folio_of_another_memory_cgroup
from tests.faults.overlay import Patch, add, only_finding, page_word, pfn_of, planted, put, sound, word
from tests.fixtures import KERNELS, NUMA_KERNELS, numa_fixture_path
from tests.guests.numa import NUMA


@pytest.fixture(
    params=[
        *(pytest.param(("fixture", k), id=f"fixture-{k}") for k in NUMA_KERNELS),
        *(pytest.param(("guest", k), id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
    ]
)
def numa(request: pytest.FixtureRequest) -> str:
    """Path of the small guest of two nodes, or of its capture."""
    where, kernel = request.param
    path = numa_fixture_path(kernel) if where == "fixture" else NUMA.path(kernel)
    assert path.is_file(), f"{path} is missing"
    return str(path)


def _busiest(s: Snapshot) -> tuple[int, int]:
    """The list with the most members: its vector, and its place there."""
    links = _Links(s.layout, s.pages, s.folios)
    links.read()
    found = links.judge(s.lru)
    members = np.bincount(found.members.list_, found.members.nr)
    at = int(np.argmax(members))
    return int(found.lists.lruvec[at]), int(found.lists.place[at])


def test_vectors_of_all_cgroups_on_both_nodes(numa: str) -> None:
    s = sound(numa)
    lru, found = s.lru, s.lru_pages
    assert found is not None
    assert lru.whole
    assert lru.has_memcgs
    paths = [lru.memcgs.path(row) for row in range(len(lru.memcgs))]
    assert {"/", "/even", "/odd"} <= set(paths)
    # From 7.x on what is charged to a removed cgroup goes to its parent, and the cgroup with it.
    assert ("/gone" in paths) == (not lru.is_by_objcg)
    assert [paths[row] for row in np.flatnonzero(~lru.memcgs.online)] == (["/gone"] if "/gone" in paths else [])
    assert sorted(set(lru.lruvecs.node.tolist())) == [0, 1]
    assert len(lru.lruvecs) == 2 * len(lru.memcgs)
    assert (found.lists.lruvec >= 0).all()
    report = run_check(s, ["lru"])
    assert not report.findings
    assert report.coverage.complete


@pytest.mark.skipif(not is_compiled(), reason="the loops are not compiled")
def test_sums_prove_sound_what_is_found_sound_one_by_one(numa: str) -> None:
    s = sound(numa)
    links = _Links(s.layout, s.pages, s.folios)
    links.read()
    found, proved = links.judge(s.lru), _Links(s.layout, s.pages, s.folios).sound(s.lru)
    assert proved is not None
    assert len(found.odd) == len(found.misplaced) == len(found.odd_heads) == found.nr_unknown == 0
    assert proved.nr == found.nr > 1000
    assert np.array_equal(proved.classes.nr_pages, found.classes.nr_pages)
    assert set(proved.lists.head.tolist()) == set(found.lists.head.tolist())


def test_head_that_leads_to_poison(numa: str) -> None:
    s = sound(numa)
    vector, place = _busiest(s)
    finding = only_finding(numa, "lru-head-invalid", put(s, int(s.lru.heads[vector, place]), 0xDEAD000000000100))
    assert finding.subject.address == int(s.lru.lruvecs.addr[vector])


def test_empty_list_that_leads_elsewhere(numa: str) -> None:
    s = sound(numa)
    own = s.lru.heads
    vector, place = (int(x[0]) for x in np.nonzero((s.lru.links == own[:, :, None]).all(axis=2)))
    other = int(own[(vector + 1) % len(own), place])
    only_finding(numa, "lru-head-invalid", put(s, int(own[vector, place]) + 8, other))


def _size(s: Snapshot, vector: int, *, young: bool) -> Patch:
    """One of the sizes that a vector keeps, 3 more than it is."""
    base = int(s.lru.lruvecs.addr[vector])
    if young:
        return add(s, base + s.layout.struct("struct lruvec").field("lrugen.nr_pages").offset + 8, 3)
    per_node = s.layout.struct("struct mem_cgroup_per_node")
    return add(s, base - per_node.field("lruvec").offset + per_node.field("lru_zone_size").offset, 3)


@pytest.mark.parametrize("young", [True, False])
def test_size_of_a_list(numa: str, young: bool) -> None:
    s = sound(numa)
    finding = only_finding(numa, "lruvec-size-mismatch", _size(s, 1, young=young))
    assert finding.evidence.facts["counter"] == ("nr_pages[0][0][1]" if young else "lru_zone_size[0][0]")
    stored, expected = finding.observed["stored"], finding.expected["stored"]
    assert isinstance(stored, int)
    assert isinstance(expected, int)
    assert stored == expected + 3


def test_folio_of_another_memory_cgroup(numa: str) -> None:
    """Its class is counted elsewhere, too: that is of the same cause."""
    fault = lru_folio_of_another_memory_cgroup(sound(numa))
    finding = only_finding(numa, "lru-list-mismatch", *fault.patches)
    assert finding.subject.pfn == fault.pfn
    assert finding.observed["memcg"] != finding.evidence.facts["list_memcg"]


def test_folio_that_is_charged_to_nobody(numa: str) -> None:
    s = sound(numa)
    fault = lru_folio_of_another_memory_cgroup(s)
    (patch,) = fault.patches
    nobody = put(s, patch.address, word(s, patch.address) ^ 1 << 12)
    if s.lru.is_by_objcg:
        # The word itself names no object of its slab cache.
        assert only_finding(numa, "memcg-data-invalid", nobody).subject.pfn == fault.pfn
        return
    finding = only_finding(numa, "lru-list-mismatch", nobody)
    assert finding.subject.pfn == fault.pfn
    assert finding.observed["memcg"] in ("none", "not known")


def test_lock_that_is_held_excuses_a_size(numa: str) -> None:
    """Where no task can be at work, a lock alone is no excuse: the stacks are known."""
    s = sound(numa)
    lock = s.layout.struct("struct lruvec").field("lru_lock.rlock.raw_lock.val.counter")
    held = put(s, int(s.lru.lruvecs.addr[1]) + lock.offset, 1, 4)
    only_finding(numa, "lruvec-size-mismatch", _size(s, 1, young=False), held)


def _queue(s: Snapshot) -> int:
    """A split queue that folios are on."""
    queues = s.split_queues.queues
    return int(np.flatnonzero(np.isin(queues.head, s.split_links.queue[s.split_links.queued]))[0])


def test_split_queues_of_cgroups_on_both_nodes(numa: str) -> None:
    s = sound(numa)
    assert s.split_queues.whole
    assert (s.split_links.queue[s.split_links.queued] != 0).all()
    assert np.isin(s.split_links.queue[s.split_links.queued], s.split_queues.queues.head).all()
    report = run_check(s, ["split-queue", "mthp-count-mismatch"])
    assert not report.findings
    assert report.coverage.complete


def test_length_of_a_split_queue(numa: str) -> None:
    s = sound(numa)
    row = _queue(s)
    by_list = len(s.split_queues.node_totals) > 0
    struct = s.layout.struct("struct list_lru_one" if by_list else "struct deferred_split")
    names = ("list", "nr_items") if by_list else ("split_queue", "split_queue_len")
    at = int(s.split_queues.queues.head[row]) + struct.field(names[1]).offset - struct.field(names[0]).offset
    patches = [add(s, at, 1)]
    if by_list:
        start = s.layout.memory.read_u64(s.layout.symbol("deferred_split_lru"))
        node = s.layout.struct("struct list_lru_node")
        place = int(s.split_queues.queues.node[row]) * node.size + node.field("nr_items.counter").offset
        # What the node counts agrees with its lists.
        patches.append(add(s, (start or 0) + place, 1))
    finding = only_finding(numa, "split-queue-length-mismatch", *patches)
    assert finding.subject.address == int(s.split_queues.queues.head[row])


def test_length_of_a_node_beside_its_lists(numa: str) -> None:
    s = sound(numa)
    if not len(s.split_queues.node_totals):
        return
    start = s.layout.memory.read_u64(s.layout.symbol("deferred_split_lru"))
    node = s.layout.struct("struct list_lru_node")
    only_finding(numa, "split-queue-length-mismatch", add(s, (start or 0) + node.field("nr_items.counter").offset, -1))


def test_queued_folio_of_another_memory_cgroup(numa: str) -> None:
    """It is on the LRU list of its old one as well: that list names it."""
    s = sound(numa)
    links = s.split_links
    folio = links.folio[links.queued]
    queue = links.queue[links.queued]
    queues = s.split_queues.queues
    other = int(np.flatnonzero(queues.head != queue[0])[-1])
    node = int(links.node[links.queued][0])
    following, before = (int(column[links.queued][0]) for column in (links.following, links.before))
    head = int(queues.head[other])
    patches = [put(s, before, following), put(s, following + 8, before), put(s, node, head)]
    last = word(s, head + 8)
    patches += [put(s, node + 8, last), put(s, head + 8, node), put(s, last, node)]
    report = run_check(planted(numa, *patches))
    assert {f.rule for f in report.findings} <= {"split-queue-mismatch", "split-queue-length-mismatch"}
    assert int(s.folios.pfn[folio[0]]) in {f.subject.pfn for f in report.findings}


@pytest.mark.parametrize("item", MTHP_COUNTERS)
def test_count_of_large_folios(numa: str, item: str) -> None:
    s = sound(numa)
    if not s.mthp_stats:
        return
    items = s.layout.enum("enum mthp_stat_item")
    start = int((np.uint64(s.layout.symbol("mthp_stats")) + s.layout.per_cpu_offsets)[1])
    place = 8 * (9 * items["__MTHP_STAT_COUNT"] + items[f"MTHP_STAT_{item}"])
    finding = only_finding(numa, "mthp-count-mismatch", add(s, start + place, 1))
    assert finding.subject.name == f"{item.lower()} of order 9"


def _counter(s: Snapshot, node: int, item: str, delta: int, *, zone: int = -1) -> Patch:
    """The word of an item of a node, or of one of its zones, changed; the machine's own is left."""
    nodes = s.layout.symbol("node_data")
    pgdat = s.layout.memory.read_u64(nodes + 8 * node) or 0
    enum, struct = ("enum node_stat_item", s.layout.struct("struct pglist_data"))
    if zone >= 0:
        pgdat += struct.field("node_zones").offset + zone * s.layout.struct("struct zone").size
        enum, struct = "enum zone_stat_item", s.layout.struct("struct zone")
    return add(s, pgdat + struct.field("vm_stat").offset + 8 * s.layout.enum(enum)[item], delta)


def test_counter_of_a_list_of_one_node(numa: str) -> None:
    finding = only_finding(numa, "lru-counter-mismatch", _counter(sound(numa), 1, "NR_ACTIVE_ANON", 7))
    assert finding.subject.name == "NR_ACTIVE_ANON of node 1"


def test_counters_of_two_nodes_whose_sum_is_right(numa: str) -> None:
    s = sound(numa)
    patches = (_counter(s, 0, "NR_ANON_MAPPED", 50), _counter(s, 1, "NR_ANON_MAPPED", -50))
    report = run_check(planted(numa, *patches))
    assert [(f.rule, f.severity) for f in report.findings] == [("node-share-mismatch", "warn")] * len(report.findings)
    assert {f.subject.name for f in report.findings} == {"NR_ANON_MAPPED of node 0", "NR_ANON_MAPPED of node 1"}


@pytest.mark.parametrize(
    ("item", "slug"),
    [
        ("NR_SWAPCACHE", "cache-share-mismatch"),
        ("NR_FILE_PAGES", "cache-share-mismatch"),
        ("NR_PAGETABLE", "page-table-counter-mismatch"),
        ("NR_FOLL_PIN_ACQUIRED", "pin-counter-mismatch"),
    ],
)
def test_other_counters_of_two_nodes_whose_sum_is_right(numa: str, item: str, slug: str) -> None:
    s = sound(numa)
    newer = s.layout.struct("struct vm_area_struct").has("__vm_anon_pgoff_lo")
    report = run_check(planted(numa, _counter(s, 0, item, 50), _counter(s, 1, item, -50)))
    # Before 7.x cached pages need not be counted on the node that they are on.
    expected = 0 if item == "NR_FILE_PAGES" and not newer else 2
    assert [f.rule for f in report.findings] == [slug] * expected
    assert len({f.subject.name for f in report.findings}) == expected


def test_generation_of_a_folio(numa: str) -> None:
    """It is another one: what is counted of both is off."""
    s = sound(numa)
    fields, found = s.layout.flag_fields, s.lru_pages
    assert fields is not None
    assert found is not None
    gens = fields.gens(s.pages.words.flags)
    rows = s.pages.heads_where((gens == 1) & s.layout.flags.test(s.pages.words.flags, "lru"))
    if not len(rows):
        return
    at = page_word(s, pfn_of(s, int(rows[0])), "flags.f", "flags")
    only_finding(numa, "lruvec-size-mismatch", put(s, at, word(s, at) ^ 1 << fields.gen))


def test_counters_by_node_and_zone_are_those_of_the_folios(numa: str) -> None:
    report = run_check(sound(numa), ["lru-counter-mismatch", "node-share-mismatch"])
    assert not report.findings
    assert {c.rule: c.checked for c in report.coverage.rules}["node-share-mismatch"] == 10
    assert {c.rule: c.checked for c in report.coverage.rules}["lru-counter-mismatch"] == 2 * 5
