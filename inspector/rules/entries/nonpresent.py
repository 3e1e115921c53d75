"""Rules of migration, device, poison and marker entries: what stands where a page is not present."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Bit, Kind, Level
from inspector.arch.swapentry import MARKER_GUARD, MARKER_UFFD_WP
from inspector.columns import I64, Mask, take_or
from inspector.layout.flags import VM_HUGETLB, VM_SHARED
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import ENTRY, NONPRESENT
from inspector.violations import Violations, cannot_check, one, violations
from inspector.windows.locks import entries_in_flight, mm_in_flight, pages_locked
from inspector.windows.window import Effect

_VM_MAYBE_GUARD = 1 << 11
_VM_UFFD_WP, _VM_UFFD_RWP = 1 << 12, 1 << 43
"""include/linux/mm.h; VM_UFFD_RWP is of 7.x, the bit has no other use on a 64-bit kernel before."""

_DEVICE_KINDS = (Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE)


def _rows(s: Snapshot, *kinds: Kind) -> I64:
    return np.flatnonzero(np.isin(s.nonpresent.kind, np.array(kinds, np.uint8)) & s.nonpresent.counted)


def _targets(s: Snapshot, rows: I64) -> tuple[I64, I64]:
    """Rows in the page table of the page that each entry names and of its head; -1 for none."""
    page = s.pages.memmap.rows(s.nonpresent.pfn[rows])
    head = take_or(s.pages.head_row, page, -1).astype(np.int64)
    return page, head


def _in_vma(s: Snapshot, rows: I64, flag: int) -> Mask:
    """Entries in a VMA with any bit of ``flag``; those in no VMA have a rule of their own."""
    vma = s.nonpresent.vma_idx[rows]
    if not len(s.vmas):
        return np.ones(len(rows), np.bool_)
    return (vma < 0) | ((s.vmas.flags[np.maximum(vma, 0)] & np.uint64(flag)) != 0)


def _pfn(s: Snapshot, head: I64) -> I64:
    return s.pages.memmap.pfns_of_rows(head)


def _huge_misfit(s: Snapshot, rows: I64, page: I64, head: I64) -> Mask:
    """Huge entries that do not name the head of a folio of their size."""
    folio = s.folio_of_page[np.maximum(head, 0)]
    shift = {shape.level: shape.shift - s.layout.memmap.page_shift for shape in s.layout.arch.shapes}
    order = np.array([shift[Level(x)] for x in s.nonpresent.level[rows].tolist()], np.int64)
    stored = take_or(s.folios.order, folio, 0).astype(np.int64)
    misfit: Mask = (page != head) | (folio < 0) | (stored < order)
    return (s.nonpresent.level[rows] != Level.PTE) & misfit


@rule(
    "nonpresent-target-invalid",
    NONPRESENT,
    "nonpresent",
    Phase.WORDS,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14 37 39",
    was="nonpresent-target-free",
)
def nonpresent_target_invalid(s: Snapshot) -> Violations:
    """A migration or device entry names a page that is free, of a kernel's own type, or no page at all.

    Invariant: these entries stand for a page that the process goes on using: it has a struct page, no page type but
        hugetlb, and references or a lock; a huge entry names the head of a folio of its size.
    Why: include/linux/swapops.h, pfn_swap_entry_to_page() asserts a locked page; mm/migrate.c, remove_migration_pte().
    Consequence: the process waits for ever, or gets somebody else's page when the entry is turned back.
    Exceptions: the struct page is not in the dump. A frozen folio (no references) is locked.
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    pages, n = s.pages, s.nonpresent
    rows = _rows(s, *MIGRATION_KINDS, *_DEVICE_KINDS)
    page, head = _targets(s, rows)
    safe = np.maximum(head, 0)
    readable = (page < 0) | (pages.readable[np.maximum(page, 0)] & ((head < 0) | pages.readable[safe]))
    folio = s.folio_of_page[safe]
    hugetlb = take_or(s.folios.is_hugetlb, folio, False)
    free = (pages.refcount[safe] <= 0) & ~pages_locked(s, head)
    wrong = (head < 0) | free | ((pages.type_[safe] != 0) & ~hugetlb) | _huge_misfit(s, rows, page, head)
    bad = np.flatnonzero(wrong & readable)
    missing = int((~readable).sum())
    return violations(
        rows[bad],
        observed={
            "page_type": s.page_type_names(safe[bad]),
            "_refcount": pages.refcount[safe[bad]],
            "pfn": n.pfn[rows[bad]],
        },
        expected={"target": np.full(len(bad), "a page in use, the head of its folio for a huge entry")},
        checked=len(rows),
        unread=cannot_check(missing, "struct pages of some targets are missing"),
        facts={"entry": n.entry[rows[bad]]},
        claims=one("folio", np.where(free[bad], _pfn(s, head[bad]), -1)),
    )


