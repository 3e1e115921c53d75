"""Files by their names: a path or part of one, an inode number, an address of theirs, ``who:address``."""

from __future__ import annotations

from inspector.aimed.family import vma_at
from inspector.aimed.file import space_of_file, spaces_at, spaces_called, spaces_of_number, spaces_of_path
from inspector.aimed.snapshot import AimedSnapshot
from inspector.errors import FolioscopeError, UsageError
from inspector.places.processes import MANY, aim_at_mm, find_process
from inspector.places.words import split_address
from inspector.snapshot import Snapshot
from inspector.text import clean, parse_number
from inspector.walk.lookup import find_vma
from inspector.walk.page_numbers import KERNEL_HALF

NO_FILE = (
    "Give a path as folioscope vmas shows it, a part of one, an inode number, or an address_space or inode address"
)

_LEAD_TO_FILES = (
    "tasks",
    "mms",
    "VMA tree nodes",
    "VMAs",
    "files and address_spaces",
    "page cache trees",
    "open files",
)
"""Kinds of missing things behind which a file may be hidden."""


def no_file(s: Snapshot, asked: str, todo: str = NO_FILE) -> FolioscopeError:
    """What to raise where no file is meant."""
    error = UsageError("no cached or mapped file has that name", asked, todo)
    return s.missing.unless_lost(error, *_LEAD_TO_FILES)


def several_files(asked: str, found: list[str]) -> UsageError:
    """What to raise where several files are meant, each in words."""
    todo = f"Give one of the address_spaces {', '.join(found[:MANY])}{' ...' * (len(found) > MANY)}"
    return UsageError("several files have that name", asked, todo)


def files_named(s: Snapshot, asked: str) -> list[tuple[int, str]]:
    """Address_space and path, "" where it was not asked for, of each file that a name can mean.

    Args:
        s: The snapshot; read is no more than what the name leads to, and of part of a path what all tasks map.
        asked: A path or part of one, an inode number, the address of an address_space, inode, struct file or VMA.
    """
    number = parse_number(asked)
    spaces = [] if number is not None else spaces_of_path(s, asked.strip()).tolist()
    if number is not None and number >= KERNEL_HALF:
        spaces = spaces_at(s, number).tolist() or [space_of_file(s, number) or _file_of_vma(s, number)]
    elif number is not None:
        spaces = spaces_of_number(s, number).tolist()
    found = [(space, "") for space in spaces if space]
    # A number in words is seldom part of a path: libc, abba.
    return found or (spaces_called(s, asked) if number is None or not asked.strip()[:1].isdigit() else [])


def file_named(s: Snapshot, asked: str) -> int:
    """Address of the address_space that is meant, named as for `files_named` or by ``who:address``.

    Raises:
        UsageError: There is none, or several.
    """
    of_process = split_address(asked) if "/" not in asked else None
    if of_process is not None:
        return _file_at(s, *of_process)
    found = files_named(s, asked)
    if not found:
        raise no_file(s, asked, f"{NO_FILE}; --all searches all of memory")
    if len(found) > 1:
        raise several_files(asked, [f"{space:#x} ({clean(path)})" if path else f"{space:#x}" for space, path in found])
    return found[0][0]


def _file_of_vma(s: Snapshot, address: int) -> int:
    vma = vma_at(s, address)
    return space_of_file(s, vma.file) if vma is not None and vma.file else 0


def _file_at(s: Snapshot, who: str, va: int) -> int:
    """The address_space of the file that an address of a process is mapped from."""
    one, vma = _vma_of(s, who, va, f"{who}:{va:#x}")
    file = int(one.vmas.file[vma])
    space = space_of_file(s, file) if file else 0
    if not space:
        raise UsageError("no file is mapped there", f"{who}:{va:#x}", f"See folioscope vmas {who}")
    return space


def _vma_of(s: Snapshot, who: str, va: int, asked: str) -> tuple[AimedSnapshot, int]:
    """A process alone, and the row of its VMA at an address."""
    one = aim_at_mm(s, find_process(s, who))
    vma = find_vma(one.vmas, 0, va)
    if vma < 0:
        raise UsageError("no VMA is there", asked, f"See folioscope vmas {who}")
    return one, vma


def anon_vma_named(s: Snapshot, asked: str) -> int:
    """The address that is meant: of an anon_vma or a VMA as it is, of the anon_vma of the VMA at ``who:address``.

    Raises:
        UsageError: There is no such thing.
    """
    number, of_process = parse_number(asked), split_address(asked)
    if number is not None:
        return number
    if of_process is None:
        raise UsageError("this is no number", asked, "Give the address of an anon_vma or a VMA, or PID:ADDRESS")
    who, va = of_process
    one, vma = _vma_of(s, who, va, asked)
    if not one.vmas.anon_vma[vma]:
        raise UsageError("the VMA there has no anon_vma", asked, f"See folioscope vmas {who}")
    return int(one.vmas.anon_vma[vma])


def start_of_vma(s: Snapshot, asked: str) -> tuple[str, int]:
    """Address of its mm_struct, as a word, and start of the VMA that an address is of.

    Raises:
        UsageError: It is that of none.
    """
    number = parse_number(asked)
    found = vma_at(s, number) if number is not None and number >= KERNEL_HALF else None
    if found is None:
        todo = "Give PID ADDRESS, PID:ADDRESS, or the address of a VMA; see folioscope vmas"
        raise UsageError("an address is missing", asked, todo)
    return f"{found.mm:#x}", found.start
