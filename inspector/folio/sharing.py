"""Who may write to the pages of a folio: PG_anon_exclusive beside the entries, and what the kernel would do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.folio.counters import runs
from inspector.folio.moving import moves
from inspector.folio.numbers import OneFolio
from inspector.folio.situation import situation_of
from inspector.folio.verdicts import Verdict, Verdicts
from inspector.layout.flags import VM_SHARED
from inspector.model.decisions import (
    Decision,
    may_collapse,
    may_migrate,
    may_reclaim,
    may_split,
    on_fork,
    on_shared_write,
    on_write_fault,
)

if TYPE_CHECKING:
    from inspector.columns import Mask
    from inspector.snapshot import Snapshot
    from inspector.walk.references import ReferenceTerms

SharingMark = Literal["E", "s", "-", "x"]
"""E exclusive; s maybe shared; - not mapped and not marked; x marked, but not mapped: left over from a mapping."""


class SharingRun(msgspec.Struct, frozen=True):
    """Neighbouring pages of an anonymous folio that are shared alike."""

    first: int
    pages: int
    mark: SharingMark
    """E exclusive; s maybe shared; - neither marked nor mapped; x marked, but not mapped any more."""
    mappings: int
    """Entries that map each of them, huge ones included."""
    writable: int
    """Those of them that let user space write."""
    verdict: Verdict
    """WRONG where mark and entries contradict each other."""
    note: str = ""


def sharing(s: Snapshot, f: OneFolio, verdicts: Verdicts) -> list[SharingRun]:
    """The pages of an anonymous folio by PG_anon_exclusive; none for other folios, which have no such flag.

    While a huge entry maps the folio, the head's flag is that of all pages (include/linux/page-flags.h). KSM pages are
    never exclusive. Rules `exclusive-page-mapcount-high` and `writable-page-exclusive-missing` say why.
    """
    if not f.is_anon:
        return []
    huge = f.pmd + f.pud
    if f.is_hugetlb:
        return [_judge(verdicts, 0, f.nr_pages, (bool(f.exclusive[0]), huge, f.huge_writable), "")]
    out = []
    pte, writable = f.pte.astype(np.int64), f.writable.astype(np.int64)
    marked = f.exclusive.astype(np.int64)
    by_head = np.zeros(f.nr_pages, np.int64)
    by_head[0] = huge > 0
    for at, n in runs(marked, pte, writable, by_head):
        own = bool(marked[at])
        entries, can_write = int(pte[at]), int(writable[at])
        if huge and at == 0:
            what = (own, entries + huge, can_write + f.huge_writable)
            out.append(_judge(verdicts, at, n, what, "the flag of the head is that of all pages"))
        elif huge and own:
            note = "marked, although a huge entry maps the folio: only the head may be"
            out.append(SharingRun(at, n, "E", entries + huge, can_write, verdicts.of(_FLAG, at, n), note))
        elif huge:
            out.append(SharingRun(at, n, "-" if not entries else "s", entries + huge, can_write, "ok", "see the head"))
        else:
            note = "mapped by an entry that may not" if own and len(f.rejected) else ""
            out.append(_judge(verdicts, at, n, (own, entries, can_write), note))
    return out if not f.is_ksm else [_ksm(x, verdicts) for x in out]


_FLAG = "anon_exclusive"
"""PG_anon_exclusive, as findings name it."""


def _judge(verdicts: Verdicts, at: int, n: int, what: tuple[bool, int, int], note: str) -> SharingRun:
    marked, entries, writable = what
    if marked and entries > 1:
        note = f"exclusive to one, but {entries} entries map it"
        return SharingRun(at, n, "E", entries, writable, verdicts.of(_FLAG, at, n), note)
    if writable and not marked:
        note = "user space may write, but the page may be shared"
        return SharingRun(at, n, "s", entries, writable, verdicts.of(_FLAG, at, n), note)
    if not entries:
        note = note or ("left over from a mapping" if marked else "")
        return SharingRun(at, n, "x" if marked else "-", 0, 0, "ok", note)
    return SharingRun(at, n, "E" if marked else "s", entries, writable, "ok", note)


def _ksm(x: SharingRun, verdicts: Verdicts) -> SharingRun:
    if x.mark in ("E", "x"):
        note = "KSM pages are never exclusive"
        return msgspec.structs.replace(x, verdict=verdicts.of(_FLAG, x.first, x.pages), note=note)
    return x


def decisions(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> list[tuple[str, Decision]]:
    """What the kernel would do now, each with the pages it is about ("" for the whole folio)."""
    if f.page_type or int(s.pages.refcount[f.head]) <= 0 or not (f.is_anon or f.is_file or _is_orphan(s, f)):
        return []
    situation, out = situation_of(s, f, terms), []
    huge = f.pmd + f.pud > 0
    if f.is_anon:
        if huge:
            found = on_write_fault(situation, exclusive=bool(f.exclusive[0]), huge=True)
            out += [("", found), ("", on_fork(situation, exclusive=bool(f.exclusive[0])))]
        mapped = np.where(f.pte > 0, np.where(f.exclusive, 2, 1), 0)
        for state in (2, 1):
            where = np.flatnonzero(mapped == state)
            if len(where) and not (huge and f.is_hugetlb):
                found = on_write_fault(situation, exclusive=state == 2, huge=False)
                out += [(_pages(f, where), found), (_pages(f, where), on_fork(situation, exclusive=state == 2))]
    elif f.total and f.is_file:
        shared = _in_shared_vma(s, f)
        if not shared.all():
            out.append(("", on_write_fault(situation, exclusive=False, huge=huge)))
        if shared.any():
            out.append(("", on_shared_write(situation)))
    if f.nr_pages > 1:
        out.append(("", may_split(situation)))
    elif f.is_anon and not f.is_hugetlb and f.pte.any():
        out.append(("", may_collapse(situation)))
    out += [("", may_migrate(situation)), ("", may_reclaim(situation))]
    return out + [("" if pages is None else _pages(f, pages), found) for pages, found in moves(s, f, situation)]


def _is_orphan(s: Snapshot, f: OneFolio) -> bool:
    """Whether it names nothing, but is a folio of users: truncated, or in the swap cache alone."""
    word = s.pages.flags[f.head : f.head + 1]
    names_nothing = int(s.pages.mapping[f.head]) == 0
    return names_nothing and bool(s.layout.flags.test(word, "lru")[0])


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
