"""What to call the operations of a folio, and how to tell of them."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.model.evidence import Run, Truth
from inspector.model.interface import Op, name_in
from inspector.model.scheme import Scheme


@dataclass(frozen=True)
class Words:
    """The operations of one folio by name.

    Attributes:
        scheme: Of the kernel.
        truth: The folio.
    """

    scheme: Scheme
    truth: Truth

    @property
    def _kind(self) -> str:
        return "anon" if self.truth.kind.is_anon else "file"

    def pte(self, *, add: bool, nr: int, dup: bool = False) -> str:
        """The operation on PTEs."""
        word = "pte" if nr == 1 or self.scheme in (Scheme.OLD, Scheme.SUBPAGES) else "ptes"
        if dup:
            return f"folio_{'try_dup_anon' if self.truth.kind.is_anon else 'dup_file'}_rmap_{word}"
        return f"folio_add_{self._kind}_rmap_{word}" if add else f"folio_remove_rmap_{word}"

    def huge(self, *, add: bool, dup: bool = False) -> str:
        """The operation on a PMD or PUD, or on a hugetlb entry."""
        if self.truth.kind.is_hugetlb:
            return f"hugetlb_add_{self._kind}_rmap" if add else "hugetlb_remove_rmap"
        word = "pud" if self.truth.order == self.truth.pud_order else "pmd"
        # Fork leaves PUDs to page faults: there is no operation to duplicate them.
        if dup and word == "pmd":
            return f"folio_{'try_dup_anon' if self.truth.kind.is_anon else 'dup_file'}_rmap_{word}"
        return f"folio_add_{self._kind}_rmap_{word}" if add else f"folio_remove_rmap_{word}"

    def entry(self) -> str:
        """What a huge entry is called."""
        if self.truth.kind.is_hugetlb:
            return "hugetlb entry"
        return "PUD" if self.truth.order == self.truth.pud_order else "PMD"

    def call(self, op: Op) -> str:
        """The call as this kernel names it: ``folio_remove_rmap_pte(page 3)``."""
        name = name_in(self.scheme, op.name)
        if not op.name.endswith(("_pte", "_ptes")):
            return f"{name}({'compound' if name.startswith('page_') else ''})"
        if self.truth.order == 0:
            return f"{name}()"
        if op.page < 0:
            return f"{name}({'1 page' if op.nr == 1 else f'{op.nr} pages'})"
        each = "each of " if name != op.name and op.nr > 1 else ""
        return f"{name}({each}{pages_text((op.page, op.nr))})"

    def counter(self, part: str) -> str:
        """What a counter is called."""
        return {
            "pages": "page mapcounts",
            "entire": "entire mapcount",
            "large": "_large_mapcount",
            "word": "_subpages_mapcount" if self.scheme is Scheme.SUBPAGES else "_nr_pages_mapped",
        }[part]


def pages_text(run: Run) -> str:
    """``page 3`` or ``pages 3 to 18``."""
    first, nr = run
    return f"page {first}" if nr == 1 else f"pages {first} to {first + nr - 1}"


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
