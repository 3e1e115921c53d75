"""One account of a folio: every view of it (folio, explain, the screens) shows parts of this object and adds nothing.

    account_of(s, pfn)          everything: explain, and the folio screen
    account_of(s, pfn, found=False)   the short form: holders of references beyond the expected ones are not sought
    stored_account(window, pfn, scheme)   stored values alone, from a window on the folio's struct pages

Parts are computed when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.errors import Exit
from inspector.folio.counters import (
    CounterLine,
    MmIdSlot,
    mapcount_lines,
    mm_id_slots,
    pincount_line,
    refcount_line,
    shared_flag_lines,
    tail_refcount_lines,
    uses_mapcount_otherwise,
)
from inspector.folio.holders import ring_pins
from inspector.folio.numbers import OneFolio, one_folio, stored_mapcount
from inspector.folio.sharing import SharingRun, sharing
from inspector.folio.verdicts import Verdict, Verdicts
from inspector.records import cached_property, dataclass
from inspector.walk.references import (
    ExpectedReferences,
    ReferenceTerms,
    break_down,
    expected_references,
    nothing_expected,
)

if TYPE_CHECKING:
    from inspector.columns import I64, Mask
    from inspector.findings import Finding
    from inspector.model.scheme import Scheme
    from inspector.snapshot import Snapshot


@dataclass(frozen=True)
class FolioAccount:
    """What is known about one folio.

    Attributes:
        s: The snapshot, or a window on the folio.
        folio: What it is and what maps it.
        scheme: The kernel's accounting; None where it is not known.
        walked: Whether its mappings were searched for, so that stored values are compared.
        found: Whether all holders of references are sought, not just those that the folio must have.
    """

    s: Snapshot
    folio: OneFolio
    scheme: Scheme | None
    walked: bool
    found: bool

    @cached_property
    def _verdicts(self) -> Verdicts | None:
        return Verdicts(self.s, self.folio) if self.walked else None

    @cached_property
    def _expected(self) -> ExpectedReferences:
        if self.found:
            return self.references.expected
        heads = np.array([self.folio.head], np.int64)
        return expected_references(self.s, heads) if self.walked else nothing_expected(heads)

    @cached_property
    def references(self) -> ReferenceTerms:
        """What holds its references."""
        return break_down(self.s, np.array([self.folio.head], np.int64))

    @cached_property
    def counters(self) -> list[CounterLine]:
        """All counters: those of the folio, of its pages (equal neighbours folded), pins, references, flags."""
        s, f, verdicts = self.s, self.folio, self._verdicts
        out = mapcount_lines(s, f, self.scheme, verdicts)
        if f.is_large and not f.page_type:
            pins = len(ring_pins(s, f)) if self.found and s.knows("ring_buffers") else None
            out.append(pincount_line(s, f, verdicts, pins))
        out.append(refcount_line(s, f, verdicts, self._expected, self.references if self.found else None))
        out += tail_refcount_lines(s, f, verdicts)
        return out + shared_flag_lines(s, f, self.scheme, verdicts)

    @cached_property
    def slots(self) -> list[MmIdSlot]:
        """The mm ids of a large folio; none on older kernels."""
        return mm_id_slots(self.s, self.folio, self.scheme, self._verdicts)

    @cached_property
    def sharing(self) -> list[SharingRun]:
        """Which pages of an anonymous folio are exclusive to a process."""
        return [] if self._verdicts is None else sharing(self.s, self.folio, self._verdicts)

    @property
    def verdicts(self) -> list[Verdict]:
        """On all of these."""
        return [x.verdict for part in (self.counters, self.slots, self.sharing) for x in part]

    @property
    def is_wrong(self) -> bool:
        """Whether anything is: a stored value, or an entry that maps it and may not."""
        return "WRONG" in self.verdicts or len(self.folio.rejected) > 0

    def exit_unless_wrong(self, *, readable: bool) -> Exit:
        """The exit code where nothing is wrong: whether all was known that was wanted.

        Args:
            readable: Whether the folio's struct pages are in the dump.
        """
        s, f = self.s, self.folio
        if not self.walked:
            # Of mappings that it counts and that nothing leads to, nothing is known; who wants stored values has them.
            unproven = s.knows("mappings") and not uses_mapcount_otherwise(s, f) and stored_mapcount(s, f) > 0
            return Exit.CLEAN if readable and not unproven else Exit.INCOMPLETE
        whole = readable and s.mappings_whole
        return Exit.CLEAN if whole and "not checked" not in self.verdicts else Exit.INCOMPLETE

    @cached_property
    def findings(self) -> list[Finding]:
        """What a check reports about it."""
        from inspector.folio.findings import findings_about  # noqa: PLC0415  (all rules, which few questions need)

        return findings_about(self.s, self.folio)

    @cached_property
    def looks_like(self) -> list[str]:
        """What would have to happen to a sound folio to leave what this one holds; empty when nothing is wrong."""
        if not self.is_wrong or len(self.folio.rejected):
            # What maps a page that none may map is the reason for all else, and no operation of the model leads there.
            return []
        from inspector.folio.looks_like import looks_like  # noqa: PLC0415  (only where something is wrong)

        return looks_like(self.s, self.folio, self.references, self.sharing)

    @property
    def stored_pages(self) -> I64:
        """int64[pages]; ``_mapcount`` of each page as stored."""
        f = self.folio
        return self.s.pages.mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64)

    @cached_property
    def page_lines(self) -> list[CounterLine]:
        """Those of the counters that the pages of the folio keep each; of a small folio, which is one page, too."""
        if self.folio.is_large:
            return [x for x in self.counters if x.pages and x.counter == "_mapcount"]
        return [x for x in self.counters if x.counter == "_mapcount" and x.expected is not None]

    def _by_page(self, lines: list[CounterLine]) -> list[tuple[slice, CounterLine]]:
        return [(slice(x.first, x.first + x.pages) if x.pages else slice(0, 1), x) for x in lines]

    @property
    def expected_pages(self) -> I64:
        """int64[pages]; what ``_mapcount`` of each page must be; the stored value where nothing is compared."""
        out = self.stored_pages
        for where, line in self._by_page(self.page_lines):
            if line.expected is not None:
                out[where] = line.expected
        return out

    @property
    def wrong_pages(self) -> Mask:
        """bool[pages]; pages whose ``_mapcount`` is wrong."""
        out = np.zeros(self.folio.nr_pages, np.bool_)
        for where, line in self._by_page(self.page_lines):
            out[where] = line.verdict == "WRONG"
        return out


def account_of(s: Snapshot, pfn: int, *, found: bool = True) -> FolioAccount:
    """The account of the folio that a page belongs to.

    Args:
        s: The snapshot, or one that is aimed at the folio: where no reverse map leads on from it nothing is compared.
        pfn: Any page of the folio, one that has a struct page.
        found: Whether all holders of its references are to be sought.
    """
    return FolioAccount(s, one_folio(s, pfn), s.scheme, walked=s.search != "nothing", found=found)


def stored_account(window: Snapshot, pfn: int, scheme: Scheme | None) -> FolioAccount:
    """Its stored values alone: no page table is walked, nothing is compared.

    Args:
        window: A snapshot that has at least the struct pages of the folio.
        pfn: Any page of the folio.
        scheme: The kernel's accounting.
    """
    return FolioAccount(window, one_folio(window, pfn, walked=False), scheme, walked=False, found=False)
