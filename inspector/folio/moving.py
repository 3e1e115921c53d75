"""What UFFDIO_MOVE would do with the pages of a folio, or with an entry: by the VMAs that they are mapped in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Bit, Kind, Level
from inspector.columns import I64, distinct, expand_runs
from inspector.folio.numbers import OneFolio
from inspector.layout.flags import (
    VM_HUGETLB,
    VM_IO,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHADOW_STACK,
    VM_SHARED,
    VM_WRITE,
    unknown_vm_flags,
)
from inspector.model.decisions import Decision, FolioSituation
from inspector.model.uffd_move import EntryHolds, Source, may_move, may_move_entry, may_move_swapped

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_INCOMPATIBLE = VM_PFNMAP | VM_IO | VM_HUGETLB | VM_MIXEDMAP


def knows_move(s: Snapshot) -> bool:
    """Whether this kernel has UFFDIO_MOVE: by the argument that it takes."""
    return s.layout.has_struct("struct uffdio_move")


def sources(s: Snapshot, vma: I64) -> I64:
    """int64[vma]; `Source` of each VMA by its row, which is negative for none."""
    at = np.maximum(vma, 0)
    flags = s.vmas.flags[at] if len(s.vmas) else np.zeros(len(at), np.uint64)
    ops = s.vmas.ops[at] if len(s.vmas) else np.zeros(len(at), np.uint64)
    special = _INCOMPATIBLE
    if s.layout.version is None or not unknown_vm_flags(s.layout.version) & VM_SHADOW_STACK:
        special |= VM_SHADOW_STACK
    # The order of the kernel's questions, the last one first.
    out = np.full(len(vma), Source.FITS, np.int64)
    out[ops != 0] = Source.NOT_ANONYMOUS
    out[(flags & np.uint64(special)) != 0] = Source.SPECIAL
    out[(flags & np.uint64(VM_WRITE)) == 0] = Source.READ_ONLY
    out[(flags & np.uint64(VM_SHARED)) != 0] = Source.SHARED
    out[vma < 0] = Source.NONE
    return out


def moves(s: Snapshot, f: OneFolio, situation: FolioSituation) -> list[tuple[I64 | None, Decision]]:
    """What UFFDIO_MOVE would do with a folio, each with the pages that it is about; None for all of them.

    Where several VMAs map a page it is about one that fits, if there is one.
    """
    known, m, rows = knows_move(s), s.mappings, f.mapping_rows
    if not f.total:
        return [(None, may_move_swapped(situation, known=known))] if f.is_anon and situation.swap else []
    if not known:
        found = may_move(situation, exclusive=False, head_exclusive=False, huge=False, source=Source.NONE, known=False)
        return [(None, found)]
    code, huge = sources(s, m.vma_idx[rows].astype(np.int64)), m.level[rows] != Level.PTE
    head = f.is_anon and bool(f.exclusive[0])
    out: list[tuple[I64 | None, Decision]] = []
    if huge.any():
        source = Source(int(code[huge].min()))
        found = may_move(situation, exclusive=head, head_exclusive=head, huge=True, source=source, known=True)
        out.append((None, found))
    small = np.flatnonzero(~huge)
    first = np.maximum(m.pfn[rows[small]] - f.pfn, 0)
    number = np.minimum(m.pfn[rows[small]] - f.pfn + m.nr[rows[small]], f.nr_pages) - first
    best = np.full(f.nr_pages, len(Source), np.int64)
    np.minimum.at(best, expand_runs(first, number).astype(np.int64), np.repeat(code[small], number))
    for of in distinct(best[best < len(Source)]).tolist():
        for exclusive in (True, False):
            pages = np.flatnonzero((best == of) & (f.exclusive == exclusive))
            if len(pages):
                source = Source(of)
                found = may_move(
                    situation, exclusive=exclusive, head_exclusive=head, huge=False, source=source, known=True
                )
                out.append((pages, found))
    # Where the answer does not depend on the mark of each page it is given once.
    if len({found.reason for _, found in out}) == 1:
        return [(None, out[0][1])]
    return out


def entry_move(s: Snapshot, vma: int, step_kind: Kind, bits: Bit, *, zero: bool) -> Decision:
    """What UFFDIO_MOVE would do with an entry that leads to no page with counts.

    Args:
        s: The snapshot.
        vma: Row of the VMA that holds the address, -1 for none.
        step_kind: Of the entry where the way down ends.
        bits: Its attributes.
        zero: Whether it maps the zero page, or the huge one.
    """
    holds: EntryHolds = "other"
    if zero:
        holds = "zero page"
    elif step_kind == Kind.NONE:
        holds = "nothing"
    elif step_kind == Kind.SWAP:
        holds = "exclusive swap" if bits & Bit.EXCLUSIVE else "swap"
    elif step_kind in MIGRATION_KINDS:
        holds = "migration"
    source = Source(int(sources(s, np.array([vma], np.int64))[0]))
    return may_move_entry(holds, source=source, known=knows_move(s))
