"""Which snapshot answers a question about one folio: that of all page tables, or that of its reverse map."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from inspector.aimed.folio import FolioSnapshot
from inspector.check.prepare import Progress, prepare
from inspector.snapshot import Snapshot

if TYPE_CHECKING:
    from inspector.columns import U64

A = TypeVar("A")
T = TypeVar("T")


def look_at(
    s: Snapshot, pfn: int, *, everything: bool = False, progress: Progress | None = None, mms: U64 | None = None
) -> Snapshot:
    """A snapshot to answer a question about one folio from.

    Args:
        s: A snapshot of the target.
        pfn: Any page of the folio, one that has a struct page.
        everything: Whether all page tables are to be walked. Where they were walked already it costs nothing, and
            they are used in any case.
        progress: Called while all page tables are walked.
        mms: uint64; mms that are wanted beside those that map the folio.
    """
    if everything or s.has_walked:
        if progress is not None:
            prepare(s, progress)
        return s
    return FolioSnapshot(s, pfn, mms)


def still_wrong(
    s: Snapshot, ask: Callable[[Snapshot], A], wrong: Callable[[A], frozenset[T]]
) -> tuple[A, frozenset[T]]:
    """The last answer to a question about a target, and what was wrong in every one that was asked for.

    Args:
        s: A snapshot of the target.
        ask: Answers from a snapshot: this one, then, where the kernel runs on, new ones.
        wrong: What an answer shows that is wrong, as it can be known again in another.
    """
    answer = ask(s)
    left = wrong(answer)
    if s.target.is_live and left:
        from inspector.check.confirm import gaps  # noqa: PLC0415  (all rules, which few questions need)

        for gap in gaps():
            time.sleep(gap)
            answer = ask(Snapshot(s.target))
            left &= wrong(answer)
            if not left:
                break
    return answer, left


def settled(s: Snapshot, ask: Callable[[Snapshot], A], is_wrong: Callable[[A], bool]) -> A:
    """The answer to a question about a target.

    Where the kernel runs on, values that do not fit may only have been read at different moments: then it is asked
    again, and what is wrong is wrong in all of several looks.

    Args:
        s: A snapshot of the target.
        ask: Answers from a snapshot: this one, then new ones.
        is_wrong: Whether an answer shows anything wrong.
    """
    return still_wrong(s, ask, lambda answer: frozenset({True} if is_wrong(answer) else ()))[0]
