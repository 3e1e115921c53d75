"""Rules of migration, device, poison and marker entries: what a page table holds where no page is present."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Bit, Kind, Level
from inspector.arch.swapentry import MARKER_GUARD, MARKER_UFFD_WP
from inspector.columns import I32, I64, U64, AnyArray, Mask, take_or
from inspector.layout.flags import VM_HUGETLB, VM_SHARED
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.pieces import EntryPiece, Judged, NonPresentPiece
from inspector.rules.registry import Phase, entry_rule, nonpresent_rule
from inspector.snapshot import Snapshot
from inspector.violations import Details, cannot_check, details, one
from inspector.windows.locks import entries_in_flight, mm_in_flight, pages_locked
from inspector.windows.window import Effect

_VM_MAYBE_GUARD = 1 << 11
_VM_UFFD_WP, _VM_UFFD_RWP = 1 << 12, 1 << 43
"""include/linux/mm.h; VM_UFFD_RWP is of 7.x, the bit has no other use on a 64-bit kernel before."""

_DEVICE_KINDS = (Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE)


def _named(s: Snapshot, rows: I64) -> tuple[I64, I32]:
    """Rows in the memory map of the page that each entry names and of its head; -1 for none."""
    page = s.pages.memmap.rows(s.nonpresent.pfn[rows])
    return page, take_or(s.pages.head_row, page, -1)


def _misfits(n: NonPresentPiece) -> Mask:
    """Huge entries that do not name the head of a folio of their size."""
    order = np.zeros(len(n), np.int64)
    for shape in n.s.layout.arch.shapes:
        order[n.level == shape.level] = shape.shift - n.s.layout.memmap.page_shift
    fits = (n.page_row == n.head_row) & (n.folio >= 0) & (n.of_folio(n.s.folios.order, 0) >= order)
    return (n.level != Level.PTE) & ~fits


def _target(s: Snapshot, rows: I64) -> Details:
    _, head = _named(s, rows)
    at = np.maximum(head, 0)
    free = (s.pages.refcount[at] <= 0) & ~pages_locked(s, head)
    return details(
        rows,
        observed={
            "page_type": s.page_type_names(at),
            "_refcount": s.pages.refcount[at],
            "pfn": s.nonpresent.pfn[rows],
        },
        expected={"target": "a page in use, the head of its folio for a huge entry"},
        facts={"entry": s.nonpresent.entry[rows]},
        claims=one("folio", np.where(free, s.pages.memmap.pfns_of_rows(head), -1)),
    )


@nonpresent_rule(
    "nonpresent-target-invalid",
    _target,
    "nonpresent",
    Phase.WORDS,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14 37 39",
    was="nonpresent-target-free",
)
def nonpresent_target_invalid(n: NonPresentPiece) -> Judged:
    """A migration or device entry names a page that is free or has a page type, or no page at all.

    Invariant: these entries name a page that the process goes on using: it has a struct page, no page type but hugetlb,
        and references or a lock; a huge entry names the head of a folio of its size.
    Why: include/linux/swapops.h, pfn_swap_entry_to_page() asserts a locked page; mm/migrate.c, remove_migration_pte().
    Consequence: the process waits for ever, or gets another owner's page when the entry becomes a mapping again.
    Exceptions: the struct page is not in the dump. A frozen folio (no references) is locked.
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    able = n.is_one_of(*MIGRATION_KINDS, *_DEVICE_KINDS)
    missing = (n.page_row >= 0) & ~(n.of_page("readable") & ((n.head_row < 0) | n.of_head("readable")))
    free = (n.of_head("refcount") <= 0) & ~n.head_has("locked")
    typed = (n.of_head("type_") != 0) & ~n.of_folio(n.s.folios.is_hugetlb, 0)
    wrong = (n.head_row < 0) | free | typed | _misfits(n)
    unread = cannot_check(int((able & missing).sum()), "struct pages of some targets are missing")
    return Judged(able & wrong & ~missing, able, unread)


