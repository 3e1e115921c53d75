"""A count that is too low while somebody splits the PMD is in flight; the same count at rest is a failure."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.snapshot import Snapshot
from inspector.tables.locks import RwSemaphore
from inspector.target.prstatus import SIZE
from tests.faults.overlay import KERNELS, Patch, add, core_path, opened, page_word, plant, put, sound, word
from tests.faults.plants import clear_entry, mapcount_at, mapping_of_page, small_anon
from tests.faults.rmap_catalogue import file_vma_out_of_its_tree

SPLIT = ("split_huge_pmd_locked", "__split_huge_pmd")


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", str(request.param))


def split_folio(s: Snapshot) -> tuple[int, int]:
    """A row of the mappings that is a huge entry of an anonymous folio, and the folio's row."""
    m = s.mappings
    folio = s.folio_of_page[np.maximum(s.mappings.head_row, 0)]
    good = (m.level == Level.PMD) & m.counted & (folio >= 0)
    good &= s.folios.is_anon[np.maximum(folio, 0)] & (s.mms.nr_tasks[m.mm_idx] > 0)
    good &= s.folios.entire_raw[np.maximum(folio, 0)] == 0
    row = int(np.flatnonzero(good)[0])
    return row, int(folio[row])


def entire_lowered(s: Snapshot, folio: int) -> list[Patch]:
    """What __split_huge_pmd_locked() does to the counts before it replaces the entry."""
    head = int(s.folios.pfn[folio])
    struct_folio = s.layout.struct("struct folio") if s.layout.has_struct("struct folio") else None
    names = ("_entire_mapcount.counter", "_entire_mapcount")
    if struct_folio is not None and struct_folio.has(*names):
        address = s.layout.memmap.page_addr(head) + struct_folio.field(*names).offset
    else:
        address = page_word(s, head + 1, "compound_mapcount.counter")
    return [add(s, address, -1, 4)]


def on_cpu(s: Snapshot, task: int, function: tuple[str, ...], in_register: int = 0) -> tuple[list[Patch], bytes]:
    """A task running on CPU 0 inside a function: its flag, and the note of that CPU."""
    struct_task = s.layout.struct("struct task_struct")
    ip = next(a for a in map(s.target.symbol, function) if a) + 0x40
    regs = [0] * 27
    regs[16], regs[17], regs[18], regs[19] = ip, 0x10, 0x202, int(s.stacks.top[task]) - 0x100
    regs[12] = in_register
    note = (bytes(112) + struct.pack("<27Q", *regs)).ljust(SIZE, b"\0")
    field = struct_task.field("on_cpu")
    cpu = struct_task.field("thread_info.cpu", "cpu")
    address = int(s.tasks.addr[task])
    return [put(s, address + field.offset, 1, field.size), put(s, address + cpu.offset, 0, cpu.size)], note


def told(path: str, patches: list[Patch], note: bytes = b"") -> list[Finding]:
    target = opened(path)
    for patch in patches:
        plant(target, patch)
    if note:
        target = replace(target, prstatus=(note, *target.prstatus[1:]))
    return run_check(Snapshot(target)).findings


def task_of(s: Snapshot, mm_idx: int) -> int:
    return int(np.flatnonzero((s.tasks.mm == s.mms.addr[mm_idx]) & (s.tasks.stack != 0))[0])


def test_an_entire_count_too_low_is_in_flight_only_where_somebody_splits(path: str) -> None:
    s = sound(path)
    assert s.stacks.incomplete == 0
    row, folio = split_folio(s)
    lowered = entire_lowered(s, folio)
    rules = {"entire-mapcount-mismatch"}

    def graded(found: list[Finding]) -> set[str]:
        return {f.severity for f in found if f.rule in rules or rules & set(f.evidence.also)}

    assert graded(told(path, lowered)) == {"fail"}
    mine = int(s.mappings.mm_idx[row])
    patches, note = on_cpu(s, task_of(s, mine), SPLIT)
    found = told(path, lowered + patches, note)
    (finding,) = [f for f in found if f.rule == "entire-mapcount-mismatch"]
    assert (finding.severity, finding.exactness) == ("info", "transient")
    said = str(finding.evidence.facts["in_flight"])
    assert str(int(s.tasks.pid[task_of(s, mine)])) in said
    assert "split_huge_pmd" in said
    assert "(W10)" in said
    # The same split in a process that does not map the folio, and other work in this one, explain nothing.
    others = np.flatnonzero((s.mms.nr_tasks > 0) & ~np.isin(np.arange(len(s.mms)), _family(s, folio)))
    patches, note = on_cpu(s, task_of(s, int(others[0])), SPLIT)
    assert graded(told(path, lowered + patches, note)) == {"fail"}
    patches, note = on_cpu(s, task_of(s, mine), ("do_wp_page",))
    assert graded(told(path, lowered + patches, note)) == {"fail"}


