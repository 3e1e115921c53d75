"""How many examples Hypothesis tries: few in `make test`, all in `make test-all` (``--hypothesis-profile deep``)."""

from __future__ import annotations

from hypothesis import settings

QUICK, DEEP = 10, 100
"""Examples of a test that names no number of its own."""


def register() -> None:
    """Make the profiles known and load the quick one, which pytest's option replaces."""
    # How long one example takes says something about the machine, nothing about the code.
    settings.register_profile("quick", deadline=None, max_examples=QUICK)
    settings.register_profile("deep", deadline=None, max_examples=DEEP)
    settings.load_profile("quick")


def examples(deep: int) -> settings:
    """For a test that takes so many examples in `make test-all`, and as large a share of them as others otherwise."""
    return settings(max_examples=max(1, deep * settings().max_examples // DEEP))
