"""What the kernel would do with a folio whose flags say that somebody is at work on it, in real dumps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.folio.look import look_at
from inspector.folio.numbers import one_folio, terms_of
from inspector.folio.situation import situation_of
from inspector.report.explain import build_explanation
from inspector.report.explain_text import render_explanation
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from inspector.tables.stacks import stack_words
from tests.faults.overlay import (
    DIRTY,
    KERNELS,
    SAVED_DIRTY,
    Patch,
    add,
    core_path,
    entry_xor,
    flags_xor,
    page_word,
    pfn_of,
    planted,
    put,
    sound,
    word,
)
from tests.faults.plants import mapcount_at, mapping_of_page, small_anon, small_file
from tests.folio.kinds import KINDS


def decided(kernel: str, kind: str, *flags: str) -> dict[str, tuple[str, str]]:
    """What is decided about a folio of some kind, once some of its flags were turned: answer and reason by question."""
    s = sound(core_path("fixture", kernel))
    pfn = KINDS[kind](s)
    head = pfn_of(s, int(s.pages.head_row[s.pages.memmap.row(pfn)]))
    e = build_explanation(planted(s.target.path, flags_xor(s, head, *flags)), pfn, check=False)
    return {d.question: (d.answer, d.reason) for d in e.decisions}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["anon", "file", "shmem", "thp by pte"])
def test_a_locked_folio_is_neither_moved_nor_reclaimed_nor_split(kernel: str, kind: str) -> None:
    found = decided(kernel, kind, "locked")
    for question in {"split", "collapse", "migrate", "reclaim"} & {*found}:
        assert found[question][0] == "no", (question, found[question])
    assert "PG_locked" in found["migrate"][1]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["anon", "shmem", "thp by pte"])
def test_a_folio_under_writeback_is_neither_moved_nor_reclaimed(kernel: str, kind: str) -> None:
    found = decided(kernel, kind, "writeback")
    assert (found["migrate"][0], found["reclaim"][0]) == ("no", "no")
    assert "writeback" in found["migrate"][1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_in_a_locked_vma_is_not_reclaimed_though_its_flag_was_lost(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    flags = s.layout.flags
    rows = np.flatnonzero(flags.test(s.pages.flags[:], "mlocked") & (s.pages.refcount[:] > 0) & (s.folio_of_page < 0))
    pfn = pfn_of(s, int(rows[0]))
    lost = planted(s.target.path, flags_xor(s, pfn, "mlocked", "unevictable"))
    e = build_explanation(lost, pfn, check=False)
    answer, reason = {d.question: (d.answer, d.reason) for d in e.decisions}["reclaim"]
    assert answer == "no"
    assert "VM_LOCKED" in reason


def after(kernel: str, kind: str, *patches: Callable[[Snapshot, int], Patch]) -> dict[str, tuple[str, str, str]]:
    """What is decided about a folio of some kind once words were changed: answer, reason, function by question.

    From its reverse map and among all page tables alike.
    """
    s = sound(core_path("fixture", kernel))
    pfn = KINDS[kind](s)
    head = pfn_of(s, int(s.pages.head_row[s.pages.memmap.row(pfn)]))
    changed = planted(s.target.path, *(patch(s, head) for patch in patches))
    aimed, whole = build_explanation(look_at(changed, pfn), pfn), build_explanation(changed, pfn, check=False)
    assert [(d.question, d.answer) for d in aimed.decisions] == [(d.question, d.answer) for d in whole.decisions]
    return {d.question: (d.answer, d.reason, d.source) for d in aimed.decisions}


def in_page(name: str, value: int | None = None, xor: int = 0) -> Callable[[Snapshot, int], Patch]:
    """A word of the head's struct page, set or with bits turned over."""

    def patch(s: Snapshot, head: int) -> Patch:
        address = page_word(s, head, *name.split())
        return put(s, address, word(s, address) ^ xor if value is None else value)

    return patch


def in_space(name: str, change: Callable[[int], int]) -> Callable[[Snapshot, int], Patch]:
    """A word of the address_space of a folio."""

    def patch(s: Snapshot, head: int) -> Patch:
        space = word(s, page_word(s, head, "mapping"))
        address = space + s.layout.struct("struct address_space").field(name).offset
        return put(s, address, change(word(s, address)))

    return patch


def flagged(*flags: str) -> Callable[[Snapshot, int], Patch]:
    """Flags of the head turned over."""
    return lambda s, head: flags_xor(s, head, *flags)