def _unlocked(s: Snapshot, rows: I64) -> Details:
    n, (_, head) = s.nonpresent, _named(s, rows)
    return details(
        rows,
        observed={"locked": False},
        expected={"locked": True},
        facts={"entry": n.entry[rows], "pfn": n.pfn[rows]},
        claims=one("folio", s.pages.memmap.pfns_of_rows(head)),
        transient=entries_in_flight(s, rows),
    )


@nonpresent_rule(
    "migration-target-lock-missing",
    _unlocked,
    "nonpresent",
    Phase.STATES,
    needs=VMAS | PAGES,
    decides="37",
    was="migration-target-unlocked",
)
def migration_target_lock_missing(n: NonPresentPiece) -> Judged:
    """A migration entry names a folio that is not locked.

    Invariant: the folio behind a migration entry is locked until every entry is a mapping again.
    Why: mm/migrate.c, remove_migration_ptes() runs before folio_unlock(); mm/huge_memory.c, remap_page() likewise.
    Consequence: who touches the address waits for a migration that has ended: the process hangs.
    Exceptions: never. fork() copies such entries into a VMA that the walk comes to later, mremap() holds locks of the
        reverse map; a folio whose _refcount is frozen at 0 is not judged.
    See also: folioscope va PID ADDRESS; folioscope folio PFN
    """
    able = n.is_one_of(*MIGRATION_KINDS) & (n.head_row >= 0) & n.of_head("readable") & (n.of_head("refcount") > 0)
    return Judged(able & ~n.head_has("locked"), able)


def _users(s: Snapshot, page: I64) -> I64:
    """How many entries there are of each page: migration entries and mappings."""
    entire = take_or(s.counts.entire, take_or(s.folio_of_page, page, -1), 0)
    return (take_or(s.migration_entries, page, 0) + take_or(s.counts.page_mappings, page, 0) + entire).astype(np.int64)


def _anon(s: Snapshot, head: AnyArray) -> Mask:
    """Heads of anonymous folios other than KSM pages."""
    return ((s.pages.mapping[head] & np.uint64(1)) != 0) & ~s.pages.is_ksm(head)


def _exclusive(s: Snapshot, rows: I64) -> Details:
    n, (page, head) = s.nonpresent, _named(s, rows)
    anon = _anon(s, head)
    return details(
        rows,
        observed={
            "anon_exclusive": anon & s.layout.flags.test(s.pages.flags[page], "anon_exclusive"),
            "entries": _users(s, page),
            "anon": anon,
        },
        expected={"anon_exclusive": False},
        facts={"kind": np.array([Kind(x).name.lower() for x in n.kind[rows].tolist()], dtype=np.str_)},
        claims=one("folio", s.pages.memmap.pfns_of_rows(head)),
        transient=entries_in_flight(s, rows),
    )


@nonpresent_rule(
    "migration-exclusive-mismatch",
    _exclusive,
    "nonpresent",
    Phase.STATES,
    after=("migration-target-lock-missing",),
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="38",
)
def migration_exclusive_mismatch(n: NonPresentPiece) -> Judged:
    """A migration entry and PG_anon_exclusive of its page disagree on whether the page is exclusive.

    Invariant: while an anonymous page has migration entries, the entry alone keeps what PG_anon_exclusive was, and the
        bit of the page is clear; a writable or exclusive entry is the only one of its page; an exclusive readable entry
        names an anonymous page.
    Why: mm/rmap.c, try_to_migrate_one() clears the bit (folio_try_share_anon_rmap_pte()); mm/migrate.c,
        remove_migration_pte() sets it again.
    Consequence: after the migration a shared page is written without a copy.
    Exceptions: the page table is locked or the mm is being changed; KSM and file pages, whose entries hold nothing
        about exclusivity.
    See also: folioscope va PID ADDRESS; folioscope folio PFN
    """
    able = n.is_one_of(*MIGRATION_KINDS) & (n.head_row >= 0) & n.of_head("readable")
    anon = _anon(n.s, np.maximum(n.head_row, 0))
    marked = anon & n.page_has("anon_exclusive")
    readable_alone = n.kind == Kind.MIGRATION_READ_EXCLUSIVE
    alone = readable_alone | (n.kind == Kind.MIGRATION_WRITE)
    shared = anon & alone & (_users(n.s, n.page_row) > 1)
    return Judged(able & (marked | shared | (readable_alone & ~anon)), able)


