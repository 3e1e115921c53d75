"""Rules of the page cache: address_spaces, the entries of their xarrays, and the folios that name them."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask, distinct, rows_of, take_or
from inspector.rules.cause import Causes
from inspector.rules.needs import CACHES, NO_CGROUPS
from inspector.rules.registry import Phase, Rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import (
    ADDRESS_SPACE,
    CACHE_ENTRY,
    NODE_COUNTER,
    NODE_COUNTERS,
    PAGE,
    VMSTAT,
    address_space_ids,
    address_space_ids_at,
)
from inspector.tables.files import DAX, DAX_ENTRY, FOLIO, HUGETLB, SHMEM, SWAP, SWAP_ENTRY
from inspector.violations import Unread, Violations, cannot_check, holds, one, violations
from inspector.walk.node_sums import CACHED, cached_by_node, shares_to_compare
from inspector.walk.page_cache import folio_pages, huge_stretches
from inspector.windows.locks import pages_locked
from inspector.windows.window import Effect


def _unread(s: Snapshot) -> Unread:
    """Page caches that could not be read whole."""
    spaces = s.files.address_spaces
    missing = int((~spaces.whole & spaces.readable & spaces.is_inode).sum())
    return cannot_check(missing, "nodes of some page caches are missing")


def _cached_pages(s: Snapshot) -> I64:
    """Pages in each xarray as nrpages counts them."""
    indices = s.files.indices
    return indices[:, FOLIO] + indices[:, DAX_ENTRY]


def _collapsing(s: Snapshot) -> Mask:
    """address_spaces with a locked huge folio: counters follow a collapse at its end (collapse_file())."""
    locked, out = s.page_cache.locked, np.zeros(len(s.files.address_spaces), np.bool_)
    out[locked.space[locked.nr >= 1 << s.layout.pmd_order]] = True
    return out


def _charged_ahead(s: Snapshot) -> I64:
    """Pages of each shmem file that a collapse may have counted for the holes it is going to fill.

    collapse_file() (mm/khugepaged.c) locks what the range of a huge folio holds, then has shmem_charge() count the
    rest of the range, and only then fills it.
    """
    spaces, cache = s.files.address_spaces, s.page_cache
    stretches, first = np.unique(huge_stretches(s, cache.locked.space, cache.locked.place), return_index=True)
    holes = np.maximum((1 << s.layout.pmd_order) - cache.beside_locked[first], 0)
    ahead = np.bincount(stretches >> 40, weights=holes, minlength=len(spaces)).astype(np.int64)
    return np.where(spaces.kind == SHMEM, ahead, 0)


@rule(
    "cache-nrpages-mismatch",
    ADDRESS_SPACE,
    "page-cache",
    Phase.FOLIO_COUNTS,
    after=("cache-tree-damaged",),
    effect=Effect.PAGE_CACHE,
    needs=CACHES,
    decides="116",
)
def cache_nrpages_mismatch(s: Snapshot) -> Violations:
    """An address_space's nrpages is not the number of pages in its xarray.

    Invariant: nrpages is the number of indices that folios (and DAX entries) take in i_pages; a hugetlb folio takes one
        before 6.7. So it is for the swap cache's address_spaces too.
    Why: mm/filemap.c, __filemap_add_folio() and page_cache_delete(); mm/shmem.c; mm/swap_state.c; fs/dax.c.
    Consequence: truncation at the inode's end stops early or never: "BUG_ON(inode->i_data.nrpages)" in clear_inode().
    Exceptions: i_pages is locked, or holds a locked huge folio (khugepaged and MADV_COLLAPSE count at the end); a
        collapse of shmem counts the holes beside the folios that it has locked before it fills them.
    See also: folioscope file ADDRESS
    """
    spaces = s.files.address_spaces
    able = spaces.whole & ~spaces.broken & (spaces.is_inode | (spaces.kind == SWAP))
    held = _cached_pages(s)
    rows = np.flatnonzero(able & (held != spaces.nrpages))
    excess = (spaces.nrpages - held)[rows]
    ids = address_space_ids(spaces.addr[rows])
    return violations(
        ids,
        observed={"nrpages": spaces.nrpages[rows]},
        expected={"nrpages": held[rows]},
        checked=int(able.sum()),
        unread=_unread(s),
        claims=one("address_space", ids),
        transient=spaces.in_motion[rows] | _collapsing(s)[rows] | (excess > 0) & (excess <= _charged_ahead(s)[rows]),
    )


@rule(
    "cache-tree-damaged",
    ADDRESS_SPACE,
    "page-cache",
    Phase.FOLIO_COUNTS,
    effect=Effect.PAGE_CACHE,
    needs=CACHES,
    decides="114",
    was="cache-tree-broken",
)
def cache_tree_damaged(s: Snapshot) -> Violations:
    """The xarray of an address_space cannot be followed.

    Invariant: the shifts of nodes fall from level to level, entries are folios, values or nodes, and a folio's is a
        struct page's address.
    Why: lib/xarray.c; mm/filemap.c stores folios, mm/workingset.c shadows, mm/shmem.c swap entries.
    Consequence: reading the file runs into foreign memory.
    Exceptions: a node is not in the dump.
    See also: folioscope file ADDRESS
    """
    spaces, strange = s.files.address_spaces, s.files.strange
    rows = np.flatnonzero(spaces.broken | (strange > 0))
    ids = address_space_ids(spaces.addr[rows])
    return violations(
        ids,
        observed={"nodes_sound": ~spaces.broken[rows], "strange_entries": strange[rows]},
        expected={"nodes_sound": np.ones(len(rows), np.bool_), "strange_entries": np.zeros(len(rows), np.int64)},
        checked=len(spaces),
        unread=_unread(s),
        claims=one("address_space", ids),
        transient=spaces.in_motion[rows] & ~spaces.broken[rows],
    )


@rule(
    "cache-entry-mismatch",
    CACHE_ENTRY,
    "page-cache",
    Phase.FOLIO_COUNTS,
    after=("cache-nrpages-mismatch",),
    effect=Effect.PAGE_CACHE,
    needs=CACHES,
    decides="114",
)
def cache_entry_mismatch(s: Snapshot) -> Violations:
    """The folio at an index of a page cache names another address_space or index, or has another size.

    Invariant: the folio at an index of i_pages names this address_space and this index, is no tail, and takes as many
        indices as it has pages (hugetlb: one before 6.7); large folios lie at a multiple of their size.
    Why: mm/filemap.c, __filemap_add_folio(); mm/shmem.c, shmem_add_to_page_cache(); lib/xarray.c aligns entries.
    Consequence: readers of the file see another page, and writing it back destroys data.
    Exceptions: the folio is locked: truncation, migration, split and collapse change both under its lock.
    See also: folioscope file ADDRESS; folioscope folio PFN
    """
    cache, spaces = s.page_cache, s.files.address_spaces
    c = cache.odd
    folio = np.where(c.is_head, c.pfn, -1)
    # A page that is no folio any more for another reason, such as its reference count.
    return violations(
        c.entry,
        observed={"mapping": c.mapping, "index": c.index, "pages": c.nr},
        expected={"mapping": spaces.addr[c.space], "index": c.place, "pages": c.span},
        checked=cache.checked,
        unread=cannot_check(cache.unread, "struct pages of some cached folios are missing"),
        facts={"pfn": c.pfn},
        claims=one("cache_entry", c.entry) + one("folio", folio),
        depends=one("address_space", address_space_ids_at(spaces.addr, c.space)) + one("folio", c.pfn),
        transient=c.locked | spaces.in_motion[c.space],
    )


def _strays_of_one_space(s: Snapshot) -> tuple[U64, I64]:
    """Addresses that several folios name as their address_space although none is there, and how many folios do each."""
    named = s.pages.mapping[s.page_cache.strays]
    spaces = distinct(named)
    nr = np.bincount(rows_of(spaces, named), minlength=len(spaces))
    return spaces[nr > 1], nr[nr > 1]


@rule(
    "address-space-owner-missing",
    ADDRESS_SPACE,
    "page-cache",
    Phase.FOLIO_COUNTS,
    effect=Effect.PAGE_CACHE,
    needs=CACHES,
    decides="115",
)
def address_space_owner_missing(s: Snapshot) -> Violations:
    """Several cached folios name an address_space that no inode has as its own.

    Invariant: what the folios on the LRU lists name is the i_data of an inode whose i_mapping it is, and whose address
        its host holds.
    Why: fs/inode.c, inode_init_always() sets both; clear_inode() finds no page left before an inode is freed.
    Consequence: reclaim, writeback and truncation of these folios call operations of something that is no file, or
        stop at the host.
    Exceptions: of a single folio it is the folio's mapping that is doubted (cached-folio-missing).
    See also: folioscope folio PFN; folioscope file ADDRESS
    """
    addr, nr = _strays_of_one_space(s)
    spaces = s.files.address_spaces
    at = rows_of(spaces.addr, addr)
    ids = address_space_ids(addr)
    inode = addr - np.uint64(s.layout.struct("struct inode").field("i_data").offset)
    return violations(
        ids,
        observed={"host": take_or(spaces.host, at, 0)},
        expected={"host": inode},
        checked=int(spaces.is_inode.sum()),
        unread=_unread(s),
        facts={"folios": nr},
        claims=one("address_space", ids),
        transient=take_or(spaces.in_motion, at, False),
    )


@rule(
    "cached-folio-missing",
    PAGE,
    "page-cache",
    Phase.FOLIO_COUNTS,
    after=("cache-entry-mismatch", "address-space-owner-missing"),
    effect=Effect.PAGE_CACHE,
    needs=CACHES,
    decides="115",
)
def cached_folio_missing(s: Snapshot) -> Violations:
    """A folio names an address_space and an index, but the page cache does not hold it there.

    Invariant: a folio with an address_space in its mapping is found at its index in that address_space's i_pages.
    Why: mm/filemap.c, page_cache_delete() clears folio->mapping with the entry, under the folio lock.
    Consequence: the folio is never truncated or written back; a second copy of the page may be read beside it.
    Exceptions: the folio is locked, the inode is being freed, or the address_space caches nothing: perf and frame
        buffer drivers let pages of their own name their file. DAX pages are in no page cache.
    See also: folioscope folio PFN; folioscope file ADDRESS
    """
    cache, spaces = s.page_cache, s.files.address_spaces
    keep = spaces.kind[cache.missing_address_space] != DAX
    rows, at, index = cache.missing[keep], cache.missing_address_space[keep], cache.missing_index[keep]
    entry = cache.missing_entry[keep]
    there = cache.missing_value[keep]
    stray = cache.strays
    n = len(stray)
    return violations(
        np.concatenate([rows, stray]),
        observed={"mapping": s.pages.mapping[np.concatenate([rows, stray])], "entry_there": _with(there, n)},
        expected={"entry_there": np.full(len(rows) + n, "this folio")},
        checked=cache.named,
        unread=_unread(s),
        facts={"index": _with(index, n)},
        depends=one("cache_entry", _with(entry, n, -1))
        + one("address_space", np.concatenate([address_space_ids_at(spaces.addr, at), _named_by(s, stray)])),
        transient=pages_locked(s, np.concatenate([rows, stray])) | _with(spaces.in_motion[at], n),
    )


def _named_by(s: Snapshot, stray: I64) -> I64:
    """The address_space that each folio names, -1 where no other names it."""
    named = s.pages.mapping[stray]
    return np.where(rows_of(_strays_of_one_space(s)[0], named) >= 0, address_space_ids(named), -1)


def _with(column: AnyArray, n: int, filler: int = 0) -> AnyArray:
    """The column and ``n`` rows of filler."""
    return np.concatenate([column, np.full(n, filler, column.dtype)])


@rule(
    "shmem-swapped-mismatch",
    ADDRESS_SPACE,
    "page-cache",
    Phase.TOTALS,
    effect=Effect.PAGE_CACHE,
    needs=CACHES,
    decides="127",
)
def shmem_swapped_mismatch(s: Snapshot) -> Violations:
    """A shmem file's `swapped` is not the number of indices that swap entries take in its page cache.

    Invariant: shmem_inode_info.swapped is the number of indices that swap entries take; entries of higher order take
        several.
    Why: mm/shmem.c, shmem_recalc_inode(); shmem_writepage() raises it before, swap-in lowers it after the change.
    Consequence: swapoff() passes the file by and never ends; the file system reports the wrong size.
    Exceptions: the inode is locked or being freed, i_pages is locked, or, for too high a count, a folio of the file is
        locked.
    See also: folioscope file ADDRESS
    """
    spaces, held = s.files.address_spaces, s.files.indices[:, SWAP_ENTRY]
    able = (spaces.kind == SHMEM) & spaces.whole & spaces.is_inode & (spaces.swapped >= 0)
    rows = np.flatnonzero(able & (spaces.swapped != held))
    busy = np.zeros(len(spaces), np.bool_)
    busy[s.page_cache.locked.space] = True
    ids = address_space_ids(spaces.addr[rows])
    return violations(
        ids,
        observed={"swapped": spaces.swapped[rows]},
        expected={"swapped": held[rows]},
        checked=int(able.sum()),
        unread=_unread(s),
        depends=one("address_space", ids),
        transient=spaces.in_motion[rows] | busy[rows] & (spaces.swapped[rows] > held[rows]),
    )


COUNTERS = ("NR_FILE_PAGES", "NR_SHMEM", "NR_SWAPCACHE", "NR_SHMEM_THPS", "NR_FILE_THPS")
"""Items of enum node_stat_item that this file adds up."""


def cached_totals(s: Snapshot) -> dict[str, int]:
    """The same items added up from page cache and swap cache."""
    spaces, pages = s.files.address_spaces, s.files.indices[:, FOLIO]
    swap = int((s.swap.slots.cache_pfn >= 0).sum())
    files = int(pages[(spaces.kind != SWAP) & (spaces.kind != HUGETLB)].sum())
    return {
        "NR_FILE_PAGES": files + swap,
        "NR_SHMEM": int(pages[spaces.kind == SHMEM].sum()),
        "NR_SWAPCACHE": swap,
        "NR_SHMEM_THPS": int(s.page_cache.by_node[CACHED.index("NR_SHMEM_THPS")].sum()),
        "NR_FILE_THPS": int(s.page_cache.by_node[CACHED.index("NR_FILE_THPS")].sum()),
    }


def caches_change(s: Snapshot) -> bool:
    """Whether a cache is being changed, or a collapse is under way whose counts follow at its end."""
    spaces = s.files.address_spaces
    moving = spaces.in_motion & (spaces.is_inode | (spaces.kind == SWAP))
    return bool(_collapsing(s).any() or s.swap.devices.locked.any() or moving.any())


def _locked_swap_pages(s: Snapshot) -> int:
    """Pages in the swap cache whose folio is locked."""
    pfn = s.swap.slots.cache_pfn
    row = s.pages.memmap.rows(pfn[pfn >= 0])
    return int(pages_locked(s, take_or(s.pages.head_row, row, -1).astype(np.int64)).sum())


def _settle_totals(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach totals that are off by no more than the folios that no page cache holds."""
    slug = cached_folio_missing.slug
    root = next((cause for cause in causes if cause.rule is cached_folio_missing or slug in cause.also), None)
    if root is None:
        return
    pages = int(folio_pages(s, np.concatenate([s.page_cache.missing, s.page_cache.strays])).sum())
    for cause in causes.of(rule):
        more = cause.observed("stored") - cause.expected("stored")
        if (more > 0).all() and (more <= pages).all():
            causes.attach(cause, root)


