"""Rules of userfaultfd: who watches which VMA."""

from __future__ import annotations

import numpy as np

from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import VMA
from inspector.violations import Violations, cannot_check, one, violations

_GONE = "userfaultfd contexts are missing"


@rule(
    "uffd-context-mismatch",
    VMA,
    "userfaultfd",
    Phase.STRUCTURES,
    after=("vma-flags-invalid",),
)
def uffd_context_mismatch(s: Snapshot) -> Violations:
    """A VMA is registered with a userfaultfd of another process, is watched without any, or is registered for nothing.

    Invariant: a VMA with one of VM_UFFD_MISSING, VM_UFFD_WP, VM_UFFD_MINOR and VM_UFFD_RWP names a userfaultfd context,
        and the other way round; a context that a VMA names watches the VMA's own mm.
    Why: fs/userfaultfd.c (in mm/ from 7.x), userfaultfd_register() sets both together; dup_userfaultfd() gives a child
        a context of its own, or clears both.
    Consequence: faults are sent to a reader who cannot answer them, or to freed memory: the process hangs.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope uffd; folioscope vmas PID
    """
    u, vmas = s.uffd, s.vmas
    context = u.context_of_vma
    named = context >= 0
    at = np.maximum(context, 0)
    owner = u.contexts.mm_idx[at] if len(u.contexts) else context
    watched = (vmas.flags & u.watching) != 0
    readable = u.contexts.readable[at] if len(u.contexts) else named
    foreign = named & readable & (owner != vmas.mm_idx)
    idle = named & ~watched & u.all_modes
    rows = np.flatnonzero(foreign | idle | (watched & ~named & u.known))
    mm = u.contexts.mm[at[rows]] if len(u.contexts) else np.zeros(len(rows), np.uint64)
    return violations(
        rows,
        observed={
            "context": np.where(foreign[rows], "of another mm", np.where(named[rows], "of this mm", "none")),
            "mm": np.where(named[rows], mm, 0),
            "watched": watched[rows],
        },
        expected={
            "context": np.where(idle[rows] & ~foreign[rows], "none", "of this mm"),
            "mm": np.where(idle[rows] & ~foreign[rows], 0, s.mms.addr[vmas.mm_idx[rows]]),
            "watched": watched[rows],
        },
        checked=int((named | watched).sum()),
        unread=cannot_check(u.unreadable, _GONE),
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
    Consequence: faults in the VMA are not reported to anybody: the process is killed by SIGBUS or goes on with zeroes.
    Exceptions: the mm is being changed: the release is under way. A task that waits for mmap_lock in
        userfaultfd_release() is the other moment, so that this is a warning.
    See also: folioscope uffd; folioscope windows
    """
    u = s.uffd
    named = np.flatnonzero(u.context_of_vma >= 0)
    context = u.context_of_vma[named]
    closed = u.contexts.released[context] & u.contexts.readable[context] if len(u.contexts) else context > 0
    rows, context = named[closed], context[closed]
    return violations(
        rows,
        observed={"released": np.ones(len(rows), np.bool_)},
        expected={"released": np.zeros(len(rows), np.bool_)},
        checked=len(named),
        unread=cannot_check(u.unreadable, _GONE),
        claims=one("uffd", context),
        depends=one("vma", rows),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )
