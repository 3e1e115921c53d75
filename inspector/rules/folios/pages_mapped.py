"""Rules of the word that counts how many pages of a large folio are mapped."""

from __future__ import annotations

import numpy as np

from inspector.model.counters import RmapCounter, field_name
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.rules.folios.entire import compare_folios, countable
from inspector.rules.registry import Violations, rule
from inspector.snapshot import Snapshot

_WORD = (Scheme.SUBPAGES, Scheme.RMAP68, Scheme.LARGE, Scheme.MM_IDS)


@rule(
    "nr-pages-mapped-invalid",
    was="nr-pages-mapped-malformed",
    group="pages-mapped",
    invariant="I2",
    rank=49,
    schemes=_WORD,
)
def nr_pages_mapped_malformed(s: Snapshot) -> Violations:
    """A folio's `_nr_pages_mapped` holds a value that no sequence of mappings can leave.

    True:  the word is the number of pages mapped by PTEs, at most the folio's size, plus 0x800000 if and only if the
           folio is mapped as a whole; so it is never negative and always below twice 0x800000. 0 for hugetlb.
    Why:   mm/rmap.c, ENTIRELY_MAPPED (COMPOUND_MAPPED before 6.8). The rule reads the folio alone and needs no page
           table, so it holds in a filtered dump too.
    Then:  NR_ANON_MAPPED and NR_FILE_MAPPED drift; folio_mapped() may say no for a mapped folio.
    Silent when: an operation is under way on another CPU: the entire count moves a few instructions earlier.
    Look further: folioscope folio PFN
    """
    folios = s.folios
    able = countable(s)
    word = folios.word_raw
    low = word & (ENTIRELY_MAPPED - 1)
    entire = (folios.entire_raw >= 0) & ~folios.is_hugetlb
    bad = (word < 0) | (word >= 2 * ENTIRELY_MAPPED) | (low > folios.nr_pages)
    bad |= (word >= ENTIRELY_MAPPED) != entire
    rows = np.flatnonzero(able & bad)
    assert s.scheme is not None
    names = [field_name(s.scheme, counter) for counter in (RmapCounter.NR_PAGES_MAPPED, RmapCounter.ENTIRE)]
    return Violations(
        "folio",
        rows,
        {names[0]: word[rows], names[1]: folios.entire_raw[rows]},
        {
            "entirely_mapped_bit": entire[rows],
            "pages_at_most": np.where(folios.is_hugetlb[rows], 0, folios.nr_pages[rows]),
        },
        int(able.sum()),
        int((~folios.readable).sum()),
        "struct pages are missing" if not folios.readable.all() else "",
    )


@rule("nr-pages-mapped-mismatch", group="pages-mapped", invariant="I1", rank=50, schemes=_WORD)
def nr_pages_mapped_mismatch(s: Snapshot) -> Violations:
    """A folio's `_nr_pages_mapped` is not the number of its pages that PTEs map.

    True:  _nr_pages_mapped is the number of pages with at least one PTE mapping (T), plus 0x800000 when at least one
           huge entry maps the folio as a whole.
    Why:   mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap() move it on each page's first and last mapping.
    Then:  NR_ANON_MAPPED and NR_FILE_MAPPED drift; partially mapped folios are not queued for splitting.
    Silent when: the folio is hugetlb, which never uses the word.
    Look further: folioscope folio PFN
    """
    assert s.expected is not None
    return compare_folios(s, RmapCounter.NR_PAGES_MAPPED, s.folios.word_raw, s.expected.word_raw)