def _family(s: Snapshot, folio: int) -> list[int]:
    """Mms that the folio's anon_vma leads to, or that map it."""
    from inspector.subjects import reached

    heads = s.folios.row[folio : folio + 1]
    out = []
    for mm in range(len(s.mms)):
        mask = np.zeros(len(s.mms), np.bool_)
        mask[mm] = True
        if reached(s, heads, mask)[0]:
            out.append(mm)
    return [*out, *np.unique(s.mappings.mm_idx[s.mappings.head_row == heads[0]]).tolist()]


def test_a_page_that_is_not_linked_yet_belongs_to_the_task_that_has_it_in_hand(path: str) -> None:
    s = sound(path)
    page = int(small_anon(s, 1)[0])
    row, skip = mapping_of_page(s, page)
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([page]))[0])
    new = [clear_entry(s, row, skip), put(s, page_word(s, pfn, "mapping"), 0)]
    task = task_of(s, int(s.mappings.mm_idx[row]))
    patches, note = on_cpu(s, task, ("wp_page_copy", "do_wp_page"))
    held = put(s, int(s.stacks.top[task]) - 0xC0, s.layout.memmap.page_addr(pfn))

    def graded(found: list[Finding]) -> set[str]:
        return {f.severity for f in found if f.rule == "mapcount-mapping-missing"}

    assert graded(told(path, new)) == {"fail"}
    assert graded(told(path, [*new, *patches], note)) == {"fail"}
    assert graded(told(path, [*new, *patches, held], note)) == {"info"}


def test_a_fault_explains_the_folio_that_it_has_in_hand_alone(path: str) -> None:
    s = sound(path)
    page = int(small_anon(s, 1)[0])
    row, skip = mapping_of_page(s, page)
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([page]))[0])
    task, high = task_of(s, int(s.mappings.mm_idx[row])), add(s, mapcount_at(s, page), 1, 4)

    def graded(function: tuple[str, ...], in_register: int) -> set[str]:
        patches, note = on_cpu(s, task, function, in_register)
        return {f.severity for f in told(path, [high, *patches], note) if f.rule == "mapcount-too-high"}

    fault = ("do_anonymous_page", "__handle_mm_fault")
    assert graded(fault, 0) == {"fail"}
    assert graded(fault, s.layout.memmap.page_addr(pfn)) == {"info"}
    assert graded(fault, int(s.mappings.entry[row]) + (skip << s.layout.arch.page_shift)) == {"info"}
    assert graded(fault, s.layout.memmap.page_addr(pfn + 1)) == {"fail"}
    # Windows of hugetlb and of files explain nothing of an anonymous page.
    assert graded(("hugetlb_fault",), s.layout.memmap.page_addr(pfn)) == {"fail"}
    assert graded(("unmap_mapping_range", "unmap_mapping_pages"), s.layout.memmap.page_addr(pfn)) == {"fail"}


def test_a_vma_that_a_changing_tree_hides_is_in_flight_while_its_lock_is_held(path: str) -> None:
    s = sound(path)
    cut = list(file_vma_out_of_its_tree(s).patches)
    (hidden,) = (f for f in told(path, cut) if f.rule == "i-mmap-vma-missing")
    vma = int(np.flatnonzero(s.vmas.addr == hidden.subject.vma)[0])
    space = s.file_rmap.address_space_of_vma
    patches, note = on_cpu(s, task_of(s, int(s.vmas.mm_idx[vma])), ("unlink_file_vma", "unlink_file_vma_batch_add"))
    lock = RwSemaphore.of(s.layout.struct("struct address_space"), "i_mmap_rwsem").word
    held = put(s, int(s.file_rmap.address_spaces.addr[space[vma]]) + lock.offset, 1, lock.size)

    def graded(*more: Patch, registers: bytes = b"") -> set[str]:
        return {f.severity for f in told(path, [*cut, *more], registers) if f.rule == "i-mmap-vma-missing"}

    assert graded(held) == {"fail"}
    assert graded(*patches, registers=note) == {"fail"}
    assert graded(held, *patches, registers=note) == {"info"}


def test_a_folio_on_the_lru_is_not_in_the_hands_of_reclaim(path: str) -> None:
    s = sound(path)
    lru, locked = (int(s.layout.flags.mask(name)) for name in ("lru", "locked"))
    flags = s.pages.flags[:].tolist()
    page = next(int(row) for row in small_anon(s, 1) if flags[row] & lru and not flags[row] & locked)
    row, _ = mapping_of_page(s, page)
    patches, note = on_cpu(s, task_of(s, int(s.mappings.mm_idx[row])), ("shrink_folio_list", "shrink_page_list"))
    high = add(s, mapcount_at(s, page), 1, 4)
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([page]))[0])
    links = page_word(s, pfn, "lru")
    following, before = word(s, links), word(s, links + 8)
    in_hand = (
        put(s, page_word(s, pfn, "flags"), flags[page] & ~lru | locked),
        put(s, before, following),
        put(s, following + 8, before),
    )

    def graded(found: list[Finding]) -> set[str]:
        return {f.severity for f in found if f.rule == "mapcount-too-high"}

    assert graded(told(path, [high, *patches], note)) == {"fail"}
    assert graded(told(path, [high, *in_hand, *patches], note)) == {"info"}


