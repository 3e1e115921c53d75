"""What is kept in the cache directory between starts, and what clearing it removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inspector.disk_cache import DiskCache
from inspector.report.screen import Screen, render_facts
from inspector.text import counted, size


class CacheReport(msgspec.Struct, frozen=True):
    """The object that ``cache --format json`` prints."""

    schema: Literal["folioscope.cache/1"]
    folder: str | None
    """null where nothing is kept: FOLIOSCOPE_CACHE is no, or there is no home."""
    files: int
    bytes: int
    limit: int
    """Bytes at most; then the files unused for longest go."""
    removed: int
    """Files that --clear removed."""


def build_cache_report(cache: DiskCache | None, *, clear: bool) -> CacheReport:
    """Count what is kept, after removing it where that is asked for.

    Raises:
        OSError: A file cannot be removed.
    """
    if cache is None:
        return CacheReport("folioscope.cache/1", None, 0, 0, 0, 0)
    removed = cache.clear() if clear else 0
    return CacheReport("folioscope.cache/1", str(cache.folder), *cache.usage(), cache.limit, removed)


def render_cache(screen: Screen, report: CacheReport) -> Iterator[str]:
    """The facts for people."""
    if report.folder is None:
        yield "nothing is kept: FOLIOSCOPE_CACHE is no, or there is no home directory"
        return
    facts = [
        ("directory", report.folder),
        ("kept", f"{counted(report.files, 'file')}, {size(report.bytes)} of at most {size(report.limit)}"),
    ]
    if report.removed:
        facts.append(("removed", counted(report.removed, "file")))
    yield from render_facts(screen, facts)
