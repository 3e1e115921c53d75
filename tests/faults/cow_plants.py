"""Shared and exclusive pages, and entries that allow writing, to plant faults in."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit
from inspector.columns import I64, Mask
from inspector.layout.flags import VM_WRITE
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from tests.faults.plants import in_shared_vma, vma_has


def anon_pages(s: Snapshot) -> Mask:
    rows = np.arange(len(s.pages))
    return s.pages.is_anon(s.pages.head_row.astype(np.int64)) & ~s.pages.is_ksm(rows)


def shared_pages(s: Snapshot) -> I64:
    """Rows of small anonymous pages that two entries map."""
    small = (s.folio_of_page < 0) & anon_pages(s)
    return np.flatnonzero(small & (s.counts.page_mappings == 2))


def first_mapping(s: Snapshot, wanted: Mask) -> int:
    rows = np.flatnonzero(wanted)
    assert len(rows), "no such mapping in this dump"
    return int(rows[0])


def private_writable(s: Snapshot) -> Mask:
    """Normal read-only entries in private VMAs that allow writing."""
    plain = (s.mappings.bits & (Bit.WRITE | Bit.PROT_NONE | Bit.UFFD_WP)) == 0
    return plain & (s.mappings.entry_class == EntryClass.NORMAL) & vma_has(s, VM_WRITE) & ~in_shared_vma(s)
