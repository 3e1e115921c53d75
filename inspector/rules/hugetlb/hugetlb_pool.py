"""Rules of hugetlb's pools, its shared page tables and its counters."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Bit, Level
from inspector.columns import I32, I64, Mask, rows_of, take_or
from inspector.layout.flags import VM_MAYSHARE, VM_SHARED
from inspector.rules.needs import FILES, HUGETLB, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, HSTATE, MM, TABLE
from inspector.tables.hugetlb import OFF_LIST, ON_FREE, has_hugetlb_flag
from inspector.violations import Violations, cannot_check, holds, lower_bound, one, violations
from inspector.walk.batches import PagesByMm
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import Mappings, entry_pages
from inspector.walk.shared_tables import HugetlbTables, Sharers
from inspector.walk.unread_tables import tables_unknown, vmas_behind
from inspector.windows.holders import runs_on
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect, named

_NO_POOLS = "hugetlb's pools are not in the dump"


@rule(
    "hugetlb-pool-mismatch",
    HSTATE,
    "hugetlb",
    Phase.LINKS,
    effect=Effect.HUGETLB,
    needs=HUGETLB,
    decides="132",
)
def hugetlb_pool_mismatch(s: Snapshot) -> Violations:
    """A hugetlb pool's counters are not the numbers of folios on its lists.

    Invariant: nr_huge_pages is the number of folios on the list of those in use and on the lists of free ones;
        free_huge_pages that on the free lists; of each node's counters the same holds, and they add up.
    Why: mm/hugetlb.c, enqueue_hugetlb_folio(), dequeue_hugetlb_folio_node_exact(), remove_hugetlb_folio(): counters and
        lists change together under hugetlb_lock.
    Consequence: too many free: an allocation finds an empty list where a reservation promised a page: SIGBUS.
    Exceptions: hugetlb_lock is held, or the folios that a list lacks exist off the lists (isolated for migration, or on
        their way into the pool).
    See also: folioscope hugetlb
    """
    h, nodes = s.hugetlb.hstates, s.hugetlb.nodes
    total, free = _sum(s, nodes.nr), _sum(s, nodes.free)
    listed = h.nr_active + h.nr_listed_free
    wrong_free = (h.free != h.nr_listed_free) | (h.free != free) | _any(s, nodes.free != nodes.nr_listed_free)
    wrong_total = (h.nr != listed) | (h.nr != total) | (h.surplus != _sum(s, nodes.surplus))
    rows = np.flatnonzero(h.broken | wrong_free | wrong_total)
    elsewhere = (h.nr > listed) & (h.nr <= listed + h.nr_off_list) & ~wrong_free & ~h.broken & (h.nr == total)
    return violations(
        rows,
        observed={
            "nr_huge_pages": h.nr[rows],
            "free_huge_pages": h.free[rows],
            "free_huge_pages_node": free[rows],
            "lists_whole": ~h.broken[rows],
        },
        expected={
            "nr_huge_pages": listed[rows],
            "free_huge_pages": h.nr_listed_free[rows],
            "free_huge_pages_node": h.nr_listed_free[rows],
            "lists_whole": np.ones(len(rows), np.bool_),
        },
        checked=len(h),
        unread=cannot_check(s.hugetlb.missing, _NO_POOLS),
        facts={
            "in_use": h.nr_active[rows],
            "off_lists": h.nr_off_list[rows],
            "surplus_huge_pages": h.surplus[rows],
            "surplus_huge_pages_node": _sum(s, nodes.surplus)[rows],
        },
        claims=one("hstate", rows),
        depends=one("hugetlb_level", np.where(h.nr > listed, _levels(s), -1)[rows]),
        transient=np.full(len(rows), s.hugetlb.active) | elsewhere[rows],
    )


def _levels(s: Snapshot) -> I64:
    """The page-table level whose leaves map each pool's folios, -1 where there is no such level."""
    level = {shape.shift - s.layout.memmap.page_shift: int(shape.level) for shape in s.layout.arch.shapes}
    return np.array([level.get(order, -1) for order in s.hugetlb.hstates.order.tolist()], np.int64)


def _sum(s: Snapshot, column: I64) -> I64:
    """A column of the nodes' pools added up by size."""
    nodes = s.hugetlb.nodes
    return np.bincount(nodes.hstate_idx, weights=column, minlength=len(s.hugetlb.hstates)).astype(np.int64)


