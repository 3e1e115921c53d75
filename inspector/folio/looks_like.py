"""What would have to happen to a sound folio to leave what this one's struct pages hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.folio.captured import folio_names, kind_of, slots_of
from inspector.folio.counters import uses_mapcount_otherwise
from inspector.folio.numbers import OneFolio
from inspector.folio.sharing import SharingRun
from inspector.model.diagnose.evidence import RebuiltFolio, StoredCounters
from inspector.model.diagnose.names import OperationNames
from inspector.model.diagnose.search import diagnose
from inspector.model.scheme import Scheme
from inspector.walk.references import ReferenceTerms

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_MOST_CANDIDATES = 3
"""Explanations shown beside the sum of the differences."""


def looks_like(s: Snapshot, f: OneFolio, terms: ReferenceTerms, shared: list[SharingRun]) -> list[str]:
    """Sentences, the simplest explanation first; none when nothing is wrong or too much is missing to say."""
    if f.page_type or s.scheme is None or _is_partly_known(s, f) or uses_mapcount_otherwise(s, f):
        return []
    if f.nr_pages != 1 << f.order:
        return []
    rebuilt = _rebuilt(s, s.scheme, f)
    names = OperationNames(s.scheme, rebuilt, folio_names(s))
    found = diagnose(s.scheme, rebuilt, _stored(s, f, terms), folio_names=names.folio_names)
    calls = [c.sentence for c in found.candidates if c.how not in ("none", "mm ids")]
    # Where candidates name the calls, the sum of the differences adds nothing.
    named = any(c.how == "operations" for c in found.candidates)
    net = [found.sentence] if found.sentence and not named else []
    references = [found.references] if found.references else []
    of_slots = [c.sentence for c in found.candidates if c.how == "mm ids"]
    return [*net, *calls[:_MOST_CANDIDATES], *references, *of_slots, *_exclusive(shared, names)]


def _is_partly_known(s: Snapshot, f: OneFolio) -> bool:
    """Whether entries that are not known may map it."""
    return f.head < 0 or bool(s.may_be_mapped_unseen(np.array([f.head], np.int64))[0])


def _rebuilt(s: Snapshot, scheme: Scheme, f: OneFolio) -> RebuiltFolio:
    mms: dict[int, int] = {}
    if f.is_large and scheme.has_mm_ids:
        mine = s.counts.pair_folio == f.folio
        ids, entries = s.mms.mm_id[s.counts.pair_mm[mine]], s.counts.pair_count[mine]
        for ident, n in zip(ids.tolist(), entries.tolist(), strict=True):
            mms[ident] = mms.get(ident, 0) + n
    return RebuiltFolio(
        f.order,
        kind_of(s, f),
        f.pte.astype(np.int64),
        f.pmd + f.pud,
        f.is_large and bool(s.folios.double_map[f.folio]),
        tuple(sorted(mms.items())),
        s.layout.pmd_order,
    )


def _stored(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> StoredCounters:
    pages = s.pages.mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64)
    references = int(terms.remainder[0]) if int(terms.refcount[0]) > 0 else None
    if not f.is_large:
        return StoredCounters(pages, references=references)
    folios = s.folios
    return StoredCounters(
        pages,
        int(folios.entire_raw[f.folio]),
        int(folios.large_raw[f.folio]),
        int(folios.word_raw[f.folio]),
        slots_of(s, f),
        bool(folios.mm_id_slots.one(f.folio).shared[0]),
        references,
    )


def _exclusive(shared: list[SharingRun], names: OperationNames) -> list[str]:
    """PG_anon_exclusive against the entries."""
    out = []
    if any(x.verdict == "WRONG" and x.mark == "E" and x.mappings > 1 for x in shared):
        hugetlb = names.rebuilt.kind.is_hugetlb
        dup = "hugetlb_try_dup_anon_rmap" if hugetlb else names.pte(add=True, nr=1, dup=True)
        out.append(
            f"a page was mapped once more without clearing PG_anon_exclusive (fork does that, {names.called(dup)}()),"
            " or a shared page was marked exclusive"
        )
    if any(x.verdict == "WRONG" and x.mark == "s" for x in shared):
        out.append("an entry was made writable before the page was made exclusive, or exclusive was taken away later")
    return out
