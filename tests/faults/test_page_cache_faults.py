"""address_spaces, xarrays and cached folios damaged: one finding each; totals and views against the kernel's word."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.rules import find_rule
from inspector.rules.files.page_cache import cached_totals
from inspector.rules.registry import all_rules
from inspector.tables.files import FILE, FOLIO, SHMEM
from inspector.tables.node_stats import node_stats
from inspector.walk.cache_view import cache_by_order, cache_of, find_address_spaces
from inspector.walk.page_cache import CachedFolios, cached_folios, find_entries
from tests.faults.cache_plants import idle_entries, slot_address, space_word
from tests.faults.overlay import add, only_finding, page_word, put
from tests.faults.overlay import sound as sound_snapshot

RULES = [r.slug for r in all_rules() if r.group == "page-cache"]


@pytest.mark.parametrize("rule", RULES)
def test_sound_dump_breaks_no_rule(path: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(path))
    assert len(found) == 0
    assert found.checked > 0
    assert found.unread.nr == 0


@pytest.mark.parametrize("rule", RULES)
def test_busy_dump_fails_no_rule(busy: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(busy))
    assert len(found) == 0 or (found.details.transient is not None and bool(found.details.transient.all()))


def test_totals_are_the_counters(path: str) -> None:
    s = sound_snapshot(path)
    stored = node_stats(s.layout)
    assert {name: stored[name] for name in cached_totals(s)} == cached_totals(s)


def test_totals_of_a_busy_kernel_are_the_counters(busy: str) -> None:
    s = sound_snapshot(busy)
    stored = node_stats(s.layout)
    assert {name: stored[name] for name in cached_totals(s)} == cached_totals(s)


@pytest.mark.parametrize("kind", [FILE, SHMEM])
def test_nrpages(path: str, kind: int) -> None:
    s = sound_snapshot(path)
    space = int(s.files.entries.address_space_idx[idle_entries(s, kind)[0]])
    found = only_finding(path, "cache-nrpages-mismatch", add(s, space_word(s, space, "nrpages"), 1))
    assert found.subject.kind == "address_space"
    assert found.evidence.also == []


@pytest.mark.parametrize("kind", [FILE, SHMEM])
def test_slot_leads_to_another_folio_of_the_file(path: str, kind: int) -> None:
    s = sound_snapshot(path)
    rows = idle_entries(s, kind)
    rows = rows[s.files.entries.address_space_idx[rows] == s.files.entries.address_space_idx[rows[0]]]
    at, _ = slot_address(s, int(rows[0]))
    found = only_finding(path, "cache-entry-mismatch", put(s, at, int(s.files.entries.value[rows[2]])))
    assert found.evidence.also == ["cached-folio-missing"]


def test_slot_leads_to_a_folio_of_another_file(path: str) -> None:
    s = sound_snapshot(path)
    other = int(s.files.entries.value[idle_entries(s, SHMEM)[0]])
    at, _ = slot_address(s, int(idle_entries(s, FILE)[0]))
    assert only_finding(path, "cache-entry-mismatch", put(s, at, other)).evidence.also == ["cached-folio-missing"]


def test_slot_emptied(path: str) -> None:
    s = sound_snapshot(path)
    at, _ = slot_address(s, int(idle_entries(s, SHMEM)[0]))
    found = only_finding(path, "cache-nrpages-mismatch", put(s, at, 0))
    assert found.evidence.also == ["cached-folio-missing", "cache-counters-mismatch"]


def test_slot_leads_out_of_the_memory_map(path: str) -> None:
    s = sound_snapshot(path)
    at, _ = slot_address(s, int(idle_entries(s, SHMEM)[0]))
    only_finding(path, "cache-tree-damaged", put(s, at, s.layout.memory.direct_map_base + 0x1000))


def test_node_leads_to_itself(path: str) -> None:
    s = sound_snapshot(path)
    at, node = slot_address(s, int(idle_entries(s, SHMEM)[0]))
    shift = s.layout.struct("struct xa_node").field("shift")
    only_finding(path, "cache-tree-damaged", put(s, node + shift.offset, 6, 1), put(s, at, node | 2))


def test_index_of_a_cached_folio(path: str) -> None:
    s = sound_snapshot(path)
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    found = only_finding(path, "cache-entry-mismatch", add(s, page_word(s, pfn, "__folio_index", "index"), 1))
    assert found.evidence.also == ["cached-folio-missing"]


def test_mapping_of_a_cached_folio(path: str) -> None:
    s = sound_snapshot(path)
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    other = int(s.files.address_spaces.addr[s.files.entries.address_space_idx[idle_entries(s, SHMEM)[0]]])
    found = only_finding(path, "cache-entry-mismatch", put(s, page_word(s, pfn, "mapping"), other))
    assert found.evidence.also == ["cached-folio-missing"]


def test_mapping_that_is_no_address_space(path: str) -> None:
    s = sound_snapshot(path)
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    only_finding(path, "cache-entry-mismatch", add(s, page_word(s, pfn, "mapping"), 8))


def test_entries_are_found_by_index(path: str) -> None:
    s = sound_snapshot(path)
    entries = s.files.entries
    rows = np.arange(len(entries))
    found, value = find_entries(s.files, entries.address_space_idx, entries.index)
    assert (found == rows).all()
    assert (value == entries.value).all()
    last = entries.index + entries.nr.astype(np.uint64) - np.uint64(1)
    assert (find_entries(s.files, entries.address_space_idx, last)[0] == rows).all()
    beyond = np.full(len(s.files.address_spaces), 1 << 50, np.uint64)
    assert (find_entries(s.files, np.arange(len(beyond), dtype=np.int32), beyond)[0] == -1).all()


def test_views(path: str) -> None:
    s = sound_snapshot(path)
    spaces, entries = s.files.address_spaces, s.files.entries
    cached = CachedFolios.concat(list(cached_folios(s)))
    large = cached.entry[cached.nr == 512]
    row = int(entries.address_space_idx[large[0]])
    view = cache_of(s, row)
    assert len(view) == int((entries.address_space_idx == row).sum())
    orders = cache_by_order(view)
    assert 9 in orders.order.tolist()
    assert int(orders.pages.sum()) == int(spaces.nrpages[row])
    assert find_address_spaces(s.files, address=int(spaces.addr[row])).tolist() == [row]
    assert find_address_spaces(s.files, address=int(spaces.host[row])).tolist() == [row]
    assert row in find_address_spaces(s.files, ino=int(spaces.ino[row])).tolist()
    assert (view.kind[view.pfn >= 0] == FOLIO).all()
