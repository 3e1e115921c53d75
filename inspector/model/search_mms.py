"""What the mm ids of a large folio tell (6.15 and later)."""

from __future__ import annotations

from inspector.model.evidence import Candidate, Stored, Truth
from inspector.model.scheme import Scheme
from inspector.model.state import count


def slot_stories(scheme: Scheme, truth: Truth, stored: Stored) -> list[Candidate]:
    """Slots that claim more mappings than their mm has, and a flag that says one mm where several map the folio."""
    if not scheme.has_mm_ids or not truth.order or truth.kind.is_hugetlb:
        return []
    known = sum(n for _, n in truth.mms) == int(truth.ptes.sum()) + truth.entire
    out = []
    for i, (ident, held) in enumerate(stored.slots or ()):
        over = held + 1 - count(truth.mms, ident)
        if ident and known and over > 0:
            out.append(
                Candidate(
                    (),
                    "mm ids",
                    f"slot {i} credits mm id {ident} with {over} too many: its mappings were taken back in the name of"
                    " another mm, or not at all",
                    4.0,
                )
            )
    if stored.shared is False and known and len(truth.mms) > 1:
        out.append(
            Candidate(
                (),
                "mm ids",
                f"FOLIO_MM_IDS_SHARED is clear though {len(truth.mms)} mms map the folio: it was not set when the"
                " second came, or cleared too early",
                4.0,
            )
        )
    return out