@rule(
    "migration-target-lock-missing",
    NONPRESENT,
    "nonpresent",
    Phase.STATES,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="37",
    was="migration-target-unlocked",
)
def migration_target_lock_missing(s: Snapshot) -> Violations:
    """A migration entry names a folio that nobody migrates or splits.

    Invariant: the folio behind a migration entry is locked until every entry is turned back into a mapping.
    Why: mm/migrate.c, remove_migration_ptes() runs before folio_unlock(); mm/huge_memory.c, remap_page() likewise.
    Consequence: whoever touches the address waits for a migration that has ended: the process hangs.
    Exceptions: the mm is being changed, or the page table is locked.
    See also: folioscope va PID ADDRESS; folioscope folio PFN
    """
    pages, n = s.pages, s.nonpresent
    rows = _rows(s, *MIGRATION_KINDS)
    _, head = _targets(s, rows)
    able = take_or(pages.readable, head, False) & (take_or(pages.refcount, head, 0) > 0)
    bad = np.flatnonzero(able & ~pages_locked(s, head))
    return violations(
        rows[bad],
        observed={"locked": np.zeros(len(bad), np.bool_)},
        expected={"locked": np.ones(len(bad), np.bool_)},
        checked=int(able.sum()),
        facts={"entry": n.entry[rows[bad]], "pfn": n.pfn[rows[bad]]},
        claims=one("folio", _pfn(s, head[bad])),
        transient=entries_in_flight(s, rows[bad]),
    )


def _entries_of(s: Snapshot, rows: I64, page: I64) -> I64:
    """How many entries stand for the page of each given entry: migration entries and mappings."""
    standing = _rows(s, *MIGRATION_KINDS)
    own = _targets(s, standing)[0]
    level = np.flatnonzero(own >= 0)
    nr = np.bincount(own[level], minlength=len(s.pages))
    at = np.maximum(page, 0)
    folio = s.folio_of_page[at]
    huge = take_or(s.counts.entire, folio, 0)
    return nr[at] + s.counts.page_mappings[at] + huge


@rule(
    "migration-exclusive-mismatch",
    NONPRESENT,
    "nonpresent",
    Phase.STATES,
    after=("migration-target-lock-missing",),
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="38",
)
def migration_exclusive_mismatch(s: Snapshot) -> Violations:
    """A migration entry and its page do not agree on whom the page belongs to.

    Invariant: while migration entries stand for an anonymous page, the entry alone keeps what PG_anon_exclusive said,
        so that the page does not carry it; a writable or exclusive entry is the only one of its page; an exclusive
        readable entry names an anonymous page.
    Why: mm/rmap.c, try_to_migrate_one() clears the bit (folio_try_share_anon_rmap_pte()); mm/migrate.c,
        remove_migration_pte() sets it again.
    Consequence: after the migration a shared page is written without a copy.
    Exceptions: the page table is locked or the mm is being changed; KSM and file pages, whose entries say nothing about
        exclusivity.
    See also: folioscope va PID ADDRESS; folioscope folio PFN
    """
    pages, n = s.pages, s.nonpresent
    rows = _rows(s, *MIGRATION_KINDS)
    page, head = _targets(s, rows)
    known = take_or(pages.readable, head, False)
    rows, page, head = rows[known], page[known], head[known]
    anon = ((pages.mapping[head] & np.uint64(1)) != 0) & ~pages.is_ksm(head)
    marked = anon & s.layout.flags.test(pages.flags[page], "anon_exclusive")
    alone = (n.kind[rows] == Kind.MIGRATION_WRITE) | (n.kind[rows] == Kind.MIGRATION_READ_EXCLUSIVE)
    users = _entries_of(s, rows, page)
    shared = anon & alone & (users > 1)
    bad = np.flatnonzero(marked | shared | ((n.kind[rows] == Kind.MIGRATION_READ_EXCLUSIVE) & ~anon))
    return violations(
        rows[bad],
        observed={"anon_exclusive": marked[bad], "entries": users[bad], "anon": anon[bad]},
        expected={"anon_exclusive": np.zeros(len(bad), np.bool_)},
        checked=len(rows),
        facts={"kind": np.array([Kind(x).name.lower() for x in n.kind[rows[bad]].tolist()], dtype=np.str_)},
        claims=one("folio", _pfn(s, head[bad])),
        transient=entries_in_flight(s, rows[bad]),
    )