def with_flag(flag: str, *, cleared: str = "") -> Callable[[Snapshot, int], Patch]:
    """A flag of the head set, another one cleared."""

    def patch(s: Snapshot, head: int) -> Patch:
        address = page_word(s, head, "flags.f", "flags")
        kept = word(s, address) & ~(int(s.layout.flags.mask(cleared)) if cleared else 0)
        return put(s, address, kept | int(s.layout.flags.mask(flag)))

    return patch


def operation(function: str) -> Callable[[Snapshot, int], Patch]:
    """The migrate_folio() of the file's address_space_operations; "" for none."""

    def patch(s: Snapshot, head: int) -> Patch:
        space = word(s, page_word(s, head, "mapping"))
        a_ops = word(s, space + s.layout.struct("struct address_space").field("a_ops").offset)
        at = s.layout.struct("struct address_space_operations").field("migrate_folio").offset
        address = (s.layout.target.symbol(function) or 0) if function else 0
        return Patch(a_ops + at, address.to_bytes(8, "little"))

    return patch


def space_flag(name: str) -> Callable[[Snapshot, int], Patch]:
    """A flag of the address_space set."""

    def patch(s: Snapshot, head: int) -> Patch:
        bit = s.layout.enum("enum mapping_flags")[name]
        return in_space("flags", lambda value: value | 1 << bit)(s, head)

    return patch


def anon_vma_refcount(value: int) -> Callable[[Snapshot, int], Patch]:
    """The refcount of the folio's anon_vma."""

    def patch(s: Snapshot, head: int) -> Patch:
        anon_vma = word(s, page_word(s, head, "mapping")) & ~3
        return put(s, anon_vma + s.layout.struct("struct anon_vma").field("refcount.counter").offset, value, 4)

    return patch


SPLITS = {
    "6.1": ("split_huge_page_to_list()", "split_huge_page_to_list()"),
    "6.12": ("split_huge_page_to_list_to_order()", "split_huge_page_to_list_to_order()"),
    "7.3": ("folio_check_splittable()", "__folio_split()"),
}
"""What asks for mapping and writeback first, and what goes on."""


