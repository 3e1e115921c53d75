"""Every rebuilt counter of dumps at rest beside the stored one: kernel by kernel, node by node, memcg by memcg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inspector.report.memcg import MemcgReport, build_memcg
from inspector.report.memory import build_memory
from inspector.snapshot import Snapshot
from inspector.target.target import open_core

from .cache import guests_folder
from .kernels import Kernel

GUESTS = ("numa", "rest", "zoo", "devices")
"""The guests of two nodes and of memory cgroups that are dumped at rest."""


@dataclass
class Book:
    """What is compared of one node, zone or memory cgroup.

    Attributes:
        of: Its name.
        compared: Counters.
        equal: Those that are exactly what was rebuilt.
        slop: Those that differ while a lock is held, or a task is at work, under which they may. In the zoo fork waits
            for a userfaultfd: the child has a stack, and is in no list yet (kernel/fork.c, copy_process()).
        different: Those that differ with no reason.
        remarks: What differs, and what keeps a memory cgroup that was removed.
    """

    of: str
    compared: int = 0
    equal: int = 0
    slop: int = 0
    different: int = 0
    remarks: str = ""

    def add(self, name: str, rebuilt: int, stored: int, *, may_differ: bool = False) -> None:
        """Compare one counter."""
        self.compared += 1
        self.equal += rebuilt == stored
        self.slop += rebuilt != stored and may_differ
        self.different += rebuilt != stored and not may_differ
        if rebuilt != stored:
            self.remarks += f"{name}: rebuilt {rebuilt}, stored {stored}; "


def books_of(path: Path) -> list[Book]:
    """All of a dump: zones, nodes and sizes of hugetlb folios first, then memory cgroups as a whole and by node."""
    s = Snapshot(open_core(str(path), types="btf"))
    books: dict[str, Book] = {}
    for each in build_memory(s).sums:
        book = books.setdefault(each.of, Book(each.of))
        book.add(each.counter, each.pages, each.stored, may_differ=each.in_motion)
    books |= dict(_of_memcgs(build_memcg(s)))
    return list(books.values())


def _of_memcgs(report: MemcgReport) -> Iterator[tuple[str, Book]]:
    for group in report.memcgs:
        book = Book(f"memcg {group.path}")
        if group.charged is not None and group.usage is not None:
            book.add("usage", group.charged, group.usage)
        if group.swap is not None and group.slots is not None and not group.children and group.online:
            book.add("MEMCG_SWAP", group.slots, group.swap)
        if not group.online:
            kept = [f"{group.folios} folios" if group.folios else "", f"{group.slots} slots" if group.slots else ""]
            book.remarks += f"removed; {group.references} references: {', '.join(filter(None, kept)) or 'no folio'}"
        yield book.of, book
        nodes: dict[int, Book] = {}
        for each in report.statistics:
            if each.path == group.path:
                at = nodes.setdefault(each.node, Book(f"memcg {group.path} on node {each.node}"))
                at.add(each.counter, each.pages, each.stored)
                # What a flush has not brought in yet is no difference: the counter and what CPUs hold are its value.
                if each.stored != each.shown:
                    at.remarks += f"{each.counter}: {each.stored - each.shown:+} not flushed; "
        yield from ((at.of, at) for at in nodes.values())


def show_books(kernels: list[Kernel], guests: tuple[str, ...]) -> int:
    """Print the table; return the exit code: 1 where something differs or was not compared."""
    print(f"{'kernel':<6} {'guest':<8} {'of':<28} {'compared':>8} {'equal':>6} {'slop':>5} {'different':>10}  remarks")
    bad = 0
    total = Book("all")
    for kernel in kernels:
        for guest in guests:
            for book in books_of(guests_folder() / kernel.name / f"{guest}.elf"):
                print(
                    f"{kernel.name:<6} {guest:<8} {book.of:<28} {book.compared:>8} {book.equal:>6} {book.slop:>5}"
                    f" {book.different:>10}  {book.remarks.rstrip('; ')}".rstrip(),
                    flush=True,
                )
                bad += book.different
                total.compared += book.compared
                total.equal += book.equal
                total.slop += book.slop
                total.different += book.different
    print(f"{total.compared} compared: {total.equal} equal, {total.slop} within slop, {total.different} different")
    return 1 if bad or not total.compared else 0
