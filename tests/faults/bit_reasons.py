"""Flipped bits that are legal: the word is one that the kernel itself may have written, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Legal:
    """Bits of some words that may be either way.

    Attributes:
        words: Names of words, a regular expression that matches them whole.
        bits: The bits.
        reason: The kernel's.
        kernels: Which; all when empty.
    """

    words: str
    bits: tuple[int, ...]
    reason: str
    kernels: tuple[str, ...] = ()

    def applies(self, kernel: str, word: str, bit: int) -> bool:
        """Whether a bit of a word is legal on a kernel for this reason."""
        return bit in self.bits and bool(re.fullmatch(self.words, word)) and kernel in (self.kernels or (kernel,))


_LEAVES = "PTE of .*|PMD leaf"
_PAGES = "(anonymous page|file page|THP head|THP tail|hugetlb head|slab|free block)"
_LRU_PAGES = "(anonymous page|file page|THP head)"
_NEWER = ("6.12", "7.3")
_SHMEM_DIRTY = "a page of shmem is dirty without a tag in the page cache (noop_dirty_folio())"
_WORKINGSET = "PG_workingset follows what reclaim saw of the folio (workingset_refault())"

LEGAL: tuple[Legal, ...] = (
    Legal(
        "PTE of an anonymous page|PMD leaf",
        (1,),
        "an entry may be read-only in a writable VMA: fork, userfaultfd, soft-dirty tracking and migration "
        "write-protect it, and the next write fault gives the bit back (mm/memory.c, do_wp_page())",
    ),
    Legal(_LEAVES, (5,), "the processor sets the accessed bit, aging clears it (ptep_test_and_clear_young())"),
    Legal(
        "PTE of an anonymous page|PMD leaf",
        (6,),
        "an anonymous page may be clean (read from swap, MADV_FREE), and the processor makes its entry dirty",
    ),
    Legal(
        "PTE of a file page",
        (6, 58),
        "the page is one of shmem: userfaultfd makes dirty read-only entries of those in private mappings "
        "(mm/userfaultfd.c, mfill_atomic_install_pte()); bit 58 keeps the dirty bit from 6.6 on",
    ),
    Legal(_LEAVES, (11,), "mremap() sets the soft-dirty bit (move_soft_dirty_pte()), /proc/PID/clear_refs clears it"),
    Legal("PMD entry of a table", (5,), "aging clears the accessed bit (pmdp_test_and_clear_young())"),
    Legal("swap entry", (1,), "the soft-dirty bit, as in present entries (pte_swp_mksoft_dirty())"),
    Legal(
        "swap entry",
        (2,),
        "the userfaultfd bit moves with the entry into VMAs that are not registered (mremap(); UFFDIO_MOVE from 6.8)",
    ),
    Legal("swap entry", (5, 6), "some processors set them in entries that are not present (_PAGE_KNL_ERRATUM_MASK)"),
    Legal(
        f"{_PAGES}: flags",
        tuple(range(30, 52)),
        "the CPU and the process of the last NUMA hint fault, or all ones; a page keeps it (page_cpupid_xchg_last())",
    ),
    Legal(f"{_LRU_PAGES}: flags", (1,), "PG_referenced comes and goes with aging (folio_mark_accessed())", ("6.1",)),
    Legal(f"{_LRU_PAGES}: flags", (2,), "PG_referenced comes and goes with aging (folio_mark_accessed())", _NEWER),
    Legal(
        "anonymous page: flags|THP head: flags",
        (3,),
        "an anonymous folio is dirty or, read from swap or lazily freed, clean",
        ("6.1",),
    ),
    Legal(
        "anonymous page: flags|THP head: flags",
        (4,),
        "an anonymous folio is dirty or, read from swap or lazily freed, clean",
        _NEWER,
    ),
    Legal("file page: flags", (3,), _SHMEM_DIRTY, ("6.1",)),
    Legal("file page: flags", (4,), _SHMEM_DIRTY, _NEWER),
    Legal(f"{_LRU_PAGES}: flags", (6,), _WORKINGSET, ("6.1",)),
    Legal(f"{_LRU_PAGES}: flags", (9,), _WORKINGSET, _NEWER),
    Legal(
        "(anonymous page|file page|THP head|hugetlb head): _refcount",
        tuple(range(31)),
        "references are taken by code all over the kernel and by drivers (GUP, pipes, sockets, block I/O) and leave no "
        "trace of their own: more of them than are known is no error",
    ),
    Legal(
        "(anonymous|file) VMA: vm_flags",
        (15, 16, 17, 26, 27, 30, 31),
        "advice of madvise() and prctl(): VM_SEQ_READ, VM_RAND_READ, VM_DONTCOPY, VM_DONTDUMP, VM_SOFTDIRTY, "
        "VM_NOHUGEPAGE, VM_MERGEABLE; nothing else in the VMA follows from them",
    ),
)
"""Every declared reason; the first that applies is shown."""


def reason_for(kernel: str, word: str, bit: int) -> str:
    """Why a bit of a word may be either way on a kernel; "" when no reason is declared."""
    return next((legal.reason for legal in LEGAL if legal.applies(kernel, word, bit)), "")
