"""One file: its page cache, its tree of VMAs, and what these VMAs map; and how a file is found by name or number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from inspector.aimed.pages import memmap_with_heads
from inspector.aimed.snapshot import AimedSnapshot
from inspector.columns import I64, U64, AnyArray, Stretches, distinct, is_among, rows_of, take_or
from inspector.layout.memmap import MemMap
from inspector.records import cached_property
from inspector.snapshot import Search, Snapshot
from inspector.tables.files import FOLIO, Files, read_files
from inspector.tables.i_mmap import build_file_rmap
from inspector.tables.mms import read_mms
from inspector.tables.pages import Sweep
from inspector.tables.vmas import Vmas, VmaTrees, build_vmas, read_vmas
from inspector.walk.batches import EntryWalk, KeptMappings
from inspector.walk.counts import Counter, MappingCounts, judge
from inspector.walk.mappings import TABLE_UNREADABLE, Mappings, Walk
from inspector.walk.names import file_paths, may_be_named
from inspector.walk.pagetable import walk_page_tables
from inspector.walk.paths import address_space_of_inode, inode_of_path, inodes_of_number

_WHOLE_TREES = 1 << 15
"""VMAs of the mms concerned up to which all are read, and not only those that are in the file's tree; and VMAs read
together."""

_MAX_ORDER = 20

_MANY = 1 << 12
"""Stretches of struct pages gathered before those that are the same are joined."""


class FileSnapshot(AimedSnapshot):
    """One address_space, its page cache, and the VMAs of it in the mms that its i_mmap tree leads to.

    Of their page tables the parts are read that belong to these VMAs. A VMA of the file in an mm that no VMA of the
    tree is in, is not found.

    Args:
        whole: A snapshot of the target.
        address_space: Its address.
    """

    _ALSO = frozenset({"lost_vmas"})

    search: Search = "reverse map"

    def __init__(self, whole: Snapshot, address_space: int) -> None:
        self._space: U64 = np.array([address_space], np.uint64)
        nodes = build_file_rmap(whole.layout, Vmas.empty(), self._space).nodes
        self._in_tree, _ = read_vmas(whole.layout, distinct(nodes.vma))
        super().__init__(whole, distinct(self._in_tree.vm_mm))

    @cached_property
    def _vmas(self) -> tuple[Vmas, VmaTrees]:
        only, known = None, self._in_tree
        if int(self.mms.map_count.sum()) > _WHOLE_TREES:
            row = rows_of(self.mms.addr, known.vm_mm)
            here = known.take(row >= 0)
            only = Stretches.of(row[row >= 0], here.start, here.end, self.layout.memmap.page_shift)
        vmas, trees = build_vmas(self.layout, self.mms, only)
        self.missing.add("VMA tree nodes", len(trees.unreadable))
        self.missing.add("VMAs", len(trees.missing))
        mine = _spaces_of(self, vmas.file) == self._space[0]
        return vmas.take(mine | is_among(vmas.addr, known.addr)), trees

    @cached_property
    def _only(self) -> Stretches:
        v = self.vmas
        return Stretches.of(v.mm_idx, v.start, v.end, self.layout.memmap.page_shift)

    # -- what its VMAs map, an entry at a time of each process that maps it: handed on in batches and not kept ---------

    def _walk_down(self, take: Callable[[Mappings], None] | None) -> Walk:
        return walk_page_tables(self.layout, self._pages_now, self.mms, self.vmas, take, only=self._only)

    @cached_property
    def _found(self) -> tuple[Walk, MemMap]:
        """Page tables, non-present entries, and the struct pages of what leaf entries name."""
        memmap = self.layout.memmap
        none = memmap.around(np.empty(0, np.int64))
        parts, nr_parts = [none], 0

        def joined() -> MemMap:
            starts, ends = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "ends"))
            return memmap.around(starts, ends - starts)

        def take(m: Mappings) -> None:
            nonlocal nr_parts
            parts.append(memmap.around(*self._pages_of(m)))
            nr_parts += len(parts[-1].starts)
            if nr_parts > max(2 * len(parts[0].starts), _MANY):
                parts[:] = [joined()]
                nr_parts = len(parts[0].starts)

        walk = self._walk_down(take)
        self.missing.add("page tables", int((walk.tables.state == TABLE_UNREADABLE).sum()))
        return walk, joined()

    @property
    def _walk(self) -> Walk:
        return self._found[0]

    def _pages_of_mappings(self) -> tuple[I64, I64]:
        part = self._found[1]
        return part.starts, part.ends - part.starts

    @cached_property
    def _walked(self) -> tuple[Walk, MappingCounts, KeptMappings]:
        counter = Counter(self._ground)
        self._walk_down(lambda found: counter.take(judge(self._ground, found)))
        return self._walk, counter.counts(), KeptMappings()

    @cached_property
    def mappings(self) -> Mappings:
        """One row a run of leaf entries in its VMAs: all of them at once, which no command asks for."""
        return judge(self._ground, self._walk_down(None).mappings)

    def entry_walk(self, tables: AnyArray | None = None) -> EntryWalk:
        """The same, those of some page tables."""
        return list(KeptMappings.of(self.mappings).batches(tables))

    # -- its page cache ----------------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> Files:
        """The address_space and its page cache."""
        files = read_files(self.layout, self._space)
        self.missing.add("page cache trees", files.unreadable)
        return files

    @cached_property
    def _sweep(self) -> Sweep:
        """The struct pages of all cached folios, and of what the VMAs map beside these."""
        entries = self.files.entries
        cached = entries.take(np.flatnonzero((entries.kind == FOLIO) & (entries.pfn >= 0)))
        first, nr = self._pages_mapped()
        heads = memmap_with_heads(self.layout, np.concatenate([first, cached.pfn]), np.concatenate([nr, cached.nr]))
        # hugetlb's entries are one for a folio of any size.
        part = AimedSnapshot(self.whole, np.empty(0, np.uint64), memmap=heads)
        folio = part.folio_of_page[part.pages.memmap.rows(cached.pfn)]
        pages: I64 = np.int64(1) << np.minimum(take_or(part.folios.order, folio, 0), _MAX_ORDER).astype(np.int64)
        if (pages > cached.nr).any():
            self._memmap = memmap_with_heads(self.layout, np.append(first, cached.pfn), np.append(nr, pages))
        else:
            self._memmap = heads
        return super()._sweep

    @property
    def _named_anon_vmas(self) -> U64:
        return np.empty(0, np.uint64)

    @property
    def _named_spaces(self) -> U64:
        return self._space

    @property
    def has_strays(self) -> bool:
        """Whether its tree holds a VMA that is not in the mm which it names: it may be in another's."""
        return bool((self.file_rmap.nodes.vma_idx < 0).any())


