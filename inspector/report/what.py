"""Everything that a number can be: a page by any of its numbers, a symbol, an object of the kernel, a user address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.columns import U64
from inspector.errors import FolioscopeError, UsageError
from inspector.hex_json import Hex
from inspector.places.files import files_named
from inspector.places.named import PAGE, everything
from inspector.places.pages import pages_named, user_page
from inspector.places.processes import find_mm
from inspector.places.words import FORMS, MAX_PID, split_address, split_form
from inspector.report.check import subject_words
from inspector.report.pages import build_pages
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.snapshot import Snapshot
from inspector.subjects import ADDRESS_SPACE, ANON_VMA, AVC, MM, TASK, VMA, SubjectKind
from inspector.text import clean, counted, parse_number
from inspector.walk.names import owner_of
from inspector.walk.page_numbers import KERNEL_HALF, NumberMeaning, number_meanings

_NAMES = dict(
    zip(FORMS, ("page frame", "physical address", "struct page", "direct map", "kernel address"), strict=True)
)
_NAMES |= {"user": "page", "file": "page of a file"}
_MOST_VMAS = 10


class Reading(msgspec.Struct, frozen=True):
    """One thing that it can be."""

    kind: str
    """page frame, physical address, struct page, direct map, symbol, user address, process, file, inode, swap slot,
    cpu, memcg, screen, or the kind of object."""
    what: str
    see: str
    """The command that shows more, "" for none."""


class WhatReport(msgspec.Struct, frozen=True):
    """The object that ``what --format json`` prints."""

    schema: Literal["folioscope.what/1"]
    asked: str
    address: Hex
    """The number, or the address of the symbol asked for; 0 for a name."""
    meanings: list[Reading]
    """The likeliest first; none where it is nothing that is known here."""


def build_what(s: Snapshot, asked: str) -> WhatReport:
    """Look a number up as everything that it can be.

    Args:
        s: The snapshot. Of a user address all VMAs are read, of a kernel address anon_vmas and mapped files as well.
        asked: A number, the name of a kernel symbol, or any other name of a place, as `everything` takes them.

    Raises:
        UsageError: It is nothing of that.
    """
    number = parse_number(asked)
    named = None if number is not None else s.target.symbol(asked)
    if (number is None or split_form(asked)[0]) and named is None:
        return WhatReport("folioscope.what/1", asked, 0, _named(s, asked))
    address = number if number is not None else named or 0
    out: list[Reading] = []
    if address < MAX_PID:
        out += _process(s, address)
    if address >= KERNEL_HALF:
        out += _symbol(s, address) + _objects(s, address)
    out += _pages(s, address)
    if 0 < address < KERNEL_HALF:
        out += _inodes(s, address)
    if MAX_PID <= address < KERNEL_HALF:
        out += _user_addresses(s, address)
    return WhatReport("folioscope.what/1", asked, address, out)


def _named(s: Snapshot, asked: str) -> list[Reading]:
    """What is no number.

    Raises:
        UsageError: It is nothing that is known.
    """
    out = []
    for one in everything(s, asked):
        if one.kind != PAGE:
            out.append(Reading(one.kind, one.what, one.see))
            continue
        page = pages_named(s, asked)[0]
        what = f"{page.why}: {_page(s, page)}"
        if page.form == "user" and out:
            out[-1] = Reading(out[-1].kind, what, out[-1].see)
        else:
            out.append(Reading(_NAMES[page.form], what, one.see))
    if not out:
        of_process = split_address(asked)
        if of_process is not None:
            # It is known why.
            user_page(s, *of_process)
        todo = "Give hex that begins with 0x, PID:ADDRESS, the name of a process, or the path of a file"
        raise UsageError("nothing of this target is called so", asked, todo)
    return out


def _process(s: Snapshot, pid: int) -> list[Reading]:
    try:
        _, _, comm = owner_of(s, find_mm(s, pid))
    except FolioscopeError:
        return []
    return [Reading("process", f"{pid} {comm or ''}".rstrip(), f"vmas {pid}")]


def _inodes(s: Snapshot, ino: int) -> list[Reading]:
    spaces = [space for space, _ in files_named(s, str(ino))]
    return [Reading("inode", f"number {ino}, address_space {space:#x}", f"file {space:#x}") for space in spaces]


def _symbol(s: Snapshot, address: int) -> list[Reading]:
    label = s.target.symbol_name(address)
    return [] if label is None else [Reading("symbol", label, "")]


def _objects(s: Snapshot, address: int) -> list[Reading]:
    """The object of a table in which an address lies."""
    rmap = s.anon_rmap
    tables: tuple[tuple[SubjectKind, str, U64], ...] = (
        (TASK, "struct task_struct", s.tasks.addr),
        (MM, "struct mm_struct", s.mms.addr),
        (VMA, "struct vm_area_struct", s.vmas.addr),
        (ANON_VMA, "struct anon_vma", rmap.anon_vmas.addr),
        (AVC, "struct anon_vma_chain", rmap.avcs.addr),
        (ADDRESS_SPACE, "struct address_space", s.file_rmap.address_spaces.addr),
    )
    out = []
    for kind, name, addresses in tables:
        offset = np.uint64(address) - addresses
        rows = np.flatnonzero((addresses <= np.uint64(address)) & (offset < np.uint64(s.layout.struct(name).size)))
        for row in rows[:1].tolist():
            subject, inside = kind.describe(s, row), int(offset[row])
            within = f"+{inside:#x} in " if inside else ""
            out.append(Reading(subject.kind, f"{within}{subject_words(subject)}", kind.look(subject)))
    spaces = [] if out else [space for space, _ in files_named(s, f"{address:#x}")]
    out += [Reading("file", f"address_space {space:#x}", f"file {space:#x}") for space in spaces]
    at = np.flatnonzero(s.lru.memcgs.addr == np.uint64(address)).tolist()
    return out + [Reading("memcg", s.lru.memcgs.path(row), "memcg") for row in at]


def _pages(s: Snapshot, number: int) -> list[Reading]:
    """The pages that it can name; with low bits set it is unlikely to be the physical address of one."""
    found = [r for r in number_meanings(s.layout, number) if r.form != "phys" or number % 4096 == 0]
    return [Reading(_NAMES[r.form], _page(s, r), f"folio {r.pfn:#x}") for r in found]


def _page(s: Snapshot, reading: NumberMeaning) -> str:
    row = build_pages(s, [], [(reading.pfn, reading.pfn)]).pages[0]
    inside = f"+{reading.offset:#x} in " if reading.offset else ""
    if not row.readable:
        return f"{inside}pfn {reading.pfn:#x}: its struct page is not in the dump"
    folio = f", of the folio {row.head_pfn:#x} of order {row.order}" if row.order and row.head_pfn >= 0 else ""
    return f"{inside}pfn {reading.pfn:#x}: {row.kind}{folio}, {counted(row.refcount, 'reference')}"


def _user_addresses(s: Snapshot, address: int) -> list[Reading]:
    """VMAs around a user address, in whatever process."""
    rows = np.flatnonzero((s.vmas.start <= np.uint64(address)) & (s.vmas.end > np.uint64(address)))
    out = []
    for row in rows[:_MOST_VMAS].tolist():
        mm, pid, comm = owner_of(s, int(s.vmas.mm_idx[row]))
        who = f"process {pid} {comm}" if pid is not None else f"mm {mm:#x}"
        where = f"in VMA {int(s.vmas.start[row]):#x}-{int(s.vmas.end[row]):#x} of {who}"
        out.append(Reading("user address", where, f"va {pid if pid is not None else hex(mm)} {address:#x}"))
    if len(rows) > _MOST_VMAS:
        out.append(Reading("user address", f"... and in {counted(len(rows) - _MOST_VMAS, 'VMA')} more", ""))
    return out


_COLUMNS = (TableColumn("as"), TableColumn("what it is"), TableColumn("more"))


def render_what(screen: Screen, report: WhatReport) -> Iterator[str]:
    """The table for people."""
    if not report.meanings:
        yield f"{clean(report.asked)} is nothing that is known here: no page, symbol, object or mapped user address."
        return
    yield from render_table(screen, _COLUMNS, [(m.kind, clean(m.what), m.see) for m in report.meanings])