def _not_poisoned(s: Snapshot, rows: I64) -> Details:
    n, (_, head) = s.nonpresent, _named(s, rows)
    return details(
        rows,
        observed={"hwpoison": False},
        expected={"hwpoison": True},
        facts={"entry": n.entry[rows], "pfn": n.pfn[rows]},
        claims=one("folio", s.pages.memmap.pfns_of_rows(head)),
    )


@nonpresent_rule(
    "poison-entry-target-mismatch",
    _not_poisoned,
    "nonpresent",
    Phase.STATES,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14 40",
    severity="warn",
    was="poison-entry-to-sound-page",
)
def poison_entry_target_mismatch(n: NonPresentPiece) -> Judged:
    """A hardware poison entry names a page without PG_hwpoison.

    Invariant: the page behind such an entry, or the head of its hugetlb folio, has PG_hwpoison.
    Why: mm/memory-failure.c, memory_failure() marks the page before try_to_unmap() writes the entries.
    Consequence: a process is killed for touching memory that is sound, or the entry was overwritten.
    Exceptions: never; but poison that was injected and taken back (unpoison_memory()) leaves its entries: a warning, no
        failure.
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    able = n.is_one_of(Kind.HWPOISON)
    known = (n.head_row >= 0) & n.of_page("readable")
    poisoned = n.page_has("hwpoison") | n.head_has("hwpoison")
    return Judged(able & ((known & ~poisoned) | (n.page_row < 0)), able)


def _without_watch(offset: U64, flags: U64) -> Mask:
    """uffd-wp markers, by what they hold, in VMAs with flags that do not allow them."""
    return ((offset & np.uint64(MARKER_UFFD_WP)) != 0) & ((flags & np.uint64(_VM_UFFD_WP | VM_HUGETLB)) == 0)


def _marker(s: Snapshot, rows: I64) -> Details:
    n = s.nonpresent
    flags = take_or(s.vmas.flags, n.vma_idx[rows], 0)
    watched = _without_watch(n.swap_offset[rows], flags)
    return details(
        rows,
        observed={"marker": np.where(watched, "uffd-wp", "guard"), "vm_flags": flags},
        expected={"vm_flags": np.where(watched, "VM_UFFD_WP", "VM_MAYBE_GUARD")},
        facts={"entry": n.entry[rows]},
        claims=one("vma", n.vma_idx[rows]),
        transient=mm_in_flight(s)[n.mm_idx[rows]],
    )


@nonpresent_rule(
    "marker-unexpected",
    _marker,
    "nonpresent",
    Phase.STATES,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14 41",
    severity="warn",
    was="marker-in-wrong-vma",
)
def marker_unexpected(n: NonPresentPiece) -> Judged:
    """A marker is in a VMA whose flags do not allow it.

    Invariant: a uffd-wp marker is in a VMA with VM_UFFD_WP; a guard marker, on kernels that keep VM_MAYBE_GUARD (6.19
        and later), in one with that flag.
    Why: mm/mprotect.c, change_pte_range() and hugetlb_change_protection(); mm/madvise.c, madvise_guard_install().
    Consequence: no userfaultfd gets the faults, or a guard is lost when the VMA is merged or copied.
    Exceptions: a hugetlb VMA (unregistering leaves markers behind there); the mm is being changed. Poison markers are
        legal in every VMA. Guard markers of kernels without the flag.
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    able, offset, flags = n.is_one_of(Kind.MARKER), n.swap_offset, n.vma_flags
    guarded = n.s.layout.struct("struct vm_area_struct").has("flags.__vma_flags[0]")
    wrong = _without_watch(offset, flags)
    if guarded:
        wrong |= ((offset & np.uint64(MARKER_GUARD)) != 0) & ~n.vma_has(_VM_MAYBE_GUARD)
    return Judged(able & n.in_vma & wrong, able)


def _stray_bits(s: Snapshot, rows: I64) -> Details:
    n = s.nonpresent
    bits = s.layout.arch.nonpresent_never_written(n.kind[rows], n.entry[rows])
    return details(
        rows,
        observed={"entry": n.entry[rows]},
        expected={"entry": n.entry[rows] ^ bits},
        facts={"kind": np.array([Kind(x).name.lower() for x in n.kind[rows].tolist()], dtype=np.str_), "bits": bits},
    )


