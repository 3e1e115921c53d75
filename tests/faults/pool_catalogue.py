"""Faults of hugetlb's pools and shared tables, and of KSM's books."""

from __future__ import annotations

import numpy as np

from inspector.layout.flags import VM_MAYSHARE
from inspector.snapshot import Snapshot
from inspector.tables.hugetlb import ON_ACTIVE, ON_FREE
from inspector.tables.ksm import CHAIN
from tests.faults.catalogue import fault
from tests.faults.hugetlb_plants import folio_on, pool_word, share_count_word
from tests.faults.ksm_plants import item_word, node_word
from tests.faults.overlay import Patch, add, page_word, put, word
from tests.faults.plants import MissingError, Planted, mapcount_at, pick, pmd_mapped


@fault
def free_hugetlb_folios_miscounted(s: Snapshot) -> Planted:
    return Planted((add(s, pool_word(s, "free_huge_pages"), 1),), ("hugetlb-pool-mismatch",), None)


@fault
def hugetlb_folios_of_a_node_miscounted(s: Snapshot) -> Planted:
    return Planted((add(s, pool_word(s, "nr_huge_pages_node"), 1, 4),), ("hugetlb-pool-mismatch",), None)


@fault
def surplus_hugetlb_folios_miscounted(s: Snapshot) -> Planted:
    return Planted((add(s, pool_word(s, "surplus_huge_pages"), 1),), ("hugetlb-pool-mismatch",), None)


@fault
def reserved_hugetlb_folios_never_returned(s: Snapshot) -> Planted:
    patch = add(s, pool_word(s, "resv_huge_pages"), 100)
    return Planted((patch,), ("hugetlb-reserved-high",), None, "warn")


@fault
def reserved_hugetlb_folios_underflowed(s: Snapshot) -> Planted:
    patch = put(s, pool_word(s, "resv_huge_pages"), -1)
    return Planted((patch,), ("hugetlb-reserved-high",), None, "warn")


@fault
def free_list_of_hugetlb_in_a_circle(s: Snapshot) -> Planted:
    link = page_word(s, folio_on(s, ON_FREE), "lru")
    return Planted((put(s, link, link),), ("hugetlb-pool-mismatch",), None)


@fault
def back_link_of_a_hugetlb_folio_wrong(s: Snapshot) -> Planted:
    link = page_word(s, folio_on(s, ON_ACTIVE, 3), "lru")
    return Planted((put(s, link + 8, link),), ("hugetlb-pool-mismatch",), None)


@fault
def free_hugetlb_folio_referenced(s: Snapshot) -> Planted:
    pfn = folio_on(s, ON_FREE)
    patch = put(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1, 4)
    return Planted((patch,), ("hugetlb-free-folio-state-unexpected",), pfn)


@fault
def sharers_of_a_hugetlb_table_miscounted(s: Snapshot) -> Planted:
    address, pfn = share_count_word(s)
    return Planted((add(s, address, 1, 4),), ("hugetlb-share-count-mismatch",), pfn)


@fault
def sharer_of_a_hugetlb_table_forgotten(s: Snapshot) -> Planted:
    address, pfn = share_count_word(s)
    return Planted((add(s, address, -1, 4),), ("hugetlb-share-count-mismatch",), pfn)


@fault
def sharer_of_a_hugetlb_table_at_another_offset(s: Snapshot) -> Planted:
    tables, sharers = s.hugetlb_tables
    row = int(sharers.vma_idx[tables.first[np.argmax(tables.nr_sharers)] + 1])
    address = int(s.vmas.addr[row]) + s.layout.struct("struct vm_area_struct").field("vm_pgoff").offset
    rules = ("hugetlb-shared-table-mismatch", "vma-pgoff-mismatch", "i-mmap-tree-damaged")
    return Planted((add(s, address, 512),), rules, None)


@fault
def hugetlb_usage_of_a_process_miscounted(s: Snapshot) -> Planted:
    private = s.hugetlb.vmas.vma_idx[~s.vmas.has(VM_MAYSHARE)[s.hugetlb.vmas.vma_idx]]
    mm = int(s.mms.addr[s.vmas.mm_idx[private[0]]])
    address = mm + s.layout.struct("struct mm_struct").field("hugetlb_usage.counter").offset
    return Planted((add(s, address, 512),), ("hugetlb-usage-mismatch",), None, "warn")


@fault
def type_of_a_hugetlb_folio_forgotten(s: Snapshot) -> Planted:
    """The mark that makes it a hugetlb folio is gone while it is in use: it reads as an ordinary large folio."""
    folio = pick(pmd_mapped(s, hugetlb=True), "a mapped hugetlb folio")
    pfn, row = int(s.folios.pfn[folio]), int(s.folios.row[folio])
    if s.pages.type_[row]:
        patch = put(s, mapcount_at(s, row), -1, 4)
    else:
        struct = s.layout.struct("struct page")
        dtor = struct.find("compound_dtor")
        if dtor is None:
            raise MissingError("a way to tell hugetlb folios")
        patch = put(s, s.layout.memmap.page_addr(pfn) + 64 + dtor.offset, 1, 1)
    return Planted((patch,), ("hugetlb-mapping-mismatch",), None)


