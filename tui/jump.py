"""Words that people have in hand turned into places: pfn, address, pid, pid:va, file, finding, rule, screen."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from inspector.columns import U64, AnyArray
from inspector.errors import FolioscopeError
from inspector.places.pages import pages_named
from inspector.places.processes import find_mm, processes_called
from inspector.places.words import (
    MAX_PID,
    OTHER_WORDS,
    cpu_number,
    pid_or_mm,
    split_address,
    split_file,
    split_form,
    split_slot,
)
from inspector.report.file import find_file
from inspector.report.places import find_place
from inspector.rules import all_rules
from inspector.snapshot import Snapshot
from inspector.text import clean, clean_bytes, parse_number
from inspector.walk.cache_view import find_address_spaces
from inspector.walk.names import file_paths
from inspector.walk.page_cache import address_space_name
from inspector.walk.page_numbers import KERNEL_HALF, number_meanings
from inspector.walk.swap_view import slot_exists
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FindingPlace,
    FindingsPlace,
    FolioPlace,
    FoliosPlace,
    MemoryPlace,
    MmPlace,
    OverviewPlace,
    Place,
    ProcessesPlace,
    RulePlace,
    SlotPlace,
    SubjectPlace,
    SubjectsPlace,
    VmaPlace,
)
from tui.session import Session
from tui.views.findings import find_vma, row_of, short_subject
from tui.views.subjects import SUBJECTS

MOST = 40
"""Places offered at once."""

_FORMS = {
    "pfn": "page frame",
    "phys": "physical address",
    "page": "struct page",
    "virt": "direct-map address",
    "kernel": "kernel address",
}
_SCREENS: tuple[Place, ...] = (
    *(OverviewPlace(), FindingsPlace(), ProcessesPlace(), FoliosPlace(), MemoryPlace(), SubjectsPlace()),
    *(SubjectPlace(name) for name in SUBJECTS),
)


@dataclass(frozen=True)
class Goal:
    """One place that words may mean.

    Attributes:
        place: It.
        what: Kind of thing.
        text: Which one.
    """

    place: Place
    what: str
    text: str


def goals(session: Session, asked: str) -> list[Goal]:
    """All places that words may mean, the likeliest first; for workers."""
    word = asked.strip()
    if not word:
        return [Goal(p, "screen", p.title) for p in _SCREENS]
    found = _by_finding(session, word)
    s = session.snapshot
    form, colon, rest = word.partition(":")
    if split_form(word)[0] is not None:
        return [*found, *_by_form(s, word)]
    of_process = split_address(word)
    if of_process is not None:
        found += _by_va(session, s, *of_process)
    found += _by_signs(s, word)
    number = parse_number(word)
    if number is not None:
        found += _by_number(session, s, number)
    symbol = None if number is not None else s.target.symbol(word)
    if symbol is not None:
        found += _by_number(session, s, symbol)
    # While the address is typed the process is offered.
    if number is None or not word.startswith("0x"):
        found += _by_name(session, s, form.strip() if colon and not rest else word)
    return found[:MOST]


def _by_form(s: Snapshot, word: str) -> list[Goal]:
    """``pfn:0x1000``, ``phys:`` and the other forms that the command line takes."""
    try:
        page = find_place(s, word, None)
    except FolioscopeError:
        return []
    return [Goal(FolioPlace(page.pfn), _FORMS[page.taken_for], f"{word}: pfn {page.pfn:#x}")]


def _by_signs(s: Snapshot, word: str) -> list[Goal]:
    """``cpu 1``, ``type:offset`` of a swap slot, ``file@pgoff``, the path of a memory cgroup."""
    out, slot = [], split_slot(word)
    if cpu_number(word) is not None:
        out.append(Goal(SubjectPlace("cpus"), "cpu", f"CPU {cpu_number(word)}"))
    if slot is not None and slot_exists(s.swap, *(min(n, 1 << 50) for n in slot)):
        out.append(Goal(SlotPlace(*slot), "swap slot", f"{slot[0]}:{slot[1]:#x}"))
    if split_file(word) is not None:
        with suppress(FolioscopeError):
            pfn = pages_named(s, word)[0].pfn
            out.append(Goal(FolioPlace(pfn), "page of a file", f"{word}: pfn {pfn:#x}"))
    if word.startswith("/") and "/" in word[1:] or word.endswith((".slice", ".scope", ".service")):
        paths = [s.lru.memcgs.path(row) for row in range(len(s.lru.memcgs))]
        out += [Goal(SubjectPlace("memcg"), "memcg", path) for path in paths if path.endswith(word)][:8]
    return out


def _by_finding(session: Session, word: str) -> list[Goal]:
    """``#3``, or a slug."""
    found = session.findings
    if word.startswith("#"):
        index = int(word[1:]) - 1 if word[1:].isdigit() else -1
        return [_finding_goal(session, index)] if 0 <= index < len(found) else []
    return []


def _finding_goal(session: Session, index: int) -> Goal:
    finding = session.findings[index]
    return Goal(FindingPlace(index), f"finding #{index + 1}", f"{finding.rule}: {short_subject(finding)}")


