"""Folios that wait in per-CPU batches to be moved between LRU lists: each place there holds a reference."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U8, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass

BATCHES = ("lru_add", "lru_deactivate_file", "lru_deactivate", "lru_lazyfree", "lru_activate", "lru_move_tail", "mlock")
"""Codes of `Batched.batch`: what the folio waits for."""

_TAGS = np.uint64(3)
"""LRU_FOLIO and NEW_FOLIO (mm/mlock.c): what mlock keeps in the low bits of its pointers."""

_PLACES: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    # per-CPU variable, its type, path of the batch, member that holds the folios, code of the batch
    ("cpu_fbatches", "struct cpu_fbatches", "lru_add", ("folios",), "lru_add"),
    ("cpu_fbatches", "struct cpu_fbatches", "lru_deactivate_file", ("folios",), "lru_deactivate_file"),
    ("cpu_fbatches", "struct cpu_fbatches", "lru_deactivate", ("folios",), "lru_deactivate"),
    ("cpu_fbatches", "struct cpu_fbatches", "lru_lazyfree", ("folios",), "lru_lazyfree"),
    ("cpu_fbatches", "struct cpu_fbatches", "lru_activate", ("folios",), "lru_activate"),
    ("cpu_fbatches", "struct cpu_fbatches", "activate", ("folios",), "lru_activate"),
    ("cpu_fbatches", "struct cpu_fbatches", "lru_move_tail", ("folios",), "lru_move_tail"),
    ("lru_rotate", "struct lru_rotate", "fbatch", ("folios",), "lru_move_tail"),
    ("mlock_fbatch", "struct mlock_fbatch", "fbatch", ("folios",), "mlock"),
    ("mlock_pvec", "struct mlock_pvec", "vec", ("pages",), "mlock"),
)
"""mm/swap.c and mm/mlock.c; up to 6.11 rotation has a variable of its own, up to 6.1 mlock a pagevec."""


@dataclass(frozen=True, slots=True)
class Batched(Table):
    """One row a place taken in a batch.

    Attributes:
        cpu: int64; number of the CPU.
        batch: uint8; code in `BATCHES`.
        slot: int64; place in the batch.
        pfn: int64; page frame of the folio, -1 where the pointer leads to no struct page.
    """

    cpu: I64
    batch: U8
    slot: I64
    pfn: I64


def read_batches(layout: Layout) -> tuple[Batched, int]:
    """Read the batches of all possible CPUs (struct folio_batch, include/linux/folio_batch.h or pagevec.h).

    Returns:
        The places taken, and how many batches could not be read. A kernel without types for them gives none.
    """
    parts, missing = [], 0
    for variable, type_, path, member, name in _PLACES:
        start = layout.target.symbol(variable)
        if start is None or not layout.has_struct(type_):
            continue
        struct = layout.struct(type_)
        nr = struct.find(f"{path}.nr")
        folios = struct.find(*(f"{path}.{m}" for m in member))
        if nr is None or folios is None:
            continue
        # Of a per-CPU variable the symbol is an offset, or on x86 from 6.15 on an address: the sum wraps either way.
        raw = layout.memory.gather(np.uint64(start) + layout.per_cpu_offsets, struct.size)
        missing += int((~raw.valid).sum())
        found = folios.matrix(raw.bytes).astype(np.uint64)
        count = np.minimum(nr.column(raw.bytes).astype(np.int64), folios.length)
        taken: Mask = (np.arange(folios.length)[None, :] < count[:, None]) & raw.valid[:, None]
        which, slot = (x.astype(np.int64) for x in np.nonzero(taken))
        pfn: I64 = layout.memmap.pfns(found[which, slot] & ~_TAGS)
        code = np.full(len(which), BATCHES.index(name), np.uint8)
        parts.append(Batched(layout.possible_cpus[which].astype(np.int64), code, slot, pfn))
    return Batched.concat([Batched.empty(), *parts]), missing
