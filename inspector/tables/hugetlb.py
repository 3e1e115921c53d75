"""hugetlb's pools, the folios on their lists, and what each VMA of hugetlb memory keeps."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, rows_of, take_or
from inspector.layout.flags import VM_MAYSHARE
from inspector.layout.kernel import Layout
from inspector.lib.chains import follow_chains
from inspector.records import dataclass
from inspector.tables.folios import Folios
from inspector.tables.locks import is_held
from inspector.tables.pages import Pages, page_words
from inspector.tables.vmas import Vmas

_MAX_HSTATES = 16
"""More sizes than any architecture has (HUGE_MAX_HSTATE)."""

_RESV_FLAGS = 3
"""HPAGE_RESV_OWNER and HPAGE_RESV_UNMAPPED (mm/hugetlb.c), kept in the low bits of a private VMA's pointer."""

_FLAGS, _OPTIMISED = "enum hugetlb_page_flags", "HPG_vmemmap_optimized"

OFF_LIST, ON_ACTIVE, ON_FREE = range(3)
"""Where a hugetlb folio is: on no list (isolated, or in transit), in use, free."""


def has_shared_tails(layout: Layout, pages: Pages, folios: Folios) -> Mask:
    """Which compound pages are hugetlb folios whose tail struct pages may be aliases of shared ones.

    mm/hugetlb_vmemmap.c, HPG_vmemmap_optimized, a flag in the private word of the head. Until 6.6 it is set after the
    tails are remapped: by then their first alias, that of the head, shows PG_head.
    """
    out = folios.is_hugetlb.copy()
    at = np.flatnonzero(out)
    if _OPTIMISED not in layout.enum(_FLAGS) or not len(at):
        return out
    head = folios.row[at].astype(np.int64)
    private, known = page_words(layout, pages, head, "private")
    alias = np.minimum(head + layout.memmap.structs_a_page, len(pages) - 1)
    out[at] = has_hugetlb_flag(layout, private, _OPTIMISED) | ~known | layout.flags.test(pages.flags[alias], "head")
    return out


def hugetlb_words(layout: Layout, pages: Pages, folios: Folios) -> tuple[U64, Mask]:
    """By folio the private word of its head, where hugetlb keeps flags; and for which hugetlb folios it is known."""
    out, known = np.zeros(len(folios), np.uint64), np.zeros(len(folios), np.bool_)
    at = np.flatnonzero(folios.is_hugetlb & folios.readable)
    out[at], known[at] = page_words(layout, pages, folios.row[at].astype(np.int64), "private")
    return out, known


def hugetlb_flags(layout: Layout, word: int) -> list[str]:
    """The flags that hugetlb keeps in the private word of a head (include/linux/hugetlb.h, enum hugetlb_page_flags)."""
    bits = {at: name for name, at in layout.enum(_FLAGS).items() if name.startswith("HPG_")}
    return [name.removeprefix("HPG_") for at, name in sorted(bits.items()) if word >> at & 1]


def has_hugetlb_flag(layout: Layout, words: U64, name: str) -> Mask:
    """Which of these words have one of these flags; none where the kernel does not know it."""
    bit = layout.enum(_FLAGS).get(name)
    return np.zeros(len(words), np.bool_) if bit is None else (words >> np.uint64(bit)) & np.uint64(1) != 0


def optimised(layout: Layout, words: U64) -> Mask:
    """Which of these words say that the tail struct pages of a folio are shared."""
    return has_hugetlb_flag(layout, words, _OPTIMISED)


@dataclass(frozen=True, slots=True)
class Hstates(Table):
    """One row a size of hugetlb folios.

    Attributes:
        addr: uint64; struct hstate.
        order: uint8.
        name: bytes; such as ``hugepages-2048kB``.
        nr, free, resv, surplus: int64; nr_huge_pages, free_huge_pages, resv_huge_pages, surplus_huge_pages.
        overcommit: int64; nr_overcommit_huge_pages.
        nr_active, nr_listed_free, nr_off_list: int64; folios of that size on the list of those in use, on the lists of
            free ones, and in the memory map but on neither.
        broken: bool; one of its lists is damaged or holds something else than hugetlb folios.
    """

    addr: U64
    order: U8
    name: AnyArray
    nr: I64
    free: I64
    resv: I64
    surplus: I64
    overcommit: I64
    nr_active: I64
    nr_listed_free: I64
    nr_off_list: I64
    broken: Mask


