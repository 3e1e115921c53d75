"""What a batch and the process that checks one vmcore say to each other: JSON, a line each.

The batch sends a `Job`. The process answers with `Known`, the identity of the content, and waits: another line says
that this content is still to be checked. Then it sends a `DumpResult`, and ends.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ErrorKind = Literal["target", "timeout", "memory", "crashed"]
"""``target``: it cannot be opened or read. ``crashed``: the process that checked it ended by itself."""

GO = b"go\n"

DumpTables = dict[str, dict[str, list[Any]]]
"""Values by table and column."""


class Job(msgspec.Struct, frozen=True):
    """Check this."""

    path: bytes
    symbols: list[str]
    types: Literal["auto", "dwarf", "btf"]
    cache: bool
    memory: int
    """Bytes at most."""
    workers: int
    fetch: int
    """Bytes at most of a vmcore that is fetched from a URL."""


class DumpFailure(msgspec.Struct, frozen=True):
    """Why a vmcore was not checked."""

    kind: ErrorKind
    text: str


class Known(msgspec.Struct, frozen=True):
    """The content of the file."""

    dump: str
    size: int
    is_dump: bool
    failure: DumpFailure | None = None
    """It cannot be read; the other members mean nothing then."""


class DumpResult(msgspec.Struct, frozen=True):
    """What was found."""

    tables: DumpTables
    """Of a dump that could not be checked, no more than what is known of it: one row of ``dumps``."""
    peak_bytes: int = 0
    """Memory of the process at most."""


class Options(msgspec.Struct, frozen=True):
    """How every vmcore of a batch is checked."""

    symbols: list[str]
    types: Literal["auto", "dwarf", "btf"]
    cache: bool
    memory: int
    workers: int
    timeout: float
    """Seconds."""
    fetch: int

    def job(self, path: bytes) -> Job:
        """The job of one path."""
        return Job(path, self.symbols, self.types, self.cache, self.memory, self.workers, self.fetch)


def too_much_memory(limit: int) -> DumpFailure:
    """It would need more than it may have."""
    return DumpFailure("memory", f"it needs more memory than {limit >> 20:,} MiB")
