"""Bugs that the kernel really had, the state each leaves, and the fault of the catalogue that is that state.

Most are named by what went wrong; CVE numbers and years stand in the kernel's own history. A bug that leaves nothing
that a dump could show, or something that no rule judges yet, says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One bug, or several that leave the same state.

    Attributes:
        what: What went wrong, in a few words.
        faults: Names in the catalogue; empty when there is none.
        why_not: Why there is none.
    """

    what: str
    faults: tuple[str, ...] = ()
    why_not: str = ""


def _bug(what: str, *faults: str, why_not: str = "") -> Bug:
    return Bug(what, tuple(name.strip() for name in faults), why_not)


_NO_STATE = "leaves nothing in memory: a stale TLB entry or a moment"
_PIPES = "pipe buffers are not looked at"
_POLICY = "memory policies are not looked at"
_MEMCG = "planted in guests whose processes are in memory cgroups (test_memcg_faults.py), which no captured vmcore has"
_RESERVE = "reservation maps and subpools of hugetlb are not looked at"

CORPUS: dict[str, tuple[Bug, ...]] = {
    "Anonymous rmap, VMAs, moves": (
        _bug("anon_vma reused twice because one counter meant two things", "chain-unlinked-from-its-tree"),
        _bug(
            "merge after mremap forgot the source's anon_vma", "anon-vma-of-a-vma-forgotten", "list-of-chains-emptied"
        ),
        _bug("the same with a forked source: ancestors missing in the chain", "chain-unlinked-from-its-tree"),
        _bug("khugepaged retracted a table that held an anonymous page", "page-table-retracted-over-an-anonymous-page"),
        _bug("a failed merge kept a cloned anon_vma", "users-of-an-anon-vma-miscounted"),
        _bug("a fault saw anon_vma set and the chain still empty", "list-of-chains-emptied"),
        _bug("a fault ran during a change of its VMA", "index-of-a-private-page-shifted"),
        _bug("anon_vma published before its root and parent were", "root-of-an-anon-vma-replaced"),
        _bug(
            "vm_pgoff not moved along with vm_start",
            "offset-of-an-anonymous-vma-shifted",
            "offset-of-a-file-vma-shifted",
        ),
        _bug("close() called on a VMA that lives on", why_not=_RESERVE),
        _bug("exec moved the stack while an rmap walk ran", "migration-entry-left-behind"),
        _bug("mremap ordered the two VMAs wrongly for an rmap walk", "migration-entry-left-behind"),
        _bug("page tables moved under an rmap walk", "pte-to-a-free-page"),
        _bug("a table freed while it was moved", "linked-page-table-freed"),
        _bug("a driver's mmap failed after the VMA was linked", "file-of-a-mapped-vma-forgotten"),
        _bug("the maple tree lost a VMA in a spanning store", "vma-lost-from-its-tree"),
        _bug("stack growth replaced a maple node under readers", "end-of-a-vma-moved"),
        _bug("reader and detach of a VMA miscounted each other", "vma-marked-as-detached"),
        _bug("the parent wrote during fork", "entry-of-a-shared-page-made-writable"),
        _bug("a VMA visible in i_mmap before it was whole, or not any more", "file-vma-out-of-its-tree"),
        _bug(
            "a VMA merged into one of another userfaultfd",
            "watched-bit-in-a-vma-that-nobody-watches",
            "userfaultfd-of-another-process",
        ),
        _bug("a memory policy freed under a fault", why_not=_POLICY),
    ),
    "Mapcounts and huge pages": (
        _bug("total mapcount read in the middle of a split", "shared-page-taken-for-exclusive-and-written"),
        _bug("the count of mapped subpages went stale", "nr-pages-mapped-raised", "entirely-mapped-bit-turned"),
        _bug("a poisoned tail stayed mapped", "poisoned-subpage-still-mapped"),
        _bug("shmem's migration entry taken for a page", "partial-mapping-miscounted-by-a-neighbour"),
        _bug("an unmap raced with a zap and left an entry", "migration-entry-left-behind"),
        _bug("one reference dropped instead of a folio's worth", "reference-of-a-large-cached-folio-lost"),
        _bug("the counter of a huge file page touched after its last put", "rss-of-files-off-by-a-huge-page"),
        _bug(
            "a lazyfree THP dropped while its pages were mapped",
            "huge-entry-to-a-freed-folio",
            "thp-freed-while-its-pages-are-mapped",
        ),
        _bug("a fault mapped a large folio at the wrong place", "index-of-a-file-page-shifted"),
        _bug("pages mapped beyond the end of their file", "mapped-beyond-the-end-of-its-file"),
        _bug("a split stopped at another order than the caller thought", "order-of-a-folio-changed"),
        _bug("the huge zero page known under a wrong number", "huge-zero-folio-counted"),
        _bug(
            "entire and large mapcount both lost a removal",
            "counts-of-a-thp-raised-together",
            "entire-mapcount-of-an-anon-thp-raised",
        ),
        _bug("a batch of a zap ran over its end", "partial-mapping-miscounted-by-a-neighbour"),
        _bug("PG_double_map set or cleared alone (before 6.2)", "double-map-flag-turned"),
        _bug(
            "mm ids took a shared folio for an exclusive one",
            "shared-flag-of-a-shared-folio-cleared",
            "mm-id-slot-raised",
        ),
        _bug(
            "deferred split unqueued from the wrong list, or requeued in flight",
            "split-queue-leads-to-poison",
            "partially-mapped-folio-off-the-queue",
        ),
        _bug("a split helper read a migration entry's number", why_not=_NO_STATE),
        _bug("counters of huge pages in the page cache drift", "cache-slot-emptied"),
    ),
    "Copy-on-write and pins": (
        _bug("Dirty COW, and its cousin of shmem", "private-mapping-writes-the-page-cache"),
        _bug("the huge zero page made writable", "huge-zero-page-made-writable"),
        _bug("a read-only pin broke COW the wrong way", "shared-page-pinned", "shared-page-marked-exclusive"),
        _bug("Dirty Pipe", why_not=_PIPES),
        _bug("the exclusive bit cleared under a racing pin", "pinned-page-no-longer-exclusive"),
        _bug("a tail of hugetlb asked for its exclusivity", "shared-hugetlb-folio-marked-exclusive"),
        _bug("write protection of userfaultfd ignored", "write-protected-entry-made-writable"),
        _bug("a write upgrade in spite of tracking", "write-protected-entry-made-writable"),
        _bug("uprobes replaced the zero page and uncounted it", "zero-page-replaced-as-if-counted"),
        _bug("the zero page pinned and unpinned unevenly", "zero-page-made-writable"),
        _bug(
            "pages of others inserted into a socket's VMA",
            "page-of-a-file-given-to-an-anonymous-vma",
            "pte-to-a-slab-page",
        ),
        _bug("a seal and a mapping raced", "writable-mappings-of-a-file-forgotten"),
        _bug("an entry upgraded in a read-only VMA", "entry-of-a-readonly-vma-made-writable"),
        _bug("a KSM page taken for exclusive", "ksm-page-marked-exclusive"),
        _bug("pins leaked", "pins-above-references", "pinned-free-folio"),
    ),
    "Freed too early": (
        _bug("TLB flushed after the lock was dropped", why_not=_NO_STATE),
        _bug(
            "a driver freed pages that special entries still name",
            why_not="special entries promise no reference: a dump cannot tell a fault from a device",
        ),
        _bug("a walker followed a freed table", "linked-page-table-freed"),
        _bug("an error path left entries in place", "pte-where-no-vma-is", "pte-to-a-free-page"),
        _bug("a freed page mapped again", "pte-to-the-head-of-a-free-block"),
        _bug("a page freed while on the LRU", "free-page-on-the-lru"),
        _bug("a page freed while mlocked", "free-page-still-mlocked"),
        _bug("a page in the cache with a reference too few", "reference-of-a-cached-folio-lost"),
        _bug("a mapping never undone: the page leaks", "ghost-mapping", "mapcount-of-an-unmapped-page-raised"),
        _bug("an entry vanished", "only-pte-of-a-page-lost", "one-pte-of-a-shared-file-page-lost"),
        _bug("a failed swap read taken for data", "mapped-page-not-up-to-date"),
        _bug("an entry leads to a page table", "pte-to-a-page-table"),
    ),
    "Swap and migration": (
        _bug("two faults read one slot, its count dropped twice", "swap-count-lowered", "last-swap-count-lost"),
        _bug("a count never dropped", "swap-count-raised"),
        _bug("UFFDIO_MOVE raced with the swap cache", "index-of-a-swap-cache-folio-shifted"),
        _bug("a marker freed as if it were a slot", "swap-count-lowered"),
        _bug("shmem's large swap entries split wrongly", "swapped-pages-of-a-file-miscounted"),
        _bug(
            "migration updated one slot instead of all",
            "swap-cache-slot-given-to-another-folio",
            "cache-slot-leads-to-another-folio-of-the-file",
        ),
        _bug("counts of a half-dead device", "slots-in-use-miscounted", "free-swap-miscounted"),
        _bug("a folio that had left the swap cache mapped as its content", "swapped-in-page-of-another-slot"),
        _bug("an operation for present entries on a migration entry", "migration-entry-to-a-free-page"),
        _bug("an exclusive swap entry copied by fork", "swap-entry-of-a-shared-slot-exclusive"),
        _bug("`private` of a folio overwritten", "swap-entry-of-a-cached-folio-wrong"),
        _bug("compressed memory charged to the wrong group", why_not="memory that zswap holds is not followed"),
        _bug("a lost soft-dirty or watched bit", why_not="a bit that is missing is legal everywhere"),
    ),
    "Accounting": (
        _bug("rss off by a page", "rss-raised", "rss-swapped-between-kinds"),
        _bug("VM_LOCKED or total pages never uncharged", "locked-vm-raised", "total-vm-raised"),
        _bug("page tables lost or freed twice", "pgtables-bytes-raised"),
        _bug("zero pages of KSM miscounted", "zero-pages-of-ksm-miscounted"),
        _bug("NR_MLOCK and isolated pages drift", "mlocked-pages-miscounted", "file-pages-on-lru-lists-miscounted"),
        _bug("statistics of dying groups", why_not=_MEMCG),
    ),
    "hugetlb": (
        _bug(
            "the count of sharers was the page's reference count",
            "sharers-of-a-hugetlb-table-miscounted",
            "sharer-of-a-hugetlb-table-forgotten",
        ),
        _bug("a shared table kept across a split of its VMA", "sharer-of-a-hugetlb-table-at-another-offset"),
        _bug("a folio deleted from its file while mapped", "mapped-hugetlb-folio-out-of-its-file"),
        _bug("the type dropped before the folio was taken apart", "type-of-a-hugetlb-folio-forgotten"),
        _bug(
            "reservations leaked or underflowed",
            "reserved-hugetlb-folios-never-returned",
            "reserved-hugetlb-folios-underflowed",
        ),
        _bug("statistics left on the old node", "hugetlb-folios-of-a-node-miscounted"),
        _bug("a free folio referenced through shared tail pages", "free-hugetlb-folio-referenced"),
        _bug("regions of a reservation map damaged", why_not=_RESERVE),
        _bug("a swap entry among huge pages", "swap-entry-in-a-hugetlb-vma"),
    ),
    "KSM, page cache, reclaim": (
        _bug("the scanner worked on a dying mm", "ksm-item-given-to-another-process"),
        _bug("a torn store of a node's page", "page-frame-of-a-ksm-node-wrong"),
        _bug("low bits of a mapping lost in a migration", "folio-given-to-a-foreign-anon-vma"),
        _bug("an item fell off its list", "ksm-item-cut-off-its-list", "address-of-a-ksm-item-wrong"),
        _bug("a shadow entry read without its lock: siblings wrong", "second-index-of-a-large-folio-lost"),
        _bug("a sibling entry taken for a folio", "cache-slot-leads-out-of-memory"),
        _bug("a page removed and never uncounted", "number-of-cached-pages-raised"),
        _bug("multi-generation lists", "lru-list-leads-to-poison", "lru-folio-on-no-list", "lru-flag-lost"),
        _bug("groups and folios", "lru-folio-of-another-memory-cgroup"),
    ),
}
"""The bugs by family."""
