"""The formula of every counter of a folio, with the numbers in place: what `expect` computes, told term by term.

The same closed forms as in `inspector.model.expectation`, for one folio and for people. P, E, S, T and M as there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inspector.model.counters import RmapCounter, field_name
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme


@dataclass(frozen=True)
class Mapped:
    """What the page tables say of one folio.

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
    out = [_formula(scheme, RmapCounter.ENTIRE, 1, _huge(m))]
    if scheme.has_large_mapcount:
        terms = _huge(m) if m.is_hugetlb else (("PTE", m.pte), *_huge(m))
        out.append(_formula(scheme, RmapCounter.LARGE, 1, terms))
    if scheme.has_pages_mapped_word:
        out.append(_word(scheme, m))
    return out


def _formula(
    scheme: Scheme, counter: RmapCounter, bias: int, terms: Iterable[tuple[str, int]], remark: str = ""
) -> Formula:
    return Formula(counter, field_name(scheme, counter), bias, tuple(terms), remark)


def _huge(m: Mapped) -> Iterable[tuple[str, int]]:
    """Huge entries by level, and "PMD 0" where there is none."""
    if m.pmd or not m.pud:
        yield "PMD", m.pmd
    if m.pud:
        yield "PUD", m.pud


def _word(scheme: Scheme, m: Mapped) -> Formula:
    if m.is_hugetlb:
        return _formula(scheme, RmapCounter.NR_PAGES_MAPPED, 0, (), "hugetlb does not use it")
    terms = [("pages mapped by PTEs", m.mapped_pages)]
    if m.entire:
        terms.append(("mapped as a whole", ENTIRELY_MAPPED))
    return _formula(scheme, RmapCounter.NR_PAGES_MAPPED, 0, terms)


def page_formula(scheme: Scheme, m: Mapped, pte: int, *, small: bool = False) -> Formula:
    """The ``_mapcount`` of one page.

    Args:
        scheme: The kernel's accounting.
        m: The folio.
        pte: PTEs that map this page (P).
        small: Whether the folio is that page alone.
    """
    if m.is_hugetlb:
        return _formula(scheme, RmapCounter.PAGE, 1, (), "hugetlb counts as a whole")
    if not small and not scheme.has_page_mapcount:
        return _formula(scheme, RmapCounter.PAGE, 1, (), "this kernel keeps none in large folios")
    terms = [("PTE", pte)]
    if scheme.double_map and not small:
        if m.is_anon and m.double_map:
            terms.append(("PG_double_map", 1))
        elif not m.is_anon and m.entire:
            terms += [(word, n) for word, n in _huge(m) if n]
    return _formula(scheme, RmapCounter.PAGE, 1, terms)


def word_text(word: int) -> str:
    """A stored ``_nr_pages_mapped`` in words."""
    whole, pages = divmod(word, ENTIRELY_MAPPED)
    if word < 0:
        return "negative: more was taken away than added"
    parts = [f"{pages} pages mapped by PTEs"] if pages or not whole else []
    if whole:
        parts.insert(0, "mapped as a whole" + (f" {whole} times over: only a race or damage does that" * (whole > 1)))
    return ", ".join(parts)
