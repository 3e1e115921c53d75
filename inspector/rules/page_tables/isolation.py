"""The rule of page-table isolation: both top tables of an mm agree."""

from __future__ import annotations

import numpy as np

from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM
from inspector.violations import Violations, cannot_check, one, violations
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect


@rule(
    "user-page-table-mismatch",
    MM,
    "page-tables",
    Phase.WORDS,
    after=(
        "page-table-sharing-unexpected",
        "task-mm-invalid",
    ),
    effect=Effect.TABLES,
    decides="94",
    was="user-page-table-differs",
)
def user_page_table_mismatch(s: Snapshot) -> Violations:
    """The top page table of user mode differs from the kernel's in the user half.

    Invariant: under page-table isolation each mm has two top tables. Their entries of the user half are the same, but
        those of the kernel's have NX set.
    Why: arch/x86/mm/pti.c, __pti_set_user_pgtbl() writes both; arch/x86/mm/pgtable.c, pgd_alloc().
    Consequence: user mode reaches page tables that the mm no longer has, or faults for ever on those that it has: the
        fault handler finds the entry present and has nothing to do.
    Exceptions: the kernel does not isolate page tables (no CPU needs it, or nopti); the mm is being built, changed or
        torn down.
    See also: folioscope va PID ADDRESS
    """
    arch, tops = s.layout.arch, s.top_tables
    kernel, user = tops.kernel, tops.user
    bad = arch.user_top_wrong(kernel.reshape(-1), user.reshape(-1)).reshape(kernel.shape) & tops.readable[:, None]
    at, slot = np.nonzero(bad)
    at, first, nr = np.unique(at, return_index=True, return_counts=True)
    rows, slot = tops.mm_idx[at], slot[first]
    missing = int((~tops.readable).sum())
    return violations(
        rows,
        observed={"user_entry": user[at, slot], "kernel_entry": kernel[at, slot]},
        expected={
            "user_entry": "the kernel's without NX",
            "kernel_entry": "user mode's with NX",
        },
        checked=len(tops.mm_idx) - missing,
        unread=cannot_check(missing, "top page tables of user mode are missing"),
        facts={"va": slot.astype(np.uint64) << np.uint64(arch.shapes[0].shift), "entries": nr},
        claims=one("mm", rows),
        transient=(s.mm_in_motion | mm_in_flight(s))[rows],
    )
