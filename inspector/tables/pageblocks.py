"""Migration types of page blocks: what kind of allocations each stretch of memory is kept for."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask, rows_of, take_or
from inspector.layout.kernel import Layout
from inspector.layout.memmap import read_sections
from inspector.records import dataclass

_WORD = 8
_OLD_MIGRATETYPE = 0x7
"""PB_migrate to PB_migrate_end, and PB_migrate_0 to PB_migrate_2: three bits in all kernels."""

_MARKS = (
    "__move_freepages_block",
    "prep_move_freepages_block",
    "move_freepages_block_isolate",
    "pageblock_isolate_and_move_free_pages",
)
"""Functions of mm/page_alloc.c that came when lists and page blocks were made to agree (6.10)."""


@dataclass(frozen=True)
class BlockTypes:
    """Migration types of the page blocks that some page frames lie in.

    Attributes:
        block: int64[n]; number of the page block: page frame >> pageblock_order.
        migratetype: int64[n]; -1 where it cannot be read.
        word: uint64[n]; address of the word with the block's bits, 0 where there is none.
        shift: int64[n]; where in it they begin.
    """

    block: I64
    migratetype: I64
    word: U64
    shift: I64

    @property
    def known(self) -> Mask:
        """Which could be read."""
        return self.migratetype >= 0

    def take(self, rows: I64) -> BlockTypes:
        """Those of some of the page frames."""
        return BlockTypes(self.block[rows], self.migratetype[rows], self.word[rows], self.shift[rows])


def lists_follow_blocks(layout: Layout) -> bool:
    """Whether this kernel puts free blocks on the list of their page block's type and moves them when it changes.

    Before 6.10 it does not: per-CPU lists, stealing and isolation leave blocks on other lists.
    """
    return any(layout.target.symbol(name) is not None for name in _MARKS)


def pageblock_types(layout: Layout, pfns: I64) -> BlockTypes:
    """Types of the blocks of some page frames (get_pfnblock_migratetype(), mm/page_alloc.c).

    A page block is as large as what a PMD maps (include/linux/pageblock-flags.h, pageblock_order), and has so many
    bits as a power of two holds all of ``enum pageblock_bits``.
    """
    bits = layout.enum("enum pageblock_bits")
    nr = bits.get("NR_PAGEBLOCK_BITS", bits.get("__NR_PAGEBLOCK_BITS", 4))
    each = 1 << max(nr - 1, 0).bit_length()
    isolate = bits.get("PB_migrate_isolate")
    sections = read_sections(layout.prog, layout.memory, layout.symbol("mem_section"), layout.info)
    section = rows_of(sections.number.view(np.uint64), (pfns // sections.pages).view(np.uint64))
    start = take_or(sections.usage, section, 0)
    bit = (pfns % sections.pages >> layout.pmd_order) * each
    flags = layout.struct("struct mem_section_usage").field("pageblock_flags").offset
    word = start + np.uint64(flags) + (bit // (8 * _WORD) * _WORD).astype(np.uint64)
    word = np.where(start != 0, word, np.uint64(0))
    places, back = np.unique(word, return_inverse=True)
    words, valid = layout.memory.words(places)
    shift = bit % (8 * _WORD)
    value = words[back.reshape(-1)] >> shift.astype(np.uint64)
    kind = (value & np.uint64(_OLD_MIGRATETYPE)).astype(np.int64)
    if isolate is not None:
        away = (value >> np.uint64(isolate)) & np.uint64(1)
        kind = np.where(away != 0, layout.enum("enum migratetype").get("MIGRATE_ISOLATE", -1), kind)
    kind = np.where(valid[back.reshape(-1)] & (word != 0), kind, -1)
    return BlockTypes(pfns >> layout.pmd_order, kind, word, shift)
