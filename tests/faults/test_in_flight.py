"""What a stopped kernel was in the middle of: states seen in racing guests, planted with the marks that explain them.

Without the mark the same state is a failure, so that none of these tests passes because a rule went blind.
"""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.layout.flags import VM_MAYSHARE, VM_MAYWRITE, VM_SHARED
from inspector.snapshot import Snapshot
from inspector.tables.files import SHMEM
from inspector.tables.i_mmap import writable_shares
from inspector.walk.page_cache import CachedFolios, cached_folios
from tests.faults.catalogue import CATALOGUE
from tests.faults.counter_catalogue import node_item
from tests.faults.overlay import (
    KERNELS,
    Patch,
    add,
    core_path,
    flags_xor,
    pfn_of,
    planted,
    put,
    sound,
    without_stacks,
    word,
)


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", str(request.param))


def told(path: str, *patches: Patch) -> list[Finding]:
    return run_check(without_stacks(path, *patches)).findings


def mm_word(s: Snapshot, row: int, *names: str) -> int:
    return int(s.mms.addr[row]) + s.layout.struct("struct mm_struct").field(*names).offset


def writer(s: Snapshot, row: int) -> Patch:
    """The mmap_lock of an mm held for writing."""
    address = mm_word(s, row, "mmap_lock.count.counter")
    return put(s, address, word(s, address) | 1)


def reader(s: Snapshot, row: int) -> Patch:
    """The mmap_lock of an mm held for reading."""
    return put(s, mm_word(s, row, "mmap_lock.count.counter"), 1 << 8)


def assert_only_in_flight(found: list[Finding], *rules: str) -> None:
    assert {f.rule for f in found} >= set(rules), [f.rule for f in found]
    assert {(f.severity, f.exactness) for f in found} == {("info", "transient")}, found


def slot_of_vma(s: Snapshot, vma: int) -> int:
    """Address of the slot of a maple node (lib/maple_tree.c, 256 bytes, its parent first) that leads to a VMA."""
    wanted, root = int(s.vmas.addr[vma]), int(s.mms.ma_root[s.vmas.mm_idx[vma]]) & ~0xFF
    todo = [root]
    while todo:
        node = todo.pop()
        for at in range(node + 8, node + 256, 8):
            value = word(s, at)
            if value == wanted:
                return at
            child = value & ~0xFF
            above = s.layout.memory.read(child, 8) if child else None
            if above is not None and int.from_bytes(above, "little") & ~0xFF == node and child != root:
                todo.append(child)
    raise AssertionError("the VMA is in no node")


def test_a_vma_that_munmap_has_taken_out_of_the_tree(path: str) -> None:
    """Chains, entries and counters of the VMA stay for a while: vms_gather_munmap_vmas(), then vms_clear_ptes()."""
    s = sound(path)
    own = np.isin(s.vmas.anon_vma, s.anon_rmap.anon_vmas.addr[s.anon_rmap.anon_vmas.num_active_vmas == 1])
    mapped = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(s.vmas)) > 0
    calm = (s.mms.nr_tasks > 0)[s.vmas.mm_idx] & ~s.mm_in_motion[s.vmas.mm_idx]
    vma = int(np.flatnonzero(own & mapped & calm & (s.vmas.file == 0))[3])
    gone = put(s, slot_of_vma(s, vma), 0)
    mm = int(s.vmas.mm_idx[vma])
    assert "fail" in {f.severity for f in told(path, gone)}
    found = told(path, gone, writer(s, mm))
    assert_only_in_flight(found, "vma-unreachable")
    assert {"entry-vma-missing", "avc-link-missing"} <= set(found[0].evidence.also)


def test_entries_that_wait_for_munmap_to_clear_them(path: str) -> None:
    """munmap keeps the mmap_lock for reading only, and clears the entries of VMAs that left the tree."""
    s = sound(path)
    fault = CATALOGUE["pte-where-no-vma-is"](s)
    (alone,) = told(path, *fault.patches)
    assert (alone.rule, alone.severity) == ("entry-vma-missing", "fail")
    mm = int(np.flatnonzero(s.mms.addr == np.uint64(alone.subject.mm or 0))[0])
    assert_only_in_flight(told(path, *fault.patches, reader(s, mm)), "entry-vma-missing")


def test_an_mm_that_fork_has_only_copied(path: str) -> None:
    """dup_mm() copies the parent's struct, page tables and all, before mm_init() gives the child its own."""
    s = sound(path)
    empty = (s.mms.nr_tasks == 0) & ~np.isin(np.arange(len(s.mms)), s.vmas.mm_idx)
    empty &= ~np.isin(np.arange(len(s.mms)), s.mappings.mm_idx)
    child = int(np.flatnonzero(empty)[0])
    parent, other = (int(row) for row in np.flatnonzero(s.mms.nr_tasks > 0)[[5, 9]])
    pgd = {row: word(s, mm_word(s, row, "pgd")) for row in (parent, other)}
    found = told(path, put(s, mm_word(s, child, "pgd"), pgd[parent]))
    # The table that the plant took away from the child is nobody's now; a real child has none yet.
    assert {(f.rule, f.exactness) for f in found} == {("page-table-unreachable", "transient")}
    shared = told(path, put(s, mm_word(s, other, "pgd"), pgd[parent]))
    assert {f.rule for f in shared if f.severity == "fail"} == {"mm-top-table-invalid"}


def test_a_compound_page_that_is_being_made_or_freed(path: str) -> None:
    """prep_compound_page() marks the head first, __free_pages_prepare() the head last; nobody refers to it."""
    s = sound(path)
    pages = s.pages
    plain = (s.folio_of_page < 0) & (pages.type_ == 0) & pages.readable & ~pages.is_tail & (pages.mapping == 0)
    free = np.flatnonzero(plain & (pages.refcount == 0) & ~np.isin(np.arange(len(pages)), s.buddy_pages))
    used = np.flatnonzero(plain & (pages.refcount == 1) & (pages.mapcount_raw == -1))
    assert_only_in_flight(told(path, flags_xor(s, pfn_of(s, int(free[5])), "head")), "compound-size-mismatch")
    found = told(path, flags_xor(s, pfn_of(s, int(used[5])), "head"))
    assert [(f.rule, f.severity) for f in found] == [("compound-size-mismatch", "fail")]


def test_a_file_sealed_against_writing_has_fewer_writers_than_none(path: str) -> None:
    """mapping_deny_writable() makes i_mmap_writable negative: legal where nobody writes."""
    s = sound(path)
    spaces = s.file_rmap.address_spaces
    nr = writable_shares(s.vmas, s.file_rmap, VM_SHARED | VM_MAYWRITE)
    at = s.layout.struct("struct address_space").field("i_mmap_writable.counter").offset
    sealed, shared = (int(np.flatnonzero(spaces.readable & which)[0]) for which in (nr == 0, nr > 0))
    assert told(path, put(s, int(spaces.addr[sealed]) + at, -1, 4)) == []
    found = told(path, put(s, int(spaces.addr[shared]) + at, -1, 4))
    assert [(f.rule, f.severity) for f in found] == [("i-mmap-writable-low", "fail")]


def test_counters_of_an_mm_whose_munmap_ends_with_the_lock_held_for_reading(path: str) -> None:
    s = sound(path)
    mm = int(np.flatnonzero((s.mms.nr_tasks == 1) & ~s.mm_in_motion & ~s.mms.read_locked)[4])
    address = mm_word(s, mm, "total_vm")
    late = put(s, address, word(s, address) + 16)
    (alone,) = told(path, late)
    assert (alone.rule, alone.severity) == ("vm-counters-mismatch", "fail")
    assert_only_in_flight(told(path, late, reader(s, mm)), "vm-counters-mismatch")


def test_a_shmem_file_whose_holes_a_collapse_has_counted(path: str) -> None:
    """collapse_file() calls shmem_charge() for the holes between the folios it has locked."""
    s = sound(path)
    c, spaces = CachedFolios.concat(list(cached_folios(s))), s.files.address_spaces
    of = c.space
    small = np.bincount(of, weights=c.nr, minlength=len(spaces)) < 100
    row = int(np.flatnonzero((spaces.kind[of] == SHMEM) & small[of] & ~c.locked & spaces.is_inode[of])[2])
    space = int(of[row])
    at = int(spaces.addr[space]) + s.layout.struct("struct address_space").field("nrpages").offset
    lock = flags_xor(s, pfn_of(s, int(c.head_row[row])), "locked")
    assert {f.severity for f in told(path, put(s, at, int(spaces.nrpages[space]) + 9))} == {"fail"}
    ahead = told(path, put(s, at, int(spaces.nrpages[space]) + 9), lock)
    assert_only_in_flight(ahead, "cache-nrpages-mismatch")
    too_many = told(path, put(s, at, int(spaces.nrpages[space]) + 600), lock)
    assert "cache-nrpages-mismatch" in {f.rule for f in too_many if f.severity == "fail"}


def test_a_page_that_is_in_the_swap_cache_and_not_counted_yet(path: str) -> None:
    """__swap_cache_alloc() of 7.x adds a locked folio, charges it, and counts it at its end."""
    s = sound(path)
    pfn = s.swap.slots.cache_pfn
    small = s.folio_of_page[s.pages.memmap.rows(np.maximum(pfn, 0))] < 0
    page = int(pfn[(pfn >= 0) & small][0])
    items, start = s.layout.enum("enum node_stat_item"), s.layout.target.symbol("vm_node_stat")
    assert start is not None
    late = [add(s, start + 8 * items[name], -1) for name in ("NR_FILE_PAGES", "NR_SWAPCACHE")]
    found = told(path, *late)
    assert {(f.rule, f.severity) for f in found} == {("cache-counters-mismatch", "warn")}
    assert_only_in_flight(told(path, *late, flags_xor(s, page, "locked")), "cache-counters-mismatch")


def test_hugetlb_pages_that_stay_counted_when_a_shared_table_was_given_up(path: str) -> None:
    """huge_pmd_unshare() leaves hugetlb_usage as it is: whoever shared a table may count too much, never less."""
    s = sound(path)
    small = np.flatnonzero(
        s.vmas.is_hugetlb & s.vmas.has(VM_MAYSHARE) & (s.vmas.end - s.vmas.start < np.uint64(1 << 30))
    )
    vma = int(small[0])
    host = int(s.file_rmap.address_spaces.host[s.file_rmap.address_space_of_vma[vma]])
    large = put(s, host + s.layout.struct("struct inode").field("i_size").offset, 1 << 30)
    usage = mm_word(s, int(s.vmas.mm_idx[vma]), "hugetlb_usage.counter")
    (alone,) = told(path, add(s, usage, 512))
    assert (alone.rule, alone.severity) == ("hugetlb-usage-mismatch", "warn")
    assert told(path, add(s, usage, 512), large) == []
    (low,) = told(path, add(s, usage, -512), large)
    assert low.rule == "hugetlb-usage-mismatch"


def test_vmas_that_exit_has_freed_before_their_tree(path: str) -> None:
    """exit_mmap() frees VMAs while the tree still names them: what their lists lead to is not missing."""
    s = sound(path)
    calm = (s.mms.nr_tasks == 1)[s.vmas.mm_idx] & ~s.mm_in_motion[s.vmas.mm_idx]
    vma = int(np.flatnonzero(calm & (s.vmas.anon_vma == 0))[3])
    chain = int(s.vmas.addr[vma]) + s.layout.struct("struct vm_area_struct").field("anon_vma_chain").offset
    lost = put(s, chain, 0xFFFF_FFFF_FFFF_0000)
    dead = put(s, mm_word(s, int(s.vmas.mm_idx[vma]), "mm_users.counter"), 0, 4)
    assert [f.rule for f in run_check(planted(path, lost)).findings] == ["anon-vma-chain-damaged"]
    report = run_check(without_stacks(path, lost, dead), ["anon-vma-chain-damaged"])
    assert "anon_vmas and chains" not in report.coverage.missing
    assert [f for f in report.findings if f.severity == "fail"] == []


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pages", [-100_000, 100_000])
def test_a_racing_kernel_excuses_no_total_that_its_tasks_cannot_have_moved(kernel: str, pages: int) -> None:
    path = core_path("busy", kernel)
    s = sound(path)
    assert len(s.in_flight)
    few, many = node_item(s, "NR_FILE_MAPPED", 9), node_item(s, "NR_FILE_MAPPED", pages)
    by_few = run_check(planted(path, few)).findings
    by_many = run_check(planted(path, many)).findings
    assert {f.exactness for f in by_few} <= {"transient"}
    assert any("node-mapped-mismatch" in (f.rule, *f.evidence.also) for f in by_few)
    told = [(f.rule, f.severity, f.subject.name) for f in by_many if f.exactness != "transient"]
    assert told == [("node-mapped-mismatch", "warn", "NR_FILE_MAPPED")]
