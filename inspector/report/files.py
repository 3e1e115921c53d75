"""The files that processes map: what each has in the page cache, and by how many it is mapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.columns import rows_of
from inspector.hex_json import Hex, Wide
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.snapshot import Snapshot
from inspector.tables.files import ADDRESS_SPACE_KINDS
from inspector.text import clean, counted
from inspector.walk.names import file_paths


class FileRow(msgspec.Struct, frozen=True):
    """One mapped file."""

    address_space: Hex
    name: str
    kind: str | None
    """file, shmem, hugetlb, block or dax; null where the inode could not be read."""
    ino: Wide | None
    cached_kb: Wide | None
    """In the page cache, by nrpages; null where that could not be read."""
    vmas: int
    processes: int
    """Address spaces that map it."""


class FilesReport(msgspec.Struct, frozen=True):
    """The object that ``file --format json`` prints when no file is named."""

    schema: Literal["folioscope.files/1"]
    files: list[FileRow]
    """The most cached first."""


def build_files(s: Snapshot) -> FilesReport:
    """All files that a VMA is of."""
    mapped = np.flatnonzero(s.file_rmap.address_space_of_vma >= 0)
    space = s.file_rmap.address_space_of_vma[mapped]
    known, first, nr = np.unique(space, return_index=True, return_counts=True)
    pairs = np.unique(np.stack([space, s.vmas.mm_idx[mapped].astype(space.dtype)]), axis=1)[0]
    users = np.bincount(pairs, minlength=int(known.max()) + 1)[known] if len(known) else known
    paths = file_paths(s.layout, s.vmas.file[mapped[first]])
    address = s.file_rmap.address_spaces.addr[known]
    row = rows_of(s.address_spaces.addr, address)
    spaces, page = s.address_spaces, 1 << (s.layout.memmap.page_shift - 10)
    out = []
    for i, at in enumerate(row.tolist()):
        readable = at >= 0 and bool(spaces.readable[at])
        out.append(
            FileRow(
                int(address[i]),
                clean(paths[i]),
                ADDRESS_SPACE_KINDS[int(spaces.kind[at])] if readable else None,
                int(spaces.ino[at]) if readable else None,
                int(spaces.nrpages[at]) * page if readable else None,
                int(nr[i]),
                int(users[i]),
            )
        )
    out.sort(key=lambda file: (-(file.cached_kb or 0), file.name))
    return FilesReport("folioscope.files/1", out)


_COLUMNS = (
    TableColumn("cached KiB", right=True),
    TableColumn("VMAs", right=True),
    TableColumn("processes", right=True),
    TableColumn("kind"),
    TableColumn("inode", right=True),
    TableColumn("address_space"),
    TableColumn("file", style="bold"),
)


def render_files(screen: Screen, report: FilesReport) -> Iterator[str]:
    """The table for people."""
    rows = [
        (
            "" if f.cached_kb is None else str(f.cached_kb),
            *(str(f.vmas), str(f.processes), f.kind or "unknown"),
            "" if f.ino is None else str(f.ino),
            *(f"{f.address_space:#x}", f.name),
        )
        for f in report.files
    ]
    yield from render_table(screen, _COLUMNS, rows)
    yield ""
    yield counted(len(report.files), "mapped file")
