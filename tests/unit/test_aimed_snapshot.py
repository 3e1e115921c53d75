"""An aimed snapshot has the rows of the whole one that belong to what it is aimed at, and refuses other tables."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from inspector import snapshot
from inspector.aimed.folio import FolioSnapshot
from inspector.aimed.snapshot import AimedSnapshot, NotAimedAtError, UserPlaces
from inspector.check.run import violations_of
from inspector.columns import I64, Mask, Stretches, Table
from inspector.places.processes import aim_at_mm
from inspector.rules import all_rules
from inspector.rules.needs import PAGES
from inspector.snapshot import TABLES, Snapshot
from inspector.subjects import ENTRY, FOLIO, PAGE
from inspector.tables.mms import read_users
from inspector.tables.tasks import Tasks, read_process
from inspector.target.target import open_core
from tests.faults.overlay import KERNELS, core_path, sound


def same(mine: Table, theirs: Table, *but: str) -> None:
    assert len(mine) == len(theirs)
    for field in fields(mine):
        if field.name not in but:
            assert np.array_equal(getattr(mine, field.name), getattr(theirs, field.name)), field.name


def busiest(s: Snapshot) -> I64:
    """Rows of the three mms with the most mappings, and of one without a task if there is one."""
    nr = np.bincount(s.mappings.mm_idx, minlength=len(s.mms))
    rows = np.argsort(nr, kind="stable")[-3:]
    alone = np.flatnonzero(s.mms.nr_tasks == 0)[:1]
    return np.unique(np.concatenate([rows, alone])).astype(np.int64)


def of(s: Snapshot, rows: I64, column: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Mask:
    return np.isin(column, rows)


def classes_of(s: Snapshot) -> dict[tuple[int, int], int]:
    """What each run of entries is taken for."""
    entries = zip(s.mappings.pfn.tolist(), s.mappings.entry.tolist(), strict=True)
    return dict(zip(entries, s.mappings.entry_class.tolist(), strict=True))


@pytest.mark.parametrize("kernel", KERNELS)
def test_some_mms_are_those_of_the_whole(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = busiest(s)
    # Struct pages, tasks and rubbish are no mms.
    odd = np.array([int(s.tasks.addr[0]), s.layout.memmap.vmemmap, 8, int(s.mms.addr[0]) + 8], np.uint64)
    part = AimedSnapshot(Snapshot(s.target), np.concatenate([s.mms.addr[rows][::-1], odd]))
    same(part.mms, s.mms.take(rows))
    same(part.vmas, s.vmas.take(of(s, rows, s.vmas.mm_idx)), "mm_idx")
    same(part.tables, s.tables.take(of(s, rows, s.tables.mm_idx)), "mm_idx", "parent", "first")
    theirs = s.mappings
    mine = part.mappings.take(np.lexsort((part.mappings.va, part.mappings.mm_idx)))
    theirs = theirs.take(np.flatnonzero(of(s, rows, theirs.mm_idx)))
    theirs = theirs.take(np.lexsort((theirs.va, theirs.mm_idx)))
    same(mine, theirs, "mm_idx", "vma_idx", "table_idx", "counted", "page_row", "head_row")
    # What they map is judged by the same struct pages.
    m = part.mappings
    here, there = part.pages.memmap.rows(m.pfn), s.pages.memmap.rows(m.pfn)
    assert ((here >= 0) == (there >= 0)).all()
    known = here >= 0
    assert (part.pages.flags[here[known]] == s.pages.flags[there[known]]).all()
    classes = classes_of(s)
    assert all(classes.get(entry, entry_class) == entry_class for entry, entry_class in classes_of(part).items())
    assert part.mappings_whole
    assert not part.tables_complete


@pytest.mark.parametrize("kernel", KERNELS)
def test_some_addresses_are_those_of_the_whole(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    vma = np.flatnonzero((s.vmas.anon_vma != 0) & (s.vmas.nr_pages > 4))[::7]
    mm = s.mms.addr[s.vmas.mm_idx[vma]]
    start = s.vmas.start[vma] + np.uint64(4096)
    places = UserPlaces(mm, start, start + np.uint64(2 * 4096))
    part = AimedSnapshot(Snapshot(s.target), mm, places=places)
    assert set(part.vmas.addr.tolist()) == set(s.vmas.addr[vma].tolist())
    found = {
        (int(part.mms.addr[part.mappings.mm_idx[i]]), int(part.mappings.va[i]) + 4096 * k)
        for i in np.flatnonzero(part.mappings.level == 1)
        for k in range(int(part.mappings.nr[i]))
    }
    wanted = set()
    for i in np.flatnonzero((s.mappings.level == 1) & np.isin(s.mappings.vma_idx, vma)).tolist():
        at = int(np.flatnonzero(vma == s.mappings.vma_idx[i])[0])
        for k in range(int(s.mappings.nr[i])):
            va = int(s.mappings.va[i]) + 4096 * k
            if int(start[at]) <= va < int(start[at]) + 2 * 4096:
                wanted.add((int(mm[at]), va))
    assert found == wanted
    assert len(wanted) > 10


@pytest.mark.parametrize("kernel", KERNELS)
def test_users_of_an_mm_are_found_from_the_mm(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    quick = 0
    for row in range(len(s.mms)):
        one = Snapshot(s.target)
        part = AimedSnapshot(one, s.mms.addr[row : row + 1])
        same(part.mms, s.mms.take(np.array([row])))
        users = read_users(s.layout, s.mms.addr[row : row + 1])
        quick += "tasks" not in vars(one)
        assert (users is None) == ("tasks" in vars(one))
        if users is not None:
            assert set(users.addr.tolist()) == set(s.tasks.addr[s.tasks.mm == s.mms.addr[row]].tolist())
    assert quick > 0.9 * int((s.mms.nr_tasks > 0).sum())
    many = s.mms.addr[s.mms.nr_tasks > 0][:12]
    found = read_users(s.layout, many[::-1])
    assert found is None or sorted(found.pid.tolist()) == sorted(s.tasks.pid[np.isin(s.tasks.mm, many)].tolist())


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_process_is_found_from_the_pid_of_any_thread(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    for pid in s.tasks.pid.tolist():
        threads = read_process(s.layout, pid)
        assert threads is not None
        group = s.tasks.tgid == s.tasks.tgid[s.tasks.pid == pid]
        same(threads, s.tasks.take(np.flatnonzero(group)))
    assert max(np.bincount(s.tasks.tgid)) > 1
    assert read_process(s.layout, 4_000_000) is None
    for row in np.flatnonzero(s.mms.pid > 0).tolist():
        one = Snapshot(s.target)
        assert aim_at_mm(one, int(s.mms.pid[row])).mms.addr.tolist() == [s.mms.addr[row]]
        assert "tasks" not in vars(one) or read_users(s.layout, s.mms.addr[row : row + 1]) is None


def test_a_process_of_which_threads_may_be_missed_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    s = sound(core_path("fixture", KERNELS[-1]))
    pid = int(np.bincount(s.tasks.tgid[s.tasks.mm != 0]).argmax())
    threads = read_process(s.layout, pid)
    assert threads is not None and len(threads) > 1

    def answers(tasks: Tasks, whole: bool) -> Tasks | None:
        monkeypatch.setattr("inspector.tables.tasks.read_thread_groups", lambda *_: (tasks, whole))
        return read_process(s.layout, pid)

    assert answers(threads, True) is threads
    assert answers(threads, False) is None
    assert answers(threads.take(threads.pid != pid), True) is None
    assert answers(Tasks.concat([threads, s.tasks.take(s.tasks.tgid != pid)]), True) is None


def test_other_tables_are_refused() -> None:
    s = Snapshot(open_core(core_path("fixture", KERNELS[-1]), types="btf"))
    part = AimedSnapshot(s, s.tasks.mm[s.tasks.mm != 0][:1])
    for table in ("expected", "ksm", "buddy", "files", "rss", "lost_tables", "reference_terms"):
        with pytest.raises(NotAimedAtError, match=f"an aimed snapshot has no {table}"):
            getattr(part, table)
    assert "_sweep" not in vars(s)
    assert "mms" not in vars(s)


def test_stretches_are_merged_by_owner() -> None:
    owner = np.array([1, 0, 0, 1, 0, 0], np.int32)
    start = np.array([0x5000, 0x3000, 0x1000, 0x1000, 0x9000, 0x20000], np.uint64)
    end = np.array([0x6000, 0x4001, 0x3000, 0x1001, 0x9000, 0x21000], np.uint64)
    some = Stretches.of(owner, start, end, 12)
    assert list(zip(some.owner.tolist(), some.first.tolist(), some.last.tolist(), strict=True)) == [
        (0, 1, 4),
        (0, 0x20, 0x20),
        (1, 1, 1),
        (1, 5, 5),
    ]
    first, last = np.array([4, 5, 0, 2], np.uint64), np.array([5, 6, 0x40, 4], np.uint64)
    low, high = some.overlapping(np.array([0, 0, 0, 1], np.int32), first, last)
    assert (high - low).tolist() == [1, 0, 2, 0]


def test_every_table_says_which_part_of_a_target_it_can_be_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody declared would be missing from every aim, and rules that read it not checked there."""
    snapshot._require_declared()
    monkeypatch.setattr(snapshot, "TABLES", TABLES | {"heaps"})
    with pytest.raises(TypeError, match="must name each table of Snapshot once: heaps"):
        snapshot._require_declared()
    monkeypatch.setattr(snapshot, "TABLES", TABLES - {"rss"})
    with pytest.raises(TypeError, match="once: rss"):
        snapshot._require_declared()