def _any(s: Snapshot, marked: Mask) -> Mask:
    """Sizes with a marked pool."""
    out = np.zeros(len(s.hugetlb.hstates), np.bool_)
    out[s.hugetlb.nodes.hstate_idx[marked]] = True
    return out


_REMAPPING = named(
    "hugetlb_vmemmap_optimize hugetlb_vmemmap_optimize_folio hugetlb_vmemmap_optimize_folios hugetlb_vmemmap_restore"
    " hugetlb_vmemmap_restore_folio hugetlb_vmemmap_restore_folios __hugetlb_vmemmap_optimize"
    " __hugetlb_vmemmap_optimize_folio __hugetlb_vmemmap_optimize_folios __hugetlb_vmemmap_restore_folio"
    " vmemmap_remap_free vmemmap_remap_alloc vmemmap_remap_split vmemmap_remap_range"
)
"""Functions of mm/hugetlb_vmemmap.c that change which pages hold struct pages."""


@rule(
    "hugetlb-vmemmap-mismatch",
    FOLIO,
    "hugetlb",
    Phase.STRUCTURES,
    effect=Effect.HUGETLB,
    needs=PAGES,
)
def hugetlb_vmemmap_mismatch(s: Snapshot) -> Violations:
    """The kernel can write to struct pages that an optimised hugetlb folio shares with others.

    Invariant: all pages of struct pages of a folio with HPG_vmemmap_optimized, but for the first, are mapped by small
        entries of the kernel, read-only, and to one page frame.
    Why: mm/hugetlb_vmemmap.c, vmemmap_remap_pte() maps them so after it freed the pages that they were.
    Consequence: a write to a tail's struct page changes those of all folios that share it, or of memory that is
        something else by now.
    Exceptions: a task is in a function that maps them.
    See also: folioscope hugetlb; folioscope page PFN
    """
    if runs_on(s):
        return holds(0, note="the memory map of hugetlb folios is changed while the kernel runs")
    e, arch = s.vmemmap_entries, s.layout.arch
    able = np.flatnonzero(e.readable)
    entry, folio = e.entry[able], e.folio[able]
    leaf = arch.leaf_mask(Level.PTE, entry)
    frame = np.where(leaf, arch.leaf_pfn(Level.PTE, entry).astype(np.int64), -1)
    writable = leaf & ((arch.leaf_bits(Level.PTE, entry) & Bit.WRITE) != 0)
    first = frame[np.searchsorted(folio, folio)] if len(folio) else frame
    bad = np.flatnonzero(~leaf | writable | (frame != first))
    # One finding a folio, by the first of its pages.
    at = bad[np.unique(folio[bad], return_index=True)[1]]
    return violations(
        folio[at],
        observed={"mapped": leaf[at], "writable": writable[at], "pfn": frame[at]},
        expected={"mapped": True, "writable": False, "pfn": first[at]},
        checked=len(able),
        unread=cannot_check(len(e) - len(able), "page tables of the kernel are missing"),
        facts={"address": e.address[able][at], "entry": entry[at]},
        transient=np.full(len(at), len(at) > 0 and s.stacks.any_in(_REMAPPING), np.bool_),
    )


@rule(
    "hugetlb-reserve-unexpected",
    FOLIO,
    "hugetlb",
    Phase.STATES,
    effect=Effect.HUGETLB,
    needs=HUGETLB,
)
def hugetlb_reserve_unexpected(s: Snapshot) -> Violations:
    """A hugetlb folio of a file is marked to give its reservation back.

    Invariant: HPG_restore_reserve is clear once a folio is in the page cache.
    Why: mm/hugetlb.c, alloc_hugetlb_folio() sets it on a folio that took a reservation, hugetlb_add_to_page_cache()
        clears it: from then on the reservation is used up.
    Consequence: when the folio is freed, free_huge_folio() adds to the reserved ones: hugetlb keeps back a folio for no
        mapping, and truncation stops at a VM_BUG_ON().
    Exceptions: the folio is being put into the page cache. Anonymous folios: __unmap_hugepage_range() sets the mark
        when the VMA that reserved it goes, also where another process still maps the folio (6.6 and later).
    See also: folioscope hugetlb
    """
    folios, words = s.folios, s.pages.words
    names_file = (words.names_file & words.readable & (words.refcount > 0))[s.pages.number[folios.row]]
    rows = np.flatnonzero(folios.is_hugetlb & folios.readable & names_file)
    if "HPG_restore_reserve" not in s.layout.enum("enum hugetlb_page_flags"):
        return holds(0, note="this kernel keeps no such flags of hugetlb folios")
    words_of, all_known = s.hugetlb_words
    known = all_known[rows]
    bad = rows[known & has_hugetlb_flag(s.layout, words_of[rows], "HPG_restore_reserve")]
    return violations(
        bad,
        observed={"restore_reserve": True},
        expected={"restore_reserve": False},
        checked=int(known.sum()),
        unread=cannot_check(int((~known).sum()), "struct pages are missing"),
        facts={"mappings": s.counts.entire[bad]},
        transient=np.full(len(bad), s.hugetlb.active),
    )


