"""Whether UFFDIO_MOVE would move a page from where it is mapped, and the error that it returns where it would not.

mm/userfaultfd.c, move_pages(), from 6.8 on. What is moved is an entry of the process itself: from one VMA to another of
the same mm, which has to be registered with the userfaultfd. -EAGAIN within move_pages() is no answer: it tries again,
so that what is locked or under migration is waited for.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import Final, Literal

from inspector.model.decisions import Decision, FolioSituation, may_split

QUESTION: Final = "uffd move"

EntryHolds = Literal["nothing", "zero page", "swap", "exclusive swap", "migration", "other"]
"""What an entry without a folio holds, as far as move_pages() asks."""


class Source(IntEnum):
    """What move_pages() and validate_move_areas() find of the VMA that a page is to be moved from, in their order."""

    FITS = 0
    SHARED = 1
    READ_ONLY = 2
    SPECIAL = 3
    NOT_ANONYMOUS = 4
    NONE = 5


SOURCES = {
    Source.SHARED: ("its VMA is shared (VM_SHARED, -EINVAL)", "move_pages()"),
    Source.READ_ONLY: ("its VMA is not writable (VM_WRITE, -EINVAL)", "validate_move_areas()"),
    Source.SPECIAL: (
        "its VMA holds memory of another kind (VM_PFNMAP, VM_IO, VM_HUGETLB, VM_MIXEDMAP or VM_SHADOW_STACK, -EINVAL)",
        "vma_move_compatible()",
    ),
    Source.NOT_ANONYMOUS: ("its VMA maps a file (vma_is_anonymous(), -EINVAL)", "validate_move_areas()"),
    Source.NONE: ("no VMA holds this address (-ENOENT)", "uffd_move_lock()"),
}
"""Why a VMA cannot be moved from, and the function that says so."""

_TO = "to an anonymous VMA registered with userfaultfd of equal protection, mlocked if this one is"
_NO_MOVE = Decision(QUESTION, "no", "this kernel has no UFFDIO_MOVE: 6.8 and later do (-EINVAL)", "userfaultfd_ioctl()")
_NOT_EXCLUSIVE = "it is not marked exclusive to the process (PageAnonExclusive(), -EBUSY)"


def _refused(source: Source, *, known: bool) -> Decision | None:
    """The answer that the kernel and the VMA give for any entry; None where it depends on the entry."""
    if not known:
        return _NO_MOVE
    return None if source is Source.FITS else Decision(QUESTION, "no", *SOURCES[source])


def _once_unlocked(s: FolioSituation) -> str:
    return "once it is unlocked (PG_locked), which is waited for, " if s.locked else ""


def may_move(
    s: FolioSituation, *, exclusive: bool, head_exclusive: bool, huge: bool, source: Source, known: bool
) -> Decision:
    """Whether UFFDIO_MOVE moves pages of a folio that are mapped.

    mm/userfaultfd.c, move_pages_pte() (6.12) or move_pages_ptes() (7.3) and move_present_pte() or move_present_ptes();
    mm/huge_memory.c, move_pages_huge_pmd(). A large folio that PTEs map is split first, by the exclusive mark of its
    head; each of its pages is then asked for its own. References beside pins are not asked for.

    Args:
        s: The folio.
        exclusive: PG_anon_exclusive of the pages; of the head where a huge entry maps them.
        head_exclusive: That of the head.
        huge: Whether a huge entry maps them.
        source: What is found of the VMA.
        known: Whether this kernel has UFFDIO_MOVE.
    """
    refused = _refused(source, known=known)
    if refused is not None:
        return refused
    by_pte = "move_pages_ptes()" if "move_pages_ptes" in s.functions else "move_pages_pte()"
    where = "move_pages_huge_pmd()" if huge else by_pte
    if s.is_ksm:
        return Decision(QUESTION, "no", "a KSM page is never exclusive to a process (-EBUSY)", where)
    if not head_exclusive:
        what = "its head is" if s.nr_pages > 1 and not huge else "it is"
        return Decision(QUESTION, "no", _NOT_EXCLUSIVE.replace("it is", what), where)
    waits = _once_unlocked(s)
    if s.nr_pages > 1 and not huge:
        return _by_splitting(s, by_pte, waits, exclusive=exclusive)
    present = "move_pages_huge_pmd()" if huge else by_pte.replace("move_pages", "move_present")
    if _anon_vma_is_gone(s):
        return Decision(QUESTION, "no", "its anon_vma has been freed: it is tried for ever", "folio_get_anon_vma()")
    if s.pins:
        return Decision(QUESTION, "no", "it may be pinned (folio_maybe_dma_pinned(), -EBUSY)", present)
    if huge:
        parts = "; by a part of it, or to an address that is not aligned, the folio is split first"
        return Decision(QUESTION, "yes", f"{waits}as a whole, {_TO}{parts}", present)
    return Decision(QUESTION, "yes", f"{waits}{_TO}", present)


def _anon_vma_is_gone(s: FolioSituation) -> bool:
    """Whether folio_get_anon_vma() gives nothing, for kernels that take the lock of the anon_vma."""
    return "move_pages_ptes" not in s.functions and s.anon_vma_refcount == 0


def _by_splitting(s: FolioSituation, where: str, waits: str, *, exclusive: bool) -> Decision:
    """A page of a large folio under a PTE: split_folio() comes first, by the task that has locked the folio."""
    split = may_split(replace(s, locked=False))
    if split.answer != "yes":
        reason = split.reason
        if "(-EAGAIN)" in reason:
            error = "-EBUSY" if "move_pages_ptes" in s.functions else "tried again until it succeeds or is killed"
            reason = reason.replace("-EAGAIN", error)
        return Decision(QUESTION, "no", f"the folio has to be split first: {reason}", "split_folio()")
    if not exclusive:
        reason = f"the folio is split, but of this page: {_NOT_EXCLUSIVE}"
        return Decision(QUESTION, "no", reason, where.replace("move_pages", "move_present"))
    return Decision(QUESTION, "yes", f"{waits}the folio is split first, then {_TO}", where)


def may_move_swapped(s: FolioSituation, *, known: bool) -> Decision:
    """Whether UFFDIO_MOVE moves the swap entry of a folio that nothing maps and the swap cache has.

    mm/userfaultfd.c, move_swap_pte(): the folio is given the new index and anon_vma along with the entry.

    Args:
        s: The folio.
        known: Whether this kernel has UFFDIO_MOVE.
    """
    if not known:
        return _NO_MOVE
    if s.nr_pages > 1:
        return Decision(QUESTION, "no", "a large folio in the swap cache is not moved (-EBUSY)", "move_swap_pte()")
    waits = _once_unlocked(s)
    reason = f"{waits}with its swap entry, where that is marked exclusive: else -EBUSY"
    return Decision(QUESTION, "yes", reason, "move_swap_pte()")


def may_move_entry(holds: EntryHolds, *, source: Source, known: bool) -> Decision:
    """What UFFDIO_MOVE does with an entry that leads to no page with counts.

    mm/userfaultfd.c, move_zeropage_pte(), move_swap_pte() and their callers.

    Args:
        holds: What is where the way down ends.
        source: What is found of the VMA.
        known: Whether this kernel has UFFDIO_MOVE.
    """
    refused = _refused(source, known=known)
    if refused is not None:
        return refused
    answer, reason, where = {
        "nothing": (
            "no",
            "nothing is there (-ENOENT, unless UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES)",
            "move_pages()",
        ),
        "zero page": ("yes", f"as an entry of the zero page, {_TO}", "move_zeropage_pte()"),
        "swap": ("no", "the swap entry is not marked exclusive (-EBUSY)", "pte_swp_exclusive()"),
        "exclusive swap": (
            "yes",
            f"with a large folio in the swap cache -EBUSY, else {_TO}",
            "move_swap_pte()",
        ),
        "migration": ("no", "it is being migrated, the end of which is waited for", "migration_entry_wait()"),
        "other": ("no", "the entry is neither present, of swap nor of migration (-EFAULT)", "move_pages()"),
    }[holds]
    return Decision(QUESTION, answer, reason, where)