def _by_va(session: Session, s: Snapshot, who: str, va: int) -> list[Goal]:
    """``pid:va``, or the name of a process before the colon."""
    out = []
    number = pid_or_mm(who)
    for pid in [pid for pid, _ in processes_called(s, who)] if number is None else [number]:
        try:
            mm = find_mm(s, pid)
        except FolioscopeError:
            continue
        vma = find_vma(s, mm, None, va)
        if vma < 0:
            out.append(Goal(MmPlace(mm), "process", f"{session.process(mm)}, which has no VMA at {va:#x}"))
        else:
            out.append(Goal(VmaPlace(mm, vma, va), "vma", f"{session.process(mm)}, {va:#x}"))
    return out


def _by_number(session: Session, s: Snapshot, number: int) -> list[Goal]:
    """A pid, a page frame, or the address of something."""
    out: list[Goal] = []
    # A number with a page's low bits set is unlikely to be the physical address of one.
    found = [r for r in number_meanings(s.layout, number) if r.form != "phys" or number % 4096 == 0]
    out += [Goal(FolioPlace(r.pfn), _FORMS[r.form], f"{number:#x}: pfn {r.pfn:#x}") for r in found]
    if number < MAX_PID:
        try:
            mm = find_mm(s, number)
            out.insert(0, Goal(MmPlace(mm), "process", session.process(mm)))
        except FolioscopeError:
            pass
    if number >= KERNEL_HALF:
        out = _by_address(session, s, number) + out
    elif number >= 1 << 12:
        out += _holders_of_va(session, s, number)
    if number < KERNEL_HALF:
        spaces = s.files.address_spaces
        rows = find_address_spaces(s.files, ino=number)[: MOST // 4].tolist()
        out += [Goal(FilePlace(int(spaces.addr[row])), "inode", address_space_name(s, row)) for row in rows]
    out += [Goal(MemoryPlace(r.pfn), "memory", f"pfn {r.pfn:#x} in physical memory") for r in found[:1]]
    return out


def _by_address(session: Session, s: Snapshot, address: int) -> list[Goal]:
    """An mm_struct, a VMA, an anon_vma, an address_space or an inode."""
    mm = row_of(s.mms.addr, address)
    if mm >= 0:
        return [Goal(MmPlace(mm), "mm", session.process(mm))]
    vma = row_of(s.vmas.addr, address)
    if vma >= 0:
        owner = int(s.vmas.mm_idx[vma])
        return [Goal(VmaPlace(owner, vma), "vma", f"{session.process(owner)}, {int(s.vmas.start[vma]):#x}")]
    task = row_of(s.tasks.addr, address)
    if task >= 0:
        with suppress(FolioscopeError):
            mm = find_mm(s, address)
            return [Goal(MmPlace(mm), "task", session.process(mm))]
        return [Goal(SubjectPlace("windows"), "task", f"of the kernel, {address:#x}")]
    if row_of(s.anon_rmap.anon_vmas.addr, address) >= 0:
        return [Goal(AnonVmaPlace(address), "anon_vma", f"{address:#x}")]
    try:
        space = int(s.files.address_spaces.addr[find_file(s, f"{address:#x}")])
        return [Goal(FilePlace(space), "file", f"address_space {space:#x}")]
    except FolioscopeError:
        return []


def _holders_of_va(session: Session, s: Snapshot, va: int) -> list[Goal]:
    """VMAs around a user address, in whatever process."""
    inside = np.flatnonzero((s.vmas.start <= np.uint64(va)) & (s.vmas.end > np.uint64(va)))[:MOST]
    mms = s.vmas.mm_idx[inside].tolist()
    return [
        Goal(VmaPlace(mm, vma, va), "vma", f"{session.process(mm)}, {va:#x}")
        for mm, vma in zip(mms, inside.tolist(), strict=True)
    ]


def _by_name(session: Session, s: Snapshot, word: str) -> list[Goal]:
    """Names of screens, processes, findings, rules and files that hold the word."""
    low = word.lower()
    meant = {title for word, title in OTHER_WORDS.items() if word.startswith(low)}
    out = [Goal(p, "screen", p.title) for p in _SCREENS if p.title.startswith(low) or p.title in meant]
    names = session.keep("comms", lambda: [clean_bytes(bytes(c)).lower() for c in s.mms.comm])
    pids = s.mms.pid.tolist()
    some = [i for i, name in enumerate(names) if low in name and pids[i] >= 0]
    some.sort(key=lambda i: names[i] != low)
    out += [Goal(MmPlace(i), "process", session.process(i)) for i in some[: MOST // 2]]
    out += [_finding_goal(session, i) for i, f in enumerate(session.findings) if low in f.rule][:8]
    out += [Goal(RulePlace(r.slug), "rule", f"{r.slug}: {r.title}") for r in all_rules() if low in r.slug][:8]
    paths = session.keep("paths", lambda: _paths(s))
    hits = [(path, addr) for path, addr in paths if low in path.lower()]
    out += [Goal(FilePlace(addr), "file", path) for path, addr in hits[: MOST // 2]]
    return out


def _paths(s: Snapshot) -> list[tuple[str, int]]:
    """Paths of all mapped files with their address_spaces."""
    mapped = np.flatnonzero(s.vmas.file != 0)
    files: U64
    first: AnyArray
    files, first = np.unique(s.vmas.file[mapped], return_index=True)
    spaces = s.file_rmap.address_space_of_vma[mapped[first]]
    named: dict[int, str] = {}
    for path, space in zip(file_paths(s.layout, files), spaces.tolist(), strict=True):
        if space >= 0:
            named.setdefault(int(s.file_rmap.address_spaces.addr[space]), clean(path))
    return sorted((path, addr) for addr, path in named.items())
