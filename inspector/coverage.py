"""What could not be read, counted by what it is; missing is not zero."""

from __future__ import annotations

from collections.abc import Mapping

from inspector.errors import FolioscopeError, IncompleteError, UsageError
from inspector.text import counted, singular


def lost_words(counts: Mapping[str, int]) -> list[str]:
    """What could not be read, each kind in words: ``1 task``, ``2,100 struct pages``."""
    return [counted(number, singular(kind), kind) for kind, number in counts.items()]


class Missing:
    """A tally of unreadable things."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.notes: list[str] = []

    def add(self, what: str, count: int) -> None:
        """Note ``count`` unreadable things of a kind, named in the plural ("mms", "page tables")."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + count

    def note(self, sentence: str) -> None:
        """Note something that is not a count."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def unless_lost(self, error: UsageError, *kinds: str) -> FolioscopeError:
        """The error that something does not exist; another one where it may be among what could not be read.

        Args:
            error: What to raise where all of its kind is known.
            kinds: In which of the kinds of missing things it may be.
        """
        lost = lost_words({kind: self.counts[kind] for kind in kinds if kind in self.counts})
        if not lost:
            return error
        return IncompleteError(f"{error.what}, as far as is known", error.where, f"Not in the dump: {', '.join(lost)}")

    @property
    def complete(self) -> bool:
        """Whether everything that was wanted was read."""
        return not self.counts
