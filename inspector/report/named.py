"""What people call processes and addresses of them: a pid, a name, the address of an mm_struct, ``pid:address``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.errors import UsageError
from inspector.report.processes import aim_at_mm
from inspector.text import clean_bytes, parse_number
from inspector.walk.lookup import look_up, user_end
from inspector.walk.page_numbers import NumberMeaning

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_MANY = 8
"""Pids named where a name is that of several processes."""


def split_address(word: str) -> tuple[str, int] | None:
    """The process and the address of ``who:address``; None for anything else."""
    who, colon, where = word.strip().rpartition(":")
    va = parse_number(where)
    return (who.strip(), va) if colon and who.strip() and va is not None else None


def pid_or_mm(word: str) -> int | None:
    """The number in which a process is given, decimal or hex after 0x; None for a name."""
    text = word.strip().lower()
    return parse_number(text) if text.startswith("0x") or (text.isascii() and text.isdigit()) else None


def processes_called(s: Snapshot, name: str) -> list[tuple[int, str]]:
    """Pid and name of the processes with memory whose name holds a word; those alone whose name it is, if any.

    Of each address space the process with the lowest pid.
    """
    tasks, word = s.tasks, name.strip().lower()
    leaders = np.flatnonzero((tasks.pid == tasks.tgid) & (tasks.mm != 0))
    _, first = np.unique(tasks.mm[leaders], return_index=True)
    rows = np.sort(leaders[first])
    found = [(int(tasks.pid[row]), clean_bytes(bytes(tasks.comm[row]))) for row in rows.tolist()]
    same = [one for one in found if one[1].lower() == word]
    return same or [one for one in found if word and word in one[1].lower()]


def find_process(s: Snapshot, asked: str) -> int:
    """Pid or address of the mm_struct of the one process that is meant, for `find_mm()` and `aim_at_mm()`.

    Raises:
        UsageError: There is none of that name, or several.
    """
    number = pid_or_mm(asked)
    if number is not None:
        return number
    found = processes_called(s, asked)
    if not found:
        # Bare hex, as of an mm_struct.
        number = parse_number(asked)
        if number is not None:
            return number
        error = UsageError("there is no process of that name", asked, "See folioscope ps")
        raise s.missing.unless_lost(error, "tasks")
    if len(found) > 1:
        pids = ", ".join(f"{pid} ({comm})" for pid, comm in found[:_MANY])
        raise UsageError(
            "several processes have that name", asked, f"Give a pid: {pids}{' ...' * (len(found) > _MANY)}"
        )
    return found[0][0]


def user_page(s: Snapshot, who: str, va: int) -> NumberMeaning:
    """The page that an address of a process is mapped to.

    Raises:
        UsageError: There is no such process, or nothing is mapped there.
    """
    asked = f"{who}:{va:#x}"
    end = user_end(s.layout.arch)
    if va >= end:
        raise UsageError("this is not a user address", asked, f"User addresses end at {end - 1:#x}")
    number = find_process(s, who)
    mms = aim_at_mm(s, number).mms
    pgd = int(mms.pgd_pfn[0])
    found = look_up(s.layout, pgd, va) if pgd >= 0 else None
    if found is None or found.pfn < 0 or not s.layout.memmap.valid(np.array([found.pfn], np.int64))[0]:
        raise UsageError("no page is mapped there", asked, f"See folioscope va {who} {va:#x}")
    pid, comm = int(mms.pid[0]), clean_bytes(bytes(mms.comm[0]))
    owner = f"process {pid} {comm}" if pid >= 0 else f"mm {number:#x}"
    return NumberMeaning(
        "user", found.pfn, va & ((1 << s.layout.arch.page_shift) - 1), f"the page tables of {owner} map it"
    )