def _pgtables(s: Snapshot, mm_idx: int, pages: int) -> Patch:
    """pgtables_bytes of an mm, raised by some pages."""
    field = s.layout.struct("struct mm_struct").field("pgtables_bytes.counter")
    return add(s, int(s.mms.addr[mm_idx]) + field.offset, pages << 12)


def _write_locked(s: Snapshot, mm_idx: int) -> Patch:
    """The mmap_lock of an mm, held for writing."""
    lock = RwSemaphore.of(s.layout.struct("struct mm_struct"), "mmap_lock").word
    return put(s, int(s.mms.addr[mm_idx]) + lock.offset, 1, lock.size)


def _grade_of_tables(path: str, mm: int, *patches: Patch, note: bytes) -> set[str]:
    """How wrong page tables of the mm of that address are graded."""
    found = told(path, list(patches), note)
    return {f.severity for f in found if f.rule == "pgtables-bytes-mismatch" and f.subject.mm == mm}


@pytest.mark.parametrize("pages", [1, -1])
def test_a_collapse_explains_one_more_table_of_the_mm_that_it_has_locked_for_writing(path: str, pages: int) -> None:
    """mm/khugepaged.c, collapse_huge_page() takes the table out and deposits it under mmap_lock; it is counted then."""
    s = sound(path)
    mine, other = np.flatnonzero((s.mms.nr_tasks == 1) & (s.mms.users == 1))[:2].tolist()
    patches, note = on_cpu(s, task_of(s, mine), ("collapse_huge_page", "madvise_collapse"))
    own, theirs = int(s.mms.addr[mine]), int(s.mms.addr[other])
    high, locked = _pgtables(s, mine, pages), _write_locked(s, mine)
    assert _grade_of_tables(path, own, high, *patches, note=note) == {"fail"}
    expected = {"info"} if pages > 0 else {"fail"}
    assert _grade_of_tables(path, own, high, locked, *patches, note=note) == expected
    elsewhere = _pgtables(s, other, pages)
    assert _grade_of_tables(path, theirs, elsewhere, locked, *patches, note=note) == {"fail"}


@pytest.mark.parametrize("function", ["compact_zone", "migrate_pages_batch", "migrate_pages", "move_to_new_folio"])
def test_migration_changes_no_page_tables_and_no_rss(path: str, function: str) -> None:
    """A migration entry counts as the page did (mm/rmap.c, try_to_migrate_one()); no table comes or goes."""
    s = sound(path)
    if s.target.symbol(function) is None:
        function = "migrate_pages"
    mine = int(np.flatnonzero((s.mms.nr_tasks == 1) & (s.mms.users == 1))[0])
    patches, note = on_cpu(s, task_of(s, mine), (function,))
    own = int(s.mms.addr[mine])
    assert _grade_of_tables(path, own, _pgtables(s, mine, 1), *patches, note=note) == {"fail"}
    struct_mm = s.layout.struct("struct mm_struct")
    anon = struct_mm.find("rss_stat[1].count") or struct_mm.field("rss_stat.count")
    at = own + anon.offset + (0 if struct_mm.has("rss_stat[1].count") else 8)
    found = told(path, [add(s, at, 3), *patches], note)
    assert [(f.severity, f.subject.mm) for f in found if f.rule.startswith("rss-")] == [("fail", own)]


def test_a_task_that_runs_unseen_leaves_locks_as_the_only_evidence(path: str) -> None:
    s = sound(path)
    row, folio = split_folio(s)
    lowered = entire_lowered(s, folio)
    patches, _ = on_cpu(s, task_of(s, int(s.mappings.mm_idx[row])), SPLIT)
    target = opened(path)
    for patch in (*lowered, *patches):
        plant(target, patch)
    report = run_check(Snapshot(replace(target, prstatus=())))
    assert [f.severity for f in report.findings if f.rule == "entire-mapcount-mismatch"] == ["fail"]
    assert any("kernel stacks of" in note for note in report.coverage.notes)
    locked = _table_lock(s, row)
    target = opened(path)
    for patch in (*lowered, *patches, locked):
        plant(target, patch)
    found = run_check(Snapshot(replace(target, prstatus=()))).findings
    (finding,) = [f for f in found if f.rule == "entire-mapcount-mismatch"]
    assert finding.exactness == "transient"
    assert "stacks" in str(finding.evidence.facts["in_flight"])


def _table_lock(s: Snapshot, row: int) -> Patch:
    """The lock of the page table that holds an entry, held."""
    name = "struct ptdesc" if s.layout.has_struct("struct ptdesc") else "struct page"
    offset = s.layout.struct(name).field("ptl.rlock.raw_lock.val.counter").offset
    pfn = int(s.tables.pfn[s.mappings.table_idx[row]])
    return put(s, s.layout.memmap.page_addr(pfn) + offset, 1, 4)