@rule(
    "hugetlb-free-folio-state-unexpected",
    FOLIO,
    "hugetlb",
    Phase.STRUCTURES,
    effect=Effect.HUGETLB,
    needs=HUGETLB,
    decides="133",
    was="hugetlb-free-folio-in-use",
)
def hugetlb_free_folio_state_unexpected(s: Snapshot) -> Violations:
    """A folio on a free list of hugetlb is referenced, mapped, charged to a subpool, or of another size.

    Invariant: free hugetlb folios have no reference, no mapping and no subpool, and are of the size of their pool.
    Why: mm/hugetlb.c, free_huge_folio() clears all of it before enqueue_hugetlb_folio().
    Consequence: the folio is handed out a second time while it is still in use.
    Exceptions: hugetlb_lock is held.
    See also: folioscope hugetlb; folioscope folio PFN
    """
    pool, folios, hstates = s.hugetlb.folios, s.folios, s.hugetlb.hstates
    listed = pool.where != OFF_LIST
    rows = pool.folio_idx[listed].astype(np.int64)
    free = pool.where[listed] == ON_FREE
    refs, entire = s.pages.refcount[folios.row[rows]], s.counts.entire[rows]
    subpool = pool.subpool[listed]
    misfit = np.zeros(len(rows), np.bool_)
    if len(hstates):
        misfit = folios.order[rows] != hstates.order[np.maximum(pool.hstate_idx[listed], 0)]
    bad = np.flatnonzero((free & ((refs != 0) | (entire > 0) | (subpool != 0))) | misfit)
    return violations(
        rows[bad],
        observed={
            "_refcount": refs[bad],
            "mappings": entire[bad],
            "subpool": subpool[bad],
            "order": folios.order[rows[bad]],
        },
        expected={
            "_refcount": np.zeros(len(bad), np.int64),
            "mappings": np.zeros(len(bad), np.int64),
            "subpool": np.zeros(len(bad), np.int64),
            "order": hstates.order[pool.hstate_idx[listed][bad]],
        },
        checked=len(rows),
        unread=cannot_check(s.hugetlb.missing, _NO_POOLS),
        facts={"node": pool.nid[listed][bad]},
        transient=np.full(len(bad), s.hugetlb.active),
    )


@rule(
    "hugetlb-reserved-high",
    HSTATE,
    "hugetlb",
    Phase.LINKS,
    after=("hugetlb-pool-mismatch",),
    effect=Effect.HUGETLB,
    needs=HUGETLB,
    decides="134",
    severity="warn",
    exactness="bound",
    was="hugetlb-reserved-above-free",
)
def hugetlb_reserved_high(s: Snapshot) -> Violations:
    """resv_huge_pages of a hugetlb pool is higher than free_huge_pages.

    Invariant: 0 <= resv_huge_pages <= free_huge_pages: every reservation is backed by a free folio, surplus ones
        included.
    Why: mm/hugetlb.c, hugetlb_acct_memory() and gather_surplus_pages(); available_huge_pages() subtracts the two.
    Consequence: a process with a reservation dies of SIGBUS at a fault that was promised to succeed.
    Exceptions: hugetlb_lock is held.
    See also: folioscope hugetlb
    """
    h = s.hugetlb.hstates
    rows = np.flatnonzero((h.resv > h.free) | (h.resv < 0))
    return violations(
        rows,
        observed={"resv_huge_pages": h.resv[rows]},
        expected={"resv_huge_pages_at_most": h.free[rows]},
        checked=len(h),
        unread=cannot_check(s.hugetlb.missing, _NO_POOLS),
        claims=one("hstate", rows),
        transient=np.full(len(rows), s.hugetlb.active),
    )