@pytest.mark.parametrize("kernel", KERNELS)
def test_splitting_asks_for_writeback_then_for_the_anon_vma(kernel: str) -> None:
    answer, reason, source = after(kernel, "thp by pte", flagged("writeback"))["split"]
    assert (answer, source) == ("no", SPLITS[kernel][0])
    assert "-EBUSY" in reason
    answer, reason, source = after(kernel, "thp by pte", anon_vma_refcount(0))["split"]
    assert (answer, source) == ("no", "folio_get_anon_vma()")
    assert "refcount of its anon_vma is 0" in reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_truncated_folio_waits_for_its_last_reference(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    flags, folios = s.layout.flags, s.folios
    words = s.pages.flags[folios.row]
    rows = np.flatnonzero((folios.order > 0) & ~folios.is_hugetlb & ~folios.is_anon & flags.test(words, "lru"))
    rows = rows[~flags.test(words[rows], "unevictable") & ~flags.test(words[rows], "locked")]
    pfn = int(folios.pfn[rows[0]])
    e = build_explanation(look_at(planted(s.target.path, in_page("mapping", 0)(s, pfn)), pfn), pfn)
    found = {d.question: (d.answer, d.reason, d.source) for d in e.decisions}
    assert {*found} == {"split", "migrate", "reclaim"}
    assert (found["split"][0], found["split"][2]) == ("no", SPLITS[kernel][0])
    assert "truncated" in found["split"][1]
    assert found["reclaim"][0] == "no"


@pytest.mark.parametrize("kernel", KERNELS)
def test_hugetlb_is_moved_only_when_it_may_be_isolated(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    bit = s.layout.enum("enum hugetlb_page_flags")["HPG_migratable"]
    answer, reason, source = after(kernel, "hugetlb", in_page("private", xor=1 << bit))["migrate"]
    assert answer == "no"
    assert "HPG_migratable" in reason
    assert source in ("isolate_hugetlb()", "folio_isolate_hugetlb()")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_file_decides_whether_its_folios_can_be_moved(kernel: str) -> None:
    found = after(kernel, "file", operation("filemap_migrate_folio"))["migrate"]
    assert found[0] == "yes"
    assert "not in the dump" not in found[1]
    assert after(kernel, "file", operation(""), with_flag("uptodate", cleared="dirty"))["migrate"][0] == "yes"
    found = after(kernel, "file", operation(""), with_flag("dirty"))["migrate"]
    assert (found[0], found[2]) == ("no", "fallback_migrate_folio()")
    assert "-EBUSY" in found[1]
    found = after(kernel, "file", operation("secretmem_migrate_folio"))["migrate"]
    assert (found[0], found[2]) == ("no", "secretmem_migrate_folio()")


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_memory_of_an_inaccessible_file_is_not_moved(kernel: str) -> None:
    answer, reason, source = after(kernel, "file", space_flag("AS_INACCESSIBLE"))["migrate"]
    assert (answer, source) == ("no", "move_to_new_folio()")
    assert "-EOPNOTSUPP" in reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_unevictable_file_is_not_reclaimed(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = small_file(s, 1)
    flags = s.layout.flags
    rows = rows[~flags.test(s.pages.flags[rows], "unevictable") & flags.test(s.pages.flags[rows], "lru")]
    pfn = pfn_of(s, int(rows[0]))
    changed = planted(s.target.path, space_flag("AS_UNEVICTABLE")(s, pfn))
    e = build_explanation(look_at(changed, pfn), pfn)
    answer, reason = {d.question: (d.answer, d.reason) for d in e.decisions}["reclaim"]
    assert answer == "no"
    assert "AS_UNEVICTABLE" in reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_unmapping_leaves_mapped_is_neither_moved_nor_reclaimed(kernel: str) -> None:
    def raised(s: Snapshot, head: int) -> Patch:
        return add(s, mapcount_at(s, s.pages.memmap.row(head)), 1, 4)

    found = after(kernel, "anon", raised)
    for question in ("migrate", "reclaim"):
        assert found[question][0] == "no"
        assert "its mapcount is 2, but the rmap walk leads to 1: it stays mapped" in found[question][1]


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])  # Debian's 6.1 for clouds has no PG_hwpoison.
def test_poisoned_memory_is_not_given_back(kernel: str) -> None:
    answer, reason, _ = after(kernel, "anon", flagged("hwpoison"))["reclaim"]
    assert answer == "no"
    assert "PG_hwpoison" in reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_was_written_after_madv_free_is_swap_backed_again(kernel: str) -> None:
    answer, reason, _ = after(kernel, "anon", with_flag("dirty", cleared="swapbacked"))["reclaim"]
    assert answer == "no"
    assert "MADV_FREE" in reason


def collapsible(s: Snapshot) -> int:
    """An anonymous page that khugepaged could take."""
    for row in small_anon(s, 1)[:4000:7].tolist():
        pfn = pfn_of(s, row)
        decisions = build_explanation(look_at(s, pfn), pfn, check=False).decisions
        if {d.question: d.answer for d in decisions}.get("collapse") == "yes":
            return pfn
    raise AssertionError("no page for khugepaged")


@pytest.mark.parametrize("kernel", KERNELS)
def test_khugepaged_leaves_alone_what_userfaultfd_watches_and_what_was_given_up(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    pfn = collapsible(s)
    row, skip = mapping_of_page(s, s.pages.memmap.row(pfn))
    uffd = planted(s.target.path, entry_xor(s, row, 1 << 10, skip))
    reason = {d.question: d.reason for d in build_explanation(look_at(uffd, pfn), pfn).decisions}["collapse"]
    assert ("SCAN_PTE_UFFD)" if kernel == "7.3" else "SCAN_PTE_UFFD_WP)") in reason
    clean = word(s, page_word(s, pfn, "flags.f", "flags")) & int(s.layout.flags.mask("dirty"))
    given_up = flags_xor(s, pfn, "swapbacked", *(["dirty"] if clean else []))
    undirtied = entry_xor(s, row, int(s.mappings.entry[row]) & (DIRTY | SAVED_DIRTY), skip)
    free = planted(s.target.path, given_up, undirtied)
    answer = {d.question: d for d in build_explanation(look_at(free, pfn), pfn).decisions}["collapse"]
    assert answer.answer == ("no" if kernel == "7.3" else "yes")
    assert answer.source == ("collapse_scan_pmd()" if kernel == "7.3" else "hpage_collapse_scan_pmd()")


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_a_file_with_a_least_order_is_split_down_to_that_alone(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    orders = s.layout.enum("enum mapping_flags")
    rows = np.flatnonzero((s.folios.order > 0) & (s.folios.order < 6) & ~s.folios.is_hugetlb & s.folios.readable)
    mapping = s.pages.mapping[s.folios.row[rows]]
    of_file = rows[(mapping != 0) & (mapping & np.uint64(3) == 0) & np.isin(mapping, s.address_spaces.addr)]
    folio = int(of_file[0])
    pfn, order = int(s.folios.pfn[folio]), int(s.folios.order[folio])

    def split(least: int) -> tuple[str, str]:
        shift = orders["AS_FOLIO_ORDER_MIN"]
        mask = (1 << orders["AS_FOLIO_ORDER_BITS"]) - 1
        patch = in_space("flags", lambda value: value & ~(mask << shift) | least << shift)(s, pfn)
        e = build_explanation(look_at(planted(s.target.path, patch), pfn), pfn)
        return next((d.answer, d.reason) for d in e.decisions if d.question == "split")

    assert split(order)[0] == "no"
    assert f"no folios below order {order} (-EINVAL)" in split(order)[1]
    assert "-EINVAL" not in split(order - 1)[1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_whether_the_page_cache_leads_to_a_folio_is_looked_up(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = np.flatnonzero((s.folios.order > 0) & ~s.folios.is_hugetlb & s.folios.readable)
    mapping = s.pages.mapping[s.folios.row[rows]]
    of_file = rows[(mapping != 0) & (mapping & np.uint64(3) == 0) & np.isin(mapping, s.address_spaces.addr)]
    pfn = int(s.folios.pfn[of_file[0]])
    lost = planted(s.target.path, put(s, page_word(s, pfn, "__folio_index", "index"), 1 << 30))
    for look, leads in ((look_at(s, pfn), True), (look_at(lost, pfn), False), (lost, False)):
        f = one_folio(look, pfn)
        assert situation_of(look, f, terms_of(look, f)).in_tree is leads


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bit", ["locked", "writeback"])
def test_who_waits_for_a_folio_is_named(kernel: str, bit: str) -> None:
    s = sound(core_path("fixture", kernel))
    pfn = KINDS["anon"](s)
    queue, wake = s.layout.struct("struct wait_page_queue"), s.layout.target.symbol("wake_page_function")
    assert wake is not None
    for task in range(len(s.tasks)):
        places, words = stack_words(s.layout, s.stacks, task)
        if len(words) > 100 and not s.stacks.running[task]:
            break
    # Between two frames, where nothing that unwinding needs is overwritten.
    start = int(places[-8])
    values = {"folio": s.layout.memmap.page_addr(pfn), "wait.private": int(s.tasks.addr[task]), "wait.func": wake}
    number = s.layout.flags.bits[f"PG_{bit}"]
    patches = [put(s, start + queue.field(name).offset, value) for name, value in values.items()]
    patches.append(put(s, start + queue.field("bit_nr").offset, number, 4))
    refcount = page_word(s, pfn, "_refcount.counter", "_refcount")
    changed = planted(s.target.path, *patches, flags_xor(s, pfn, bit, "waiters"), add(s, refcount, 1, 4))
    for look in (look_at(changed, pfn), changed):
        e = build_explanation(look, pfn, check=False)
        name = f"pid {int(s.tasks.pid[task])} {bytes(s.tasks.comm[task]).decode()} waits for PG_{bit} to be cleared"
        assert len(e.waiting) == 1
        assert e.waiting[0].startswith(name)
        assert e.references is not None
        assert e.references.unexplained == 1
        assert e.references.candidates[0].startswith(name)
        assert name in "\n".join(render_explanation(Screen(width=200), e))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_task_that_names_a_folio_is_a_candidate_for_its_reference(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    pfn = KINDS["anon"](s)
    task = next(
        t for t in range(len(s.tasks)) if not s.stacks.running[t] and len(stack_words(s.layout, s.stacks, t)[1]) > 100
    )
    places, _ = stack_words(s.layout, s.stacks, task)
    refcount = page_word(s, pfn, "_refcount.counter", "_refcount")
    changed = planted(s.target.path, put(s, int(places[-8]), s.layout.memmap.page_addr(pfn)), add(s, refcount, 1, 4))
    e = build_explanation(look_at(changed, pfn), pfn)
    assert e.waiting == []
    assert e.references is not None
    first = e.references.candidates[0]
    assert first.startswith(f"pid {int(s.tasks.pid[task])} {bytes(s.tasks.comm[task]).decode()} names it on its stack")