def _spaces_of(s: Snapshot, files: U64) -> U64:
    """The address_space of each struct file, 0 for none."""
    given = np.flatnonzero(files)
    known, which = np.unique(files[given], return_inverse=True)
    words, _ = s.layout.memory.words(known + np.uint64(s.layout.struct("struct file").field("f_mapping").offset))
    out = np.zeros(len(files), np.uint64)
    out[given] = words[which]
    return out


def spaces_at(s: Snapshot, address: int) -> U64:
    """The address_space that an address is of, or the address_space of the inode that it is of; empty for neither."""
    if address % 8 or address >= 1 << 64:
        return np.empty(0, np.uint64)
    of_inode = address_space_of_inode(s.layout, address)
    spaces = read_files(s.layout, np.array([address, of_inode], np.uint64)).address_spaces
    at = np.uint64(address)
    own = (spaces.addr == at) & (spaces.is_inode | (spaces.swap_type >= 0))
    return spaces.addr[own | ((spaces.host == at) & spaces.is_inode)]


def spaces_of_number(s: Snapshot, ino: int) -> U64:
    """Address_spaces in use of an inode number: of inodes in the kernel's hash, and of the files that processes map."""
    inodes = inodes_of_number(s.layout, ino).tolist()
    hashed = np.array([address_space_of_inode(s.layout, inode) for inode in inodes], np.uint64)
    mapped = [distinct(_spaces_of(s, files)) for files in _mapped_files(s)]
    spaces = read_files(s.layout, np.concatenate([hashed, *mapped]), (0, 0)).address_spaces
    return _in_use(s, spaces.addr[spaces.is_inode & (spaces.ino == np.uint64(ino))])


def spaces_of_path(s: Snapshot, path: str) -> U64:
    """Address_spaces that a path leads to in the first mount namespace; else those of mapped files of that path."""
    inode = inode_of_path(s.layout, path)
    found = np.array([address_space_of_inode(s.layout, inode)] if inode else [], np.uint64)
    found = _in_use(s, found)
    if len(found):
        return found
    named = [np.empty(0, np.uint64)]
    for files in _mapped_files(s):
        some = files[may_be_named(s.layout, files, path)]
        same = np.array([name == path for name in file_paths(s.layout, some)], np.bool_)
        named.append(_spaces_of(s, some[same]))
    every = distinct(np.concatenate(named))
    return every[every != 0]


def spaces_called(s: Snapshot, word: str) -> list[tuple[int, str]]:
    """Address_spaces and paths of the mapped files whose path has a word in it; those alone whose last part it is."""
    low, found = word.strip().lower(), dict[int, str]()
    for files in _mapped_files(s) if low else ():
        paths = file_paths(s.layout, files)
        fits = np.array([low in path.lower() for path in paths], np.bool_)
        named = [path for path, fit in zip(paths, fits.tolist(), strict=True) if fit]
        for space, path in zip(_spaces_of(s, files[fits]).tolist(), named, strict=True):
            if space:
                found.setdefault(space, path)
    same = [one for one in found.items() if one[1].lower().rpartition("/")[2] == low]
    return same or sorted(found.items(), key=lambda one: one[1])


def space_of_file(s: Snapshot, file: int) -> int:
    """The address_space of a struct file, 0 where an address is that of none."""
    at: U64 = np.array([file], np.uint64)
    inode = (
        s.layout.memory.read_u64(file + s.layout.struct("struct file").field("f_inode").offset) if file % 8 == 0 else 0
    )
    space = int(_spaces_of(s, at)[0]) if inode else 0
    return space if space and inode and address_space_of_inode(s.layout, inode) == space else 0


def _in_use(s: Snapshot, spaces: U64) -> U64:
    """Those address_spaces that have pages, or VMAs."""
    read = read_files(s.layout, spaces, (0, 0)).address_spaces
    tree = build_file_rmap(s.layout, Vmas.empty(), read.addr).address_spaces
    mapped = take_or(tree.tree, rows_of(tree.addr, read.addr), 0) != 0
    return read.addr[read.is_inode & ((read.nrpages > 0) | (read.swapped > 0) | mapped)]


def _mapped_files(s: Snapshot) -> Iterator[U64]:
    """Addresses of the struct files that VMAs of all tasks map, those of some mms at a time."""
    mms, _ = read_mms(s.layout, s.tasks, distinct(s.tasks.mm))
    pile = np.cumsum(mms.map_count) // _WHOLE_TREES
    for rows in np.split(np.arange(len(mms)), np.flatnonzero(np.diff(pile)) + 1):
        vmas, _ = build_vmas(s.layout, mms.take(rows))
        yield distinct(vmas.file[vmas.file != 0])