@rule(
    "hugetlb-share-count-mismatch",
    TABLE,
    "hugetlb",
    Phase.LINKS,
    after=(
        "hugetlb-shared-table-mismatch",
        "write-bit-unexpected",
    ),
    effect=Effect.HUGETLB,
    needs=HUGETLB | VMAS | FILES,
    decides="90",
    was="hugetlb-share-count-wrong",
)
def hugetlb_share_count_mismatch(s: Snapshot) -> Violations:
    """The share count of a hugetlb page table is not the number of other places that it is reached from.

    Invariant: pt_share_count of a PMD table of hugetlb memory is the number of places it is reached from, less one.
        Kernels that keep no such count hold one reference of the table's page for each place.
    Why: mm/hugetlb.c, huge_pmd_share() and huge_pmd_unshare().
    Consequence: too low: the table is freed while others use it. Too high: its entries are never unmapped.
    Exceptions: the file's i_mmap lock is held (sharing under way), or page tables are missing where it may be
        mapped: then only a count that is too low is reported.
    See also: folioscope hugetlb; folioscope va PID ADDRESS
    """
    tables, sharers = s.hugetlb_tables
    expected = tables.nr_sharers - 1
    wrong = tables.readable & (tables.share_count != expected)
    unchecked, why = int((~tables.readable).sum()), "struct pages of page tables are missing"
    unsure = _may_be_shared_more(s, tables, sharers)
    wrong &= ~unsure | (tables.share_count < expected)
    if unsure.any():
        unchecked, why = int((unsure | ~tables.readable).sum()), lower_bound(s)
    rows = np.flatnonzero(wrong)
    at = tables.first[rows]
    return violations(
        tables.table_idx[rows].astype(np.int64),
        observed={"share_count": tables.share_count[rows]},
        expected={"share_count": expected[rows]},
        checked=int(tables.readable.sum()),
        unread=cannot_check(unchecked, why),
        facts={"sharers": tables.nr_sharers[rows]},
        claims=one("table", tables.pfn[rows]),
        depends=one("vma", sharers.vma_idx[at]),
        transient=_file_locked(s, sharers.address_space_idx[at]),
    )


def _may_be_shared_more(s: Snapshot, tables: HugetlbTables, sharers: Sharers) -> Mask:
    """Tables that may be reached from places that are not known: a VMA of the same file is there."""
    behind = vmas_behind(s, tables_unknown(s, Level.PMD)) if s.mms_complete else None
    if behind is None:
        return np.ones(len(tables), np.bool_)
    file = sharers.address_space_idx[tables.first]
    others = s.file_rmap.address_space_of_vma[behind[s.vmas.is_hugetlb[behind]]]
    return (file < 0) | np.isin(file, others)


def _file_locked(s: Snapshot, space_idx: I32) -> Mask:
    """Whether the i_mmap_rwsem of each file is held; not those of files without a row."""
    if not len(s.file_rmap.address_spaces):
        return np.zeros(len(space_idx), np.bool_)
    return take_or(s.i_mmap_locked, space_idx, False)


@rule(
    "hugetlb-shared-table-mismatch",
    TABLE,
    "hugetlb",
    Phase.LINKS,
    effect=Effect.HUGETLB,
    needs=HUGETLB | VMAS | FILES,
    decides="145",
    was="hugetlb-table-shared-apart",
)
def hugetlb_shared_table_mismatch(s: Snapshot) -> Violations:
    """A shared hugetlb page table is reached from a VMA of another file or of another offset in it.

    Invariant: all places that share a PMD table lie in shared VMAs of one file and map the same page offset.
    Why: mm/hugetlb.c, huge_pmd_share() and page_table_shareable().
    Consequence: one process sees and changes memory of a file that it never mapped.
    Exceptions: an mm among the sharers is being built, changed or torn down.
    See also: folioscope hugetlb; folioscope va PID ADDRESS
    """
    tables, sharers = s.hugetlb_tables
    owner = np.repeat(np.arange(len(tables)), tables.nr_sharers)
    first = tables.first[owner]
    apart = (sharers.address_space_idx != sharers.address_space_idx[first]) | (sharers.index != sharers.index[first])
    private = ~s.vmas.has(VM_MAYSHARE)[sharers.vma_idx] if len(s.vmas) else np.zeros(len(sharers), np.bool_)
    shared = tables.nr_sharers[owner] > 1
    rows = np.flatnonzero(shared & (apart | private))
    return violations(
        sharers.table_idx[rows].astype(np.int64),
        observed={"index": sharers.index[rows], "shared_vma": ~private[rows]},
        expected={"index": sharers.index[first[rows]], "shared_vma": np.ones(len(rows), np.bool_)},
        checked=int(shared.sum()),
        facts={"same_file": (sharers.address_space_idx == sharers.address_space_idx[first])[rows]},
        claims=one("table", sharers.pfn[rows]),
        depends=one("vma", sharers.vma_idx[rows]),
        transient=mm_in_flight(s)[sharers.mm_idx[rows]],
    )


