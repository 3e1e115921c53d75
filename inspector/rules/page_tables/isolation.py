"""The rule of page-table isolation: what user mode runs on is what the kernel thinks it runs on."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.rules.registry import Violations, nothing, rule
from inspector.snapshot import Snapshot
from inspector.windows.grading import mm_in_flight


@rule("user-page-table-mismatch", was="user-page-table-differs", group="page-tables", invariant="P2", rank=5)
def user_page_table_differs(s: Snapshot) -> Violations:
    """The top page table that user mode runs on differs from the kernel's.

    True:  under page-table isolation each mm has two top tables. Their entries of user space are the same, but that the
           kernel's own forbid execution.
    Why:   arch/x86/mm/pti.c, __pti_set_user_pgtbl() writes both; arch/x86/mm/pgtable.c, pgd_alloc().
    Then:  user mode reaches page tables that the mm no longer has, or faults for ever on those that it has: the kernel
           sees the entry and finds nothing to do.
    Silent when: the kernel does not isolate page tables (no CPU needs it, or nopti); the mm is being built, changed or
           torn down.
    Look further: folioscope va PID ADDRESS
    """
    arch, mms = s.layout.arch, s.mms
    top = arch.shapes[0]
    known = np.flatnonzero(mms.pgd_pfn >= 0)
    kernel, readable = _halves(s, mms.pgd_pfn[known], top.user_entries)
    known, kernel = known[readable], kernel[readable]
    used = int((kernel != 0).sum())
    if 2 * int(arch.isolated(kernel.reshape(-1)).sum()) <= used:
        return nothing("mm", 0)
    user, readable = _halves(s, arch.user_top_pfn(mms.pgd_pfn[known]), top.user_entries)
    bad = arch.user_top_wrong(kernel.reshape(-1), user.reshape(-1)).reshape(kernel.shape) & readable[:, None]
    at, slot = np.nonzero(bad)
    rows = known[at]
    missing = int((~readable).sum())
    return Violations(
        "mm",
        rows,
        {"user_entry": user[at, slot], "kernel_entry": kernel[at, slot]},
        {
            "user_entry": np.full(len(rows), "the kernel's without NX"),
            "kernel_entry": np.full(len(rows), "user mode's with NX"),
        },
        len(known) - missing,
        missing,
        "top page tables of user mode are missing" if missing else "",
        facts={"va": slot.astype(np.uint64) << np.uint64(top.shift)},
        claims=(("mm", rows),),
        transient=(s.mm_in_motion | mm_in_flight(s))[rows],
    )


def _halves(s: Snapshot, pfns: I64, entries: int) -> tuple[U64, Mask]:
    """uint64[tables, entries]; the user half of each top table, and which could be read."""
    at = pfns.astype(np.uint64) << np.uint64(s.layout.memmap.page_shift)
    raw = s.layout.memory.gather(at, 8 * entries, physical=True)
    return np.ascontiguousarray(raw.bytes).view(np.uint64).reshape(len(pfns), entries), raw.valid
