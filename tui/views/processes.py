"""Address spaces for the screen: their sizes in columns, and the table of processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, Mask, Table
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.text import clean_bytes
from inspector.walk.mthp import LargeOfMms
from inspector.walk.smaps import VmaFigures
from tui.places import MmPlace
from tui.session import Session
from tui.views.rows import Rows, bang, number, sizes, words


@dataclass(frozen=True, slots=True)
class ProcessColumns(Table):
    """One row an mm, in the order of `Mms`; sizes in pages.

    Attributes:
        pid: int64; -1 for an mm without a task.
        users, tasks, vmas: int64.
        rss, anon, file, shmem, swap: int64; the kernel's own counters, exact.
        known: bool; False where they could not be read.
        huge: int64; mapped by huge entries, hugetlb left out; -1 where not known.
        mthp: int64; pages of large folios that PTEs map; -1 where not known, as the two that follow.
        partly: int64; folios, not pages: those it maps of which some pages are mapped by no process.
        wasted: int64; these pages.
        hugetlb: int64; -1 where not known.
        tables: int64; bytes of page tables.
    """

    pid: I64
    users: I64
    tasks: I64
    vmas: I64
    rss: I64
    anon: I64
    file: I64
    shmem: I64
    swap: I64
    known: Mask
    huge: I64
    mthp: I64
    partly: I64
    wasted: I64
    hugetlb: I64
    tables: I64


def process_columns(s: Snapshot, f: VmaFigures | None, large: LargeOfMms | None = None) -> ProcessColumns:
    """The columns of all mms.

    Args:
        s: A snapshot of the target.
        f: Of all VMAs; None where they are not known yet.
        large: What is mapped of large folios; None likewise.
    """
    mms, n = s.mms, len(s.mms)

    def per_mm(*names: str) -> I64:
        if f is None:
            return np.full(n, -1, np.int64)
        columns = [getattr(f, name) for name in names]
        return np.bincount(s.vmas.mm_idx, weights=sum(columns), minlength=n).astype(np.int64)

    huge, unknown = per_mm("anon_pmd", "shmem_pmd", "file_pmd"), np.full(n, -1, np.int64)
    return ProcessColumns(
        pid=mms.pid.astype(np.int64),
        users=mms.users.astype(np.int64),
        tasks=mms.nr_tasks.astype(np.int64),
        vmas=np.bincount(s.vmas.mm_idx, minlength=n),
        rss=mms.rss[:, [RSS_ANON, RSS_FILE, RSS_SHMEM]].sum(axis=1),
        anon=mms.rss[:, RSS_ANON],
        file=mms.rss[:, RSS_FILE],
        shmem=mms.rss[:, RSS_SHMEM],
        swap=mms.rss[:, RSS_SWAP],
        known=mms.rss_valid,
        huge=huge,
        mthp=unknown if large is None or f is None else large.by_ptes(huge, s.layout.pmd_order),
        partly=unknown if large is None else large.partly,
        wasted=unknown if large is None else large.unmapped,
        hugetlb=per_mm("hugetlb_private", "hugetlb_shared"),
        tables=mms.pgtables_bytes,
    )


def findings_by_mm(session: Session) -> Counter[int]:
    """How many findings concern each address space, its VMAs and entries or what it maps, by its address."""
    number_of: Counter[int] = Counter()
    for finding in session.findings:
        number_of.update({finding.subject.mm or 0, *(m.mm for m in finding.evidence.mappings)})
    return number_of


def process_rows(session: Session, figures: VmaFigures | None, large: LargeOfMms | None = None) -> Rows:
    """One row an mm: processes by pid, then those without a task."""
    s = session.snapshot
    c = process_columns(s, figures, large)
    order = np.lexsort((c.pid, c.pid < 0))
    c = c.take(order)
    number_of = findings_by_mm(session)
    found = [number_of[a] for a in s.mms.addr[order].tolist()]
    names = [clean_bytes(bytes(n)) if p >= 0 else "(no task)" for n, p in zip(s.mms.comm[order], c.pid, strict=True)]
    addresses = [f"{a:#x}" for a in s.mms.addr[order].tolist()]

    page = 1 << s.layout.arch.page_shift

    def known(column: I64) -> I64:
        return np.where(c.known, column, -1)

    return Rows(
        [
            number("pid", c.pid, str, blank=-1, shade=lambda _: "heat1"),
            words("comm", names, stays=True),
            sizes("rss", known(c.rss), page),
            sizes("anon", known(c.anon), page, blank=0, shade=lambda _: "anon"),
            sizes("file", known(c.file), page, blank=0, shade=lambda _: "file"),
            sizes("shmem", known(c.shmem), page, blank=0, shade=lambda _: "shmem"),
            sizes("swap", known(c.swap), page, blank=0, drop=3, shade=lambda _: "swap"),
            sizes("THP", c.huge, page, blank=0, drop=1),
            sizes("mTHP", c.mthp, page, blank=0, drop=1),
            number("partly", np.maximum(c.partly, 0), blank=0, drop=1, shade=lambda _: "warn"),
            sizes("wasted", c.wasted, page, blank=0, shade=lambda _: "warn"),
            sizes("hugetlb", c.hugetlb, page, blank=0, drop=4, shade=lambda _: "hugetlb"),
            number("VMAs", c.vmas, drop=5),
            sizes("page tables", c.tables, 1, drop=6),
            number("tasks", c.tasks, drop=7),
            # Where nothing was found the room is for what follows.
            number(
                "findings",
                np.array(found, np.int64),
                bang,
                drop=0 if any(found) else 8,
                blank=0,
                shade=lambda _: "fail",
                marked=False,
            ),
            words("mm", addresses, drop=9),
        ],
        lambda row: MmPlace(int(order[row])),
        # Address and pid: an address may be given to another process.
        (s.mms.addr[order] << np.uint64(22)) | (c.pid.astype(np.uint64) & np.uint64((1 << 22) - 1)),
    )
