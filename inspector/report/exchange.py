"""One target that was checked: what checks in the formats of others (JUnit, SARIF, Prometheus) are made of."""

from __future__ import annotations

from inspector.findings import Report
from inspector.records import dataclass
from inspector.report.errors import ErrorReport


@dataclass(frozen=True)
class CheckedTarget:
    """One target that was checked, or could not be.

    Attributes:
        name: Its path or address as it was given.
        outcome: What the check found, or why there was none.
        ended: When it was over, seconds since 1970.
    """

    name: str
    outcome: Report | ErrorReport
    ended: float
