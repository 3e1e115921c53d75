"""Rules of pages whose flags or place forbid that they are mapped as they are."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask, rows_of
from inspector.rules.entries.entries import anon_pages
from inspector.rules.needs import FILES, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.file_rmap import own_file_links
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, PAGE
from inspector.tables.files import FILE, SHMEM
from inspector.violations import Violations, cannot_check, one, violations
from inspector.walk.linear import linear_index
from inspector.windows.window import Effect

_NO_PAGES = "struct pages are missing"


def _mapped(s: Snapshot) -> Mask:
    """Pages that a leaf maps, under a huge leaf all of them; by page row."""
    folio = s.folio_of_page
    entire = (s.counts.entire > 0)[np.maximum(folio, 0)] & (folio >= 0) if len(s.folios) else folio >= 0
    return ((s.counts.page_mappings > 0) | entire) & s.pages.readable


def _missing(s: Snapshot) -> tuple[int, str]:
    gone = int((~s.pages.readable).sum())
    return gone, _NO_PAGES if gone else ""


@rule(
    "poisoned-page-mapping-unexpected",
    PAGE,
    "targets",
    Phase.STATES,
    decides="40",
    severity="warn",
    was="poisoned-page-mapped",
)
def poisoned_page_mapping_unexpected(s: Snapshot) -> Violations:
    """A page that is marked as broken hardware is still mapped.

    Invariant: a page with PG_hwpoison is in no page table: its entries were replaced by poison entries.
    Why: mm/memory-failure.c, memory_failure() and hwpoison_user_mappings() unmap the page.
    Consequence: a process will touch it, and the machine stops with a machine check. Kernels before 6.8 asked for the
        head's mapcount instead of the page's own and left tails of huge pages mapped.
    Exceptions: the page is locked: memory_failure() is at work. When unmapping fails the kernel kills the processes and
        leaves the page as it is, so that this is a warning.
    See also: folioscope page PFN
    """
    pages = s.pages
    poisoned = s.layout.flags.test(pages.flags, "hwpoison") & pages.readable
    head = np.maximum(pages.head_row, 0)
    locked = s.layout.flags.test(pages.flags[head], "locked")
    rows: I64 = np.flatnonzero(poisoned & _mapped(s))
    missing, why = _missing(s)
    return violations(
        rows,
        observed={"hwpoison": np.ones(len(rows), np.bool_), "mappings": s.counts.page_mappings[rows]},
        expected={"hwpoison": np.zeros(len(rows), np.bool_)},
        checked=int(poisoned.sum()),
        unread=cannot_check(missing, why),
        transient=locked[rows],
    )


@rule(
    "anon-page-uptodate-missing",
    PAGE,
    "targets",
    Phase.STATES,
    was="anon-page-not-uptodate",
)
def anon_page_uptodate_missing(s: Snapshot) -> Violations:
    """A mapped anonymous folio does not hold its data.

    Invariant: an anonymous folio carries PG_uptodate before its first entry is written.
    Why: mm/memory.c, do_anonymous_page() and do_swap_page(), which refuses a folio whose read failed; mm/ksm.c and
        mm/migrate.c copy the flag.
    Consequence: the process reads what the page held before: another process's data, or garbage from a failed swap read
        (swapoff of a broken device did that before 5.19).
    Exceptions: the folio is in no LRU list of the kernel's: pages that a driver allocated and mapped.
    See also: folioscope folio PFN
    """
    pages = s.pages
    head = np.maximum(pages.head_row, 0)
    able = anon_pages(s) & _mapped(s) & ~pages.is_tail
    rows: I64 = np.flatnonzero(able & ~s.layout.flags.test(pages.flags[head], "uptodate"))
    missing, why = _missing(s)
    return violations(
        rows,
        observed={"uptodate": np.zeros(len(rows), np.bool_)},
        expected={"uptodate": np.ones(len(rows), np.bool_)},
        checked=int(able.sum()),
        unread=cannot_check(missing, why),
    )


@rule(
    "file-index-high",
    PAGE,
    "file-rmap",
    Phase.FOLIO_COUNTS,
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    severity="warn",
    was="mapped-beyond-file-end",
)
def file_index_high(s: Snapshot) -> Violations:
    """A folio of a file is mapped although it lies wholly behind the file's end.

    Invariant: the first page of a mapped page-cache folio is below i_size, rounded up to whole pages.
    Why: mm/filemap.c, filemap_fault() raises SIGBUS there; mm/truncate.c, truncate_pagecache() unmaps what a shorter
        file leaves behind.
    Consequence: the process writes to data that no file has; a later extension of the file shows it.
    Exceptions: the inode is locked or being freed, or the folio is locked: truncation is at work. Folios of files that
        are kept otherwise (devices, hugetlb) are not looked at.
    See also: folioscope file ADDRESS; folioscope rmap PFN
    """
    links, spaces = s.links.take(np.flatnonzero(own_file_links(s))), s.files.address_spaces
    space = rows_of(spaces.addr, links.mapping)
    at = np.maximum(space, 0)
    kept = (space >= 0) & np.isin(spaces.kind[at], (FILE, SHMEM)) & spaces.is_inode[at] & spaces.readable[at]
    links, space = links.take(np.flatnonzero(kept)), space[kept]
    shift = s.layout.memmap.page_shift
    end = (spaces.size[space] + (1 << shift) - 1) >> shift
    linear = linear_index(s.vmas, links.vma_idx, links.va, np.zeros(len(links), np.bool_), shift)
    index = linear.astype(np.int64) + links.delta - links.page
    bad = np.flatnonzero((index >= end) & s.layout.flags.test(s.pages.flags[links.head_row], "lru"))
    locked = s.layout.flags.test(s.pages.flags[links.head_row[bad]], "locked")
    return violations(
        links.head_row[bad].astype(np.int64),
        observed={"index": index[bad]},
        expected={"below": end[bad]},
        checked=len(links),
        facts={"i_size": spaces.size[space[bad]], "address_space": spaces.addr[space[bad]]},
        claims=one("file_end", space[bad].astype(np.int64)),
        transient=locked | spaces.in_motion[space[bad]],
    )


@rule(
    "pincount-high",
    FOLIO,
    "refcount",
    Phase.SUMS,
    effect=Effect.REFCOUNT,
    decides="70",
    was="pincount-above-references",
)
def pincount_high(s: Snapshot) -> Violations:
    """A large folio counts more pins than it has references.

    Invariant: 0 <= _pincount <= _refcount: each pin holds one reference of its own.
    Why: mm/gup.c, try_grab_folio() and gup_put_folio() change both.
    Consequence: the folio can be neither migrated nor split for ever, or is freed while a device writes to it.
    Exceptions: the folio has no references (another rule speaks then), or is too small to have a _pincount.
    See also: folioscope folio PFN
    """
    folios = s.folios
    refs = s.pages.refcount[folios.row]
    able = folios.readable & (refs > 0) & (folios.order > 1) & ((s.pages.type_[folios.row] == 0) | folios.is_hugetlb)
    rows = np.flatnonzero(able & ((folios.pincount < 0) | (folios.pincount > refs)))
    return violations(
        rows,
        observed={"_pincount": folios.pincount[rows]},
        expected={"_pincount_at_most": refs[rows]},
        checked=int(able.sum()),
        unread=cannot_check(int((~folios.readable).sum()), _NO_PAGES),
    )
