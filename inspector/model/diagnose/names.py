"""What the operations on a folio and its counters are called, by the kernel of the folio."""

from __future__ import annotations

from inspector.model.counters import RmapCounter, field_name
from inspector.model.diagnose.evidence import Differences, RebuiltFolio, Run
from inspector.model.interface import Op, has_folio_names, name_in
from inspector.model.scheme import Scheme
from inspector.records import dataclass


@dataclass(frozen=True)
class OperationNames:
    """The operations of one folio by name.

    Attributes:
        scheme: Of the kernel.
        rebuilt: The folio.
        folio_names: Whether operations have the names of 6.8 and later; None: by the scheme.
    """

    scheme: Scheme
    rebuilt: RebuiltFolio
    folio_names: bool | None = None

    @property
    def _kind(self) -> str:
        return "anon" if self.rebuilt.kind.is_anon else "file"

    @property
    def _by_pud(self) -> bool:
        return self.rebuilt.order == self.rebuilt.pud_order

    @property
    def batches(self) -> bool:
        """Whether one call can concern several pages."""
        return has_folio_names(self.scheme) if self.folio_names is None else self.folio_names

    def pte(self, *, add: bool, nr: int, dup: bool = False) -> str:
        """Today's name of the operation on PTEs."""
        word = "pte" if nr == 1 or not self.batches else "ptes"
        if dup:
            return f"folio_{'try_dup_anon' if self.rebuilt.kind.is_anon else 'dup_file'}_rmap_{word}"
        return f"folio_add_{self._kind}_rmap_{word}" if add else f"folio_remove_rmap_{word}"

    def huge(self, *, add: bool, dup: bool = False) -> str:
        """Today's name of the operation on a PMD or PUD, or on a hugetlb entry."""
        if self.rebuilt.kind.is_hugetlb:
            return f"hugetlb_add_{self._kind}_rmap" if add else "hugetlb_remove_rmap"
        word = "pud" if self._by_pud else "pmd"
        # Fork leaves PUDs to page faults: there is no operation to duplicate them.
        if dup and word == "pmd":
            return f"folio_{'try_dup_anon' if self.rebuilt.kind.is_anon else 'dup_file'}_rmap_{word}"
        return f"folio_add_{self._kind}_rmap_{word}" if add else f"folio_remove_rmap_{word}"

    def entry(self) -> str:
        """What a huge entry is called."""
        if self.rebuilt.kind.is_hugetlb:
            return "hugetlb entry"
        return "PUD" if self._by_pud else "PMD"

    def called(self, name: str) -> str:
        """Today's name as this kernel has it."""
        return name_in(self.scheme, name, folio_names=self.folio_names)

    def call(self, op: Op) -> str:
        """The call as this kernel writes it: ``folio_remove_rmap_pte(page 3)``."""
        name = self.called(op.name)
        if not op.name.endswith(("_pte", "_ptes")):
            return f"{name}({'compound' if name.startswith('page_') else ''})"
        if self.rebuilt.order == 0:
            return f"{name}()"
        if op.page < 0:
            return f"{name}({'1 page' if op.nr == 1 else f'{op.nr} pages'})"
        each = "each of " if name != op.name and op.nr > 1 else ""
        return f"{name}({each}{pages_text([(op.page, op.nr)])})"

    def counter(self, counter: RmapCounter) -> str:
        """The member that holds a counter."""
        return field_name(self.scheme, counter)

    def differences(self, off: Differences) -> str:
        """``_mapcount +3, _entire_mapcount -1``: what differs, with the sum over the pages."""
        parts = [f"{self.counter(counter)} {by:+d}" for counter, by in off.of_folio().items()]
        if off.pages is not None and off.pages_differ:
            parts.insert(0, f"{self.counter(RmapCounter.PAGE)} {int(off.pages.sum()):+d}")
        return ", ".join(parts)


def pages_text(runs: list[Run]) -> str:
    """``page 3``, ``pages 3 to 18`` or ``5 pages from 3 to 18`` where some between are not meant."""
    pages = sorted({page for first, nr in runs for page in range(first, first + nr)})
    first, last = pages[0], pages[-1]
    if first == last:
        return f"page {first}"
    complete = last - first + 1 == len(pages)
    return f"pages {first} to {last}" if complete else f"{len(pages)} pages from {first} to {last}"


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
