"""A snapshot whose tables hold the rows that one question needs, so that it costs what it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from inspector.aimed.pages import memmap_with_heads
from inspector.columns import I64, U64, AnyArray, Mask, Stretches, Table, distinct, rows_of, take_or
from inspector.layout.flags import VM_LOCKED
from inspector.layout.memmap import MemMap
from inspector.records import cached_property, dataclass
from inspector.snapshot import TABLES, Needed, Snapshot, tables_made_from
from inspector.tables.anon_vmas import AnonRmap, read_anon_trees
from inspector.tables.batches import Batched
from inspector.tables.files import AddressSpaces
from inspector.tables.i_mmap import FileRmap, build_file_rmap
from inspector.tables.mms import Mms, read_mms, read_users
from inspector.tables.pages import Sweep, sweep_pages
from inspector.tables.stacks import Stacks
from inspector.tables.tasks import Tasks, read_thread_groups
from inspector.tables.vmas import Vmas, VmaTrees, build_vmas, with_vmas_of_slab
from inspector.text import counted
from inspector.walk.batches import KeptMappings
from inspector.walk.counts import Counter, MappingCounts, judge
from inspector.walk.mappings import (
    TABLE_UNREADABLE,
    Mappings,
    Walk,
    entry_pages,
)
from inspector.walk.pagetable import walk_page_tables
from inspector.walk.unread_tables import tables_not_followed


@dataclass(frozen=True, slots=True)
class UserPlaces(Table):
    """Stretches of user addresses, by the mm that they belong to.

    Attributes:
        mm: uint64; address of the mm_struct.
        start, end: uint64; [start, end).
    """

    mm: U64
    start: U64
    end: U64


_FEW = 16
"""Mms whose users are looked for one by one; for more of them all tasks are read."""


class NotAimedAtError(AttributeError):
    """A table that would need all of memory was asked of a snapshot of a part: a mistake of the program."""


class AimedSnapshot(Snapshot):
    """The rows of a snapshot's tables that belong to some mms, or to some addresses in them.

    What reads a `Snapshot` reads this one too. Its tables hold:

    - ``tasks`` and what is made of them alone (``stacks``, ``being_dumped``): all, shared with the whole snapshot;
    - ``mms``: the mms of the aim that are alive, with the same names and in the same order as among all;
    - ``vmas``: their VMAs, where addresses are given those that overlap them;
    - ``tables``, ``mappings``, ``nonpresent``: what their page tables hold, at the given addresses. No other entry is
      read; page tables are judged by their own struct pages;
    - ``pages``, ``folios``: the struct pages of the aim, else of the pages that ``mappings`` show (the first of each
      huge entry), with their heads;
    - ``counts``: the mappings of these mms at these addresses, and no others.

    Every other table would be made from a part and be wrong without a sign: to ask for one is an error. So is what
    compares a folio's counters (``expected`` and the like), unless the aim has every place that may map the folio, as
    `inspector.aimed.folio` finds them.

    Examples::

        one = AimedSnapshot(s, np.array([mm], np.uint64))     # a process: its VMAs and page tables, its pages
        places = UserPlaces(mm=..., start=..., end=...)
        few = AimedSnapshot(s, places.mm, places=places)      # some addresses: the VMAs and entries there

    Args:
        whole: A snapshot of the target, whose layout and tasks are used. Nothing else of it is built.
        mms: uint64; addresses of what should be mm_structs, in any order.
        places: The addresses that are wanted; None for all of these mms.
        memmap: The struct pages wanted; None for those of all pages that are mapped there.
    """

    def __init__(
        self, whole: Snapshot, mms: U64, *, places: UserPlaces | None = None, memmap: MemMap | None = None
    ) -> None:
        super().__init__(whole.target)
        self.layout = whole.layout
        self.whole = whole
        self._mm_addrs = mms
        self._places = places
        self._memmap = memmap

    _PARTS: ClassVar[tuple[Needed, ...]] = (Needed.PAGES, Needed.PLACES)
    """What an aim has of the target: the tables that this is enough for are made, and those of the class's own body."""
    _ALSO: ClassVar[frozenset[str]] = frozenset()
    """Tables of the whole snapshot's making that are right for this aim, too."""
    _ONLY: ClassVar[frozenset[str] | None] = None
    """The tables of an aim that makes fewer."""
    _HERE: ClassVar[frozenset[str]]
    """The tables that an aim makes."""

    def __init_subclass__(cls) -> None:
        cls._HERE = cls._made()

    @classmethod
    def _made(cls) -> frozenset[str]:
        """The tables that the aim makes.

        Raises:
            TypeError: A name in its declaration is that of no table.
        """
        unknown = (cls._ALSO | (cls._ONLY or frozenset())) - TABLES
        if unknown:
            msg = f"{cls.__name__} declares what is no table of a snapshot: {', '.join(sorted(unknown))}"
            raise TypeError(msg)
        own = {name for each in cls.__mro__ if issubclass(each, AimedSnapshot) for name in vars(each)} & TABLES
        return cls._ONLY if cls._ONLY is not None else tables_made_from(*cls._PARTS) | own | cls._ALSO

    def knows(self, table: str) -> bool:
        """Whether the aim makes the table."""
        return table in type(self)._HERE

    def __getattribute__(self, name: str) -> object:
        if name in TABLES and name not in type(self)._HERE:
            raise NotAimedAtError(f"an aimed snapshot has no {name}", name=name, obj=self)
        return super().__getattribute__(name)

    # -- struct pages ------------------------------------------------------------------------------------------------

    @cached_property
    def _sweep(self) -> Sweep:
        memmap = self._memmap if self._memmap is not None else memmap_with_heads(self.layout, *self._pages_mapped())
        sweep = sweep_pages(replace(self.layout, memmap=memmap), np.empty(0, np.uint64))
        self.missing.add("struct pages", int((~sweep.pages.readable).sum()))
        return sweep

    def _pages_mapped(self) -> tuple[I64, I64]:
        """Runs of the page frames that entries name: first page and how many.

        Of a huge entry the first page says what the folio is. Which PTEs map the others beside it matters where VMAs
        are locked alone: their pages are shared out one by one.
        """
        first, nr = self._pages_of_mappings()
        away = self._walk.nonpresent.pfn
        away = away[away >= 0]
        return np.concatenate([first, away]), np.concatenate([nr, np.ones(len(away), np.int64)])

    def _pages_of_mappings(self) -> tuple[I64, I64]:
        """Those that leaf entries name."""
        return self._pages_of(self._walk.mappings)

    def _pages_of(self, m: Mappings) -> tuple[I64, I64]:
        """Those that some leaf entries name."""
        locked = take_or(self.vmas.has(VM_LOCKED), m.vma_idx, False)
        return m.pfn, m.nr.astype(np.int64) * np.where(locked, entry_pages(self.layout, m.level), 1)

    # -- tasks, mms, VMAs --------------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> Tasks:
        """One row a task: all of them, which name the mms."""
        tasks = self.whole.tasks
        self.missing.add("tasks", self.whole.missing.counts.get("tasks", 0))
        return tasks

    @property
    def being_dumped(self) -> Mask:
        """Tasks whose process is writing a core dump."""
        return self.whole.being_dumped

    @property
    def stacks(self) -> Stacks:
        """The kernel stacks of all tasks as frames."""
        return self.whole.stacks

    @property
    def batches(self) -> Batched:
        """Folios in per-CPU batches: all, for there are few."""
        return self.whole.batches

    @property
    def _users(self) -> Tasks:
        """The tasks that name the mms: those that use them where that can be had for less, else all."""
        addrs = distinct(self._mm_addrs)
        if "tasks" not in vars(self.whole) and 0 < len(addrs) <= _FEW:
            found = read_users(self.layout, addrs)
            if found is not None:
                return found
        return self.tasks if len(addrs) else read_thread_groups(self.layout, addrs)[0]

    @cached_property
    def mms(self) -> Mms:
        """The mms of the aim that are alive."""
        mms, missing = read_mms(self.layout, self._users, self._mm_addrs)
        self.missing.add("mms", missing)
        return mms

    @cached_property
    def _only(self) -> Stretches | None:
        """The wanted addresses by row of the mm."""
        if self._places is None:
            return None
        row = rows_of(self.mms.addr, self._places.mm)
        known = self._places.take(row >= 0)
        return Stretches.of(row[row >= 0], known.start, known.end, self.layout.memmap.page_shift)

    @cached_property
    def _vmas(self) -> tuple[Vmas, VmaTrees]:
        vmas, trees = build_vmas(self.layout, self.mms, self._only)
        if len(trees.unreadable):
            slots = self.whole.slots_of_vmas(vmas.addr)
            vmas = with_vmas_of_slab(self.layout, self.mms, vmas, trees, slots)
        self.missing.add("VMA tree nodes", len(trees.unreadable))
        self.missing.add("VMAs", len(trees.missing))
        return vmas, trees

    # -- page tables -------------------------------------------------------------------------------------------------

    @cached_property
    def _walk(self) -> Walk:
        walk = walk_page_tables(self.layout, self._pages_now, self.mms, self.vmas, only=self._only)
        self.missing.add("page tables", int((walk.tables.state == TABLE_UNREADABLE).sum()))
        return walk

    @cached_property
    def _walked(self) -> tuple[Walk, MappingCounts, KeptMappings]:
        counter = Counter(self._ground)
        counter.take(self.mappings)
        return self._walk, counter.counts(), KeptMappings.of(self.mappings)

    @cached_property
    def mappings(self) -> Mappings:
        """One row a run of leaf entries at the addresses of the aim."""
        return judge(self._ground, self._walk.mappings)

    @property
    def tables_complete(self) -> bool:
        """Never: other page tables may hold more mappings of the same folios, and were not looked for."""
        return False

    def may_be_mapped_unseen(self, rows: AnyArray) -> Mask:
        """All may: see `tables_complete`."""
        return np.ones(len(rows), np.bool_)

    @property
    def why_incomplete(self) -> str:
        """Why that is so, a half sentence."""
        return "not all page tables were searched"

    @property
    def gaps(self) -> list[str]:
        """Why the search does not lead to everything that it should lead to, in sentences: what cannot be read."""
        nr = len(tables_not_followed(self))
        lost = sorted({"tasks", "mms", "VMA tree nodes", "VMAs"} & set(self.missing.counts))
        out = [f"{counted(nr, 'page table')} there cannot be followed"] if nr else []
        return out + ([f"some {' and '.join(lost)} cannot be read"] if lost else [])

    @property
    def mappings_whole(self) -> bool:
        """Whether all that was searched for mappings could be read: the mms, their VMAs, their page tables there."""
        return not self.gaps

    @property
    def has_strays(self) -> bool:
        """Whether a reverse map leads to a VMA that is not in the mm which it names: it may be in another's.

        What rules then say of that reverse map is no proof.
        """
        return False

    @property
    def address_spaces(self) -> AddressSpaces:
        """Those of `files`, where the aim has them."""
        return self.files.address_spaces

    # -- reverse maps ------------------------------------------------------------------------------------------------

    @property
    def _named_anon_vmas(self) -> U64:
        """anon_vmas whose interval trees are wanted: those that the VMAs have as their own."""
        return self.vmas.anon_vma

    @property
    def _named_spaces(self) -> U64:
        """address_spaces whose trees are wanted beside those of the VMAs' files."""
        return np.empty(0, np.uint64)

    @cached_property
    def anon_rmap(self) -> AnonRmap:
        """The anon_vmas of the aim, their families' roots and parents, and the chains in their interval trees."""
        rmap = read_anon_trees(self.layout, self.vmas, self._named_anon_vmas)
        self.missing.add("anon_vmas and chains", rmap.unreadable)
        return rmap

    @cached_property
    def file_rmap(self) -> FileRmap:
        """The address_spaces of the aim and their trees of VMAs."""
        rmap = build_file_rmap(self.layout, self.vmas, self._named_spaces)
        self.missing.add("files and address_spaces", rmap.unreadable)
        return rmap


AimedSnapshot._HERE = AimedSnapshot._made()