@dataclass(frozen=True, slots=True)
class PoolNodes(Table):
    """One row a pool of one NUMA node.

    Attributes:
        hstate_idx: int32; row of the size.
        nid: int32.
        nr, free, surplus: int64; the node's counters as stored.
        nr_listed_free: int64; folios on its list.
    """

    hstate_idx: I32
    nid: I32
    nr: I64
    free: I64
    surplus: I64
    nr_listed_free: I64


@dataclass(frozen=True, slots=True)
class PoolFolios(Table):
    """One row a hugetlb folio, in the order of the folio table.

    Attributes:
        folio_idx: int32; row in `Folios`.
        hstate_idx: int32; row of the size on whose list it is, else of the size of its order, -1 for none.
        where: uint8; `OFF_LIST`, `ON_ACTIVE` or `ON_FREE`.
        nid: int32; node of the free list it is on, -1 for none.
        subpool: uint64; the subpool it is charged to, 0 for none.
    """

    folio_idx: I32
    hstate_idx: I32
    where: U8
    nid: I32
    subpool: U64


@dataclass(frozen=True, slots=True)
class HugetlbVmas(Table):
    """One row a VMA of hugetlb memory, in the order of the VMA table.

    Attributes:
        vma_idx: int32; row in `Vmas`.
        hstate_idx: int32; row of its size, -1 when it is not known.
        lock: uint64; hugetlb_vma_lock of a shareable VMA, 0 for none.
        lock_vma: uint64; the VMA that the lock names.
        resv_map: uint64; map of its reservations: the file's, or its own if private; 0 for none.
        resv_flags: uint8; 1 owner of the map, 2 a page was taken from it (private VMAs).
    """

    vma_idx: I32
    hstate_idx: I32
    lock: U64
    lock_vma: U64
    resv_map: U64
    resv_flags: U8


@dataclass(frozen=True)
class Hugetlb:
    """Everything hugetlb keeps.

    Attributes:
        hstates, nodes, folios, vmas: The tables.
        active: Whether hugetlb_lock is held: pools and counters may be half changed.
        missing: How many sizes' pools are not in the dump.
        unreadable: How many things in all could not be read.
    """

    hstates: Hstates
    nodes: PoolNodes
    folios: PoolFolios
    vmas: HugetlbVmas
    active: bool
    missing: int
    unreadable: int


def build_hugetlb(layout: Layout, folios: Folios, vmas: Vmas) -> Hugetlb:
    """Read hugetlb's pools (mm/hugetlb.c, ``hstates``), its folios' places and its VMAs' private data."""
    nr = 0
    if layout.target.symbol("hstates") is not None:
        nr = min(layout.variable("hugetlb_max_hstate", size=4) or 0, _MAX_HSTATES)
    struct = layout.struct("struct hstate") if nr else None
    size = struct.size if struct is not None else 0
    base = layout.symbol("hstates") if nr else 0
    addr = np.uint64(base) + np.arange(nr, dtype=np.uint64) * np.uint64(size)
    raw = layout.memory.gather(addr, max(size, 1))
    addr, data = addr[raw.valid], raw.bytes[raw.valid]
    lists = _lists(layout, addr)
    where = _follow(layout, folios, lists)
    hstates, nodes = (
        _pools(layout, addr, data, lists, where)
        if len(addr)
        else (
            Hstates.empty(name=np.empty(0, "S32")),
            PoolNodes.empty(),
        )
    )
    known = _settle(folios, hstates, where)
    vmas_table, lost = _read_vmas(layout, vmas, hstates)
    hstates = _with_off_list(hstates, known)
    held = is_held(layout, "hugetlb_lock")
    missing = int((~raw.valid).sum())
    return Hugetlb(hstates, nodes, known, vmas_table, held, missing, lost + missing)


@dataclass(frozen=True)
class _Lists:
    """Every list of every size: where its head is, whose it is, and which node's (-1: folios in use)."""

    head: U64
    hstate_idx: I32
    nid: I32


