"""Rules of the kernel's half of top page tables."""

from __future__ import annotations

import numpy as np

from inspector.columns import rows_of
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import KERNEL_TABLE, TABLE
from inspector.violations import Violations, cannot_check, violations


@rule("kernel-half-mismatch", TABLE, "page-tables", Phase.WORDS)
def kernel_half_mismatch(s: Snapshot) -> Violations:
    """An entry in the kernel's half of a process's top page table is not the kernel's.

    Invariant: the upper half of every mm's top table is a copy of init_mm's: the direct map, the memory map, vmalloc
        memory, the kernel's image.
    Why: arch/x86/mm/pgtable.c, pgd_ctor() copies it when the table is made, and arch/x86/mm/init_64.c,
        sync_global_pgds() gives all tables what is added. Nothing else writes there; vmalloc has its entries from the
        start (preallocate_vmalloc_pages()).
    Consequence: while the process runs, the kernel reads and writes other memory than it means to, or faults on its own
        data: a page fault in kernel mode, often a double fault.
    Exceptions: the entry of the process's LDT under page-table isolation; accessed and dirty bits, which the processor
        sets in each table for itself; an entry that is still missing while memory is added (mem_hotplug_lock).
    See also: folioscope va PID ADDRESS
    """
    halves, top = s.kernel_halves, s.layout.arch.shapes[0]
    mm, first, nr = np.unique(halves.mm_idx, return_index=True, return_counts=True)
    top_rows = np.flatnonzero(s.tables.parent < 0)
    rows = top_rows[rows_of(s.tables.mm_idx[top_rows], mm)]
    late = (halves.entry == 0) & halves.is_growing
    return violations(
        rows,
        observed={"entry": halves.entry[first]},
        expected={"entry": halves.wanted[first]},
        checked=halves.nr_tables,
        unread=cannot_check(halves.unreadable, "top page tables are missing"),
        facts={"va": top.kernel_va(halves.slot[first]), "entries": nr},
        transient=np.logical_and.reduceat(late, first) if len(first) else None,
    )


@rule("kernel-top-table-mismatch", KERNEL_TABLE, "page-tables", Phase.WORDS)
def kernel_top_table_mismatch(s: Snapshot) -> Violations:
    """An entry in the kernel's own top page table is not what most processes have there.

    Invariant: every mm's top table has a copy of the kernel's half of init_mm's, so that what most of them have is what
        init_mm had.
    Why: arch/x86/mm/pgtable.c, pgd_ctor(); arch/x86/mm/init_64.c, sync_global_pgds() writes init_mm's first, and
        nothing changes an entry that is there.
    Consequence: new processes get the damaged entry; what walks the kernel's tables (vmalloc_to_page(),
        lookup_address()) finds other memory.
    Exceptions: memory is just being added (mem_hotplug_lock): init_mm has entries then that the others get after it.
    See also: folioscope what ADDRESS
    """
    halves, top = s.kernel_halves, s.layout.arch.shapes[0]
    slot = halves.own_slot
    return violations(
        slot,
        observed={"entry": halves.own_entry},
        expected={"entry": halves.own_wanted},
        checked=int(halves.own_at != 0),
        facts={"va": top.kernel_va(slot)},
        transient=(halves.own_wanted == 0) & halves.is_growing,
    )
