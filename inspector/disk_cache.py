"""Files in the user's cache directory: columns that were worked out once, kept for the next start.

A file that is not whole, not of this code or not this user's own is as good as none. Nothing in one is ever executed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inspector.columns import AnyArray
from inspector.new_file import new_file
from inspector.records import dataclass

_MAGIC = b"folioscope cache"
_FORMAT = 1
_PREFIX = struct.Struct("<16sQQQ")
"""Magic, format, bytes of the head, sum of all that follows in words of eight bytes."""

_DTYPES = {"u1": np.uint8, "u4": np.uint32, "i4": np.int32, "u8": np.uint64}

_LIMIT = 256 << 20
"""Bytes of all files together: some twenty kernels."""

_ABANDONED = 600
"""Seconds after which a file that was not finished is taken for that of a process that died."""

_SAVED = re.compile(r"\w+-[0-9a-f]{64}|\.\w+-[0-9a-f]{64}\.\d+\.[0-9a-f]{8}")
"""Names of files that are whole, and of those being written: no other file in the folder is counted or removed."""

_VARIABLE = "FOLIOSCOPE_CACHE"


@dataclass(frozen=True)
class Kept:
    """The contents of one file.

    Attributes:
        facts: Strings by name.
        columns: uint8, uint32, int32 or uint64 arrays by name.
    """

    facts: dict[str, str]
    columns: dict[str, AnyArray]


class _Head(msgspec.Struct):
    """What precedes the columns: for which code and under which name the file was written."""

    code: str
    name: str
    facts: dict[str, str]
    columns: list[tuple[str, str, int]]
    """Name, type and length of each."""


class DiskCache:
    """A directory of such files.

    Args:
        folder: Where; made when something is saved, for this user only.
        code: Names the code that made the contents: files of any other are not read.
        limit: Bytes of all files together; the files unused for longest are removed first.
    """

    def __init__(self, folder: Path, code: str, limit: int = _LIMIT) -> None:
        self.folder = folder
        self._code = code
        self.limit = limit

    def load(self, name: str) -> Kept | None:
        """What was saved under a name (a kind, a hyphen, 64 hexadecimal digits); None where nothing can be trusted."""
        try:
            data = self._read(name)
        except OSError:
            return None
        if data is None:
            return None
        try:
            return self._parse(name, data)
        except (ValueError, KeyError, struct.error, msgspec.MsgspecError):
            return None

    def _read(self, name: str) -> bytes | None:
        if not self._is_private():
            return None
        # A link is not followed, a pipe is not waited for.
        handle = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:  # noqa: PTH123  (a descriptor)
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > self.limit:
                return None
            data = file.read(found.st_size)
            with contextlib.suppress(OSError):
                # Used now: others are removed first.
                os.utime(handle)
        return data

    def _parse(self, name: str, data: bytes) -> Kept | None:
        magic, version, size, total = _PREFIX.unpack_from(data)
        if magic != _MAGIC or version != _FORMAT or len(data) % 8 or _sum(data, _PREFIX.size) != total:
            return None
        at = _PREFIX.size + size
        head = msgspec.json.decode(data[_PREFIX.size : at].rstrip(b"\0"), type=_Head)
        if head.code != self._code or head.name != name:
            return None
        columns = {}
        for column, dtype, count in head.columns:
            columns[column] = np.frombuffer(data, _DTYPES[dtype], count, at)
            at += _padded(columns[column].nbytes)
        return Kept(head.facts, columns)

    def save(self, name: str, kept: Kept) -> bool:
        """Keep something under a name; whether it was, because a full or read-only disk is no error."""
        rows = [(n, f"{c.dtype.kind}{c.dtype.itemsize}", len(c)) for n, c in kept.columns.items()]
        head = msgspec.json.encode(_Head(self._code, name, kept.facts, rows))
        parts: list[bytes] = [head, *(np.ascontiguousarray(c).tobytes() for c in kept.columns.values())]
        body = b"".join(part + bytes(_padded(len(part)) - len(part)) for part in parts)
        if len(body) > self.limit // 2:
            return False
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return False
            with new_file(self.folder / name, is_private=True) as (file, _):
                file.write(_PREFIX.pack(_MAGIC, _FORMAT, _padded(len(head)), _sum(body, 0)))
                file.write(body)
        except OSError:
            return False
        self._shrink()
        return True

    def usage(self) -> tuple[int, int]:
        """Number of files and their bytes."""
        sizes = [found.st_size for _, found in self._files()]
        return len(sizes), sum(sizes)

    def clear(self) -> int:
        """Remove all files.

        Returns:
            How many there were.

        Raises:
            OSError: One cannot be removed.
        """
        gone = 0
        for path, _ in self._files():
            path.unlink(missing_ok=True)
            gone += 1
        return gone

    def _is_private(self) -> bool:
        """Whether the folder is one, of this user, in which no other user may write."""
        try:
            found = os.lstat(self.folder)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file that was saved here, unfinished ones included; nothing where the folder is not this user's."""
        if not self._is_private():
            return
        for path in self.folder.iterdir():
            if not _SAVED.fullmatch(path.name):
                continue
            with contextlib.suppress(OSError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield path, found

    def _shrink(self) -> None:
        """Remove what dead processes left unfinished, and the files unused for longest that exceed the limit."""
        with contextlib.suppress(OSError):
            now, total = time.time(), 0
            for path, found in sorted(self._files(), key=lambda f: f[1].st_mtime_ns, reverse=True):
                total += found.st_size
                unfinished = path.name.startswith(".") and now - found.st_mtime > _ABANDONED
                if unfinished or (total > self.limit and not path.name.startswith(".")):
                    path.unlink(missing_ok=True)


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _sum(data: bytes, start: int) -> int:
    """The sum of the words from a place on: a change of any one shows in it. It is for damage, not for forgery."""
    return int(np.frombuffer(data, np.uint64, -1, start).sum(dtype=np.uint64))


def user_cache_folder() -> Path | None:
    """Where the user's cache is (``FOLIOSCOPE_CACHE``, else below ``XDG_CACHE_HOME`` or ``~/.cache``).

    None where ``FOLIOSCOPE_CACHE`` is ``no``, or no home is known.
    """
    asked = os.environ.get(_VARIABLE, "")
    if asked in ("no", "0"):
        return None
    if asked:
        return Path(asked).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        caches = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError:
        return None
    return caches / "folioscope" / "dumps"


def code_name(version: str, *modules: Any) -> str:
    """A name of this code: the version, and when and how large the files of the modules were written."""
    marks = [version]
    for module in modules:
        with contextlib.suppress(OSError, TypeError):
            found = Path(module.__file__).stat()
            marks.append(f"{found.st_size}.{found.st_mtime_ns}")
    return " ".join(marks)