@rule(
    "cache-counters-mismatch",
    VMSTAT,
    "page-cache",
    Phase.TOTALS,
    effect=Effect.STATISTIC,
    needs=CACHES,
    decides="117",
    severity="warn",
    settle=_settle_totals,
)
def cache_counters_mismatch(s: Snapshot) -> Violations:
    """NR_FILE_PAGES, NR_SHMEM, NR_SWAPCACHE or the cached huge pages are not the pages in the caches.

    Invariant: NR_FILE_PAGES is all pages of the page cache (hugetlb's are not) and of the swap cache, NR_SHMEM those of
        shmem files, NR_SWAPCACHE those of the swap cache; NR_SHMEM_THPS and NR_FILE_THPS are the pages of cached folios
        of a PMD's size and above. The per-CPU parts are added.
    Why: mm/filemap.c, mm/shmem.c and mm/swap_state.c count with each entry, mm/khugepaged.c, collapse_file() and
        mm/huge_memory.c, __folio_split() when they make and split huge ones; mm/vmstat.c, __mod_node_page_state().
    Consequence: meminfo and the reclaim that is steered by it are wrong.
    Exceptions: an address_space or a swap device is locked, or holds a locked huge folio; the swap cache holds as many
        locked pages as are not counted yet (__swap_cache_alloc() charges a new folio first and counts it last).
    See also: folioscope info; folioscope swap
    """
    totals, stored = cached_totals(s), s.node_stats
    gone = _unread(s)
    known = [name for name in COUNTERS if name in stored]
    if gone.nr or s.swap.unreadable or not known:
        also = "the counters of memory nodes are not in the dump" if not known else "swap slots are missing"
        return holds(0, cannot_check(max(gone.nr + s.swap.unreadable, 1), gone.why or also))
    wrong = [name for name in known if stored[name] != totals[name]]
    n = len(wrong)
    spaces, busy = s.files.address_spaces, caches_change(s)
    late, nr = ("NR_FILE_PAGES", "NR_SWAPCACHE"), _locked_swap_pages(s)
    odd = np.flatnonzero((_cached_pages(s) != spaces.nrpages) & (spaces.is_inode | (spaces.kind == SWAP)))
    first = int(odd[0]) if len(odd) else -1
    return violations(
        np.array([NODE_COUNTERS.index(name) for name in wrong], np.int64),
        observed={"stored": np.array([stored[name] for name in wrong], np.int64)},
        expected={"stored": np.array([totals[name] for name in wrong], np.int64)},
        checked=len(known),
        depends=one("address_space", address_space_ids_at(spaces.addr, np.full(n, first, np.int64))),
        transient=np.array(
            [busy or (name in late and 0 < totals[name] - stored[name] <= nr) for name in wrong], np.bool_
        ),
    )


