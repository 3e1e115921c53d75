"""One large folio counted step by step, as mm/rmap.c does it: what the closed forms are compared with.

Operations keep the stored counters and, apart from them, what is really mapped. Nothing is computed from the mappings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from inspector.model.scheme import ENTIRELY_MAPPED, Scheme


@dataclass
class Machine:
    """A folio with its counters as stored and the mappings behind them; its size is that of a huge entry."""

    scheme: Scheme
    order: int
    anon: bool
    hugetlb: bool = False
    page: list[int] = field(default_factory=list)
    entire: int = -1
    word: int = 0
    large: int = -1
    double_map: bool = False
    slot: list[list[int]] = field(default_factory=lambda: [[0, -1], [0, -1]])
    shared: bool = False
    mapped: int = 0
    thps: int = 0
    ptes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pmds: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.page = [-1] * self.nr

    @property
    def nr(self) -> int:
        return 1 << self.order

    def add_ptes(self, mm: int, first: int, n: int) -> None:
        """Map n pages from the given one on."""
        for i in range(first, first + n):
            self.ptes[mm, i] += 1
        if self.scheme is Scheme.OLD:
            for i in range(first, first + n):
                self.page[i] += 1
                self.mapped += self.page[i] == 0
            return
        if self.scheme is Scheme.NO_PAGE_MAPCOUNT:
            self._large(mm, n)
            self.mapped += self.nr if self.large == n - 1 else 0
            return
        newly = 0
        for i in range(first, first + n):
            self.page[i] += 1
            newly += self.page[i] == 0
        self.word += newly
        self.mapped += newly if self.word < ENTIRELY_MAPPED else 0
        self._large(mm, n)

    def add_pmd(self, mm: int) -> None:
        """Map the folio as a whole."""
        self.pmds[mm] += 1
        self.entire += 1
        first = self.entire == 0
        if self.hugetlb:
            self.large += self.scheme.has_large_mapcount
            return
        self.thps += self.nr if first else 0
        if self.scheme is Scheme.OLD:
            self._old_whole(1, first=first)
            return
        self._large(mm, 1)
        if self.scheme is Scheme.NO_PAGE_MAPCOUNT:
            self.mapped += self.nr if self.large == 0 else 0
        elif first:
            self.word += ENTIRELY_MAPPED
            self.mapped += self.nr - self.word % ENTIRELY_MAPPED

    def remove_pte(self, mm: int, i: int) -> None:
        """Unmap one page."""
        self.ptes[mm, i] -= 1
        if self.scheme is Scheme.OLD:
            self.page[i] -= 1
            self.mapped -= self.page[i] == -1
            return
        self._large(mm, -1)
        if self.scheme is Scheme.NO_PAGE_MAPCOUNT:
            self.mapped -= self.nr if self.large == -1 else 0
            return
        self.page[i] -= 1
        if self.page[i] == -1:
            self.word -= 1
            self.mapped -= self.word < ENTIRELY_MAPPED

    def remove_pmd(self, mm: int) -> None:
        """Unmap the folio as a whole."""
        self.pmds[mm] -= 1
        self.entire -= 1
        last = self.entire == -1
        if self.hugetlb:
            self.large -= self.scheme.has_large_mapcount
            return
        self.thps -= self.nr if last else 0
        if self.scheme is Scheme.OLD:
            self._old_whole(-1, first=last)
            return
        self._large(mm, -1)
        if self.scheme is Scheme.NO_PAGE_MAPCOUNT:
            self.mapped -= self.nr if self.large == -1 else 0
        elif last:
            self.word -= ENTIRELY_MAPPED
            self.mapped -= self.nr - self.word

    def split_pmd(self, mm: int) -> None:
        """Replace one huge mapping by page mappings (anonymous folios only)."""
        if self.scheme is not Scheme.OLD:
            self.add_ptes(mm, 0, self.nr)
            self.remove_pmd(mm)
            return
        for i in range(self.nr):
            self.ptes[mm, i] += 1
            self.page[i] += 1
        if self.entire > 0 and not self.double_map:
            self.double_map = True
            self.page = [count + 1 for count in self.page]
        self.pmds[mm] -= 1
        self.entire -= 1
        if self.entire == -1:
            self.thps -= self.nr
            self._clear_double_map()

    def _clear_double_map(self) -> None:
        if self.double_map:
            self.double_map = False
            self.page = [count - 1 for count in self.page]

    def _old_whole(self, diff: int, *, first: bool) -> None:
        if not self.anon:
            before = self.page
            self.page = [count + diff for count in self.page]
            self.mapped += sum((new >= 0) - (old >= 0) for new, old in zip(self.page, before, strict=True))
        elif first and diff > 0:
            self.mapped += self.nr
        elif first:
            doubly = self.double_map
            self._clear_double_map()
            self.mapped -= sum(count == -1 for count in self.page) if doubly else self.nr

    def _large(self, mm: int, diff: int) -> None:
        if not self.scheme.has_large_mapcount:
            return
        self.large += diff
        if not self.scheme.has_mm_ids:
            return
        own = next((s for s in self.slot if s[0] == mm), None)
        if diff > 0:
            self._credit(mm, diff, own)
            return
        if own is not None:
            own[1] += diff
            if own[1] >= 0:
                return
            own[:] = [0, -1]
        if self.large in (self.slot[0][1], self.slot[1][1]):
            self.shared = False

    def _credit(self, mm: int, diff: int, own: list[int] | None) -> None:
        if own is not None:
            own[1] += diff
        elif self.slot[0][0] == 0:
            self.slot[0] = [mm, diff - 1]
            self.shared |= self.large != diff - 1
        elif self.slot[1][0] == 0:
            self.slot[1] = [mm, diff - 1]
            self.shared = True

    @property
    def slot_words(self) -> int:
        """``_mm_ids``."""
        return self.slot[0][0] | self.slot[1][0] << 32 | self.shared << 63
