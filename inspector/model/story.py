"""What is counted beyond, or short of, the mappings that stand."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.model.evidence import Run


@dataclass(frozen=True)
class Story:
    """Operations by their effect.

    Attributes:
        entire: Huge entries counted too many (negative: too few).
        more, fewer: Runs of pages whose PTEs are counted once too often, or once too seldom.
        anywhere: PTEs counted too many on pages that nothing names (negative: too few).
        dup: Whether what is too many was duplicated rather than added.
    """

    entire: int
    more: tuple[Run, ...]
    fewer: tuple[Run, ...]
    anywhere: int = 0
    dup: bool = False

    @property
    def moves(self) -> int:
        """Operations it takes."""
        return abs(self.entire) + len(self.more) + len(self.fewer) + (self.anywhere != 0)

    @property
    def up(self) -> tuple[Run, ...]:
        """Runs counted too often, those of unknown place with page -1."""
        return (*self.more, (-1, self.anywhere)) if self.anywhere > 0 else self.more

    @property
    def down(self) -> tuple[Run, ...]:
        """Runs counted too seldom, those of unknown place with page -1."""
        return (*self.fewer, (-1, -self.anywhere)) if self.anywhere < 0 else self.fewer