def moved_between_nodes(s: Snapshot) -> tuple[str, ...]:
    """Items that follow every folio from node to node.

    On 6.1 and 6.12 collapse_file() (mm/khugepaged.c) leaves the counts of the pages that it replaces with their node,
    and on 6.1 folio_migrate_mapping() (mm/migrate.c) those of huge shmem. Of kernels that do not show that they are
    newer only the swap cache is compared.
    """
    newer = s.layout.struct("struct vm_area_struct").has("__vm_anon_pgoff_lo")
    return ("NR_SWAPCACHE", *(("NR_FILE_PAGES", "NR_SHMEM", "NR_SHMEM_THPS") if newer else ()))


_OF_CACHES = ("page-cache", "swap", "swap-cache")
"""Groups of rules that say which entry of a cache, or which slot, is wrong."""


def settle_share(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach shares of nodes that are off by no more than what caches wrongly lead to."""
    roots = [c for c in causes if c.rule.group in _OF_CACHES and c.rule is not rule and c.rule.severity == "fail"]
    pages = sum(len(c.positions) for c in roots) << s.layout.pmd_order
    for cause in causes.of(rule) if roots else []:
        if abs(int(cause.observed("stored")[0] - cause.expected("stored")[0])) <= pages:
            causes.attach(cause, roots[0])


@rule(
    "cache-share-mismatch",
    NODE_COUNTER,
    "page-cache",
    Phase.TOTALS,
    after=("cache-counters-mismatch",),
    effect=Effect.STATISTIC,
    needs=CACHES,
    decides="117",
    severity="warn",
    settle=settle_share,
)
def cache_share_mismatch(s: Snapshot) -> Violations:
    """A counter of cached pages is right for the machine, and wrong for a node.

    Invariant: NR_SWAPCACHE of a node is the pages of the swap cache on that node; from 7.x on NR_FILE_PAGES, NR_SHMEM
        and NR_SHMEM_THPS too are those of the folios there. The per-CPU parts are added.
    Why: mm/filemap.c, mm/shmem.c and mm/swap_state.c count on the node of the folio; mm/migrate.c,
        __folio_migrate_mapping() moves the counts with it, mm/khugepaged.c, collapse_file() those of what it replaces.
    Consequence: meminfo of the node is wrong, and what goes by it: reclaim of one node, NUMA balancing.
    Exceptions: page caches or the swap cache are being changed. What is wrong for the machine is reported of the
        machine alone. NR_FILE_THPS stays with the old node when a folio is migrated.
    See also: folioscope memory
    """
    counters = s.node_counters
    if s.layout.flag_fields is None or not len(counters):
        return holds(0, note=NO_CGROUPS)
    gone = _unread(s)
    if gone.nr or s.swap.unreadable:
        return holds(0, cannot_check(max(gone.nr + s.swap.unreadable, 1), gone.why or "swap slots are missing"))
    mine, expected = shares_to_compare(s, cached_by_node(s), moved_between_nodes(s))
    off = np.flatnonzero(counters.stored[mine] != expected)
    return violations(
        mine[off],
        observed={"stored": counters.stored[mine[off]]},
        expected={"stored": expected[off]},
        checked=len(mine),
        transient=np.full(len(off), caches_change(s) or len(s.page_cache.locked) > 0, np.bool_),
    )
