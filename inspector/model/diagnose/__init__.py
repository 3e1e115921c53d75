"""What happened to a folio whose counters are wrong: calls of rmap operations too many, missed, mistaken or cut short.

One search. `evidence` takes the counters that the mappings demand from the stored ones; the differences suggest moves
(`moves`), so that no page is tried in vain; `search` plays each through `inspector.model.operations` and keeps those
that end in exactly what is stored; `sentences` names their calls, `partial` the single call that moved some of its
counters only, both in the words of `names`. Explanations that the counters fit equally well are all given, the
simplest first. Each operation moves its counters together, so where no moves fit, one counter contradicts the others.

An mTHP of four pages on 6.12: PTEs map pages 0 and 1, `_mapcount` is 0 0 0 -1, `_large_mapcount` 2, and
`_nr_pages_mapped` 3. Expected are 0 0 -1 -1, 1 and 2, so the difference is 0 0 +1 0, +1 and +1: one run of pages
counted too often, (2, 1). From the expected state folio_add_anon_rmap_pte(page 2) ends in what is stored, and so there
are two candidates::

    one folio_remove_rmap_pte(page 2) is missing: a PTE was cleared without it                      cost 1.0
    one folio_add_anon_rmap_pte(page 2) too many: no entry was written for it                       cost 1.1

Were `_large_mapcount` 1, as expected, no whole call would fit; but a part of one does::

    folio_add_anon_rmap_pte(page 2) stopped in the middle, after _mapcount and _nr_pages_mapped
    and before _large_mapcount: the PTE is not written yet
"""