@fault
def page_frame_of_a_ksm_node_wrong(s: Snapshot) -> Planted:
    return Planted((add(s, node_word(s, "kpfn"), 1),), ("ksm-node-mismatch",), None)


@fault
def length_of_a_ksm_list_wrong(s: Snapshot) -> Planted:
    return Planted((add(s, node_word(s, "rmap_hlist_len"), 1, 4),), ("ksm-list-length-mismatch",), None)


@fault
def ksm_item_cut_off_its_list(s: Snapshot) -> Planted:
    head = node_word(s, "hlist")
    return Planted((put(s, head, word(s, word(s, head))),), ("ksm-list-length-mismatch",), None)


@fault
def ksm_list_in_a_circle(s: Snapshot) -> Planted:
    first = word(s, node_word(s, "hlist"))
    return Planted((put(s, first, first),), ("ksm-list-length-mismatch",), None)


@fault
def ksm_tree_in_a_circle(s: Snapshot) -> Planted:
    root = word(s, word(s, s.layout.symbol("root_stable_tree")))
    return Planted((put(s, root + 16, root),), ("ksm-tree-damaged",), None)


@fault
def ksm_chain_in_a_circle(s: Snapshot) -> Planted:
    chain = int(s.ksm.nodes.addr[pick(np.flatnonzero(s.ksm.nodes.kind == CHAIN), "a chain")])
    first = word(s, chain + s.layout.struct("struct ksm_stable_node").field("hlist").offset)
    return Planted((put(s, first, first),), ("ksm-list-length-mismatch",), None)


@fault
def address_of_a_ksm_item_wrong(s: Snapshot) -> Planted:
    row = int(s.ksm_entries.item_idx[0])
    return Planted((add(s, item_word(s, row, "address"), 0x5000),), ("ksm-mapping-unreachable",), None)


@fault
def ksm_item_given_to_another_process(s: Snapshot) -> Planted:
    row = int(s.ksm_entries.item_idx[0])
    others = np.flatnonzero((s.mms.addr != s.ksm.items.mm[row]) & (s.mms.nr_tasks > 0))
    mm = int(s.mms.addr[pick(others, "another mm", 9)])
    return Planted((put(s, item_word(s, row, "mm"), mm),), ("ksm-item-mm-mismatch",), None)


@fault
def ksm_total_of_sharing_pages_raised(s: Snapshot) -> Planted:
    return Planted((add(s, s.layout.symbol("ksm_pages_sharing"), 1),), ("ksm-totals-mismatch",), None, "warn")


@fault
def merged_pages_of_a_process_undercounted(s: Snapshot) -> Planted:
    address = int(s.ksm.items.mm[0]) + s.layout.struct("struct mm_struct").field("ksm_merging_pages").offset
    return Planted((put(s, address, 1),), ("ksm-mm-counters-low",), None, "warn")


@fault
def zero_pages_of_ksm_miscounted(s: Snapshot) -> Planted:
    field = s.layout.struct("struct mm_struct").find("ksm_zero_pages.counter", "ksm_zero_pages")
    if field is None:
        raise MissingError("a count of KSM's zero pages")
    return Planted((add(s, int(s.ksm.items.mm[0]) + field.offset, 1),), ("ksm-zero-pages-mismatch",), None, "warn")


@fault
def reservation_of_a_cached_hugetlb_folio_given_back_again(s: Snapshot) -> Planted:
    mapped = pmd_mapped(s, hugetlb=True)
    of_files = s.pages.words.names_file[s.pages.number[s.folios.row[mapped]]]
    pfn = int(s.folios.pfn[pick(mapped[of_files], "a mapped hugetlb folio of a file")])
    at = page_word(s, pfn, "private")
    patch = put(s, at, word(s, at) | 1 << s.layout.enum("enum hugetlb_page_flags")["HPG_restore_reserve"])
    return Planted((patch,), ("hugetlb-reserve-unexpected",), pfn)


def _shared_struct_pages(s: Snapshot, place: int) -> tuple[int, int]:
    """Where the kernel's entry of such a page is, physically, and the page frame of its folio."""
    entries = s.vmemmap_entries
    row = pick(np.arange(len(entries)), "a hugetlb folio that shares struct pages", place)
    return int(entries.at[row]), int(s.folios.pfn[entries.folio[row]])


@fault
def shared_struct_pages_made_writable(s: Snapshot) -> Planted:
    at, pfn = _shared_struct_pages(s, 3)
    entry = int(s.vmemmap_entries.entry[3]) | 2
    return Planted((Patch(at, entry.to_bytes(8, "little"), True),), ("hugetlb-vmemmap-mismatch",), pfn)
