"""KSM's books damaged: nodes, lists, items and totals."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import collect_for, run_check
from inspector.report.ksm import build_ksm_report, rebuilt_totals
from inspector.rules import find_rule
from inspector.tables.ksm import CHAIN
from tests.faults.ksm_plants import item_word, node_word
from tests.faults.overlay import KERNELS, Patch, add, also_broken, core_path, findings, page_word, planted, put, word
from tests.faults.overlay import sound as sound_snapshot
from tests.guests import guests_folder

RULES = [
    "ksm-list-length-mismatch",
    "ksm-mapping-unreachable",
    "ksm-mm-counters-low",
    "ksm-node-mismatch",
    "ksm-totals-mismatch",
    "ksm-tree-damaged",
    "ksm-zero-pages-mismatch",
]


@pytest.mark.parametrize("rule", RULES)
def test_sound_dump_breaks_no_rule(path: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(path))
    assert len(found) == 0
    assert found.unread.nr == 0


def test_every_entry_of_a_ksm_page_is_found_by_rmap(path: str) -> None:
    s = sound_snapshot(path)
    entries = s.ksm_entries
    assert len(entries) > 60
    assert entries.reached.all()
    heads = np.unique(entries.head_row)
    assert len(entries) == int(s.counts.page_mappings[heads].sum())
    report = build_ksm_report(s)
    assert (report.entries, report.reached) == (len(entries), len(entries))


def test_kpfn_of_a_node(path: str) -> None:
    s = sound_snapshot(path)
    assert also_broken(path, "ksm-node-mismatch", add(s, node_word(s, "kpfn"), 1)) == []


def test_length_of_a_list(path: str) -> None:
    s = sound_snapshot(path)
    assert also_broken(path, "ksm-list-length-mismatch", add(s, node_word(s, "rmap_hlist_len"), 1, 4)) == []


def test_item_cut_off_a_list(path: str) -> None:
    s = sound_snapshot(path)
    head = node_word(s, "hlist")
    first = word(s, head)
    also = also_broken(path, "ksm-list-length-mismatch", put(s, head, word(s, first)))
    assert "ksm-totals-mismatch" in also


def test_list_that_runs_in_a_circle(path: str) -> None:
    s = sound_snapshot(path)
    first = word(s, node_word(s, "hlist"))
    found = findings(path, put(s, first, first))
    assert [f.rule for f in found] == ["ksm-list-length-mismatch"]
    assert found[0].observed["list_whole"] is False


def test_list_that_leads_into_another(path: str) -> None:
    s = sound_snapshot(path)
    first, other = (word(s, node_word(s, "hlist", at=i)) for i in (0, 1))
    found = findings(path, put(s, first, other))
    assert {f.rule for f in found} == {"ksm-list-length-mismatch"}


def test_stable_tree_that_runs_in_a_circle(path: str) -> None:
    s = sound_snapshot(path)
    root = word(s, word(s, s.layout.symbol("root_stable_tree")))
    found = findings(path, put(s, root + 16, root))
    assert [f.rule for f in found] == ["ksm-tree-damaged"]


def test_stable_tree_of_wrong_parents(path: str) -> None:
    s = sound_snapshot(path)
    root = word(s, word(s, s.layout.symbol("root_stable_tree")))
    child = word(s, root + 8) or word(s, root + 16)
    found = findings(path, add(s, child, 0x40))
    assert [(f.rule, f.count) for f in found] == [("ksm-tree-damaged", 1)]


def test_chain_that_runs_in_a_circle(path: str) -> None:
    s = sound_snapshot(path)
    chain = int(s.ksm.nodes.addr[np.flatnonzero(s.ksm.nodes.kind == CHAIN)[0]])
    first = word(s, chain + s.layout.struct("struct ksm_stable_node").field("hlist").offset)
    assert also_broken(path, "ksm-list-length-mismatch", put(s, first, first)) == []


def test_list_of_mms_that_runs_in_a_circle(path: str) -> None:
    s = sound_snapshot(path)
    link = int(s.ksm.slots.addr[2]) + s.layout.struct("struct ksm_mm_slot").field("slot.mm_node").offset
    found = findings(path, put(s, link, link))
    assert [(f.rule, f.subject.kind) for f in found] == [("ksm-tree-damaged", "ksm")]


def test_address_of_an_item(path: str) -> None:
    s = sound_snapshot(path)
    row = int(s.ksm_entries.item_idx[0])
    assert also_broken(path, "ksm-mapping-unreachable", add(s, item_word(s, row, "address"), 0x5000)) == []


def test_anon_vma_of_an_item(path: str) -> None:
    s = sound_snapshot(path)
    row = int(s.ksm_entries.item_idx[0])
    other = int(s.anon_rmap.anon_vmas.addr[0])
    assert other != int(s.ksm.items.anon_vma[row])
    assert also_broken(path, "ksm-mapping-unreachable", put(s, item_word(s, row, "anon_vma"), other)) == []


@pytest.mark.each_kernel
def test_page_offset_of_an_item(path: str) -> None:
    s = sound_snapshot(path)
    if not s.layout.struct("struct ksm_rmap_item").has("linear_page_index"):
        return
    row = int(s.ksm_entries.item_idx[0])
    assert also_broken(path, "ksm-mapping-unreachable", put(s, item_word(s, row, "linear_page_index"), 0x123)) == []


def test_a_page_without_a_node_is_one_that_could_not_be_merged_unless_a_node_has_it(path: str) -> None:
    s = sound_snapshot(path)
    row = int(s.ksm_entries.item_idx[0])
    node = int(s.ksm.items.node_idx[row])
    pfn = int(s.ksm.nodes.kpfn[node])
    cut = put(s, page_word(s, pfn, "mapping"), 3)
    rule = find_rule("ksm-node-mismatch")
    assert len(rule.run(planted(path, cut))) == 1
    other = add(s, int(s.ksm.nodes.addr[node]) + s.layout.struct("struct ksm_stable_node").field("kpfn").offset, 1)
    assert len(rule.run(planted(path, cut, other))) == 0


def test_a_merged_page_that_a_child_inherited_is_no_lost_mapping(path: str) -> None:
    s = sound_snapshot(path)
    items, nodes = s.ksm.items, s.ksm.nodes
    link = s.layout.struct("struct ksm_rmap_item").field("hlist").offset
    row = int(s.ksm_entries.item_idx[0])
    node = int(items.node_idx[row])
    before = [int(a) + link for a in items.addr[items.node_idx == node]]
    before.append(int(nodes.addr[node]) + s.layout.struct("struct ksm_stable_node").field("hlist").offset)
    own = int(items.addr[row]) + link
    unlink = put(s, next(place for place in before if word(s, place) == own), word(s, own))
    rule = find_rule("ksm-mapping-unreachable")

    def lost(*patches: Patch) -> int:
        now = planted(path, *patches)
        collect_for(now, [rule])
        return len(rule.run(now))

    # The item says that it is on the node's list, and is not; then, that it waits for ksmd to come by again.
    assert lost(unlink) > 0
    assert lost(unlink, add(s, item_word(s, row, "address"), -0x200)) == 0


def test_totals(path: str) -> None:
    s = sound_snapshot(path)
    found = findings(path, add(s, s.layout.symbol("ksm_pages_sharing"), 1))
    assert [(f.rule, f.severity) for f in found] == [("ksm-totals-mismatch", "warn")]


def test_counter_of_an_mm(path: str) -> None:
    s = sound_snapshot(path)
    mm = int(s.ksm.items.mm[0])
    address = mm + s.layout.struct("struct mm_struct").field("ksm_merging_pages").offset
    assert also_broken(path, "ksm-mm-counters-low", put(s, address, 1)) == []


@pytest.mark.each_kernel
def test_zero_pages_of_an_mm(path: str) -> None:
    s = sound_snapshot(path)
    field = s.layout.struct("struct mm_struct").find("ksm_zero_pages.counter", "ksm_zero_pages")
    if field is None:
        return
    mm = int(s.ksm.items.mm[0])
    assert also_broken(path, "ksm-zero-pages-mismatch", add(s, mm + field.offset, 1)) == []


@pytest.mark.parametrize("value", [0xFFFFFFFFFFFFFFFF, 0xDEAD000000000122])
def test_garbage_never_raises(path: str, value: int) -> None:
    s = sound_snapshot(path)
    symbols = ("root_stable_tree", "ksm_nr_node_ids", "rmap_item_cache", "migrate_nodes", "ksm_mm_head")
    places = [*(s.layout.symbol(x) for x in symbols), *(node_word(s, x) for x in ("hlist", "node", "kpfn"))]
    places.append(item_word(s, int(s.ksm_entries.item_idx[0]), "rmap_list"))
    for address in places:
        run_check(planted(path, put(s, address, value)), ["ksm"])


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_totals_are_what_sysfs_said(kernel: str) -> None:
    s = sound_snapshot(core_path("rest", kernel))
    folder = guests_folder() / kernel / "oracle/sys/kernel/mm/ksm"
    rebuilt = rebuilt_totals(s)
    for name in ("pages_shared", "pages_sharing", "stable_node_chains", "stable_node_dups"):
        said = int((folder / name).read_text())
        assert rebuilt[name] == said
        assert s.ksm.totals[name] == said
    zero = folder / "ksm_zero_pages"
    if zero.is_file():
        assert int(s.ksm.mms.zero_pages.sum()) == int(zero.read_text())


@pytest.mark.guest
@pytest.mark.race
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rule", RULES)
def test_busy_dump_fails_nothing(kernel: str, rule: str) -> None:
    s = sound_snapshot(core_path("busy", kernel))
    assert (s.ksm.nodes.kind != CHAIN).sum() > 100
    found = find_rule(rule).run(s)
    assert len(found) == 0 or (found.details.transient is not None and found.details.transient.all())
