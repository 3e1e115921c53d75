"""What would have to happen to a sound folio to leave what this one's struct pages hold."""

from __future__ import annotations

import numpy as np

from inspector.folio.captured import capture_folio
from inspector.folio.counters import uses_mapcount_otherwise
from inspector.folio.numbers import OneFolio
from inspector.folio.sharing import SharingRun
from inspector.model import mm_ids, search
from inspector.model.readings import Names, Stored, Truth, names_of, readings
from inspector.snapshot import Snapshot
from inspector.walk.references import ReferenceTerms

_MOST_STORIES = 3
"""Stories told beside the plain reading of the differences."""


def looks_like(s: Snapshot, f: OneFolio, terms: ReferenceTerms, shared: list[SharingRun]) -> list[str]:
    """Sentences, the simplest explanation first; none when nothing is wrong or too much is missing to say."""
    if f.page_type or s.scheme is None or not s.tables_complete or uses_mapcount_otherwise(s, f):
        return []
    names = _names(s, f)
    extra = int(terms.remainder[0]) if int(terms.refcount[0]) > 0 else None
    large = f.is_large
    stored = Stored(
        pages=s.pages.mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64),
        entire_raw=int(s.folios.entire_raw[f.folio]) if large else -1,
        large_raw=int(s.folios.large_raw[f.folio]) if large else -1,
        word_raw=int(s.folios.word_raw[f.folio]) if large else 0,
        references=extra,
    )
    if f.is_hugetlb:
        # The head's word is its page type where there are types; the tails may be aliases of it.
        stored = Stored(np.full(f.nr_pages, -1, np.int64), stored.entire_raw, stored.large_raw, stored.word_raw, extra)
    double = large and bool(s.folios.double_map[f.folio])
    pages = f.pte.astype(np.int64)
    truth = Truth(pages, f.pmd + f.pud, f.is_hugetlb, f.is_anon, double, not large)
    read = readings(s.scheme, truth, stored, names)
    stories = _stories(s, f, stored)
    # Where the search names the operations, the plain reading has only the references to add.
    plain = [] if stories and any(x.references for x in read) else [x.sentence for x in read]
    references = [x.references for x in read if x.references]
    return [*plain, *stories, *references, *_slots(s, f), *_exclusive(shared, names)]


def _stories(s: Snapshot, f: OneFolio, stored: Stored) -> list[str]:
    """What the search through the model's operations finds: calls missed, mistaken, too many or torn half way."""
    captured = capture_folio(s, f)
    if captured is None or s.scheme is None:
        return []
    state = captured.state
    truth = search.Truth(
        f.order, state.kind, f.pte.astype(np.int64), f.pmd + f.pud, state.double_map, pmd_order=state.pmd_order
    )
    held = search.Stored(None if f.is_hugetlb else stored.pages)
    if f.is_large:
        held = search.Stored(held.pages, stored.entire_raw, stored.large_raw, stored.word_raw)
    found = search.looks_like(s.scheme, truth, held)
    return [c.sentence for c in found if c.how not in ("none", "mm ids")][:_MOST_STORIES]


def _names(s: Snapshot, f: OneFolio) -> Names:
    """Names of the operations, by what this kernel's own symbols are called (6.8 renamed them)."""
    known = ("folio_remove_rmap_ptes", "folio_remove_rmap_pmd", "folio_add_file_rmap_ptes")
    folio_names = any(s.target.symbol(name) is not None for name in known)
    return names_of(is_anon=f.is_anon, is_hugetlb=f.is_hugetlb, folio_names=folio_names)


def _slots(s: Snapshot, f: OneFolio) -> list[str]:
    """The mm ids of a large folio (6.15 and later)."""
    if not f.is_large or f.is_hugetlb or s.scheme is None or not s.scheme.has_mm_ids:
        return []
    me, folios, out = slice(f.folio, f.folio + 1), s.folios, []
    slots = mm_ids.Slots(folios.mm_ids[me], folios.mm_id_count0[me], folios.mm_id_count1[me])
    if mm_ids.unshared_but_shared(slots, np.array([f.nr_mms]))[0]:
        out.append("an mm was added without FOLIO_MM_IDS_SHARED, or the flag was cleared while others still mapped it")
    ids, counts = (slots.id0, slots.id1), (slots.count0, slots.count1)
    for i, (ident, count) in enumerate(zip(ids, counts, strict=True)):
        mine = s.counts.pair_folio == f.folio
        mm = s.mms.mm_id[s.counts.pair_mm[mine]] == ident[0]
        entries = int(s.counts.pair_count[mine][mm].sum())
        over = int(count[0]) + 1 - entries
        if ident[0] and over > 0:
            whose = f"mm id {int(ident[0])}"
            out.append(
                f"slot {i} credits {whose} with {over} too many: removed in the name of another mm, or not at all"
            )
    return out


def _exclusive(shared: list[SharingRun], names: Names) -> list[str]:
    """PG_anon_exclusive against the entries."""
    out = []
    if any(x.verdict == "WRONG" and x.mark == "E" and x.mappings > 1 for x in shared):
        out.append(
            "a page was mapped once more without clearing PG_anon_exclusive (fork does that, "
            f"{names.add_pte.replace('add_anon', 'try_dup_anon') or 'hugetlb_try_dup_anon_rmap'}()), or a shared page "
            "was marked exclusive"
        )
    if any(x.verdict == "WRONG" and x.mark == "s" for x in shared):
        out.append("an entry was made writable before the page was made exclusive, or exclusive was taken away later")
    return out
