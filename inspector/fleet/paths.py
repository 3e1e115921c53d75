"""What is to be checked: files, folders, patterns and lists, as paths without repetition."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from inspector.fleet.urls import expand_url, is_url
from inspector.records import dataclass

LIST = "-"
"""In the place of a path: a list on standard input."""


@dataclass(frozen=True)
class NamedPath:
    """A path to be checked.

    Attributes:
        path: Absolute, links not followed; or a URL.
        found: It was found in a folder, where there may also be other files than dumps.
    """

    path: str
    found: bool = False


def split_list(data: bytes) -> list[str]:
    """The paths in a list: each ends with a null byte (``find -print0``), or in a list without any with its line."""
    end = b"\0" if b"\0" in data else b"\n"
    return [os.fsdecode(word) for word in data.split(end) if word]


def expand(words: Iterable[str]) -> list[NamedPath]:
    """What some words name, in their order and in that of names within folders; each path once.

    A word that names nothing is a path still: that it does not exist is found when it is opened.
    """
    out: dict[str, NamedPath] = {}
    for word in words:
        for named in _of_word(word):
            out.setdefault(named.path, named)
    return list(out.values())


def _of_word(word: str) -> Iterator[NamedPath]:
    if is_url(word):
        yield from (NamedPath(url, found=found) for url, found in expand_url(word))
        return
    if not os.path.lexists(word) and glob.has_magic(word):
        matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207  (of an absolute pattern, too)
        if matches:
            for match in matches:
                yield from _of_path(match)
            return
    yield from _of_path(word)


def _of_path(path: str) -> Iterator[NamedPath]:
    # Path.absolute() keeps "..", which may lead through a link.
    absolute = str(Path(path).absolute())
    if not Path(path).is_dir():
        yield NamedPath(absolute)
        return
    for folder, below, files in os.walk(absolute):
        # os.walk() goes on in this order, and does not follow links.
        below.sort()
        for name in sorted(files):
            file = str(Path(folder, name))
            if Path(file).is_file():
                yield NamedPath(file, found=True)
