"""Everything that a word can name, and the one line for a word that names what a command does not take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from inspector.aimed.family import FamilySnapshot, vma_at
from inspector.aimed.snapshot import AimedSnapshot
from inspector.columns import U64
from inspector.errors import FolioscopeError, IncompleteError, UsageError
from inspector.places.files import file_named, files_named
from inspector.places.pages import has_slot, pages_named
from inspector.places.processes import MANY, aim_at_mm, comm_of, find_process, processes_called, tasks_called
from inspector.places.words import (
    LISTS,
    MAX_PID,
    OTHER_WORDS,
    cpu_number,
    pid_or_mm,
    split_address,
    split_file,
    split_slot,
)
from inspector.records import dataclass
from inspector.snapshot import Snapshot
from inspector.tables.cpus import read_cpus
from inspector.text import clean, clean_bytes, parse_number
from inspector.walk.lookup import find_vma, user_end
from inspector.walk.page_numbers import KERNEL_HALF

PAGE, FILE_PAGE, PROCESS, TASK, USER, VMA = "page", "page of a file", "process", "task", "user address", "vma"
ANON_VMA, FILE, SLOT, CPU, MEMCG, LIST = "anon_vma", "file", "swap slot", "cpu", "memcg", "screen"
"""Kinds of things that have names."""

_TAKEN = {
    PAGE: "a page (its number, any address of it, PID:ADDRESS or FILE@PGOFF)",
    PROCESS: "a process (its pid or name, the address of its mm_struct or a task_struct)",
    TASK: "a task (its pid or name, the address of its task_struct, or cpu N)",
    USER: "an address of a process (PID:ADDRESS, or the address of a VMA)",
    ANON_VMA: "an anon_vma (the address of it or of a VMA, PID:ADDRESS, or --of a page)",
    FILE: "a file (its path or a part of it, its inode number, an address of it, PID:ADDRESS)",
    SLOT: "a swap slot (TYPE:OFFSET, its entry as a number, or PID:ADDRESS)",
}
"""What a command takes, in words."""


@dataclass(frozen=True, slots=True)
class NameMeaning:
    """One thing that a word can name.

    Attributes:
        kind: One of those above.
        what: It, in words.
        see: The command that shows it, without the program's name.
        where: Numbers that find it again: pfn; mm_struct; task_struct; mm_struct and address, for VMA and user address;
            address of the anon_vma; of the address_space, for its page with the offset; swap type and offset; CPU;
            address of the mem_cgroup.
    """

    kind: str
    what: str
    see: str
    where: tuple[int, ...] = ()


def everything(s: Snapshot, asked: str) -> list[NameMeaning]:
    """Everything that a word can name, the likeliest first; nothing where it names nothing.

    What is read: the tasks, for a path or a part of one the files that they map, for an address what is at it. Neither
    the memory map nor page tables are searched.
    """
    word = asked.strip()
    found: list[NameMeaning] = []
    number = parse_number(word)
    ways = (_cpu, _slot, _user, _page, _numbers, _objects) if number is not None or ":" in word else (_cpu, _page)
    for way in (*ways, _names):
        # What cannot be followed is not what is meant.
        with suppress(FolioscopeError):
            found += [one for one in way(s, word) if one not in found]
    return found


def _cpu(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    cpu = cpu_number(word)
    if cpu is not None and cpu in read_cpus(s.layout).cpu:
        yield NameMeaning(CPU, f"CPU {cpu}", "cpus", (cpu,))


def _slot(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    slot = split_slot(word)
    if slot is not None and has_slot(s, *slot):
        yield NameMeaning(SLOT, f"slot {slot[1]:#x} of swap type {slot[0]}", f"swap {slot[0]}:{slot[1]:#x}", slot)


def _user(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    """``who:address``."""
    of_process = split_address(word)
    if of_process is None or of_process[1] >= user_end(s.layout.arch):
        return
    who, va = of_process
    number = pid_or_mm(who)
    several = [pid for pid, _ in processes_called(s, who)] if number is None else []
    for each in several or [find_process(s, who)]:
        one = aim_at_mm(s, each)
        vma, mm = find_vma(one.vmas, 0, va), int(one.mms.addr[0])
        where = f"of VMA {int(one.vmas.start[vma]):#x}-{int(one.vmas.end[vma]):#x}" if vma >= 0 else "of no VMA"
        yield NameMeaning(USER, f"{va:#x} {where} in {_owner(one)}", f"va {_pid(one)} {va:#x}", (mm, va))


def _page(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    for page in pages_named(s, word):
        what = f"pfn {page.pfn:#x}" + (f" ({page.why})" if page.form != "pfn" else "")
        yield NameMeaning(PAGE, what, f"folio {page.pfn:#x}", (page.pfn,))


def _numbers(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    """A pid, an inode number, an address of user memory without its process."""
    number = parse_number(word)
    if number is None or number >= KERNEL_HALF:
        return
    if 0 < number <= MAX_PID:
        yield from _task_at(s, np.flatnonzero(s.tasks.pid == number).tolist())
    for space, _ in files_named(s, word) if pid_or_mm(word) is not None else ():
        yield NameMeaning(FILE, f"the file of inode {number}, address_space {space:#x}", f"file {space:#x}", (space,))
    if MAX_PID < number < user_end(s.layout.arch):
        yield NameMeaning(USER, "perhaps an address of a process, which is to be named before it", f"what {number:#x}")


def _objects(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    """What an address of the kernel is that of."""
    address = parse_number(word)
    if address is None or address < KERNEL_HALF or address % 8:
        return
    at: U64 = np.array([address], np.uint64)
    for row in np.flatnonzero(s.tasks.addr == at).tolist():
        pid = int(s.tasks.pid[row])
        yield NameMeaning(
            TASK, f"the task_struct of {pid} {comm_of(s.tasks, row)}", f"windows --stack {pid}", (address,)
        )
    mm = AimedSnapshot(s, at)
    if len(mm.mms):
        yield NameMeaning(PROCESS, f"the mm_struct of {_owner(mm)}", f"vmas {_pid(mm)}", (address,))
    vma = vma_at(s, address)
    if vma is not None:
        of_vma = AimedSnapshot(s, np.array([vma.mm], np.uint64))
        what = f"the VMA {vma.start:#x}-{vma.end:#x} of {_owner(of_vma)}"
        yield NameMeaning(VMA, what, f"va {_pid(of_vma)} {vma.start:#x}", (vma.mm, vma.start))
    elif FamilySnapshot(s, address).is_one:
        yield NameMeaning(ANON_VMA, f"the anon_vma {address:#x}", f"anon-vma {address:#x}", (address,))
    for space, _ in files_named(s, word) if vma is None else ():
        yield NameMeaning(FILE, f"the file of address_space {space:#x}", f"file {space:#x}", (space,))
    for row in np.flatnonzero(s.lru.memcgs.addr == at).tolist():
        yield NameMeaning(MEMCG, f"the memory cgroup {s.lru.memcgs.path(row)}", "memcg", (address,))


def _names(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    """Names of screens, processes, tasks of the kernel, memory cgroups and files."""
    if pid_or_mm(word) is not None or split_address(word) is not None:
        return
    low = word.lower()
    title = OTHER_WORDS.get(low, low)
    if title in LISTS:
        yield NameMeaning(LIST, f"the screen {title}", LISTS[title])
    of_processes = [pid for pid, _ in processes_called(s, word)]
    rows = np.flatnonzero(np.isin(s.tasks.pid, of_processes)).tolist()
    yield from _task_at(s, rows or tasks_called(s, word).tolist())
    for of_memcgs in (_memcgs, _files):
        with suppress(FolioscopeError):
            yield from of_memcgs(s, word)


def _memcgs(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    memcgs, low = s.lru.memcgs, word.lower()
    for row in range(len(memcgs)):
        path = memcgs.path(row)
        if low in (path.lower(), path.lower().rpartition("/")[2] or "/"):
            yield NameMeaning(MEMCG, f"the memory cgroup {clean(path)}", "memcg", (int(memcgs.addr[row]),))


def _files(s: Snapshot, word: str) -> Iterator[NameMeaning]:
    of_page = split_file(word)
    if of_page is not None:
        space = file_named(s, of_page[0])
        what = f"page {of_page[1]:#x} of the file of address_space {space:#x}"
        yield NameMeaning(FILE_PAGE, what, f"file {space:#x}", (space, of_page[1]))
        return
    for space, path in files_named(s, word):
        yield NameMeaning(FILE, f"the file {clean(path or word)}", f"file {space:#x}", (space,))


def _task_at(s: Snapshot, rows: list[int]) -> Iterator[NameMeaning]:
    """Tasks: of a process, or of the kernel."""
    tasks = s.tasks
    for row in rows:
        pid, mm, name = int(tasks.pid[row]), int(tasks.mm[row]), comm_of(tasks, row)
        if mm:
            yield NameMeaning(PROCESS, f"process {pid} {name}", f"vmas {pid}", (mm,))
        else:
            yield NameMeaning(TASK, f"task {pid} {name}", f"windows --stack {pid}", (int(tasks.addr[row]),))


def _owner(one: AimedSnapshot) -> str:
    mms = one.mms
    known = len(mms) and mms.pid[0] >= 0
    return f"process {int(mms.pid[0])} {clean_bytes(bytes(mms.comm[0]))}" if known else f"mm {_pid(one)}"


def _pid(one: AimedSnapshot) -> str:
    mms = one.mms
    if not len(mms):
        return "unknown"
    return str(int(mms.pid[0])) if mms.pid[0] >= 0 else f"{int(mms.addr[0]):#x}"


@contextmanager
def taking(s: Snapshot, asked: str, kind: str) -> Iterator[None]:
    """Where a name that the body looks up is not of the kind that it takes, but names something else, say what.

    Args:
        s: The snapshot.
        asked: The name.
        kind: What the body takes: a key of the words above.

    Raises:
        UsageError: With what the name is and which command shows it; else what the body raised.
    """
    try:
        yield
    except (UsageError, IncompleteError) as error:
        raise not_taken(s, asked, kind) or error from None


_MEETS = {
    PAGE: {PAGE, USER, FILE_PAGE},
    PROCESS: {PROCESS},
    TASK: {TASK, PROCESS, CPU},
    USER: set(),
    ANON_VMA: {ANON_VMA, VMA, USER},
    FILE: {FILE, USER},
    SLOT: {SLOT},
}
"""Kinds of names of which the command itself says best what is wrong with them."""


def not_taken(s: Snapshot, asked: str, kind: str) -> UsageError | None:
    """The line for a name of something that a command does not take; None where it names nothing else."""
    number = pid_or_mm(asked)
    if kind in {PROCESS, TASK} and number is not None and number <= MAX_PID:
        # It is taken for a pid, whatever else has that number.
        return None
    found = everything(s, asked)
    if not found or any(one.kind in _MEETS[kind] for one in found):
        return None
    some = found[:MANY]
    what = ", or ".join(one.what for one in some[:2]) + (" or others" if len(found) > 2 else "")
    see = ", ".join(dict.fromkeys(f"folioscope {one.see}" for one in some[:4]))
    return UsageError(f"this command takes {_TAKEN[kind]}, and this is {what}", asked, f"See {see}")
