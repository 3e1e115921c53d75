"""The notebook does what it shows."""

from __future__ import annotations

import pytest

from tests import notebook


@pytest.mark.long
def test_the_notebook_is_current() -> None:
    there = notebook.read()
    assert notebook.printed(notebook.executed(there)) == notebook.printed(there), "python -m tests.notebook"
    assert all(notebook.printed(there))
