"""What makedumpfile writes of a guest's dump says the same as that dump, whatever the format."""

from __future__ import annotations

import pytest

from tests.guests.formats import PLANTED, SHORT, matrix
from tests.guests.kernels import kernel_named


@pytest.mark.guest
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_same_report(kernel: str) -> None:
    lines: list[str] = []
    assert matrix([kernel_named(kernel)], ("rest",), SHORT, PLANTED, lines.append) == 0, "\n".join(lines)
    assert lines[-1].startswith(f"{len(SHORT)} dumps, 0 bad")
