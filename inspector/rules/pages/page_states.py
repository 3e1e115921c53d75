"""Rules of pages whose flags or place forbid that they are mapped as they are."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, Mask, rows_of, take_or
from inspector.rules.needs import FILES, PAGES, VMAS
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule, rule
from inspector.rules.rmap.links import LinkCheck, own_file_links
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, PAGE
from inspector.tables.files import FILE, SHMEM
from inspector.violations import Details, Violations, details, one, unread_folios, violations
from inspector.walk.batches import EntryBatch
from inspector.walk.linear import Links, linear_index
from inspector.windows.locks import pages_locked
from inspector.windows.window import Effect


def _poisoned(s: Snapshot, rows: I64) -> Details:
    return details(
        rows,
        observed={"hwpoison": True, "mappings": s.counts.page_mappings[rows]},
        expected={"hwpoison": False},
        transient=pages_locked(s, s.pages.head_row[rows]),
    )


@page_rule(
    "poisoned-page-mapping-unexpected",
    _poisoned,
    "targets",
    Phase.STATES,
    decides="40",
    severity="warn",
    was="poisoned-page-mapped",
)
def poisoned_page_mapping_unexpected(p: PagePiece) -> Judged:
    """A page with PG_hwpoison is still mapped.

    Invariant: a page with PG_hwpoison is in no page table: its entries were replaced by poison entries.
    Why: mm/memory-failure.c, memory_failure() and hwpoison_user_mappings() unmap the page.
    Consequence: a process will touch it, and the machine stops with a machine check. Kernels before 6.8 asked for the
        head's mapcount instead of the page's own and left tails of huge pages mapped.
    Exceptions: the page is locked: memory_failure() is at work. When unmapping fails the kernel kills the processes and
        leaves the page as it is, so that this is a warning.
    See also: folioscope page PFN
    """
    return p.judge(p.is_mapped, p.has("hwpoison") & p.readable)


def _no_uptodate(_s: Snapshot, rows: I64) -> Details:
    return details(rows, observed={"uptodate": False}, expected={"uptodate": True})


@page_rule(
    "anon-page-uptodate-missing",
    _no_uptodate,
    "targets",
    Phase.STATES,
    was="anon-page-not-uptodate",
)
def anon_page_uptodate_missing(p: PagePiece) -> Judged:
    """A mapped anonymous folio lacks PG_uptodate.

    Invariant: an anonymous folio has PG_uptodate before its first entry is written.
    Why: mm/memory.c, do_anonymous_page() and do_swap_page(), which refuses a folio whose read failed; mm/ksm.c and
        mm/migrate.c copy the flag.
    Consequence: the process reads what the page held before: another process's data, or garbage from a failed swap read
        (swapoff of a broken device did that before 5.19).
    Exceptions: never.
    See also: folioscope folio PFN
    """
    return p.judge(~p.has("uptodate"), p.is_anon & p.is_mapped & ~p.is_tail)


def _not_marked(s: Snapshot, rows: I64) -> Details:
    head = s.pages.head_row[rows].astype(np.int64)
    return details(
        rows,
        observed={"has_hwpoisoned": False},
        expected={"has_hwpoisoned": True},
        transient=pages_locked(s, head) | (s.pages.refcount[head] == 0),
    )


@page_rule(
    "has-hwpoisoned-missing",
    _not_marked,
    "targets",
    Phase.FOLIO_COUNTS,
    decides="I9 15",
    severity="warn",
    was="poisoned-page-unsaid",
)
def has_hwpoisoned_missing(p: PagePiece) -> Judged:
    """PG_hwpoison is set on a page of a large folio, PG_has_hwpoisoned is clear on the folio.

    Invariant: a large folio of user memory, hugetlb aside, one of whose pages has PG_hwpoison has PG_has_hwpoisoned.
    Why: mm/memory-failure.c, memory_failure() sets both before it splits the folio; a folio that could not be split
        keeps them.
    Consequence: mm/memory.c, do_set_pmd() maps the whole folio with one entry, the poisoned page too; since 6.12 the
        readers of tmpfs (mm/shmem.c) copy across it.
    Exceptions: the folio is locked or has no references: a split is at work. memory_failure() marks the page first, and
        gives up before it marks the folio when it cannot take a reference to the page: a warning only.
    See also: folioscope folio PFN
    """
    flags, folios = p.s.layout.flags, p.s.folios
    if not flags.mask("hwpoison") or not flags.mask("has_hwpoisoned"):
        return Judged(p.nothing, p.nothing)
    of_users = folios.is_rmappable & ~folios.is_hugetlb & folios.readable
    marked = p.of_folio(flags.test(folios.tail_flags, "has_hwpoisoned"), 0)
    return p.judge(~marked, p.has("hwpoison") & p.readable & p.of_folio(of_users, 0))


class _BeyondEnd(LinkCheck):
    """Links of the VMA's own file whose folio begins behind the end of the file."""

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        spaces = s.address_spaces
        kept = np.isin(spaces.kind, (FILE, SHMEM)) & spaces.is_inode & spaces.readable
        # What is mapped in a VMA of its own file is of that VMA's address_space.
        self._space = rows_of(spaces.addr, s.mapping_of_vma)
        self._kept = take_or(kept, self._space, False)
        shift = s.layout.memmap.page_shift
        # A row a VMA; a question about one folio may know no address_space at all.
        self._end = take_or((spaces.size + (1 << shift) - 1) >> shift, self._space, 0)
        self._reaches_beyond = s.vmas.pgoff.astype(np.int64) + s.vmas.nr_pages > self._end

    def judge(self, batch: EntryBatch) -> tuple[Mask, Mask]:
        """As `LinkCheck.judge`."""
        links = batch.link_kinds.examples
        # Where the index agrees with the address, it is within what the VMA maps of the file.
        may = (links.delta != 0) | self._reaches_beyond[links.vma_idx]
        return may, batch.view(own_file_links) & self._kept[links.vma_idx]

    def chosen(self, links: Links) -> Links:
        """As `LinkCheck.chosen`."""
        s = self.s
        index, end = s.page_index.of_head[links.head_row].astype(np.int64), self._end[links.vma_idx]
        return links.take((index >= end) & s.layout.flags.test(s.pages.flags[links.head_row], "lru"))

    def index_and_end(self) -> tuple[I64, I64, I32]:
        """Of each link found the index of its folio, the pages of its file, and the row of the file's address_space."""
        links, vma = self.found, self.found.vma_idx
        linear = linear_index(
            self.s.vmas, links.vma_idx, links.va, np.zeros(len(links), np.bool_), self.s.layout.memmap.page_shift
        )
        return linear.astype(np.int64) + links.delta - links.page, self._end[vma], self._space[vma]


