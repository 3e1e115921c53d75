"""The one error of the guest builder: what failed, and why."""

from __future__ import annotations


class GuestError(Exception):
    """A guest could not be built; says what failed and why."""

    def __init__(self, what: str, why: str) -> None:
        """Keep both halves of the sentence."""
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why


class BootError(GuestError):
    """The kernel died, or never came to its first program."""