@rule(
    "poison-entry-target-mismatch",
    NONPRESENT,
    "nonpresent",
    Phase.STATES,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14 40",
    severity="warn",
    was="poison-entry-to-sound-page",
)
def poison_entry_target_mismatch(s: Snapshot) -> Violations:
    """A hardware poison entry names a page that is not marked as poisoned.

    Invariant: the page behind such an entry, or the head of its hugetlb folio, carries PG_hwpoison.
    Why: mm/memory-failure.c, memory_failure() marks the page before try_to_unmap() writes the entries.
    Consequence: a process is killed for touching memory that is sound, or the entry was overwritten.
    Exceptions: never; but poison that was injected and taken back (unpoison_memory()) leaves its entries: a warning, no
        failure.
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    pages, n = s.pages, s.nonpresent
    rows = _rows(s, Kind.HWPOISON)
    page, head = _targets(s, rows)
    known = (head >= 0) & pages.readable[np.maximum(page, 0)]
    poisoned = s.layout.flags.test(pages.flags[np.maximum(page, 0)], "hwpoison")
    poisoned |= s.layout.flags.test(pages.flags[np.maximum(head, 0)], "hwpoison")
    bad = np.flatnonzero((known & ~poisoned) | (page < 0))
    return violations(
        rows[bad],
        observed={"hwpoison": np.zeros(len(bad), np.bool_)},
        expected={"hwpoison": np.ones(len(bad), np.bool_)},
        checked=len(rows),
        facts={"entry": n.entry[rows[bad]], "pfn": n.pfn[rows[bad]]},
        claims=one("folio", _pfn(s, head[bad])),
    )


@rule(
    "marker-unexpected",
    NONPRESENT,
    "nonpresent",
    Phase.STATES,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14 41",
    severity="warn",
    was="marker-in-wrong-vma",
)
def marker_unexpected(s: Snapshot) -> Violations:
    """A marker stands in a VMA whose flags do not allow it.

    Invariant: a uffd-wp marker lies in a VMA with VM_UFFD_WP; a guard marker, on kernels that keep VM_MAYBE_GUARD (6.19
        and later), in one with that flag.
    Why: mm/mprotect.c, change_pte_range() and hugetlb_change_protection(); mm/madvise.c, madvise_guard_install().
    Consequence: faults are sent to nobody, or a guard is lost when the VMA is merged or copied.
    Exceptions: a hugetlb VMA (unregistering leaves markers behind there); the mm is being changed. Poison markers are
        legal in every VMA. Guard markers of kernels without the flag.
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    n = s.nonpresent
    rows = _rows(s, Kind.MARKER)
    bits = n.swap_offset[rows]
    guarded = s.layout.struct("struct vm_area_struct").has("flags.__vma_flags[0]")
    watched = ((bits & np.uint64(MARKER_UFFD_WP)) != 0) & ~_in_vma(s, rows, _VM_UFFD_WP | VM_HUGETLB)
    guard = ((bits & np.uint64(MARKER_GUARD)) != 0) & ~_in_vma(s, rows, _VM_MAYBE_GUARD) & guarded
    bad = np.flatnonzero(watched | guard)
    at = rows[bad]
    flags = s.vmas.flags[n.vma_idx[at]] if len(s.vmas) else n.entry[at]
    return violations(
        at,
        observed={"marker": np.where(watched[bad], "uffd-wp", "guard"), "vm_flags": flags},
        expected={"vm_flags": np.where(watched[bad], "VM_UFFD_WP", "VM_MAYBE_GUARD")},
        checked=len(rows),
        facts={"entry": n.entry[at]},
        claims=one("vma", n.vma_idx[at]),
        transient=mm_in_flight(s)[n.mm_idx[at]],
    )


