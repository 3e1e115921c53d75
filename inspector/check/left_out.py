"""Why a dump lacks what it should hold."""

from __future__ import annotations

from inspector.coverage import Missing
from inspector.layout.kernel import Layout

_IN_SLAB = frozenset(
    (
        "tasks",
        "mms",
        "VMA tree nodes",
        "VMAs",
        "anon_vmas and chains",
        "files and address_spaces",
        "page cache trees",
        "open files",
    )
)
"""Kinds of missing things that are slab objects of the kernel: no dump level of makedumpfile leaves those out."""

_UNKNOWN_SINCE = (7, 1)
"""makedumpfile up to 1.7.8 does not know how these kernels mark compound pages and slabs in struct page."""


def likely_reason(layout: Layout, missing: Missing) -> str:
    """Why slab objects are missing from a dump, a sentence; "" where none are."""
    if layout.target.kind != "kdump" or not _IN_SLAB & missing.counts.keys():
        return ""
    what = "slab objects are missing, which no dump level leaves out"
    if layout.version is None or layout.version < _UNKNOWN_SINCE:
        return what
    return (
        f"{what}: makedumpfile up to 1.7.8 does not know kernels from 7.1 on and takes a part of their slab pages for"
        " pages to leave out; dump with a newer one, or with -d 1"
    )