@nonpresent_rule(
    "nonpresent-entry-bits-invalid",
    _stray_bits,
    "nonpresent",
    Phase.WORDS,
    effect=Effect.ENTRIES,
    decides="I14",
)
def nonpresent_entry_bits_invalid(n: NonPresentPiece) -> Judged:
    """A non-present entry has bits that the kernel gives no entry of its kind.

    Invariant: bit 4 is clear; a marker has the marks that this kernel knows and no other; an entry that names a page
        has nothing above the page frame but the young and dirty bits of migration entries.
    Why: arch/x86/include/asm/pgtable_64.h gives the layout of swap entries; include/linux/swapops.h (leafops.h) what is
        in the offset of each kind.
    Consequence: the entry was overwritten; the kernel compares it with what it made and does not find it.
    Exceptions: bits 5 and 6, which some processors set in entries that are not present.
    See also: folioscope va PID ADDRESS
    """
    able = n.counted & (n.kind != Kind.BAD)
    return Judged(able & (n.s.layout.arch.nonpresent_never_written(n.kind, n.entry) != 0), able)


def _watched(s: Snapshot, rows: I64) -> Details:
    m = s.entries(rows)
    return details(
        rows,
        observed={"entry": m.entry, "vm_flags": take_or(s.vmas.flags, m.vma_idx, 0)},
        expected={"vm_flags": "VM_UFFD_WP"},
        facts={"entries": m.nr},
        depends=one("vma", m.vma_idx),
        transient=mm_in_flight(s)[m.mm_idx],
    )


@entry_rule(
    "uffd-registration-missing",
    _watched,
    "nonpresent",
    Phase.TOTALS,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="143",
    severity="info",
    was="watched-bit-without-registration",
)
def uffd_registration_missing(e: EntryPiece) -> Judged:
    """An entry has the uffd-wp bit in a VMA that is not registered for it.

    Invariant: the uffd bit of an entry belongs to VMAs with VM_UFFD_WP (or VM_UFFD_RWP on 7.x); unregistering clears
        it.
    Why: fs/userfaultfd.c, userfaultfd_unregister() and mm/userfaultfd.c, uffd_wp_range().
    Consequence: nothing: the bit is ignored in a VMA that is not registered. The entry may have been overwritten.
    Exceptions: a hugetlb VMA, a swap entry (UFFDIO_MOVE takes the bit along), the mm is being changed.
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    able = e.has(Bit.UFFD_WP) & e.in_vma
    return Judged(able & ~e.vma_has(_VM_UFFD_WP | _VM_UFFD_RWP | VM_HUGETLB), e.entries(able))


def _swapped(s: Snapshot, rows: I64) -> Details:
    n = s.nonpresent
    return details(
        rows,
        observed={"entry": n.entry[rows]},
        expected={"entry": "none, in a VMA with VM_SHARED"},
        depends=one("vma", n.vma_idx[rows]),
        transient=mm_in_flight(s)[n.mm_idx[rows]],
    )


@nonpresent_rule(
    "shared-vma-swap-entry-unexpected",
    _swapped,
    "nonpresent",
    Phase.FOLIO_COUNTS,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14",
    was="swap-entry-in-shared-vma",
)
def shared_vma_swap_entry_unexpected(n: NonPresentPiece) -> Judged:
    """A shared VMA holds a swap entry.

    Invariant: only anonymous pages leave a swap entry in the page table; a page of a shared file is found again through
        the file's page cache.
    Why: mm/rmap.c, try_to_unmap_one() drops the entries of file and shmem pages.
    Consequence: the entry was overwritten or moved: the process reads another page than the file's.
    Exceptions: the VMA is VM_SHARED for a moment only (mmap under way: the mm is locked).
    See also: folioscope va PID ADDRESS; folioscope swap ENTRY
    """
    able = n.is_one_of(Kind.SWAP)
    return Judged(able & n.vma_has(VM_SHARED) & ~n.vma_has(VM_HUGETLB), able)
