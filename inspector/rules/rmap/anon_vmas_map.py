"""The rule of what anonymous VMAs may map."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.layout.flags import VM_IO, VM_MIXEDMAP, VM_PFNMAP
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.pieces import EntryPiece, MappedPages, mapped_pages
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Violations, one, violations
from inspector.walk.batches import Collector, EntryBatch
from inspector.windows.window import Effect
from inspector.workers import InOrder


def anonymous_vmas(s: Snapshot) -> Mask:
    """VMAs that only ever hold anonymous pages: no file, no operations, no driver's flags."""
    vmas = s.vmas
    driver = (vmas.flags & np.uint64(VM_PFNMAP | VM_MIXEDMAP | VM_IO)) != 0
    return (vmas.file == 0) & (vmas.ops == 0) & ~driver


class _NotAnonymous(Collector):
    """Entries in anonymous VMAs that map folios which are not anonymous.

    Attributes:
        checked: Entries in such VMAs.
    """

    gathers = ("_found", "checked")

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self._vmas = anonymous_vmas(s)
        words = s.pages.words
        self._other = ((words.mapping & np.uint64(1)) == 0) & words.readable & (words.type_ == 0)
        self._found: InOrder[I64] = InOrder()
        self.checked = 0

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        piece = batch.view(EntryPiece.of)
        able = piece.is_normal & piece.of_vma(self._vmas, 0)
        self.checked += piece.entries(able)
        wrong = piece.with_any(self._others(piece.pages(able)))
        if wrong.any():
            m = batch.m.take(wrong[batch.kinds.kind])
            found = self._others(mapped_pages(self.s, m))
            where = np.stack([found.first, m.vma_idx[found.runs], found.nr])
            self._found.add(batch.number, where.astype(np.int64))

    def _others(self, found: MappedPages) -> MappedPages:
        """Those of some pages whose folios are not anonymous."""
        head = np.maximum(self.s.pages.head_row[found.row], 0)
        return found.where(self._other[self.s.pages.number[head]])

    def found(self) -> tuple[I64, I64, I64]:
        """Of each run: row of the first such page, row of the VMA, how many pages."""
        first, vma, nr = np.concatenate([np.empty((3, 0), np.int64), *self._found], axis=1)
        return first, vma, nr


def mapping_ids(word: U64) -> I64:
    """Numbers of what folio->mapping holds, or of an address_space, as `Things`; -1 for null."""
    return np.where(word == 0, -1, (word & np.uint64((1 << 62) - 1)).astype(np.int64))


# Its subjects are pages, found through the entries that map them: neither a piece of the memory map nor one of the
# entries holds what it compares.
@rule(
    "anon-folio-mapping-invalid",
    PAGE,
    "anon-rmap",
    Phase.STRUCTURES,
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES,
    decides="I6 43",
    was="page-not-anonymous",
    collects=(_NotAnonymous,),
)
def anon_folio_mapping_invalid(s: Snapshot) -> Violations:
    """An anonymous VMA maps a folio that is not anonymous: folio->mapping is null or names a file.

    Invariant: what a VMA without file and without operations maps is anonymous: folio->mapping names an anon_vma,
        tagged with PAGE_MAPPING_ANON.
    Why: mm/memory.c, do_anonymous_page() and wp_page_copy() call folio_add_new_anon_rmap(), which sets the word before
        the entry is written; mm/rmap.c keeps it until the page is freed.
    Consequence: rmap does not find this mapping: reclaim, migration and exit treat the folio as one of a file, and
        lower counters that never counted it.
    Exceptions: the VMA is VM_PFNMAP, VM_MIXEDMAP or VM_IO, or has operations (drivers, vDSO); the entry is special or
        of the zero page. Graded transient while the folio is locked and folio->mapping is null.
    See also: folioscope explain PFN; folioscope va PID ADDRESS
    """
    seen, pages = s.collected(_NotAnonymous), s.pages
    rows, vma, nr = seen.found()
    first = np.maximum(pages.head_row[rows], 0).astype(np.int64)
    word = pages.mapping[first]
    return violations(
        rows,
        observed={"mapping": word},
        expected={"mapping": "an anon_vma, tagged"},
        checked=seen.checked,
        facts={"vma": s.vmas.addr[vma], "pages": nr},
        claims=one("folio", pages.memmap.pfns_of_rows(first)) + one("mapping", mapping_ids(word)),
        transient=s.layout.flags.test(pages.flags[first], "locked") & (word == 0),
    )
