"""What is counted beyond, or short of, the mappings that there are; and the answers that the search gives."""

from __future__ import annotations

from inspector.model.diagnose.evidence import Run
from inspector.model.interface import Op
from inspector.records import dataclass


@dataclass(frozen=True)
class Moves:
    """Operations by their effect.

    Attributes:
        entire: Huge entries counted too many (negative: too few).
        more, fewer: Runs of pages whose PTEs are counted once too often, or once too seldom.
        anywhere: PTEs counted too many on pages that no counter names (negative: too few).
        dup: Whether what is too many was duplicated rather than added.
    """

    entire: int
    more: tuple[Run, ...]
    fewer: tuple[Run, ...]
    anywhere: int = 0
    dup: bool = False

    @property
    def calls(self) -> int:
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

    @property
    def mappings(self) -> int:
        """Mappings counted too many, all in all."""
        return self.entire + sum(nr for _, nr in self.up) - sum(nr for _, nr in self.down)


@dataclass(frozen=True)
class FaultyCall:
    """One thing that went wrong.

    Attributes:
        op: The call; page -1 when the counters do not determine which pages.
        change: "too many", "missing", "torn", "wrong level", "wrong page" or "short".
        times: How often.
    """

    op: Op
    change: str
    times: int = 1


@dataclass(frozen=True)
class Candidate:
    """One explanation.

    Attributes:
        steps: What was done too much or not at all; empty where no operation explains the difference.
        how: "operations", "torn", "bit flip", "mm ids" or "none".
        sentence: In words.
        cost: The lower, the simpler; candidates come in this order.
        ambiguous: Whether the counters do not determine which pages.
    """

    steps: tuple[FaultyCall, ...]
    how: str
    sentence: str
    cost: float
    ambiguous: bool = False


@dataclass(frozen=True)
class FolioDiagnosis:
    """What may have happened to a folio.

    Attributes:
        net_calls: The differences added up: name of the operation, and how many calls too many (negative: too
            few); empty where no operations explain them.
        sentence: The same in words, or how the counters contradict each other; "" when nothing is wrong.
        references: What became of the references, "" where that is unknown.
        candidates: Explanations call by call, the simplest first.
    """

    net_calls: tuple[tuple[str, int], ...] = ()
    sentence: str = ""
    references: str = ""
    candidates: tuple[Candidate, ...] = ()
