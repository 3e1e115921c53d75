"""Vmcores elsewhere than in files: whatever fsspec reads, such as object stores and web servers.

A vmcore is read here and there, at random: it is fetched whole before it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any

from inspector.errors import TargetError, UsageError
from inspector.fleet.content import BLOCK, SAMPLED, Content, content_of_blocks, sampled_at

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PIECE = 1 << 22
_PATTERN = re.compile(r"[*?\[]")


def is_url(word: str) -> bool:
    """Whether it is a URL, not a path."""
    return _URL.match(word) is not None


def expand_url(word: str) -> Iterator[tuple[str, bool]]:
    """The files that a URL names: itself, or what a pattern fits; all below it where it ends in a slash.

    Yields:
        A URL, and whether it was found in a folder.

    Raises:
        TargetError: They cannot be listed.
    """
    is_folder = word.endswith("/")
    if not is_folder and not _PATTERN.search(word.partition("?")[0] if word.startswith("http") else word):
        yield word, False
        return
    system, path = _opened(word)
    try:
        there = [(path, True)] if is_folder else [(str(file), system.isdir(file)) for file in sorted(system.glob(path))]
        found = [(file, is_dir) for one, is_dir in there for file in (sorted(system.find(one)) if is_dir else [one])]
    except Exception as error:  # noqa: BLE001  (of any library)
        raise TargetError(f"it cannot be listed ({_reason(error)})", word, "") from error
    for file, is_dir in found:
        yield str(system.unstrip_protocol(file)), is_dir


def content_of_url(url: str) -> Content | None:
    """Read a sample of what is at a URL.

    Returns:
        None where it has to be fetched for that: it is short, or is not given in pieces.

    Raises:
        TargetError: It cannot be read.
    """
    system, path = _opened(url)
    try:
        size = system.info(path).get("size")
        if not isinstance(size, int) or size <= SAMPLED:
            return None
        starts = sampled_at(size)
        if "http" in system.protocol:
            # A server that does not take ranges gives the whole for each: a file of this kind sees that in time.
            with system.open(path, "rb", block_size=BLOCK, cache_type="none") as file:
                blocks = [_read_at(file, start) for start in reversed(starts)]
            return content_of_blocks(size, reversed(blocks))
        ends = [min(start + BLOCK, size) for start in starts]
        return content_of_blocks(size, system.cat_ranges([path] * len(starts), starts, ends, on_error="raise"))
    except _NoRangesError:
        return None
    except Exception as error:  # noqa: BLE001  (of any library)
        raise TargetError(f"it cannot be fetched ({_reason(error)})", url, "") from error


class _NoRangesError(Exception):
    """The server does not give pieces."""


def _read_at(file: Any, start: int) -> bytes:
    try:
        file.seek(start)
        return bytes(file.read(BLOCK))
    except ValueError as error:
        raise _NoRangesError from error


def fetch(url: str, out: IO[bytes], most: int) -> None:
    """Copy what is at a URL.

    Args:
        url: Where.
        out: The copy.
        most: Bytes at most.

    Raises:
        TargetError: It cannot be read, or is longer.
    """
    system, path = _opened(url)
    too_long = TargetError(f"it is longer than the {most >> 20:,} MiB that are fetched at most", url, "")
    try:
        with system.open(path, "rb", block_size=_PIECE, cache_type="readahead") as file:
            size = getattr(file, "size", None)
            if size is not None and size > most:
                raise too_long
            copied = 0
            while piece := file.read(_PIECE):
                copied += len(piece)
                if copied > most:
                    raise too_long
                out.write(piece)
    except TargetError:
        raise
    except Exception as error:  # noqa: BLE001  (of any library)
        raise TargetError(f"it cannot be fetched ({_reason(error)})", url, "") from error
    out.flush()


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        UsageError: There is no library for it.
        TargetError: It cannot be reached.
    """
    if "::" in url:
        # Each of these keeps copies where it likes.
        raise UsageError("chains of file systems are not followed", url, "")
    try:
        import fsspec  # noqa: PLC0415  (an extra)
    except ImportError:
        raise UsageError("fsspec is not installed", "", "Run pip install 'folioscope[fleet]'") from None
    try:
        system, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"this kind of URL cannot be read ({_reason(error)})", url, "") from error
    except Exception as error:  # noqa: BLE001  (of any library)
        raise TargetError(f"it cannot be reached ({_reason(error)})", url, "") from error
    return system, str(path)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
