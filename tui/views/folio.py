"""One folio as a grid of its pages, and its mappings as a tree of processes, VMAs and entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from inspector.arch.base import Bit
from inspector.columns import I64, Mask, expand_runs, rows_of
from inspector.errors import UsageError
from inspector.folio.account import FolioAccount
from inspector.report.mappings import MappingRow
from inspector.report.processes import perms
from inspector.tables.vmas import vma_rows
from inspector.walk.mappings import entry_pages
from inspector.walk.names import vma_names
from tui.places import Place
from tui.views.vmas import mm_place, vma_place

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

MAX_GRID = 1 << 20
"""Pages of a folio that a grid shows; no folio of today is larger than 1 << 18."""


@dataclass(frozen=True, eq=False)
class PageColumns:
    """The pages of one folio, by index.

    Attributes:
        pfn: Of the head.
        mapped: int64; entries that map each page, huge ones included.
        stored: int64; ``_mapcount`` as stored.
        expected: int64; what the model expects to be stored.
        wrong: bool; the stored value is not the expected one, and no work in flight explains it.
        compared: Whether stored and expected can be compared: this kernel keeps a count for each page of it.
        exclusive: bool; PG_anon_exclusive.
        poisoned: bool; PG_hwpoison.
        young, dirty, writable: bool; of any entry that maps the page.
    """

    pfn: int
    mapped: I64
    stored: I64
    expected: I64
    wrong: Mask
    compared: bool
    exclusive: Mask
    poisoned: Mask
    young: Mask
    dirty: Mask
    writable: Mask


def require_page(s: Snapshot, pfn: int) -> None:
    """Make sure that a page frame has a struct page.

    Raises:
        UsageError: It has none.
    """
    if not s.layout.memmap.valid(np.array([pfn], np.int64))[0]:
        raise UsageError("this page frame has no struct page", f"{pfn:#x}", "It may be memory of a device, or none")


def page_columns(account: FolioAccount) -> PageColumns:
    """The pages of a folio."""
    s, f = account.s, account.folio
    nr = min(f.nr_pages, MAX_GRID)
    here = slice(f.head, f.head + nr)
    young, dirty, writable = _entry_bits(s, f.pfn, nr)
    return PageColumns(
        pfn=f.pfn,
        mapped=f.pte[:nr].astype(np.int64) + f.pmd + f.pud,
        stored=account.stored_pages[:nr],
        expected=account.expected_pages[:nr],
        wrong=account.wrong_pages[:nr],
        compared=bool(account.page_lines),
        exclusive=f.exclusive[:nr],
        poisoned=s.layout.flags.test(s.pages.flags[here], "hwpoison"),
        young=young,
        dirty=dirty,
        writable=writable,
    )


def _entry_bits(s: Snapshot, pfn: int, nr: int) -> tuple[Mask, Mask, Mask]:
    """Whether any entry that maps each page is young, dirty, writable."""
    m, rows = s.mappings, s.mappings_of(pfn, nr)
    pages = entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64)
    page = expand_runs(m.pfn[rows], pages).astype(np.int64) - pfn
    bits = np.repeat(s.mappings.bits[rows], pages)
    inside = (page >= 0) & (page < nr)
    out = []
    for bit in (Bit.YOUNG, Bit.DIRTY, Bit.WRITE):
        mask = np.zeros(nr, np.bool_)
        mask[page[inside & ((bits & bit) != 0)]] = True
        out.append(mask)
    return out[0], out[1], out[2]


GridMode = Literal["counts", "access"]


@dataclass(frozen=True)
class PageGridView:
    """The pages as cells: how often each is mapped, and a mark.

    Attributes:
        pages: The columns.
        mode: "counts": the mark is for exclusive, a bit left over, poisoned, a wrong count; "access": young and dirty.
    """

    pages: PageColumns
    mode: GridMode = "counts"

    cell_width = 2
    columns = 32

    @property
    def count(self) -> int:
        """Pages of the folio."""
        return len(self.pages.mapped)

    def label(self, first: int) -> str:
        """Index of the first page of a row."""
        return f"{f'+{first}':>7} "

    def paint(self, first: int, nr: int) -> list[tuple[str, str]]:
        """Two characters a page: mappings, then the mark."""
        p, here = self.pages, slice(first, first + nr)
        columns = p.mapped[here], p.wrong[here], p.poisoned[here], p.exclusive[here], p.young[here], p.dirty[here]
        out = []
        for mapped, wrong, poisoned, exclusive, young, dirty in zip(*(c.tolist() for c in columns), strict=True):
            if self.mode == "access":
                text = ("y" if young else "·") + ("d" if dirty else "·")
                shade = "heat5-2" if young and dirty else "heat3-2" if young else "heat1-2" if dirty else "free"
                out.append((text, shade))
                continue
            digit = "·" if not mapped else str(mapped) if mapped < 10 else "+"
            if wrong or poisoned:
                out.append((digit + ("!" if wrong else "p"), "fail-3"))
            else:
                shade = f"heat{min(mapped, 7) - 1}-{3 if exclusive else 2}" if mapped else "free"
                # Nothing is exclusive that is not mapped: the bit is left over, as the ledger has it.
                out.append((digit + (("e" if mapped else "x") if exclusive else " "), shade))
        return out

    def describe(self, cell: int) -> list[str]:
        """Everything about one page in words."""
        p = self.pages
        words = [f"mapped {int(p.mapped[cell])} times" if p.mapped[cell] != 1 else "mapped once"]
        if p.compared:
            fits = "expected"
            if p.stored[cell] != p.expected[cell]:
                fits = f"{'WRONG' if p.wrong[cell] else 'in flight or not checked'}, expected {int(p.expected[cell])}"
            words.append(f"_mapcount {int(p.stored[cell])} ({fits})")
        marks = {
            "exclusive": p.exclusive & (p.mapped > 0),
            "bit of exclusive pages left over": p.exclusive & (p.mapped == 0),
            "hwpoison": p.poisoned,
            "young": p.young,
            "dirty": p.dirty,
            "writable": p.writable,
        }
        words += [word for word, mask in marks.items() if mask[cell]]
        return [f"page +{cell}  pfn {p.pfn + cell:#x}", ", ".join(words)]


LEGENDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "counts": (
        *(("1 ", "heat0-2", "mappings"), ("1e", "heat0-3", "exclusive"), ("1!", "fail-3", "count wrong")),
        *(("1p", "fail-3", "hwpoison"), ("· ", "free", "not mapped"), ("·x", "free", "bit left over")),
    ),
    "access": (
        ("y·", "heat3-2", "young"),
        ("·d", "heat1-2", "dirty"),
        ("yd", "heat5-2", "both"),
        ("··", "free", "none"),
    ),
}


@dataclass(frozen=True)
class TreeEntry:
    """A run of entries of one VMA.

    Attributes:
        row: What the report says of it.
        text: For people.
        place: Where it leads.
    """

    row: MappingRow
    text: str
    place: Place | None


@dataclass(frozen=True)
class TreeVma:
    """A VMA that maps pages of the folio."""

    vma_idx: int
    text: str
    entries: list[TreeEntry]
    place: Place | None


@dataclass(frozen=True)
class TreeMm:
    """An address space that does."""

    mm_idx: int
    text: str
    vmas: list[TreeVma]
    place: Place


def mapping_tree(s: Snapshot, mappings: list[MappingRow]) -> list[TreeMm]:
    """Mappings by process and VMA, in the order that they come."""
    mms = np.array([m.mm for m in mappings], np.uint64)
    vmas = np.array([m.vma or 0 for m in mappings], np.uint64)
    mm_idx = np.searchsorted(s.mms.addr, mms).tolist()
    vma_idx = vma_rows(s.vmas, vmas).tolist()
    known = sorted({v for v in vma_idx if v >= 0})
    names = dict(zip(known, vma_names(s.layout, s.mms, s.vmas, np.array(known, np.int64)), strict=True))
    out: list[TreeMm] = []
    for m, mm, vma in zip(mappings, mm_idx, vma_idx, strict=True):
        if not out or out[-1].mm_idx != mm:
            who = f"pid {m.pid} {m.comm}" if m.pid is not None else f"mm {m.mm:#x}, no task"
            out.append(TreeMm(mm, who, [], mm_place(s, mm)))
        branch = out[-1].vmas
        place = vma_place(s, m.vma or 0, m.va)
        if not branch or branch[-1].vma_idx != vma:
            branch.append(TreeVma(vma, _vma_text(s, vma, names), [], place))
        branch[-1].entries.append(TreeEntry(m, _entry_text(m), place))
    return out


def _vma_text(s: Snapshot, vma: int, names: dict[int, str]) -> str:
    if vma < 0:
        return "in no VMA"
    v = s.vmas
    text = f"{int(v.start[vma]):#x}-{int(v.end[vma]):#x} {perms(int(v.flags[vma]))} {names[vma]}"
    return text.rstrip()


def _entry_text(m: MappingRow) -> str:
    pages = f"+{m.page_index}" if m.pages == 1 else f"+{m.page_index}..+{m.page_index + m.pages - 1}"
    words = [m.kind] if not m.present else [] if m.entry_class == "normal" else [f"[{m.entry_class}]"]
    return f"{m.va:#x}  {m.level}  {pages}  {' '.join([*words, *m.bits])}".rstrip()


def file_of(s: Snapshot, pfn: int) -> int:
    """Address of the address_space that a folio names, 0 when it names none that is known."""
    row = s.pages.memmap.row(pfn)
    word = s.pages.mapping[row : row + 1]
    found = rows_of(s.files.address_spaces.addr, word)
    return int(word[0]) if s.pages.type_[row] == 0 and found[0] >= 0 and word[0] else 0
