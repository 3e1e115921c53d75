"""What could not be read, counted by what it is; missing is not zero."""

from __future__ import annotations


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

    @property
    def complete(self) -> bool:
        """Whether everything that was wanted was read."""
        return not self.counts
