"""Memory of devices in page tables: persistent memory that processes map without the page cache (DAX), as real kernels
keep it, and address spaces that KVM watches."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Bit, Level
from inspector.capture.capture import capture
from inspector.capture.private_pages import judge_pages, reason_code
from inspector.check.run import run_check
from inspector.columns import I64
from inspector.report.notifiers import build_notifiers_report
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from inspector.walk.kinds import page_kinds
from inspector.windows.page_account import PAGE_KINDS, account_for_pages
from tests.faults.overlay import Patch, add, findings, flags_xor, page_word, put, sound
from tests.fixtures import KERNELS
from tests.guests.devices import DEVICES

MIB = 96
"""Persistent memory of the guest (`DEVICES.words`)."""

pytestmark = pytest.mark.guest


def dump(kernel: str) -> Snapshot:
    return sound(str(DEVICES.path(kernel)))


def device_entries(s: Snapshot) -> I64:
    """Rows of mappings of such pages."""
    rows = np.maximum(s.pages.memmap.rows(s.mappings.pfn), 0)
    return np.flatnonzero(s.layout.of_device(s.pages.flags[rows]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_of_it_is_held_and_consistent(kernel: str) -> None:
    facts = DEVICES.facts(kernel)
    assert sorted(facts["ready"]) == ["dax-device", "dax-file-huge", "dax-file-small", "kvm-machine"]
    assert facts["failed"] == facts["skipped"] == {}
    report = run_check(dump(kernel))
    assert report.findings == []
    assert report.coverage.complete


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_page_of_it_is_the_devices(kernel: str) -> None:
    s = dump(kernel)
    assert int(account_for_pages(s).pages[:, PAGE_KINDS.index("device")].sum()) == MIB << 8
    rows = np.flatnonzero(s.layout.of_device(s.pages.flags[:]))
    assert set(page_kinds(s.layout, s.pages, s.folios, s.folio_of_page, rows).tolist()) == {"device"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_small_and_huge_entries_lead_to_it(kernel: str) -> None:
    """Up to 6.16 such entries have a bit of their own, and none of them is counted (mm/memory.c, insert_pfn())."""
    s = dump(kernel)
    rows = device_entries(s)
    level = s.mappings.level[rows]
    assert (level == Level.PTE).sum() >= 3
    assert (level == Level.PMD).sum() >= 4
    is_old = kernel != "7.3"
    assert bool(((s.mappings.bits[rows] & Bit.DEVMAP) != 0).all()) == is_old
    mapped = s.pages.memmap.rows(s.mappings.pfn[rows])
    assert bool((s.pages.mapcount_raw[mapped][level == Level.PTE] == -1).all()) == is_old


def test_from_615_on_its_folios_are_counted_like_others() -> None:
    path = str(DEVICES.path("7.3"))
    s = dump("7.3")
    rows = device_entries(s)
    small = int(s.mappings.pfn[rows[s.mappings.level[rows] == Level.PTE][0]])
    huge = int(s.mappings.pfn[rows[s.mappings.level[rows] == Level.PMD][0]])

    def found(*patches: Patch) -> list[str]:
        return [f.rule for f in findings(path, *patches)]

    assert found(add(s, page_word(s, small, "_mapcount"), 1, 4)) == ["mapcount-too-high"]
    assert found(add(s, page_word(s, small, "__folio_index", "index"), 1)) == ["file-index-mismatch"]
    assert found(add(s, page_word(s, huge, "_refcount"), -1, 4)) == ["refcount-low"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_on_no_lru_list(kernel: str) -> None:
    s = dump(kernel)
    pfn = int(s.mappings.pfn[device_entries(s)[0]])
    assert [f.rule for f in findings(str(DEVICES.path(kernel)), flags_xor(s, pfn, "lru"))] == ["lru-list-missing"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_capture_has_none_of_what_is_in_it(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It holds users' data, although its struct pages are reserved as those of the kernel's image are."""
    out = tmp_path_factory.mktemp("capture") / "devices.kdump"
    report = capture(open_core(str(DEVICES.path(kernel)), types="btf"), out)
    assert report.same_answers
    s = Snapshot(open_core(str(out), types="btf"))
    rows = np.flatnonzero(s.layout.of_device(s.pages.flags[:]))
    pfns = s.pages.memmap.pfns_of_rows(rows)
    assert len(pfns) == MIB << 8
    assert set(judge_pages(s, pfns).tolist()) == {reason_code("device memory")}
    readable = s.layout.memory.gather(pfns[::7].astype(np.uint64) << np.uint64(12), 8, physical=True).valid
    assert not readable.any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_kvm_watches_the_memory_of_its_machine(kernel: str) -> None:
    report = build_notifiers_report(dump(kernel))
    (one,) = report.notifiers
    assert (one.pid, one.comm) == (DEVICES.facts(kernel)["ready"]["kvm-machine"], "kvm-machine")
    assert (one.callback, one.users, one.start, one.end) == ("[kvm]", 1, None, None)
    assert [(m.mm, m.notifiers, m.active) for m in report.mms] == [(one.mm, 1, 0)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_notifier_whose_module_is_gone_is_found(kernel: str) -> None:
    s = dump(kernel)
    ops = int(s.notifiers.subscriptions.ops[0])
    assert [f.rule for f in findings(str(DEVICES.path(kernel)), put(s, ops, int(s.mms.addr[0])))] == [
        "notifier-callbacks-invalid"
    ]