class _HugetlbPages(PagesByMm):
    """Pages of normal entries in hugetlb VMAs."""

    def some(self, m: Mappings) -> Mask:
        """Which entries count."""
        return take_or(self.s.vmas.is_hugetlb, m.vma_idx, False) & (m.entry_class == EntryClass.NORMAL)


@rule(
    "hugetlb-usage-mismatch",
    MM,
    "hugetlb",
    Phase.TOTALS,
    effect=Effect.HUGETLB,
    needs=HUGETLB | VMAS | FILES,
    decides="86",
    severity="warn",
    collects=(_HugetlbPages,),
)
def hugetlb_usage_mismatch(s: Snapshot) -> Violations:
    """hugetlb_usage of an mm is not the number of base pages that its hugetlb entries map.

    Invariant: hugetlb_usage of an mm is the number of base pages that its hugetlb entries map; migration entries count.
    Why: mm/hugetlb.c, hugetlb_no_page() and __unmap_hugepage_range(), hugetlb_count_add() and hugetlb_count_sub().
    Consequence: /proc/PID/status shows a wrong HugetlbPages.
    Exceptions: the mm has, or had, memory whose page tables can be shared: such pages count in the mm that faulted
        them, whichever mms map them too, and stay counted there when a table is given up (huge_pmd_unshare()), as it
        is before a VMA is split. Also when the mm is being built, changed or torn down, or tables are missing.
    See also: folioscope hugetlb; folioscope vmas PID
    """
    mms = s.mms
    rebuilt = _usage(s)
    able = s.mm_tables_complete & (mms.users > 0) & ~_shareable(s)
    left_over = (mms.hugetlb_pages > rebuilt) & _once_shareable(s)
    rows = np.flatnonzero(able & (mms.hugetlb_pages != rebuilt) & ~left_over)
    unchecked = int((~s.mm_tables_complete).sum())
    return violations(
        rows,
        observed={"hugetlb_usage": mms.hugetlb_pages[rows]},
        expected={"hugetlb_usage": rebuilt[rows]},
        checked=int(able.sum()),
        unread=cannot_check(unchecked, "page tables of some processes are missing"),
        transient=mm_in_flight(s)[rows],
    )


def _usage(s: Snapshot) -> I64:
    """Base pages that hugetlb entries of each mm map, migration entries included."""
    out, huge, n = s.collected(_HugetlbPages).pages.copy(), s.vmas.is_hugetlb, s.nonpresent
    moving = np.isin(n.kind, np.array(MIGRATION_KINDS, np.uint8)) & take_or(huge, n.vma_idx, False)
    np.add.at(out, n.mm_idx[moving], entry_pages(s.layout, n.level[moving]))
    return out


def _once_shareable(s: Snapshot) -> Mask:
    """Mms with a shared hugetlb VMA of a file so large that the VMA may be what is left of one that could share."""
    out = np.zeros(len(s.mms), np.bool_)
    vmas, rmap, spaces = s.vmas, s.file_rmap, s.files.address_spaces
    shape = next(x for x in s.layout.arch.shapes if x.level == Level.PMD)
    if not len(vmas) or not len(spaces):
        return out
    rows = np.flatnonzero(vmas.is_hugetlb & vmas.has(VM_MAYSHARE) & (rmap.address_space_of_vma >= 0))
    at = rows_of(spaces.addr, rmap.address_spaces.addr[rmap.address_space_of_vma[rows]])
    large = take_or(spaces.size, at, -1) >= shape.entries << shape.shift
    out[vmas.mm_idx[rows[large]]] = True
    return out


def _shareable(s: Snapshot) -> Mask:
    """Mms with a shared hugetlb VMA that covers a whole PMD table (mm/hugetlb.c, want_pmd_share())."""
    out = np.zeros(len(s.mms), np.bool_)
    vmas = s.vmas
    shape = next(x for x in s.layout.arch.shapes if x.level == Level.PMD)
    span = np.uint64(shape.entries << shape.shift)
    first = (vmas.start + span - np.uint64(1)) & ~(span - np.uint64(1))
    whole = (first < vmas.end) & (vmas.end - first >= span)
    may = ((vmas.flags & np.uint64(VM_MAYSHARE | VM_SHARED)) != 0) & vmas.is_hugetlb
    out[vmas.mm_idx[whole & may]] = True
    return out
