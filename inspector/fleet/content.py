"""A dump known by its content, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from inspector.errors import TargetError
from inspector.records import dataclass

BLOCK = 1 << 16
SAMPLED = 1 << 26
"""Bytes that are read at most, spread evenly; a file that is no longer is read whole."""

DIGITS = 16
"""Hex digits of an identity."""

_MAGIC = (b"KDUMP   ", b"DISKDUMP", b"makedumpfile\0\0\0\0")
_ELF, _CORE_AT, _CORE = b"\x7fELF", 16, 4
"""Executable and linkable format: where the type of the file is, and that of a core (elf.h, ET_CORE)."""


@dataclass(frozen=True)
class Content:
    """What is known of a file before it is opened as a dump.

    Attributes:
        dump: Identity of its content, hex.
        size: Bytes.
        is_dump: It begins as a dump does, or is empty, as one is that found no room.
    """

    dump: str
    size: int
    is_dump: bool


def content_of(path: str) -> Content:
    """Read a sample of a file.

    Raises:
        TargetError: It is no regular file.
        OSError: It cannot be read.
    """
    # A pipe would be waited for.
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise TargetError("this is no regular file")
    with Path(path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return content_of_blocks(size, (os.pread(file.fileno(), BLOCK, at) for at in sampled_at(size)))


def sampled_at(size: int) -> list[int]:
    """Where the blocks begin that are read of a file of some size."""
    blocks = -(-size // BLOCK)
    read = min(blocks, SAMPLED // BLOCK)
    # The first and the last block are among them.
    return [nth * (blocks - 1) // max(read - 1, 1) * BLOCK for nth in range(read)]


def content_of_blocks(size: int, blocks: Iterable[bytes]) -> Content:
    """What is known of a file by its size and these blocks (`sampled_at`)."""
    sums = hashlib.sha256(size.to_bytes(8, "little"))
    first = b""
    for data in blocks:
        first = first or data[:32]
        sums.update(data)
    return Content(sums.hexdigest()[:DIGITS], size, not size or _looks_like_a_dump(first))


def _looks_like_a_dump(first: bytes) -> bool:
    if first.startswith(_ELF):
        return int.from_bytes(first[_CORE_AT : _CORE_AT + 2], "little") == _CORE
    return first.startswith(_MAGIC)


def identity_of_path(path: str) -> str:
    """An identity for a file that has no content to know it by."""
    return digest("path", path)


def digest(*words: object) -> str:
    """A short hash of some words."""
    text = "\0".join(map(str, words))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]
