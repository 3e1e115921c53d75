"""Who may write to the pages of a folio: PG_anon_exclusive beside the entries, and what the kernel would do with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from inspector.columns import Mask
from inspector.folio.ledger import Verdict, runs
from inspector.folio.numbers import OneFolio, standing_of
from inspector.layout.flags import VM_SHARED
from inspector.model.decisions import (
    Decision,
    may_migrate,
    may_reclaim,
    may_split,
    on_fork,
    on_shared_write,
    on_write_fault,
)
from inspector.snapshot import Snapshot
from inspector.walk.references import ReferenceTerms

Mark = Literal["E", "s", "-", "x"]
"""E exclusive; s maybe shared; - not mapped and not marked; x marked, but not mapped: left over from a mapping."""


@dataclass(frozen=True)
class Sharing:
    """Neighbouring pages of an anonymous folio that are alike.

    Attributes:
        first, pages: Which.
        mark: `Mark`.
        mappings: Entries that map each of them, huge ones included.
        writable: Those that let user space write.
        verdict: WRONG where mark and entries contradict each other.
        note: How.
    """

    first: int
    pages: int
    mark: Mark
    mappings: int
    writable: int
    verdict: Verdict
    note: str = ""


def sharing(s: Snapshot, f: OneFolio) -> list[Sharing]:
    """The pages of an anonymous folio by PG_anon_exclusive; none for other folios, which have no such flag.

    While a huge entry maps the folio, the head's flag speaks for all pages (include/linux/page-flags.h). KSM pages
    are never exclusive. Rules `exclusive-page-mapcount-high` and `writable-page-exclusive-missing` say why.
    """
    if not f.is_anon:
        return []
    huge = f.pmd + f.pud
    if f.is_hugetlb:
        return [_judge(0, f.nr_pages, (bool(f.exclusive[0]), huge, f.huge_writable), "")]
    out = []
    pte, writable = f.pte.astype(np.int64), f.writable.astype(np.int64)
    marked = f.exclusive.astype(np.int64)
    by_head = np.zeros(f.nr_pages, np.int64)
    by_head[0] = huge > 0
    for at, n in runs(marked, pte, writable, by_head):
        own = bool(marked[at])
        entries, can_write = int(pte[at]), int(writable[at])
        if huge and at == 0:
            out.append(_judge(at, n, (own, entries + huge, can_write + f.huge_writable), "the head speaks for all"))
        elif huge and own:
            note = "marked, although a huge entry maps the folio: only the head may be"
            out.append(Sharing(at, n, "E", entries + huge, can_write, "WRONG", note))
        elif huge:
            out.append(Sharing(at, n, "-" if not entries else "s", entries + huge, can_write, "ok", "see the head"))
        else:
            out.append(_judge(at, n, (own, entries, can_write), ""))
    return out if not f.is_ksm else [_ksm(x) for x in out]


def _judge(at: int, n: int, what: tuple[bool, int, int], note: str) -> Sharing:
    marked, entries, writable = what
    if marked and entries > 1:
        return Sharing(at, n, "E", entries, writable, "WRONG", f"exclusive to one, but {entries} entries map it")
    if writable and not marked:
        return Sharing(at, n, "s", entries, writable, "WRONG", "user space may write, but the page may be shared")
    if not entries:
        return Sharing(at, n, "x" if marked else "-", 0, 0, "ok", "left over from a mapping" if marked else note)
    return Sharing(at, n, "E" if marked else "s", entries, writable, "ok", note)


def _ksm(x: Sharing) -> Sharing:
    if x.mark in ("E", "x"):
        return replace(x, verdict="WRONG", note="KSM pages are never exclusive")
    return x


def decisions(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> list[tuple[str, Decision]]:
    """What the kernel would do now, each with the pages it is about ("" for the whole folio)."""
    if f.page_type or not (f.is_anon or f.is_file) or int(s.pages.refcount[f.head]) <= 0:
        return []
    standing, out = standing_of(s, f, terms), []
    huge = f.pmd + f.pud > 0
    if f.is_anon:
        if huge:
            found = on_write_fault(standing, exclusive=bool(f.exclusive[0]), huge=True)
            out += [("", found), ("", on_fork(standing, exclusive=bool(f.exclusive[0])))]
        mapped = np.where(f.pte > 0, np.where(f.exclusive, 2, 1), 0)
        for state in (2, 1):
            where = np.flatnonzero(mapped == state)
            if len(where) and not (huge and f.is_hugetlb):
                found = on_write_fault(standing, exclusive=state == 2, huge=False)
                out += [(_pages(f, where), found), (_pages(f, where), on_fork(standing, exclusive=state == 2))]
    elif f.total:
        shared = _in_shared_vma(s, f)
        if not shared.all():
            out.append(("", on_write_fault(standing, exclusive=False, huge=huge)))
        if shared.any():
            out.append(("", on_shared_write(standing)))
    if f.nr_pages > 1:
        out.append(("", may_split(standing)))
    out += [("", may_migrate(standing)), ("", may_reclaim(standing))]
    return out


def _in_shared_vma(s: Snapshot, f: OneFolio) -> Mask:
    """Which of the folio's mappings lie in VMAs that share what they write."""
    vma = s.mappings.vma_idx[f.mapping_rows]
    shared: Mask = (s.vmas.flags[np.maximum(vma, 0)] & np.uint64(VM_SHARED)) != 0
    return shared & (vma >= 0)


def _pages(f: OneFolio, where: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    if f.nr_pages == 1:
        return ""
    starts = np.flatnonzero(np.diff(where, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(where))
    words = [
        f"+{int(where[i])}" + (f"..+{int(where[i]) + n - 1}" if n > 1 else "")
        for i, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more stretches" if len(words) > 4 else "")