@dataclass(frozen=True)
class _Followed:
    """The hugetlb folios: row, list (-1 for none) and subpool of each; and which lists are damaged."""

    folio_idx: I64
    owner: I32
    subpool: U64
    broken: Mask


def _lists(layout: Layout, addr: U64) -> _Lists:
    if not len(addr):
        return _Lists(addr, np.empty(0, np.int32), np.empty(0, np.int32))
    struct = layout.struct("struct hstate")
    free = struct.field("hugepage_freelists")
    nodes = min(layout.nr_nodes, free.length)
    offsets = [struct.field("hugepage_activelist").offset, *(free.element(i).offset for i in range(nodes))]
    nid = np.arange(-1, nodes, dtype=np.int32)
    head = addr[:, None] + np.array(offsets, np.uint64)[None, :]
    index = np.repeat(np.arange(len(addr), dtype=np.int32), len(offsets))
    return _Lists(head.ravel(), index, np.tile(nid, len(addr)))


def _follow(layout: Layout, folios: Folios, lists: _Lists) -> _Followed:
    """Find the list of each hugetlb folio: from its ``lru`` links instead of from the lists, which may be long."""
    page, memory = layout.struct("struct page"), layout.memory
    rows = np.flatnonzero(folios.is_hugetlb)
    link = np.uint64(page.field("lru").offset)
    own = layout.memmap.page_addrs(folios.pfn[rows])
    addr = own + link
    raw = memory.gather(addr, 16)
    following, before = (raw.bytes.view(np.uint64).reshape(-1, 2)[:, i] for i in (0, 1))
    heads = memory.gather(lists.head, 16).bytes.view(np.uint64).reshape(-1, 2)
    # A list ends where it comes back to a head, its own if all is well.
    ends = np.isin(following, lists.head)
    first = np.where(heads[:, 0] == lists.head, np.uint64(0), heads[:, 0])
    chains = follow_chains(addr, np.where(ends, np.uint64(0), following), first)
    broken = chains.broken.copy()
    member = np.flatnonzero(chains.owner >= 0)
    owner = chains.owner[member]
    wrong_end = ends[member] & (following[member] != lists.head[owner])
    broken[owner[wrong_end]] = True
    back = rows_of(addr, before[member])
    # The one before must point here: another folio, or the head.
    linked = np.where(back >= 0, take_or(following, back, 0), heads[owner, 0]) == addr[member]
    broken[owner[~linked]] = True
    return _Followed(rows, chains.owner, _subpools(layout, own), broken)


def _subpools(layout: Layout, own: U64) -> U64:
    """The subpool pointer of each folio: a member of struct folio, on 6.1 ``private`` of the first tail."""
    page = layout.struct("struct page")
    field = layout.struct("struct folio").find("_hugetlb_subpool")
    offset = field.offset if field is not None else page.size + page.field("private").offset
    return layout.memory.words(own + np.uint64(offset))[0]


def _pools(layout: Layout, addr: U64, data: AnyArray, lists: _Lists, where: _Followed) -> tuple[Hstates, PoolNodes]:
    struct, n = layout.struct("struct hstate"), len(addr)
    length = np.bincount(where.owner[where.owner >= 0], minlength=len(lists.head)).astype(np.int64)
    active = lists.nid < 0
    broken = np.zeros(n, np.bool_)
    broken[lists.hstate_idx[where.broken]] = True

    def column(name: str) -> I64:
        return struct.field(name).column(data).astype(np.int64)

    hstates = Hstates(
        addr=addr,
        order=np.minimum(column("order"), 255).astype(np.uint8),
        name=struct.field("name").text(data),
        nr=column("nr_huge_pages"),
        free=column("free_huge_pages"),
        resv=column("resv_huge_pages"),
        surplus=column("surplus_huge_pages"),
        overcommit=column("nr_overcommit_huge_pages"),
        nr_active=length[active],
        nr_listed_free=np.bincount(lists.hstate_idx, weights=np.where(active, 0, length)).astype(np.int64),
        nr_off_list=np.zeros(n, np.int64),
        broken=broken,
    )
    free = np.flatnonzero(~active)
    at = (lists.hstate_idx[free], lists.nid[free])

    def each(name: str) -> I64:
        return struct.field(name).matrix(data)[at].astype(np.int64)

    nodes = PoolNodes(
        hstate_idx=at[0],
        nid=at[1],
        nr=each("nr_huge_pages_node"),
        free=each("free_huge_pages_node"),
        surplus=each("surplus_huge_pages_node"),
        nr_listed_free=length[free],
    )
    return hstates, nodes


