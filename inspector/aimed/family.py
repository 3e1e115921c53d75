"""One family of anon_vmas: its members, their chains, and the VMAs that these lead to."""

from __future__ import annotations

import numpy as np

from inspector.aimed.snapshot import AimedSnapshot, UserPlaces
from inspector.columns import I32, U64, Mask, distinct, is_among, rows_of, union
from inspector.records import cached_property, dataclass
from inspector.snapshot import Search, Snapshot
from inspector.tables.anon_vmas import AnonRmap, build_anon_rmap
from inspector.tables.i_mmap import FileRmap, build_file_rmap
from inspector.tables.vmas import Vmas, VmaTrees, build_vmas, read_vmas

_MAX_ROUNDS = 64
"""Chains lead to VMAs, whose lists lead to more anon_vmas: sound families are whole after two rounds."""

_WHOLE_TREES = 1 << 15
"""VMAs of the mms concerned up to which all are read, and not only those that chains lead to."""


class FamilySnapshot(AimedSnapshot):
    """The anon_vmas of one family and the VMAs of theirs.

    From the anon_vma the search goes to its root and parents, from their interval trees to the VMAs, from the lists of
    these to further anon_vmas, until nothing new is found. ``vmas`` are the VMAs that chains of the family lead to or
    that have a member as their own, among those of the mms that chains lead to. A VMA in none of these mms is not
    found, even if it names a member: then the family's own counters do not add up.

    Args:
        whole: A snapshot of the target.
        anon_vma: Address of a member.
    """

    _ONLY = frozenset(
        {
            *("layout", "tasks", "static_mms", "mms", "vmas", "vma_trees", "vma_tree_sound", "mm_in_motion"),
            *("anon_rmap", "anon_vma_locked", "file_rmap", "lost_vmas"),
        }
    )

    search: Search = "reverse map"

    def __init__(self, whole: Snapshot, anon_vma: int) -> None:
        super().__init__(whole, np.empty(0, np.uint64))
        self.anon_vma = anon_vma
        known = np.empty(0, np.uint64)
        for _ in range(_MAX_ROUNDS):
            vmas, _ = read_vmas(self.layout, known)
            rmap = self._rmap(vmas, np.zeros(len(vmas), np.bool_))
            chained = rmap.avcs.tree_idx >= 0
            more = union(known, rmap.avcs.vma[chained & self._of_family(rmap, rmap.avcs.tree_idx)])
            if len(more) == len(known):
                break
            known = more
        self._chained = vmas
        self._members = rmap.anon_vmas.addr[self._of_family(rmap, np.arange(len(rmap.anon_vmas), dtype=np.int32))]
        self._mm_addrs = distinct(vmas.vm_mm)

    def _rmap(self, vmas: Vmas, freed: Mask) -> AnonRmap:
        return build_anon_rmap(self.layout, vmas, np.array([self.anon_vma], np.uint64), freed, is_every_vma=False)

    def _of_family(self, rmap: AnonRmap, rows: I32) -> Mask:
        """Which rows of anon_vmas, -1 for none, have the same root as the one asked for."""
        table = rmap.anon_vmas
        own = int(rows_of(table.addr, np.array([self.anon_vma], np.uint64))[0])
        out: Mask = (rows >= 0) & (table.root[rows] == table.root[own])
        return out | ((rows >= 0) & ((rows == own) | (table.addr[rows] == table.root[own])))

    @cached_property
    def _vmas(self) -> tuple[Vmas, VmaTrees]:
        c = self._chained
        if int(self.mms.map_count.sum()) > _WHOLE_TREES:
            self._places = UserPlaces(c.vm_mm, c.start, c.end)
        vmas, trees = build_vmas(self.layout, self.mms, self._only)
        self.missing.add("VMA tree nodes", len(trees.unreadable))
        self.missing.add("VMAs", len(trees.missing))
        return vmas.take(is_among(vmas.addr, c.addr) | is_among(vmas.anon_vma, self._members)), trees

    @cached_property
    def anon_rmap(self) -> AnonRmap:
        """The family, and whatever else the lists of its VMAs lead to."""
        rmap = self._rmap(self.vmas, self.mms.users[self.vmas.mm_idx] <= 0)
        self.missing.add("anon_vmas and chains", rmap.unreadable)
        return rmap

    @cached_property
    def file_rmap(self) -> FileRmap:
        """Nothing: no file is read."""
        return build_file_rmap(self.layout, self.vmas.take(np.empty(0, np.int64)), np.empty(0, np.uint64))

    @property
    def has_strays(self) -> bool:
        """Whether a chain leads to a VMA that is not in the mm which it names: it may be in another's."""
        avcs = self.anon_rmap.avcs
        return bool(((avcs.tree_idx >= 0) & (avcs.vma_idx < 0)).any())

    @property
    def is_one(self) -> bool:
        """Whether there is an anon_vma at the address: anything leads to it, or it has a tree that leads back."""
        table, avcs = self.anon_rmap.anon_vmas, self.anon_rmap.avcs
        row = int(rows_of(table.addr, np.array([self.anon_vma], np.uint64))[0])
        if not table.readable[row] or table.root_idx[row] < 0:
            return False
        named = (avcs.anon_vma_idx == row).any() or (self.vmas.anon_vma == table.addr[row]).any()
        others = np.arange(len(table)) != row
        return bool(named or ((table.parent_idx == row) & others).any() or ((table.root_idx == row) & others).any())


@dataclass(frozen=True, slots=True)
class FoundVma:
    """A VMA that an address turned out to be of.

    Attributes:
        mm: Address of its mm_struct.
        start, end: User virtual addresses, [start, end).
        anon_vma, file: As it names them, 0 for none.
    """

    mm: int
    start: int
    end: int
    anon_vma: int
    file: int


def vma_at(s: Snapshot, address: int) -> FoundVma | None:
    """The VMA of an address, if the mm that it names has it where it says; None where it does not."""
    at: U64 = np.array([address], np.uint64)
    seen, readable = read_vmas(s.layout, at)
    if not readable[0]:
        return None
    own = AimedSnapshot(s, seen.vm_mm, places=UserPlaces(seen.vm_mm, seen.start, seen.end)).vmas
    for row in np.flatnonzero(own.addr == at)[:1].tolist():
        columns = own.start, own.end, own.anon_vma, own.file
        return FoundVma(int(seen.vm_mm[0]), *(int(column[row]) for column in columns))
    return None


def anon_vma_at(s: Snapshot, address: int) -> int:
    """The address itself, or the anon_vma of the VMA that it is the address of; 0 for a VMA without one.

    Args:
        s: The snapshot.
        address: Any.
    """
    found = vma_at(s, address)
    return address if found is None else found.anon_vma