@rule(
    "uffd-registration-missing",
    ENTRY,
    "nonpresent",
    Phase.TOTALS,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="143",
    severity="info",
    was="watched-bit-without-registration",
)
def uffd_registration_missing(s: Snapshot) -> Violations:
    """An entry carries userfaultfd's bit in a VMA that is not registered for it.

    Invariant: the uffd bit of an entry belongs to VMAs with VM_UFFD_WP (or VM_UFFD_RWP on 7.x); unregistering clears
        it.
    Why: fs/userfaultfd.c, userfaultfd_unregister() and mm/userfaultfd.c, uffd_wp_range().
    Consequence: nothing: the bit is ignored where nobody is registered. It may tell of an entry that was overwritten.
    Exceptions: a hugetlb VMA, a swap entry (UFFDIO_MOVE takes the bit along), the mm is being changed.
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    m = s.mappings
    rows = np.flatnonzero(((s.counts.bits & Bit.UFFD_WP) != 0) & (m.vma_idx >= 0))
    flags = s.vmas.flags[m.vma_idx[rows]] if len(s.vmas) else np.zeros(len(rows), np.uint64)
    bad = np.flatnonzero((flags & np.uint64(_VM_UFFD_WP | _VM_UFFD_RWP | VM_HUGETLB)) == 0)
    at = rows[bad]
    return violations(
        at,
        observed={"entry": m.entry[at], "vm_flags": flags[bad]},
        expected={"vm_flags": np.full(len(bad), "VM_UFFD_WP")},
        checked=int(m.nr[rows].sum()),
        facts={"entries": m.nr[at]},
        depends=one("vma", m.vma_idx[at]),
        transient=mm_in_flight(s)[m.mm_idx[at]],
    )


@rule(
    "shared-vma-swap-entry-unexpected",
    NONPRESENT,
    "nonpresent",
    Phase.FOLIO_COUNTS,
    effect=Effect.ENTRIES,
    needs=VMAS | PAGES,
    decides="I14",
    was="swap-entry-in-shared-vma",
)
def shared_vma_swap_entry_unexpected(s: Snapshot) -> Violations:
    """A shared VMA holds a swap entry.

    Invariant: only anonymous pages leave a swap entry in the page table; a page of a shared file is found again through
        the file's page cache.
    Why: mm/rmap.c, try_to_unmap_one() drops the entries of file and shmem pages.
    Consequence: the entry was overwritten or moved: the process reads another page than the file's.
    Exceptions: the VMA is VM_SHARED for a moment only (mmap under way: the mm is locked).
    See also: folioscope va PID ADDRESS; folioscope swap ENTRY
    """
    n = s.nonpresent
    rows = _rows(s, Kind.SWAP)
    shared = _in_vma(s, rows, VM_SHARED) & (n.vma_idx[rows] >= 0) & ~_in_vma(s, rows, VM_HUGETLB)
    at = rows[shared]
    return violations(
        at,
        observed={"entry": n.entry[at]},
        expected={"entry": np.full(len(at), "none, in a VMA with VM_SHARED")},
        checked=len(rows),
        depends=one("vma", n.vma_idx[at]),
        transient=mm_in_flight(s)[n.mm_idx[at]],
    )