def _settle(folios: Folios, hstates: Hstates, where: _Followed) -> PoolFolios:
    """The table of hugetlb folios: list, node and size of each."""
    per_hstate = max(len(where.broken) // max(len(hstates), 1), 1)
    owner, listed = where.owner, where.owner >= 0
    slot = owner % per_hstate
    by_order = np.full(256, -1, np.int32)
    by_order[hstates.order] = np.arange(len(hstates), dtype=np.int32)
    kind = np.where(listed, np.where(slot == 0, ON_ACTIVE, ON_FREE), OFF_LIST)
    return PoolFolios(
        folio_idx=where.folio_idx.astype(np.int32),
        hstate_idx=np.where(listed, owner // per_hstate, by_order[folios.order[where.folio_idx]]).astype(np.int32),
        where=kind.astype(np.uint8),
        nid=np.where(listed, slot - 1, -1).astype(np.int32),
        subpool=where.subpool,
    )


def _with_off_list(hstates: Hstates, known: PoolFolios) -> Hstates:
    off = known.hstate_idx[(known.where == OFF_LIST) & (known.hstate_idx >= 0)]
    hstates.nr_off_list[:] = np.bincount(off, minlength=len(hstates))
    return hstates


def _read_vmas(layout: Layout, vmas: Vmas, hstates: Hstates) -> tuple[HugetlbVmas, int]:
    """What hugetlb keeps of each VMA (include/linux/hugetlb.h, hstate_vma(); mm/hugetlb.c, vma_resv_map())."""
    rows = np.flatnonzero(vmas.is_hugetlb)
    if not len(rows):
        return HugetlbVmas.empty(), 0
    private, shared = vmas.private[rows], vmas.has(VM_MAYSHARE)[rows]
    inode, valid = _member(layout, "struct file", vmas.file[rows], "f_inode")
    super_, _ = _member(layout, "struct inode", inode, "i_sb")
    info, _ = _member(layout, "struct super_block", super_, "s_fs_info")
    hstate, _ = _member(layout, "struct hugetlbfs_sb_info", info, "hstate")
    lock = np.where(shared, private, np.uint64(0))
    lock_vma, _ = _member(layout, "struct hugetlb_vma_lock", lock, "vma")
    own_map = private & ~np.uint64(_RESV_FLAGS)
    return HugetlbVmas(
        vma_idx=rows.astype(np.int32),
        hstate_idx=rows_of(hstates.addr, hstate),
        lock=lock,
        lock_vma=lock_vma,
        resv_map=np.where(shared, _file_map(layout, inode), own_map).astype(np.uint64),
        resv_flags=np.where(shared, 0, private & np.uint64(_RESV_FLAGS)).astype(np.uint8),
    ), int((~valid).sum())


def _file_map(layout: Layout, inode: U64) -> U64:
    """The map of reservations of each file: a member of hugetlbfs's inode (7.x), before that of its address_space."""
    info = layout.struct("struct hugetlbfs_inode_info")
    field = info.find("resv_map")
    if field is not None:
        delta = np.uint64(info.field("vfs_inode").offset)
        found, _ = _word(layout, np.where(inode == 0, inode, inode - delta), field.offset)
        return found
    data = layout.struct("struct inode").field("i_data").offset
    field = layout.struct("struct address_space").field("i_private_data", "private_data")
    found, _ = _word(layout, inode, data + field.offset)
    return found


def _member(layout: Layout, struct: str, addr: U64, name: str) -> tuple[U64, Mask]:
    return _word(layout, addr, layout.struct(struct).field(name).offset)


def _word(layout: Layout, addr: U64, offset: int) -> tuple[U64, Mask]:
    """The word at an offset of each struct; 0 for null pointers, which are not read."""
    some = np.flatnonzero(addr)
    out, valid = np.zeros(len(addr), np.uint64), np.ones(len(addr), np.bool_)
    out[some], valid[some] = layout.memory.words(addr[some] + np.uint64(offset))
    return out, valid
