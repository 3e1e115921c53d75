"""Pages by their names: a number of any kind, a symbol, ``who:address``, ``file@pgoff``; and swap slots."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind
from inspector.errors import UsageError
from inspector.places.files import file_named
from inspector.places.processes import aim_at_mm, find_process
from inspector.places.words import split_address, split_file, split_form, split_slot
from inspector.snapshot import Snapshot
from inspector.tables.files import FOLIO, read_files
from inspector.tables.swap_devices import build_devices
from inspector.text import clean_bytes, parse_number
from inspector.walk.lookup import Lookup, look_up, user_end
from inspector.walk.page_numbers import NumberMeaning, number_meanings

_OFFSET_BITS = 58
_FORM_NAMES = {
    "pfn": "page frame number",
    "phys": "physical address",
    "page": "struct page address",
    "virt": "direct-map address",
    "kernel": "address of the kernel",
}


def pages_named(s: Snapshot, asked: str, form: str | None = None) -> list[NumberMeaning]:
    """All pages that a name can mean, the likeliest first; at least one.

    Args:
        s: The snapshot.
        asked: A number, a number after one of `FORMS` and a colon, an address after a process and a colon, an offset in
            pages after a file and an @, or a symbol of the kernel.
        form: One of `FORMS`; None for whatever it can be, page frame numbers first.

    Raises:
        UsageError: It is nothing of that, or leads to no page of this target.
    """
    named, word = split_form(asked)
    form = named or form
    of_process = split_address(word)
    if of_process is not None:
        return [user_page(s, *of_process)]
    of_file = split_file(word)
    if of_file is not None:
        return [file_page(s, *of_file)]
    number = parse_number(word)
    if number is None:
        number = s.target.symbol(word)
    if number is None:
        todo = "Give decimal, or hex that begins with 0x; PID:ADDRESS for memory of a process"
        raise UsageError("this is no number", asked, todo)
    found = number_meanings(s.layout, number)
    fitting = [r for r in found if form in (None, r.form)]
    if not fitting:
        what = _FORM_NAMES[form] if form else "page frame number or address"
        where = f"page frames end at {s.layout.memmap.max_pfn - 1:#x}"
        todo = "Give a page frame number, a physical, struct page or kernel address, PID:ADDRESS, or FILE@PGOFF"
        if found:
            todo = f"It could be read --as {found[0].form}"
        raise UsageError(f"no memory of this target has that {what} ({where})", asked, todo)
    # A number with low bits set is unlikely to be the physical address of a page.
    return fitting[:1] if form else [r for r in found if r is fitting[0] or r.form != "phys" or number % 4096 == 0]


def _walk_down(s: Snapshot, who: str, va: int) -> tuple[Lookup | None, str]:
    """The way down the page tables of a process, None where it has none, and the process in words."""
    end = user_end(s.layout.arch)
    if va >= end:
        raise UsageError("this is not a user address", f"{who}:{va:#x}", f"User addresses end at {end - 1:#x}")
    number = find_process(s, who)
    mms = aim_at_mm(s, number).mms
    pgd, pid = int(mms.pgd_pfn[0]), int(mms.pid[0])
    words = f"process {pid} {clean_bytes(bytes(mms.comm[0]))}" if pid >= 0 else f"mm {int(mms.addr[0]):#x}"
    return (look_up(s.layout, pgd, va) if pgd >= 0 else None), words


def user_page(s: Snapshot, who: str, va: int) -> NumberMeaning:
    """The page that an address of a process is mapped to.

    Raises:
        UsageError: There is no such process, or nothing is mapped there.
    """
    found, owner = _walk_down(s, who, va)
    if found is None or found.pfn < 0 or not s.layout.memmap.valid(np.array([found.pfn], np.int64))[0]:
        raise UsageError("no page is mapped there", f"{who}:{va:#x}", f"See folioscope va {who} {va:#x}")
    inside = va & ((1 << s.layout.arch.page_shift) - 1)
    return NumberMeaning("user", found.pfn, inside, f"the page tables of {owner} map it")


def file_page(s: Snapshot, name: str, pgoff: int) -> NumberMeaning:
    """The page that a file's page cache holds at an offset.

    Args:
        s: The snapshot.
        name: The file, as for `file_named`.
        pgoff: In pages, as a VMA's pgoff; of hugetlb before 6.7 in huge pages (mm/hugetlb.c, linear_page_index()).

    Raises:
        UsageError: There is no such file, or no page of it there.
    """
    space = file_named(s, name)
    asked, see = f"{name}@{pgoff:#x}", f"See folioscope file {space:#x}"
    files = read_files(s.layout, np.array([space], np.uint64), (pgoff, pgoff))
    s.missing.add("page cache trees", files.unreadable)
    entries = files.entries
    first, nr = entries.index.astype(np.uint64), entries.nr.astype(np.uint64)
    here = np.flatnonzero((first <= np.uint64(pgoff)) & (np.uint64(pgoff) - first < nr))
    if not len(here):
        error = UsageError("the page cache of this file holds no page there", asked, see)
        raise s.missing.unless_lost(error, "page cache trees")
    row = int(here[0])
    pfn = int(entries.pfn[row]) + pgoff - int(first[row])
    if entries.kind[row] != FOLIO or not s.layout.memmap.valid(np.array([pfn], np.int64))[0]:
        raise UsageError("what the file has there is no page", asked, see)
    return NumberMeaning("file", pfn, 0, f"the page cache of address_space {space:#x} holds it")


def has_slot(s: Snapshot, type_: int, offset: int) -> bool:
    """Whether a swap device in use has a slot; only the devices are read."""
    return build_devices(s.layout).have_slot(type_, offset)


def slot_named(s: Snapshot, asked: str) -> tuple[int, int]:
    """Swap type and offset: of ``type:offset``, of an entry as one number, or of what is in swap at ``who:address``.

    Raises:
        UsageError: It is nothing of that.
    """
    slot, number, of_process = split_slot(asked), parse_number(asked), split_address(asked)
    if number is not None:
        return number >> _OFFSET_BITS, number & ((1 << _OFFSET_BITS) - 1)
    if slot is not None and (slot[1] < 1 << 12 or has_slot(s, *slot)):
        return slot
    if of_process is None:
        raise UsageError("this is no swap entry", asked, "Give TYPE:OFFSET, the entry as one number, or PID:ADDRESS")
    try:
        return _swapped_at(s, *of_process)
    except UsageError:
        if slot is None:
            raise
        return slot


def _swapped_at(s: Snapshot, who: str, va: int) -> tuple[int, int]:
    """The slot that the entry for an address of a process refers to."""
    found, _ = _walk_down(s, who, va)
    step = found.steps[-1] if found is not None and found.steps else None
    if step is None or step.kind != Kind.SWAP or step.entry is None:
        raise UsageError("this address is not in swap", f"{who}:{va:#x}", f"See folioscope va {who} {va:#x}")
    word, arch = np.array([step.entry], np.uint64), s.layout.arch
    return int(arch.swap_type(word)[0]), int(arch.swap_offset(word)[0])
