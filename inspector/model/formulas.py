"""The formula of every counter of one folio, with the numbers in place: the terms of `expectation`, written out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from inspector.model.counters import RmapCounter, field_name
from inspector.model.expectation import BIAS, CountTerm, Terms, folio_terms, page_terms
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.records import dataclass


@dataclass(frozen=True)
class Mapped:
    """The mappings of one folio.

    Attributes:
        nr_pages: N.
        pmd, pud: Huge entries by level; their sum is E.
        pte: All PTEs that map its pages (S).
        mapped_pages: Pages with at least one PTE (T).
        is_hugetlb, is_anon: Kind of the folio.
        double_map: PG_double_map as stored (6.1).
    """

    nr_pages: int
    pmd: int
    pud: int
    pte: int
    mapped_pages: int
    is_hugetlb: bool = False
    is_anon: bool = False
    double_map: bool = False

    @property
    def entire(self) -> int:
        """E."""
        return self.pmd + self.pud


@dataclass(frozen=True)
class Formula:
    """What one counter must be.

    Attributes:
        counter: Which.
        field: Name of the member that holds it.
        bias: What is added to the stored value to get the count: 1 where the kernel counts from -1.
        terms: The parts of the count, as words and numbers.
        total: Their sum.
        remark: Why there are no others, or "".
    """

    counter: RmapCounter
    field: str
    bias: int
    terms: tuple[tuple[str, int], ...]
    remark: str = ""

    @property
    def total(self) -> int:
        """The count."""
        return sum(n for _, n in self.terms)

    @property
    def expected_raw(self) -> int:
        """The value that must be stored."""
        return self.total - self.bias

    def text(self, stored: int | None = None) -> str:
        """``_large_mapcount + 1 = PTE 37 + PMD 2 = 39``; with a stored value that differs, this too, bias added."""
        left = f"{self.field} + {self.bias}" if self.bias else self.field
        parts = [f"{word} {_number(n)}" for word, n in self.terms]
        middle = [" + ".join(parts)] if parts else []
        out = " = ".join([left, *middle, _number(self.total)])
        if self.remark:
            out += f" ({self.remark})"
        if stored is not None and stored != self.expected_raw:
            out += f", stored {_number(stored + self.bias)}"
        return out


def _number(value: int) -> str:
    return f"{value:#x}" if abs(value) >= ENTIRELY_MAPPED // 8 else str(value)


def folio_formulas(scheme: Scheme, m: Mapped) -> list[Formula]:
    """The counters that a large folio keeps as a whole."""
    counts = np.array([m.entire], np.int32), np.array([m.pte]), np.array([m.mapped_pages])
    terms = folio_terms(scheme, *counts, np.array([m.is_hugetlb]))
    return [_formula(scheme, counter, _written(counter, parts, m)) for counter, parts in terms.items()]


def _written(counter: RmapCounter, terms: Terms, m: Mapped) -> tuple[tuple[tuple[str, int], ...], str]:
    """The terms with their numbers, and why there are no others."""
    if m.is_hugetlb and counter is RmapCounter.NR_PAGES_MAPPED:
        return (), "hugetlb does not use it"
    out: list[tuple[str, int]] = []
    for term, column in terms.items():
        value = int(column[0])
        if term is CountTerm.HUGE:
            out += _huge(m) if value or counter is not RmapCounter.PAGE else ()
        elif value or (term in (CountTerm.PTE, CountTerm.PAGES) and not m.is_hugetlb):
            out.append((term.value, value))
    return tuple(out), ""


def _huge(m: Mapped) -> Iterable[tuple[str, int]]:
    """Huge entries by level, and "PMD 0" where there is none."""
    if m.pmd or not m.pud:
        yield "PMD", m.pmd
    if m.pud:
        yield "PUD", m.pud


def _formula(scheme: Scheme, counter: RmapCounter, written: tuple[tuple[tuple[str, int], ...], str]) -> Formula:
    return Formula(counter, field_name(scheme, counter), BIAS[counter], *written)


def page_formula(scheme: Scheme, m: Mapped, pte: int, *, small: bool = False) -> Formula:
    """The ``_mapcount`` of one page.

    Args:
        scheme: The kernel's accounting.
        m: The folio.
        pte: PTEs that map this page (P).
        small: Whether the folio is that page alone.
    """
    if small:
        return _formula(scheme, RmapCounter.PAGE, (((CountTerm.PTE.value, pte),), ""))
    kind = np.array([m.is_hugetlb]), np.array([m.is_anon]), np.array([m.double_map])
    terms = page_terms(scheme, np.array([m.entire], np.int32), *kind)
    if not terms.counts_ptes[0]:
        remark = "hugetlb counts as a whole" if m.is_hugetlb else "this kernel keeps none in large folios"
        return _formula(scheme, RmapCounter.PAGE, ((), remark))
    of_page: Terms = {CountTerm.PTE: np.array([pte]), **terms.of_folio}
    return _formula(scheme, RmapCounter.PAGE, _written(RmapCounter.PAGE, of_page, m))


def word_text(word: int) -> str:
    """A stored ``_nr_pages_mapped`` in words."""
    whole, pages = divmod(word, ENTIRELY_MAPPED)
    if word < 0:
        return "negative: more was taken away than added"
    parts = [f"{pages} pages mapped by PTEs"] if pages or not whole else []
    if whole:
        parts.insert(0, "mapped as a whole" + (f" {whole} times over: only a race or damage does that" * (whole > 1)))
    return ", ".join(parts)
