"""What may have made a folio: the births of the model whose lasting words agree with the folio as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inspector.arch.base import Bit
from inspector.folio.captured import capture_folio
from inspector.folio.numbers import OneFolio
from inspector.model.births import FolioSeen, judge_births

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


class BirthLine(msgspec.Struct, frozen=True):
    """One way in which the kernel makes folios, beside the folio."""

    birth: str
    source: str
    """The kernel's file and function."""
    possible: bool
    takes_over: bool
    """Whether it leaves the words of an earlier folio (migration, split), which another birth made."""
    against: list[str]
    """Why it cannot have been this one: words that nothing changes later."""
    since: list[str]
    """If it was this one, what has happened since; empty where the folio is as this birth leaves it."""
    entry: str
    """What it writes to the page table."""
    alike: str
    """Which other birth leaves the same words, and why; "" for none."""


def births(s: Snapshot, f: OneFolio) -> list[BirthLine]:
    """All births, those that agree first; none for pages that the rmap does not count."""
    captured = capture_folio(s, f)
    if captured is None:
        return []
    rows = f.mapping_rows
    vmas = s.mappings.vma_idx[rows]
    has_ops = s.vmas.ops[vmas[vmas >= 0]] != 0
    bits = s.mappings.bits[rows]
    items = s.layout.enum("enum mthp_stat_item")
    seen = FolioSeen(
        state=captured.state,
        flags=frozenset(s.layout.flags.names(int(s.pages.flags[f.head]))),
        in_file_vma=bool(has_ops.any()),
        in_anon_vma=bool((~has_ops).any()),
        is_ksm=f.is_ksm,
        entry_dirty=bool(((bits & (Bit.DIRTY | Bit.SAVED_DIRTY)) != 0).any()) if len(rows) else None,
        collapses_less=any(name.startswith("MTHP_STAT_COLLAPSE") for name in items),
    )
    return [
        BirthLine(
            birth=j.birth.name,
            source=j.birth.source,
            possible=not j.against,
            takes_over=j.birth.takes_over,
            against=list(j.against),
            since=list(j.since),
            entry=j.birth.entry,
            alike=j.birth.alike,
        )
        for j in judge_births(seen)
    ]
