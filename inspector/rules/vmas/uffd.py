"""Rules of userfaultfd: which context each VMA is registered with."""

from __future__ import annotations

import numpy as np

from inspector.columns import take_or
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import VMA
from inspector.violations import Violations, cannot_check, one, violations

_MISSING = "userfaultfd contexts are missing"


@rule(
    "uffd-context-mismatch",
    VMA,
    "userfaultfd",
    Phase.STRUCTURES,
    after=("vma-flags-invalid",),
)
def uffd_context_mismatch(s: Snapshot) -> Violations:
    """A VMA's userfaultfd context is that of another mm, or does not agree with the VMA's VM_UFFD_* flags.

    Invariant: a VMA with one of VM_UFFD_MISSING, VM_UFFD_WP, VM_UFFD_MINOR and VM_UFFD_RWP names a userfaultfd context,
        and the other way round; a context that a VMA names is that of the VMA's own mm.
    Why: fs/userfaultfd.c (in mm/ from 7.x), userfaultfd_register() sets both together; dup_userfaultfd() gives a child
        a context of its own, or clears both.
    Consequence: faults are sent to a reader that cannot resolve them, or to freed memory: the process hangs.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope uffd; folioscope vmas PID
    """
    u, vmas = s.uffd, s.vmas
    context = u.context_of_vma
    named = context >= 0
    watched = (vmas.flags & u.watching) != 0
    foreign = take_or(u.contexts.readable, context, False) & (take_or(u.contexts.mm_idx, context, -1) != vmas.mm_idx)
    idle = named & ~watched & u.all_modes
    rows = np.flatnonzero(foreign | idle | (watched & ~named & u.known))
    return violations(
        rows,
        observed={
            "context": np.where(foreign[rows], "of another mm", np.where(named[rows], "of this mm", "none")),
            "mm": take_or(u.contexts.mm, context[rows], 0),
            "watched": watched[rows],
        },
        expected={
            "context": np.where(idle[rows] & ~foreign[rows], "none", "of this mm"),
            "mm": np.where(idle[rows] & ~foreign[rows], 0, s.mms.addr[vmas.mm_idx[rows]]),
            "watched": watched[rows],
        },
        checked=named | watched,
        unread=cannot_check(u.unreadable, _MISSING),
        claims=one("vma", rows),
        transient=s.mm_in_motion[vmas.mm_idx[rows]],
    )


@rule(
    "uffd-context-file-missing",
    VMA,
    "userfaultfd",
    Phase.STRUCTURES,
    after=("uffd-context-mismatch",),
    severity="warn",
    was="uffd-context-released",
)
def uffd_context_file_missing(s: Snapshot) -> Violations:
    """A VMA is registered with a userfaultfd whose file is closed.

    Invariant: closing the file descriptor unregisters every VMA.
    Why: fs/userfaultfd.c (in mm/ from 7.x), userfaultfd_release() marks the context first and then takes mmap_lock to
        clear the VMAs.
    Consequence: no reader gets the faults in the VMA: the process is killed by SIGBUS or goes on with zeroes.
    Exceptions: the mm is being changed: the release is under way. A task that waits for mmap_lock in
        userfaultfd_release() is the other moment, so that this is a warning.
    See also: folioscope uffd; folioscope windows
    """
    u = s.uffd
    named = np.flatnonzero(u.context_of_vma >= 0)
    context = u.context_of_vma[named]
    closed = u.contexts.released[context] & u.contexts.readable[context]
    rows, context = named[closed], context[closed]
    return violations(
        rows,
        observed={"released": True},
        expected={"released": False},
        checked=len(named),
        unread=cannot_check(u.unreadable, _MISSING),
        claims=one("uffd", context),
        depends=one("vma", rows),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )
