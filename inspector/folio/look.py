"""Which snapshot answers a question about one folio: that of all page tables, or that of its reverse map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.aimed.folio import FolioSnapshot
from inspector.check.prepare import Progress, prepare

if TYPE_CHECKING:
    from inspector.columns import U64
    from inspector.snapshot import Snapshot


def look_at(
    s: Snapshot, pfn: int, *, everything: bool = False, progress: Progress | None = None, mms: U64 | None = None
) -> Snapshot:
    """A snapshot to answer a question about one folio from.

    Args:
        s: A snapshot of the target.
        pfn: Any page of the folio, one that has a struct page.
        everything: Whether all page tables are to be walked. Where they were walked already it costs nothing, and
            they are used in any case.
        progress: Called while all page tables are walked.
        mms: uint64; mms that are wanted beside those that map the folio.
    """
    if everything or s.has_walked:
        if progress is not None:
            prepare(s, progress)
        return s
    return FolioSnapshot(s, pfn, mms)