@rule(
    "file-index-high",
    PAGE,
    "file-rmap",
    Phase.FOLIO_COUNTS,
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    severity="warn",
    was="mapped-beyond-file-end",
    collects=(_BeyondEnd,),
)
def file_index_high(s: Snapshot) -> Violations:
    """A folio of a file is mapped although its index is beyond the end of the file.

    Invariant: the first page of a mapped page-cache folio is below i_size, rounded up to whole pages.
    Why: mm/filemap.c, filemap_fault() raises SIGBUS there; mm/truncate.c, truncate_pagecache() unmaps what a shorter
        file leaves behind.
    Consequence: the process writes to data that no file has; a later extension of the file shows it.
    Exceptions: the inode is locked or being freed, or the folio is locked: truncation is at work. Folios of files that
        are kept otherwise (devices, hugetlb) are not checked.
    See also: folioscope file ADDRESS; folioscope rmap PFN
    """
    # No predicate over pages: it is judged mapping by mapping, over links.
    seen = s.collected(_BeyondEnd)
    found = seen.found
    index, end, space = seen.index_and_end()
    spaces, head = s.files.address_spaces, found.head_row.astype(np.int64)
    return violations(
        head,
        observed={"index": index},
        expected={"below": end},
        checked=seen.checked,
        facts={"i_size": spaces.size[space], "address_space": spaces.addr[space]},
        claims=one("file_end", space),
        transient=pages_locked(s, head) | spaces.in_motion[space],
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
    """_pincount is higher than _refcount, or negative.

    Invariant: 0 <= _pincount <= _refcount: each pin holds one reference of its own.
    Why: mm/gup.c, try_grab_folio() and gup_put_folio() change both.
    Consequence: the folio can be neither migrated nor split any more, or is freed while a device writes to it.
    Exceptions: the folio has no references (see free-folio-pincount-unexpected), or is too small to have a _pincount.
    See also: folioscope folio PFN
    """
    folios = s.folios
    refs = s.pages.refcount[folios.row]
    able = folios.readable & (refs > 0) & (folios.order > 1) & ((s.pages.type_[folios.row] == 0) | folios.is_hugetlb)
    rows = np.flatnonzero(able & ((folios.pincount < 0) | (folios.pincount > refs)))
    return violations(
        rows,
        observed={"_pincount": folios.pincount[rows]},
        expected={"at_most": refs[rows]},
        checked=able,
        unread=unread_folios(s),
    )
