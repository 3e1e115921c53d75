"""The VMAs of one address space for the screen, with the folios that they map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspector.aimed.snapshot import AimedSnapshot
from inspector.arch.base import Level
from inspector.columns import I64, U64, AnyArray, Mask, Table
from inspector.report.processes import perms
from inspector.snapshot import Snapshot
from inspector.tables.vmas import vma_rows
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import entry_pages
from inspector.walk.names import vma_names
from inspector.walk.smaps import VmaFigures
from tui.places import MmPlace, UserPlace, VmaPlace
from tui.session import Session
from tui.views.rows import Rows, bang, number, sizes, words


@dataclass(frozen=True, slots=True)
class VmaFolios(Table):
    """The folios that each VMA maps, in the order of the VMA rows asked for.

    Attributes:
        huge_pages: int64; pages mapped by huge entries.
        pte_pages: int64; pages mapped by PTEs.
        folios: int64; large folios of which it maps a page.
        partial: int64; of these, mapped by its PTEs but not with all their pages.
        order_bits: uint64; bit i is set when a folio of order i is among its folios, small ones included.
    """

    huge_pages: I64
    pte_pages: I64
    folios: I64
    partial: I64
    order_bits: U64


def vma_folios(s: Snapshot, vma_rows: I64) -> VmaFolios:
    """Folios by VMA; only mappings that the rmap counts."""
    m = s.mappings
    place = np.full(len(s.vmas) + 1, -1, np.int64)
    place[vma_rows] = np.arange(len(vma_rows))
    vma = place[m.vma_idx]
    rows = np.flatnonzero((vma >= 0) & (m.entry_class == EntryClass.NORMAL))
    vma = vma[rows]
    folio = s.folio_of_page[m.head_row[rows]].astype(np.int64)
    huge = m.level[rows] != Level.PTE
    pages = entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64)
    n = len(vma_rows)

    def total(weights: AnyArray, keep: Mask, at: AnyArray = vma) -> I64:
        return np.bincount(at[keep], weights=weights[keep], minlength=n).astype(np.int64)

    large = folio >= 0
    width = np.int64(max(len(s.folios), 1))
    key, which = np.unique(vma[large] * width + folio[large], return_inverse=True)
    by_pte = np.bincount(which, weights=np.where(huge[large], 0, pages[large]), minlength=len(key)).astype(np.int64)
    owner, row = key // width, key % width
    nr = s.folios.nr_pages[row] if len(s.folios) else row
    cut = (by_pte > 0) & (by_pte < nr)
    every = np.ones(len(key), np.bool_)
    bits = np.zeros(n, np.uint64)
    orders = s.folios.order[row].astype(np.uint64) if len(s.folios) else row.astype(np.uint64)
    np.bitwise_or.at(bits, owner, np.uint64(1) << np.minimum(orders, np.uint64(63)))
    np.bitwise_or.at(bits, vma[~large], np.uint64(1))
    return VmaFolios(
        total(pages, huge),
        total(pages, ~huge),
        total(np.ones(len(key)), every, owner),
        total(np.ones(len(key)), cut, owner),
        bits,
    )


def order_words(bits: int) -> str:
    """Orders named by the bits of a word: ``0 4 9``."""
    return " ".join(str(i) for i in range(64) if bits >> i & 1)


def vma_rows_of(s: Snapshot, mm_idx: int) -> I64:
    """Rows of the VMAs of one mm, by address."""
    first, last = np.searchsorted(s.vmas.mm_idx, [mm_idx, mm_idx + 1])
    return np.arange(first, last)


def mm_alone(s: Snapshot, mm_idx: int, vma_rows: I64) -> tuple[Snapshot, int, I64]:
    """What one address space holds, without reading the page tables of others.

    Args:
        s: A snapshot of the target.
        mm_idx: Row of the mm.
        vma_rows: int64[n]; rows of its VMAs.

    Returns:
        A snapshot that has its VMAs and page tables, and the rows of the mm and of the same VMAs there; ``s`` itself
        where the mm cannot be read alone.
    """
    one = AimedSnapshot(s, s.mms.addr[mm_idx : mm_idx + 1])
    if len(one.mms) == 1 and np.array_equal(one.vmas.addr, s.vmas.addr[vma_rows]):
        return one, 0, np.arange(len(vma_rows))
    return s, mm_idx, vma_rows


def names_of(s: Snapshot, vma_rows: I64) -> list[str]:
    """Permissions and name of each VMA."""
    flags = s.vmas.flags[vma_rows].tolist()
    return [
        f"{perms(f)} {n}".rstrip() for f, n in zip(flags, vma_names(s.layout, s.mms, s.vmas, vma_rows), strict=True)
    ]


def vma_facts(s: Snapshot, vma_row: int) -> tuple[I64, list[tuple[str, str]]]:
    """The VMA as a column of one row, and what it says of itself."""
    v, row = s.vmas, np.array([vma_row], np.int64)
    flags = int(v.flags[vma_row])
    name = vma_names(s.layout, s.mms, v, row)[0] or "anonymous"
    facts = [
        ("backing", name),
        ("flags", f"{perms(flags)} {flags:#x}"),
        ("vma", f"{int(v.addr[vma_row]):#x}"),
        ("pgoff", f"{int(v.pgoff[vma_row]):#x}"),
    ]
    if v.anon_vma[vma_row]:
        facts.append(("anon_vma", f"{int(v.anon_vma[vma_row]):#x}"))
    return row, facts


def mm_place(s: Snapshot, row: int) -> MmPlace | UserPlace:
    """The place of an mm; where not all of them are known its row means nothing elsewhere."""
    return MmPlace(row) if s.search == "all page tables" else UserPlace(int(s.mms.addr[row]))


def vma_place(s: Snapshot, address: int, va: int | None = None) -> VmaPlace | UserPlace | None:
    """The place of the vm_area_struct at an address; None when no process has it."""
    row = int(vma_rows(s.vmas, np.array([address], np.uint64))[0])
    if row < 0:
        return None
    mm = int(s.vmas.mm_idx[row])
    if s.search != "all page tables":
        return UserPlace(int(s.mms.addr[mm]), int(s.vmas.start[row]) if va is None else va)
    return VmaPlace(mm, row, va)


def findings_by_vma(session: Session) -> Counter[int]:
    """The same for VMAs."""
    number_of: Counter[int] = Counter()
    for finding in session.findings:
        number_of.update({finding.subject.vma or 0, *(m.vma or 0 for m in finding.evidence.mappings)})
    return number_of


def vma_table(session: Session, vma_rows: I64, names: Sequence[str], f: VmaFigures, folios: VmaFolios) -> Rows:
    """The VMAs of one mm, by address; sizes as in smaps.

    Args:
        session: Whose findings are counted.
        vma_rows: int64[n]; rows of the VMAs.
        names: Permissions and name of each.
        f: Figures of each.
        folios: Folios of each.
    """
    s = session.snapshot
    shift = s.layout.arch.page_shift
    number_of = findings_by_vma(session)
    found = np.array([number_of[a] for a in s.vmas.addr[vma_rows].tolist()], np.int64)
    mm = int(s.vmas.mm_idx[vma_rows[0]]) if len(vma_rows) else -1

    page = 1 << shift

    return Rows(
        [
            number("start", s.vmas.start[vma_rows], lambda n: f"{n:x}", shade=lambda _: "heat1"),
            sizes("size", s.vmas.nr_pages[vma_rows], page),
            words("perm", [n[:4] for n in names]),
            sizes("rss", f.rss + f.hugetlb_private + f.hugetlb_shared, page, blank=0),
            sizes("anon", f.anon, page, blank=0, drop=5, shade=lambda _: "anon"),
            sizes("file", f.file, page, blank=0, drop=5, shade=lambda _: "file"),
            sizes("shmem", f.shmem, page, blank=0, drop=5, shade=lambda _: "shmem"),
            sizes("pte", folios.pte_pages, page, blank=0, drop=3),
            sizes("pmd", folios.huge_pages, page, blank=0, drop=1),
            sizes("swap", f.swap + f.shmem_swap, page, blank=0, drop=2, shade=lambda _: "swap"),
            words("orders", [order_words(b) for b in folios.order_bits.tolist()], drop=2),
            number("partial", folios.partial, blank=0, drop=2, shade=lambda _: "warn"),
            *([number("findings", found, bang, blank=0, shade=lambda _: "fail", marked=False)] if found.any() else []),
            words("backing", [n[5:] or "anonymous" for n in names]),
        ],
        lambda row: VmaPlace(mm, int(vma_rows[row])),
        s.vmas.start[vma_rows],
    )
