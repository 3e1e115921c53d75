"""Swap slots, the swap cache and non-present entries damaged: one finding each."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Kind
from inspector.check.run import run_check, violations_of
from inspector.rules import find_rule
from inspector.rules.registry import all_rules
from inspector.snapshot import Snapshot
from inspector.tables.files import SHMEM
from inspector.tables.vmalloc import vmalloc_pfns
from inspector.walk.swap_view import find_slot, slot_exists, slot_users, swap_devices
from tests.faults.cluster_catalogue import extended
from tests.faults.overlay import (
    Patch,
    add,
    findings,
    flags_xor,
    only_finding,
    opened,
    page_word,
    plant,
    planted,
    put,
    word,
)
from tests.faults.overlay import sound as sound_snapshot
from tests.faults.swap_plants import (
    count_changed,
    entry_changed,
    has_table,
    slot_address,
    slots_used_by,
    swapper_patch,
    users_of,
)
from tests.rules.broken import make_hole

GROUPS = ("swap", "swap-cache", "nonpresent")
RULES = [r.slug for r in all_rules() if r.group in GROUPS]


@pytest.mark.parametrize("rule", RULES)
def test_sound_dump_breaks_no_rule(path: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(path))
    assert len(found) == 0
    assert found.unread.nr == 0


@pytest.mark.parametrize("rule", RULES)
def test_busy_dump_fails_no_rule(busy: str, rule: str) -> None:
    found = violations_of(sound_snapshot(busy), find_rule(rule))
    assert len(found) == 0 or (found.details.transient is not None and bool(found.details.transient.all()))


def test_every_entry_has_its_slot(path: str) -> None:
    s = sound_snapshot(path)
    users = s.swap_refs.users
    assert len(users) > 1900
    assert (users.slot_idx >= 0).all()
    assert int((s.swap_refs.shmem_refs > 0).sum()) == 21


@pytest.mark.parametrize("cached", [False, True])
def test_count_raised(path: str, cached: bool) -> None:
    s = sound_snapshot(path)
    row = int(slots_used_by(s, users=1, cached=cached)[0])
    found = only_finding(path, "swap-count-high", count_changed(s, row, 1))
    assert (found.observed["count"], found.expected["count"]) == (2, 1)


@pytest.mark.parametrize("users", [1, 2, 3])
def test_count_lowered(path: str, users: int) -> None:
    s = sound_snapshot(path)
    row = int(slots_used_by(s, users=users, cached=False)[0])
    found = only_finding(path, "swap-count-low", count_changed(s, row, -1))
    assert (found.observed["count"], found.expected["count"]) == (users - 1, users)


def test_exclusive_bit_on_an_entry_of_a_shared_slot(path: str) -> None:
    s = sound_snapshot(path)
    slot = int(slots_used_by(s, users=3)[0])
    only_finding(path, "exclusive-swap-entry-sharing-unexpected", entry_changed(s, int(users_of(s, slot)[0]), 1 << 3))


def test_all_entries_of_a_shared_slot_exclusive(path: str) -> None:
    s = sound_snapshot(path)
    slot = int(slots_used_by(s, users=2)[0])
    found = only_finding(
        path, "exclusive-swap-entry-sharing-unexpected", *(entry_changed(s, int(r), 1 << 3) for r in users_of(s, slot))
    )
    assert found.count == 2


def test_entry_beyond_the_device(path: str) -> None:
    s = sound_snapshot(path)
    row = int(users_of(s, int(slots_used_by(s, users=1, cached=False)[0]))[0])
    found = only_finding(path, "swap-entry-slot-invalid", entry_changed(s, row, 1 << 40))
    assert found.evidence.also == ["swap-count-high"]


def test_entry_of_a_device_that_is_not_there(path: str) -> None:
    s = sound_snapshot(path)
    row = int(users_of(s, int(slots_used_by(s, users=1, cached=False)[0]))[0])
    assert (
        only_finding(path, "swap-entry-slot-invalid", entry_changed(s, row, 4 << 59)).observed["slot"]
        == "no slot of a device in use"
    )


def test_an_entry_of_no_device_is_found_though_files_are_missing(path: str) -> None:
    """A file could name more slots: that makes no slot of what is none."""
    s, target = sound_snapshot(path), opened(path)
    row = int(users_of(s, int(slots_used_by(s, users=1, cached=False)[0]))[0])
    base, size = s.layout.memory.direct_map_base, 1 << s.layout.memmap.page_shift
    file = int(s.file_rmap.address_spaces.addr[len(s.file_rmap.address_spaces) // 2]) - base
    plant(target, entry_changed(s, row, 4 << 59))
    make_hole(target, file & -size, size, physical=True)
    report = run_check(Snapshot(target))
    assert report.coverage.missing["files and address_spaces"]
    assert "swap-entry-slot-invalid" in [f.rule for f in report.findings]


def test_entry_moved_to_another_slot(path: str) -> None:
    s = sound_snapshot(path)
    slots, rows = s.swap.slots, slots_used_by(s, users=1, cached=False)
    one, other = int(rows[0]), int(rows[5])
    assert slots.device_idx[one] == slots.device_idx[other]
    # The offset lies inverted from bit 9 on: turning bits over turns the same bits of the offset over.
    bits = (int(slots.offset[one]) ^ int(slots.offset[other])) << 9
    found = only_finding(path, "swap-count-low", entry_changed(s, int(users_of(s, one)[0]), bits))
    assert found.evidence.also[0] == "swap-count-high"
    assert found.evidence.also[1:] in ([], ["exclusive-swap-entry-sharing-unexpected"])


def test_swap_cache_leads_to_another_folio(path: str) -> None:
    s = sound_snapshot(path)
    slots = s.swap.slots
    cached = np.flatnonzero(slots.cache_pfn >= 0)
    one, other = int(cached[0]), int(cached[-1])
    if has_table(s):
        address = slot_address(s, one)
        old, new = int(slots.cache_pfn[one]), int(slots.cache_pfn[other])
        patch = put(s, address, word(s, address) + ((new - old) << 2))
    else:
        patch = swapper_patch(s, one, other)
    also = only_finding(path, "swapcache-slot-mismatch", patch).evidence.also
    # The two folios may be of two nodes, each of which counts its own.
    assert also in (["swapcache-folio-missing"], ["swapcache-folio-missing", "cache-share-mismatch"])


def test_cached_folio_without_its_flag(path: str) -> None:
    s = sound_snapshot(path)
    pfn = int(s.swap.slots.cache_pfn.max())
    only_finding(path, "swapcache-slot-mismatch", flags_xor(s, pfn, "swapcache"))


def test_swap_entry_of_a_folio(path: str) -> None:
    s = sound_snapshot(path)
    pfn = int(s.swap.slots.cache_pfn.max())
    found = only_finding(path, "swapcache-slot-mismatch", add(s, page_word(s, pfn, "private"), 1))
    assert found.subject.kind == "swap_slot"


def test_lazyfree_folio_in_the_swap_cache(path: str) -> None:
    s = sound_snapshot(path)
    only_finding(path, "lazyfree-swapcache-unexpected", flags_xor(s, int(s.swap.slots.cache_pfn.max()), "swapbacked"))


@pytest.mark.each_kernel
def test_slot_marked_as_cached(path: str) -> None:
    s = sound_snapshot(path)
    if has_table(s):
        pytest.skip("a swap table names the folio instead of a mark")
    row = int(slots_used_by(s, users=1, cached=False)[0])
    only_finding(path, "swap-slot-user-missing", add(s, slot_address(s, row), 0x40, 1))


def test_slots_in_use(path: str) -> None:
    s = sound_snapshot(path)
    struct, row = s.layout.struct("struct swap_info_struct"), 0
    field = struct.field("inuse_pages.counter", "inuse_pages")
    address = int(s.swap.devices.addr[row]) + field.offset
    found = only_finding(path, "swap-inuse-mismatch", add(s, address, 1, field.size))
    assert found.subject.kind == "swap_device"


def test_free_swap(path: str) -> None:
    s = sound_snapshot(path)
    only_finding(path, "swap-free-mismatch", add(s, s.layout.symbol("nr_swap_pages"), 3))


@pytest.mark.each_kernel
def test_mark_of_shmem(path: str) -> None:
    s = sound_snapshot(path)
    if has_table(s):
        pytest.skip("swap tables count shmem's references")
    row = int(slots_used_by(s, users=1, cached=False)[0])
    address = slot_address(s, row)
    only_finding(path, "shmem-swap-slot-mismatch", put(s, address, 0xBF, 1))


def test_swapped_pages_of_a_shmem_file(path: str) -> None:
    s = sound_snapshot(path)
    spaces = s.files.address_spaces
    row = int(np.flatnonzero((spaces.kind == SHMEM) & (spaces.swapped > 0))[0])
    info = s.layout.struct("struct shmem_inode_info")
    address = int(spaces.host[row]) - info.field("vfs_inode").offset + info.field("swapped").offset
    only_finding(path, "shmem-swapped-mismatch", add(s, address, 1))


@pytest.mark.each_kernel
def test_count_with_further_digits(path: str) -> None:
    """A count above 62 goes on in a page chained behind the page of the map, before there were swap tables."""
    s = sound_snapshot(path)
    if has_table(s):
        pytest.skip("swap tables continue counts elsewhere")
    row = int(slots_used_by(s, users=1, cached=False)[0])
    address = slot_address(s, row)
    pfn = int(vmalloc_pfns(s.layout, np.array([address], np.uint64))[0])
    spare = int(s.pages.memmap.pfns_of_rows(s.buddy_pages[:1])[0])
    memmap, link = s.layout.memmap, s.layout.struct("struct page").field("lru").offset
    patches = (
        put(s, address, 0x80 | 5, 1),
        put(s, memmap.page_addr(pfn) + link, memmap.page_addr(spare) + link),
        put(s, memmap.page_addr(spare) + link, memmap.page_addr(spare) + link),
        Patch((spare << 12) + (address & 0xFFF), bytes([0x80 | 2]), True),
    )
    # The second page is chained to itself: its digit is met once with the mark to go on, for ever.
    assert planted(path, *patches).swap.slots.count[row] == -1
    patches = (*patches[:-1], Patch((spare << 12) + (address & 0xFFF), bytes([2]), True))
    assert planted(path, *patches).swap.slots.count[row] == 5 + 2 * 63


@pytest.mark.each_kernel
def test_count_in_an_extend_table(path: str) -> None:
    s = sound_snapshot(path)
    if not has_table(s):
        pytest.skip("no swap tables")
    row = int(slots_used_by(s, users=1, cached=False)[0])
    slots = planted(path, *extended(s, row, 21)).swap.slots
    assert slots.count[row] == slots.extended[row] == 21


def test_senseless_device(path: str) -> None:
    """Lengths and pointers of a device that lead anywhere cost no more than a failed read."""
    s = sound_snapshot(path)
    struct = s.layout.struct("struct swap_info_struct")
    device = int(s.swap.devices.addr[0])
    length = put(s, device + struct.field("max").offset, 0xFFFFFFFF, 4)
    pointers = [
        put(s, device + field.offset, 0xFFFF123456789000)
        for field in (struct.find("swap_map"), struct.find("cluster_info"))
        if field is not None
    ]
    bad = planted(path, length, *pointers)
    assert bad.swap.unreadable == 1
    assert not bad.swap.whole[0]
    assert find_rule("swap-count-high").run(bad).unread.nr == 1


@pytest.mark.each_kernel
def test_poison_entry_to_a_sound_page(path: str) -> None:
    s = sound_snapshot(path)
    rows = np.flatnonzero(s.nonpresent.kind == Kind.HWPOISON)
    if not len(rows):
        pytest.skip("no poison entry on this kernel")
    only_finding(path, "poison-entry-target-mismatch", flags_xor(s, int(s.nonpresent.pfn[rows[0]]), "hwpoison"))


def test_markers_in_a_vma_that_nobody_watches(path: str) -> None:
    s = sound_snapshot(path)
    n = s.nonpresent
    rows = np.flatnonzero((n.kind == Kind.MARKER) & ((n.swap_offset & np.uint64(1)) != 0))
    rows = rows[~s.vmas.is_hugetlb[n.vma_idx[rows]]]
    vma = int(n.vma_idx[rows[0]])
    field = s.layout.struct("struct vm_area_struct").field("vm_flags", "flags.__vma_flags[0]", "flags")
    context = s.layout.struct("struct vm_area_struct").field("vm_userfaultfd_ctx.ctx")
    patches = (
        put(s, int(s.vmas.addr[vma]) + field.offset, int(s.vmas.flags[vma]) & ~(1 << 12)),
        put(s, int(s.vmas.addr[vma]) + context.offset, 0),
    )
    found = only_finding(path, "marker-unexpected", *patches)
    assert found.count == int((n.vma_idx[rows] == vma).sum())


def test_unlocked_target_of_a_migration(busy: str) -> None:
    s = sound_snapshot(busy)
    before = [f.rule for f in findings(busy)]
    n = s.nonpresent
    rows = np.flatnonzero(np.isin(n.kind, (Kind.MIGRATION_READ, Kind.MIGRATION_WRITE)))
    if not len(rows):
        pytest.skip("nothing migrates at the moment of this dump; tests/oracle/test_stopped.py stops where it does")
    row = rows[0]
    head = s.pages.head_row[s.pages.memmap.rows(n.pfn[row : row + 1])[0]]
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([head]))[0])
    after = [f.rule for f in findings(busy, flags_xor(s, pfn, "locked"))]
    assert "migration-target-lock-missing" in after
    assert [rule for rule in after if rule != "migration-target-lock-missing"] == before


def test_views(path: str) -> None:
    s = sound_snapshot(path)
    view = swap_devices(s)
    assert view.path.tolist()[1:] == ["/dev/vdc"]
    assert view.is_partition.all()
    assert (view.used == view.inuse_pages).all()
    slot = int(slots_used_by(s, users=3)[0])
    users = slot_users(s, slot)
    assert len(users) == 3
    assert (users.pid > 0).all()
    type_, offset = int(view.type_[s.swap.slots.device_idx[slot]]), int(s.swap.slots.offset[slot])
    assert find_slot(s.swap, type_, offset) == slot
    assert slot_exists(s.swap, type_, offset)
    assert not slot_exists(s.swap, 9, 1)
    shmem = slot_users(s, int(np.flatnonzero(s.swap_refs.shmem_refs)[0]))
    assert shmem.is_shmem.all()
    assert (shmem.ino > 0).all()
