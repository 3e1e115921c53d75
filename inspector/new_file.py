"""Files that are there whole or not at all: written beside their place, and named when all went well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_PRIVATE, _SHARED = 0o600, 0o666


@contextmanager
def new_file(path: Path, folder: Path | None = None, *, is_private: bool = False) -> Iterator[tuple[BinaryIO, Path]]:
    """A file that takes the name of ``path`` when all goes well, and is gone when not.

    Args:
        path: What it is called then; a file of that name is replaced.
        folder: Where it is until then, on the same file system; beside ``path`` when None.
        is_private: Whether only its owner may read it.

    Yields:
        The file, open for writing, and what it is called by now.

    Raises:
        OSError: It cannot be made, written or named.
    """
    part = (folder or path.parent) / f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}"
    mode = _PRIVATE if is_private else _SHARED

    def opened(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, mode)

    try:
        with open(part, "xb", opener=opened) as file:  # noqa: PTH123  (with the mode that it shall have)
            yield file, part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
