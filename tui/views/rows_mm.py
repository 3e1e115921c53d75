"""Tables of address spaces, VMAs and entries for the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I64, AnyArray
from inspector.report.mappings import bit_words, kind_words
from inspector.report.processes import perms
from inspector.snapshot import Snapshot
from inspector.text import clean_bytes
from inspector.walk.counts import EntryClass
from inspector.walk.names import vma_names
from inspector.walk.smaps import VmaFigures
from tui.places import FolioPlace, MmPlace, VmaPlace
from tui.session import Session
from tui.views.mm import Entries, VmaFolios, order_words, process_columns
from tui.views.rows import Column, ColumnData, Rows, number, words


def short(nr_bytes: int) -> str:
    """A size in at most five columns: ``812K``, ``1.4G``."""
    if nr_bytes < 1 << 10:
        return str(nr_bytes) if nr_bytes else "0"
    value, unit = nr_bytes / 1024, "K"
    for bigger in "MGTPE":
        if value < 1000:
            break
        value, unit = value / 1024, bigger
    return f"{value:.1f}{unit}" if value < 9.95 and unit != "K" else f"{value:.0f}{unit}"


def findings_by_mm(session: Session) -> Counter[int]:
    """How many findings concern each address space, its VMAs and entries or what it maps, by its address."""
    number_of: Counter[int] = Counter()
    for finding in session.findings:
        number_of.update({finding.subject.mm or 0, *(m.mm for m in finding.evidence.mappings)})
    return number_of


def findings_by_vma(session: Session) -> Counter[int]:
    """The same for VMAs."""
    number_of: Counter[int] = Counter()
    for finding in session.findings:
        number_of.update({finding.subject.vma or 0, *(m.vma or 0 for m in finding.evidence.mappings)})
    return number_of


def _bang(count: int) -> str:
    return f"! {count}"


def process_rows(session: Session, figures: VmaFigures) -> Rows:
    """One row an mm: processes by pid, then those without a task."""
    s = session.snapshot
    c = process_columns(s, figures)
    order = np.lexsort((c.pid, c.pid < 0))
    c = c.take(order)
    number_of = findings_by_mm(session)
    found = [number_of[a] for a in s.mms.addr[order].tolist()]
    names = [clean_bytes(bytes(n)) if p >= 0 else "(no task)" for n, p in zip(s.mms.comm[order], c.pid, strict=True)]
    addresses = [f"{a:#x}" for a in s.mms.addr[order].tolist()]

    def pages(n: int) -> str:
        return "?" if n < 0 else short(n << s.layout.arch.page_shift)

    def known(column: I64) -> I64:
        return np.where(c.known, column, -1)

    return Rows(
        [
            number("pid", c.pid, str, blank=-1, shade=lambda _: "heat1"),
            words("comm", names),
            number("rss", known(c.rss), pages),
            number("anon", known(c.anon), pages, blank=0, shade=lambda _: "anon"),
            number("file", known(c.file), pages, blank=0, shade=lambda _: "file"),
            number("shmem", known(c.shmem), pages, blank=0, shade=lambda _: "shmem"),
            number("huge", c.huge, pages, blank=0, drop=2),
            number("hugetlb", c.hugetlb, pages, blank=0, drop=3, shade=lambda _: "hugetlb"),
            number("swap", known(c.swap), pages, blank=0, drop=1, shade=lambda _: "swap"),
            number("vmas", c.vmas, drop=1),
            number("tables", c.tables, short, drop=4),
            number("tasks", c.tasks, drop=5),
            number("findings", np.array(found, np.int64), _bang, blank=0, shade=lambda _: "fail", marked=False),
            words("mm", addresses, drop=9),
        ],
        lambda row: MmPlace(int(order[row])),
        # Address and pid: an address may be given to another process.
        (s.mms.addr[order] << np.uint64(22)) | (c.pid.astype(np.uint64) & np.uint64((1 << 22) - 1)),
    )


def names_of(s: Snapshot, vma_rows: I64) -> list[str]:
    """Permissions and name of each VMA."""
    flags = s.vmas.flags[vma_rows].tolist()
    return [
        f"{perms(f)} {n}".rstrip() for f, n in zip(flags, vma_names(s.layout, s.mms, s.vmas, vma_rows), strict=True)
    ]


def vma_table(session: Session, vma_rows: I64, names: Sequence[str], figures: VmaFigures, folios: VmaFolios) -> Rows:
    """The VMAs of one mm, by address; sizes as in smaps."""
    s = session.snapshot
    f, shift = figures.take(vma_rows), s.layout.arch.page_shift
    number_of = findings_by_vma(session)
    found = np.array([number_of[a] for a in s.vmas.addr[vma_rows].tolist()], np.int64)
    mm = int(s.vmas.mm_idx[vma_rows[0]]) if len(vma_rows) else -1

    def pages(n: int) -> str:
        return short(n << shift)

    return Rows(
        [
            number("start", s.vmas.start[vma_rows], lambda n: f"{n:x}", shade=lambda _: "heat1"),
            number("size", s.vmas.nr_pages[vma_rows], pages),
            words("perm", [n[:4] for n in names]),
            number("rss", f.rss + f.hugetlb_private + f.hugetlb_shared, pages, blank=0),
            number("anon", f.anon, pages, blank=0, drop=5, shade=lambda _: "anon"),
            number("file", f.file, pages, blank=0, drop=5, shade=lambda _: "file"),
            number("shmem", f.shmem, pages, blank=0, drop=5, shade=lambda _: "shmem"),
            number("pte", folios.pte_pages, pages, blank=0, drop=3),
            number("pmd", folios.huge_pages, pages, blank=0, drop=1),
            number("swap", f.swap + f.shmem_swap, pages, blank=0, drop=2, shade=lambda _: "swap"),
            words("orders", [order_words(b) for b in folios.order_bits.tolist()], drop=2),
            number("partial", folios.partial, blank=0, drop=2, shade=lambda _: "warn"),
            *([number("findings", found, _bang, blank=0, shade=lambda _: "fail", marked=False)] if found.any() else []),
            words("backing", [n[5:] or "anonymous" for n in names]),
        ],
        lambda row: VmaPlace(mm, int(vma_rows[row])),
        s.vmas.start[vma_rows],
    )


_LEVELS = ("", *(level.name for level in Level))
_SLOT_BITS = 58
"""Swap offsets have fewer bits (MAX_SWAPFILES takes five above them)."""


def coded(title: str, codes: AnyArray, word: Callable[[int], str], *, drop: int = 0) -> ColumnData:
    """A column of few distinct values, each written once."""
    distinct, place = np.unique(codes, return_inverse=True)
    written = tuple(word(int(code)) for code in distinct.tolist())
    return ColumnData(Column(title, False, drop), place.astype(np.int32), str, written)


def entry_table(entries: Entries) -> Rows:
    """What the page tables hold for one VMA; nothing is written before it is seen, however many entries there are."""

    def leads(row: int) -> FolioPlace | None:
        pfn = int(entries.pfn[row])
        return FolioPlace(pfn) if int(entries.folio_pfn[row]) >= 0 else None

    large = entries.order > 0
    slot = np.where(entries.swap_type >= 0, entries.swap_type << _SLOT_BITS | entries.swap_offset, -1)
    return Rows(
        [
            number("va", entries.va, lambda n: f"{n:#x}", shade=lambda _: "heat1"),
            number("pages", entries.pages),
            coded("level", entries.level, lambda n: _LEVELS[n]),
            coded("what", entries.kind.astype(np.int32) << 8 | entries.entry_class, _what),
            number("pfn", entries.pfn, lambda n: f"{n:#x}", blank=-1),
            number("folio", np.where(large, entries.folio_pfn, -1), lambda n: f"{n:#x}", blank=-1, drop=1),
            number("page", np.where(large, entries.pfn - entries.folio_pfn, -1), lambda n: f"+{n}", blank=-1, drop=4),
            number("order", entries.order, str, blank=-1),
            number("mapped", entries.mapped, blank=0, drop=3),
            number("slot", slot, _slot, blank=-1, drop=3, shade=lambda _: "swap"),
            coded("attributes", entries.bits, lambda b: " ".join(bit_words(Bit(b))), drop=2),
        ],
        leads,
    )


def _slot(value: int) -> str:
    return f"{value >> _SLOT_BITS}:{value & (1 << _SLOT_BITS) - 1:#x}"


def _what(code: int) -> str:
    kind, entry_class = Kind(code >> 8), EntryClass(code & 0xFF)
    if kind is not Kind.LEAF:
        return kind_words(kind)
    return "mapped" if entry_class is EntryClass.NORMAL else entry_class.name.lower().replace("_", " ")
