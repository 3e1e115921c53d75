"""Styles are joined on their way to the terminal: the same picture with fewer bytes."""

from __future__ import annotations

import pytest

from tui.driver import with_styles_joined

BLUE, RED = "\x1b[38;5;21;48;5;233m", "\x1b[38;2;255;0;0;48;5;233m"
END = "\x1b[0m"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{BLUE}a{END}{RED}b{END}", f"{BLUE}a{RED}b{END}"),
        (f"{BLUE}a{END}{BLUE}b{END}{RED}c{END}", f"{BLUE}a{BLUE}b{RED}c{END}"),
        # Bold and reverse end with a reset alone.
        (f"\x1b[1;7;38;5;21ma{END}{RED}b{END}", f"\x1b[1;7;38;5;21ma\x1b[0;{RED[2:]}b{END}"),
        # Without a background the one before would stay.
        (f"{BLUE}a{END}\x1b[31mb{END}", f"{BLUE}a\x1b[0;31mb{END}"),
        # Moving paints nothing; a new line may, where it scrolls.
        (f"{BLUE}a{END}\x1b[4;1H{RED}b{END}", f"{BLUE}a\x1b[4;1H{RED}b{END}"),
        (f"{BLUE}a{END}\r\n\x1b[4;1H{RED}b{END}", f"{BLUE}a\x1b[4;1H{RED}b{END}"),
        (f"{BLUE}a{END}\r\n{RED}b{END}", f"{BLUE}a{END}\r\n{RED}b{END}"),
        (f"{BLUE}a{END}\x1b[?25h{RED}b{END}", f"{BLUE}a{END}\x1b[?25h{RED}b{END}"),
        ("plain", "plain"),
    ],
)
def test_styles_joined(before: str, after: str) -> None:
    assert with_styles_joined(before) == after
