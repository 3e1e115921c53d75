"""How names of places are written: what can be known of a word without a target."""

from __future__ import annotations

import re

from inspector.text import parse_number

FORMS = ("pfn", "phys", "page", "virt", "kernel")
"""What a number can be: page frame number, physical address, address of a struct page, direct-map address, or another
address that the kernel's page tables map: of its image, of vmalloc, of a module."""

MAX_PID = 1 << 22
"""PID_MAX_LIMIT, include/linux/threads.h."""

_CPU = re.compile(r"cpu[ :#]?(\d{1,5})", re.IGNORECASE | re.ASCII)

LISTS: dict[str, str] = {
    "overview": "info",
    "findings": "check",
    "processes": "ps",
    "folios": "mthp",
    "files": "file",
    "memory": "memory",
    "references": "references",
    "cpus": "cpus",
    "windows": "windows",
    "swap": "swap",
    "ksm": "ksm",
    "hugetlb": "hugetlb",
    "uffd": "uffd",
    "notifiers": "notifiers",
    "memcg": "memcg",
    "mthp": "mthp",
}
"""Screens of the terminal interface, with the command that shows the same."""

OTHER_WORDS: dict[str, str] = {
    "thp": "mthp",
    "large": "mthp",
    "leak": "references",
    "refs": "references",
    "userfaultfd": "uffd",
    "zram": "swap",
    "stack": "cpus",
    "map": "memory",
    "mounts": "files",
    "ps": "processes",
    "rules": "findings",
    "check": "findings",
    "info": "overview",
}
"""Other words for screens."""


def split_form(word: str) -> tuple[str | None, str]:
    """``pfn:0x10`` and its like as the form and the rest; None and the word itself for anything else."""
    form, colon, rest = word.strip().partition(":")
    return (form, rest) if colon and form in FORMS else (None, word.strip())


def split_address(word: str) -> tuple[str, int] | None:
    """The process and the address of ``who:address``; None for anything else."""
    who, colon, where = word.strip().rpartition(":")
    va = parse_number(where)
    return (who.strip(), va) if colon and who.strip() and va is not None else None


def split_file(word: str) -> tuple[str, int] | None:
    """The file and the offset in pages of ``file@pgoff``; None for anything else."""
    name, at, where = word.strip().rpartition("@")
    pgoff = parse_number(where)
    return (name.strip(), pgoff) if at and name.strip() and pgoff is not None else None


def split_slot(word: str) -> tuple[int, int] | None:
    """The swap type and the offset of ``type:offset``; None for anything else."""
    kind, colon, offset = word.strip().partition(":")
    numbers = parse_number(kind), parse_number(offset)
    return (numbers[0], numbers[1]) if colon and numbers[0] is not None and numbers[1] is not None else None


def cpu_number(word: str) -> int | None:
    """The number in ``cpu 1`` or ``cpu1``; None for anything else."""
    found = _CPU.fullmatch(word.strip())
    return int(found[1]) if found else None


def pid_or_mm(word: str) -> int | None:
    """The number in which a process is given, decimal or hex after 0x; None for a name."""
    text = word.strip().lower()
    return parse_number(text) if text.startswith("0x") or (text.isascii() and text.isdigit()) else None
