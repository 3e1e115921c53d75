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
_UPTODATE = (
    "PG_uptodate is clear while a page of a file is read, and after the read failed; mapped ones may lose it (9p, nfs)"
)
_IDLE = "PG_young and PG_idle: idle page tracking and DAMON set and clear them (mm/page_idle.c, damon_hugetlb_mkold())"
_REFS = "how often the folio was used, as multi-generation LRU counts it (lru_gen_inc_refs())"
_HUGETLB_FLAGS = (
    "PG_referenced, PG_uptodate, PG_dirty, PG_workingset: faults, GUP and hugetlbfs set them (mm/hugetlb.c)"
)
_PFMEMALLOC = "SL_pfmemalloc, PG_active before 7.0: the slab was allocated from reserves (mm/slub.c, allocate_slab())"
_PARTIAL = "SL_partial, PG_workingset before 7.0: the slab is on a list of partial ones (slab_set_node_partial())"
_MEMTYPE = "a driver may map its memory with other cache attributes (arch/x86/mm/pat/memtype.c, set_page_memtype())"
_KFENCE = "slabs of KFENCE's pool may be reserved memory (mm/kfence/core.c, kfence_init_pool())"
_POISON = "memory that is known to be broken keeps PG_hwpoison (mm/memory-failure.c)"
_REPORTED = "PG_reported: the hypervisor was told that the block is free (mm/page_reporting.c)"

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
        tuple(range(30, 51)),
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
        "(anonymous page|file page|THP head|hugetlb head): flags",
        (7,),
        "PG_waiters may be left when nobody waits any more (mm/filemap.c, folio_wake_bit())",
    ),
    Legal(
        "(anonymous page|THP head): flags",
        (18,),
        "PG_reclaim is PG_readahead, too: pages read ahead from swap keep it until they are hit "
        "(mm/swap_state.c, swap_cluster_readahead())",
        ("6.1",),
    ),
    Legal(
        "(anonymous page|THP head): flags",
        (16,),
        "PG_reclaim is PG_readahead, too: pages read ahead from swap keep it until they are hit "
        "(mm/swap_state.c, swap_cluster_readahead())",
        _NEWER,
    ),
    Legal(
        "file page: flags",
        (18,),
        "PG_readahead marks where reading ahead goes on (page_cache_ra_unbounded())",
        ("6.1",),
    ),
    Legal(
        "file page: flags", (16,), "PG_readahead marks where reading ahead goes on (page_cache_ra_unbounded())", _NEWER
    ),
    Legal("file page: flags", (11,), "PG_mappedtodisk is the file system's: all blocks are allocated", _NEWER),
    Legal("file page: flags", (17,), "PG_mappedtodisk is the file system's: all blocks are allocated", ("6.1",)),
    Legal("file page: flags", (14,), "PG_private_2 is the file system's (fscache, btrfs)", ("6.1",)),
    Legal("file page: flags", (15,), "PG_private_2 is the file system's (fscache, btrfs)", _NEWER),
    Legal("file page: flags", (2,), _UPTODATE, ("6.1",)),
    Legal("file page: flags", (3,), _UPTODATE, _NEWER),
    Legal("file page: flags", (19,), "PG_dropbehind: written or read with RWF_DONTCACHE (mm/filemap.c)", ("7.3",)),
    Legal(f"{_LRU_PAGES}: flags", (8,), "PG_error: a read or a write of the page failed (mm/page_io.c)", ("6.1",)),
    Legal("(anonymous page|file page|THP head|hugetlb head): flags", (21, 22), _IDLE, ("6.12",)),
    Legal("(anonymous page|file page|THP head|hugetlb head): flags", (22, 23), _IDLE, ("7.3",)),
    Legal("(anonymous page|file page|THP head|hugetlb head): flags", (25, 26), _REFS),
    Legal("hugetlb head: flags", (0,), "hugetlb locks its folios like others (hugetlb_fault())"),
    Legal("hugetlb head: flags", (1, 2, 3), _HUGETLB_FLAGS, ("6.1",)),
    Legal("hugetlb head: flags", (2, 3, 4, 9), _HUGETLB_FLAGS, _NEWER),
    Legal("hugetlb head: flags", (6,), _HUGETLB_FLAGS, ("6.1",)),
    Legal("hugetlb head: flags", (17,), "PG_anon_exclusive follows fork and copy-on-write (hugetlb_wp())", ("6.1",)),
    Legal("hugetlb head: flags", (11,), "PG_anon_exclusive follows fork and copy-on-write (hugetlb_wp())", _NEWER),
    Legal("slab: flags", (0,), "SL_locked, PG_locked before 7.0: slab_lock() takes it (mm/slub.c)"),
    Legal("slab: flags", (5,), _PFMEMALLOC, ("6.1",)),
    Legal("slab: flags", (8,), _PFMEMALLOC, _NEWER),
    Legal("slab: flags", (6,), _PARTIAL, ("6.1",)),
    Legal("slab: flags", (9,), _PARTIAL, _NEWER),
    Legal("slab: flags", (11, 22, 23), _MEMTYPE, ("6.1",)),
    Legal("slab: flags", (12, 23), _MEMTYPE, ("6.12",)),
    Legal("slab: flags", (12, 24), _MEMTYPE, ("7.3",)),
    Legal("slab: flags", (12,), _KFENCE, ("6.1",)),
    Legal("slab: flags", (13,), _KFENCE, _NEWER),
    Legal("(free block|slab): flags", (20,), _POISON, ("6.12",)),
    Legal("(free block|slab): flags", (21,), _POISON, ("7.3",)),
    Legal("free block: flags", (2,), _REPORTED, ("6.1",)),
    Legal("free block: flags", (3,), _REPORTED, _NEWER),
    Legal(
        "(THP tail|free block): index",
        tuple(range(64)),
        "nothing sets or reads this word of such pages: it keeps what it held (mm/page_alloc.c, prep_compound_tail(), "
        "__free_pages_prepare())",
    ),
    Legal(
        "(anonymous page|file page|THP head|hugetlb head): memcg_data",
        tuple(range(6, 30)),
        "the word is the address of another slot of the same slab cache: a page may be charged to any memory cgroup "
        "(charge_memcg())",
    ),
    Legal(
        "slab: memcg_data",
        (0,),
        "the mark of an array that could not be allocated (OBJEXTS_ALLOC_FAIL, alloc_slab_obj_exts())",
        _NEWER,
    ),
    Legal(
        "slab: index",
        tuple(range(3, 16)),
        "any object of a slab may be the first of its free ones (mm/slub.c, get_freepointer())",
    ),
    Legal(
        "(anonymous|file) VMA: vm_flags",
        (15, 16, 17, 26, 27, 30, 31),
        "advice of madvise() and prctl(): VM_SEQ_READ, VM_RAND_READ, VM_DONTCOPY, VM_DONTDUMP, VM_SOFTDIRTY, "
        "VM_NOHUGEPAGE, VM_MERGEABLE; nothing else in the VMA follows from them",
    ),
    Legal(
        "(anonymous|file) VMA: vm_flags",
        (29,),
        "VM_HUGEPAGE: madvise() sets it in any VMA, and the mm need not be known to khugepaged (hugepage_madvise())",
    ),
    Legal("anonymous VMA: vm_flags", (25,), "VM_WIPEONFORK: advice of madvise() for private anonymous memory"),
    Legal(
        "anonymous VMA: vm_flags",
        (37,),
        "VM_SHADOW_STACK: a shadow stack is an anonymous VMA (arch/x86/kernel/shstk.c, alloc_shstk())",
        _NEWER,
    ),
    Legal(
        "(anonymous|file) VMA: vm_flags",
        (0,),
        "mmap(PROT_WRITE) alone is allowed, and x86 gives the same entries as with PROT_READ (protection_map)",
    ),
    Legal("(anonymous|file) VMA: vm_flags", (23,), "VM_SYNC: MAP_SYNC is taken over unexamined (calc_vm_flag_bits())"),
    Legal("(anonymous|file) VMA: vm_flags", (11,), "VM_MAYBE_GUARD: madvise(MADV_GUARD_INSTALL)", ("7.3",)),
    Legal("(anonymous|file) VMA: vm_flags", (42,), "VM_SEALED: mseal()", ("7.3",)),
    Legal("(anonymous|file) VMA: vm_flags", (63,), "VM_SEALED: mseal()", ("6.12",)),
    Legal("file VMA: vm_flags", (6,), "VM_MAYEXEC is lost where the file system is mounted noexec (do_mmap())"),
    Legal(
        "file VMA: vm_flags",
        (20,),
        "VM_ACCOUNT stays with private memory that was writable once (mprotect_fixup())",
    ),
    Legal("file VMA: vm_flags", (21,), "VM_NORESERVE: mmap(MAP_NORESERVE)"),
)
"""Every declared reason; the first that applies is shown."""


def reason_for(kernel: str, word: str, bit: int) -> str:
    """Why a bit of a word may be either way on a kernel; "" when no reason is declared."""
    return next((legal.reason for legal in LEGAL if legal.applies(kernel, word, bit)), "")
