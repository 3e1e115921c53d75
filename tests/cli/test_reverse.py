"""The commands that follow the kernel's own links, on every captured kernel."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from inspector.report.pages import build_place
from inspector.report.rmap import build_rmap
from inspector.snapshot import Snapshot
from inspector.walk.page_numbers import number_meanings
from tests.cli.conftest import Run
from tests.faults.overlay import planted, sound
from tests.faults.rmap_catalogue import chain_unlinked_from_its_tree, index_of_a_forked_page_shifted


def asked(run: Run, core: str, *words: str) -> Any:
    """What a command says as JSON, held against its own schema; its text must work as well."""
    result = run("-c", core, *words, "--format", "json")
    assert (result.code, result.err) == (0, ""), words
    schema = json.loads(run(words[0], "--schema").out)
    jsonschema.Draft202012Validator(schema).validate(result.object)
    text = run("-c", core, *words)
    assert (text.code, text.err) == (0, "")
    assert all(line.isprintable() and line == line.rstrip() for line in text.out.splitlines())
    return result.object


def some_pfn(s: Snapshot, which: Any) -> str:
    rows = np.flatnonzero(which & (s.counts.page_mappings > 1) & (s.folio_of_page < 0))
    return hex(int(s.pages.memmap.pfns_of_rows(rows[3:4])[0]))


def test_rmap_of_an_anonymous_folio_agrees_with_the_page_tables(run: Run, any_core: str) -> None:
    s = sound(any_core)
    rows = np.arange(len(s.pages))
    report = asked(run, any_core, "rmap", some_pfn(s, s.pages.is_anon(rows) & ~s.pages.is_ksm(rows)))
    assert (report["walk"], report["agree"], report["orphans"]) == ("anonymous", True, [])
    assert report["by_walk"] == report["by_tables"] > 1
    family = asked(run, any_core, "anon-vma", report["steps"]["anon_vma"])
    assert family["root"] == report["steps"]["root, whose rwsem guards the walk"]
    assert all(m["num_children"] == m["children"] for m in family["family"])
    assert all(m["num_active_vmas"] == m["active_vmas"] for m in family["family"])
    assert [c["subtree_last"] for c in family["tree"]] == [c["expected_subtree_last"] for c in family["tree"]]
    chains = {p["via"] for p in report["places"]}
    assert chains <= {c["address"] for c in family["tree"]}
    of_vma = asked(run, any_core, "anon-vma", family["tree"][0]["vma"])
    assert of_vma["root"] == family["root"]


def test_rmap_of_a_ksm_page_finds_every_sharer(run: Run, any_core: str) -> None:
    s = sound(any_core)
    report = asked(run, any_core, "rmap", some_pfn(s, s.pages.is_ksm(np.arange(len(s.pages)))))
    assert (report["walk"], report["agree"]) == ("ksm", True)
    assert report["by_walk"] == sum(p["entries"] for p in report["places"]) == report["by_tables"]


def test_a_file_by_path_inode_and_address_is_the_same(run: Run, any_core: str) -> None:
    by_path = asked(run, any_core, "file", "/bin/keeper")
    assert by_path["name"] == "/bin/keeper"
    assert by_path["tree_vmas"] == len(by_path["mappers"]) > 100
    assert all(m["in_tree"] for m in by_path["mappers"])
    assert sum(o["pages"] for o in by_path["orders"]) == by_path["nrpages"]
    for name in (by_path["address_space"], by_path["inode"]):
        assert asked(run, any_core, "file", name) == by_path
    page = asked(
        run, any_core, "rmap", some_pfn(sound(any_core), _of_file(any_core, int(by_path["address_space"], 16)))
    )
    assert (page["walk"], page["agree"]) == ("file", True)


def _of_file(core: str, space: int) -> Any:
    return sound(core).pages.mapping == np.uint64(space)


def test_uffd_tells_who_watches_what(run: Run, any_core: str) -> None:
    report = asked(run, any_core, "uffd")
    vmas = {v["address"]: (c, v) for c in report["contexts"] for v in c["vmas"]}
    s = sound(any_core)
    assert len(vmas) == int((s.uffd.context_of_vma >= 0).sum()) > 5
    assert all(c["pid"] is not None and not c["released"] for c, _ in vmas.values())
    assert {mode for _, v in vmas.values() for mode in v["modes"]} == {"missing", "wp", "minor"} | (
        {"rwp"} if s.layout.version == (7, 3) else set()
    )
    assert sum(v["protected"] for _, v in vmas.values() if "wp" in v["modes"]) > 0
    watched = run("-c", any_core, "uffd").out
    assert "uffd-" in watched
    assert "wp" in watched


def test_ksm_hugetlb_and_swap_say_what_the_kernel_said(run: Run, any_core: str) -> None:
    ksm = asked(run, any_core, "ksm")
    assert {name: ksm["stored"][name] for name in ksm["rebuilt"] if name in ksm["stored"]}.items() <= ksm[
        "rebuilt"
    ].items()
    hugetlb = asked(run, any_core, "hugetlb")
    assert sum(size["nr"] for size in hugetlb["sizes"]) == 24
    swap = asked(run, any_core, "swap")
    assert [d["path"] for d in swap["devices"]] == ["/dev/zram0", "/dev/vdc"]
    s = sound(any_core)
    busiest = int(np.argmax(s.swap_refs.pte_refs))
    name = f"{int(s.swap.devices.type_[s.swap.slots.device_idx[busiest]])}:{int(s.swap.slots.offset[busiest])}"
    slot = asked(run, any_core, "swap", name)["slot"]
    assert len(slot["users"]) == int(s.swap_refs.pte_refs[busiest]) > 1


def test_places_that_do_not_exist_are_refused_in_one_line(run: Run, any_core: str) -> None:
    for words in (
        ("rmap", "0xffffffffffff"),
        ("anon-vma", "0x1000"),
        ("anon-vma", "nonsense"),
        ("file", "/no/such/file"),
        ("swap", "9:1"),
        ("swap", "what"),
    ):
        result = run("-c", any_core, *words)
        assert (result.code, result.out) == (2, ""), words
        assert result.err.startswith("folioscope: error: ")
        assert result.err.count("\n") == 1


@pytest.mark.parametrize("plant", [chain_unlinked_from_its_tree, index_of_a_forked_page_shifted])
def test_a_mapping_that_rmap_misses_is_named_with_the_reason(any_core: str, plant: Any) -> None:
    whole = sound(any_core)
    fault = plant(whole)
    if fault.pfn is None:
        avcs = whole.anon_rmap.avcs
        broken = planted(any_core, *fault.patches)
        lost = np.flatnonzero((broken.anon_rmap.avcs.list_vma_idx >= 0) & (broken.anon_rmap.avcs.tree_idx < 0))
        anon_vma, vma = int(broken.anon_rmap.avcs.anon_vma[lost[0]]), int(broken.anon_rmap.avcs.vma_idx[lost[0]])
        links = whole.links
        mine = (links.vma_idx == vma) & ((links.mapping & ~np.uint64(3)) == np.uint64(anon_vma))
        pfn = int(whole.pages.memmap.pfns_of_rows(links.head_row[np.flatnonzero(mine)[:1]].astype(np.int64))[0])
        assert len(avcs) == len(broken.anon_rmap.avcs)
    else:
        pfn, broken = fault.pfn, planted(any_core, *fault.patches)
    place = build_place(broken, hex(pfn), number_meanings(broken.layout, pfn)[0], [])
    report = build_rmap(broken, place)
    assert not report.agree
    assert report.orphans
    assert all("VMA" in orphan.reason for orphan in report.orphans)