def test_an_aim_declares_tables_alone() -> None:
    with pytest.raises(TypeError, match="declares what is no table of a snapshot: heaps"):
        type("Odd", (AimedSnapshot,), {"_ALSO": frozenset({"heaps"})})
    made = type("Fine", (AimedSnapshot,), {"_ALSO": frozenset({"rss"}), "ksm": property(lambda _s: 1)})
    assert vars(made)["_HERE"] == AimedSnapshot._HERE | {"rss", "ksm"}
    assert AimedSnapshot._HERE <= FolioSnapshot._HERE
    assert "buddy" not in FolioSnapshot._HERE


NOT_OF_ONE_FOLIO = {
    "hugetlb-vmemmap-mismatch": "vmemmap_entries",
    "memcg-charge-unreachable": "lru",
    "entry-vma-missing": "lost_vmas",
    "page-table-unreachable": "lost_tables",
    # Who is on which list, the lists themselves say.
    "lru-folio-unexpected": "lru_pages",
    "lru-list-damaged": "lru_pages",
    "lru-list-mismatch": "lru_pages",
    "lru-list-missing": "lru_pages",
    "mlocked-unevictable-missing": "lru",
    # The links of one folio are judged by those of its neighbours on the queue.
    "partially-mapped-flag-unexpected": "split_links",
    "split-queue-folio-unexpected": "split_links",
    "split-queue-list-damaged": "split_links",
    # Such pages are compared with all others of their kind.
    "lru-generation-mismatch": "uses_generations",
    "memcg-data-invalid": "odd_charges",
    "slab-page-damaged": "slab_words",
    "slab-refcount-mismatch": "slab_counts",
    "split-queue-mismatch": "split_queues",
}
"""Rules about pages, folios and entries that the account of one folio cannot ask, and the table they would need."""


@pytest.mark.parametrize("kernel", KERNELS)
def test_which_rules_the_account_of_one_folio_leaves_out(kernel: str) -> None:
    """A rule that comes to need a table of the whole target is no more asked there: that must be meant."""
    s = sound(core_path("fixture", kernel))
    row = int(np.flatnonzero(s.counts.page_mappings > 1)[0])
    one = FolioSnapshot(Snapshot(s.target), int(s.pages.memmap.pfns_of_rows(np.array([row]))[0]))
    left_out = {}
    for rule in all_rules():
        if rule.about in (PAGE, FOLIO, ENTRY) and rule.needs <= PAGES and not rule.applies(one.scheme):
            try:
                violations_of(one, rule)
            except NotAimedAtError as error:
                left_out[rule.slug] = error.name
    assert left_out.items() <= NOT_OF_ONE_FOLIO.items()
