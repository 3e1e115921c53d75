"""Leaf entries by kind: millions of entries are of some hundreds of kinds, and what is true of one is true of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I32, I64
from inspector.loops import EntryColumns, distinct_rows, entry_words
from inspector.records import dataclass
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages
from inspector.walk.mappings import Mappings


@dataclass(frozen=True)
class EntryKinds:
    """The entries of some runs by kind.

    Two entries are of one kind when they have the same level, attributes and class, lie in the same VMA (in none: in
    the same mm), and map pages whose own words are equal, as are those of their folios' heads.

    Attributes:
        of_entry: int32; kind of each entry, run after run.
        first: int64 a run; place of its first entry in ``of_entry``.
        examples: An entry of each kind, as a run of one.
        nr_runs: int64 a kind; runs whose first entry is of it.
        nr_entries: int64 a kind; entries.
    """

    of_entry: I32
    first: I64
    examples: Mappings
    nr_runs: I64
    nr_entries: I64


def entry_kinds(pages: Pages, folios: Folios, m: Mappings) -> EntryKinds:
    """Sort the entries of some runs by kind; at least one run, and all of one level."""
    columns = EntryColumns(m.bits, m.entry_class, m.vma_idx, m.mm_idx, m.page_row, m.head_row, m.nr)
    words, first = entry_words(
        columns, int(m.level[0]) if len(m) else 0, pages.number, pages.compound, folios.is_hugetlb
    )
    table = distinct_rows(words.shape[1])
    of_entry = table.codes(words)
    # Kinds are numbered as they are met, so each number is new just once.
    example = np.flatnonzero(np.diff(np.maximum.accumulate(of_entry), prepend=-1))
    run = np.searchsorted(first, example, "right") - 1
    chosen, step = m.take(run), example - first[run]
    page_row = np.where(chosen.page_row >= 0, chosen.page_row + step, -1).astype(np.int32)
    # A run over small folios has a head a page.
    small = (page_row >= 0) & (pages.compound[np.minimum(page_row, len(pages) - 1)] == -1)
    return EntryKinds(
        of_entry,
        first,
        replace(
            chosen,
            nr=np.ones(len(run), np.uint32),
            page_row=page_row,
            head_row=np.where(small, page_row, chosen.head_row),
        ),
        np.bincount(of_entry[first], minlength=len(table)),
        table.weights,
    )
