"""Kinds of things that a finding can be about: one declaration for each.

A declaration holds everything that differs by kind: what the rows of violations are rows of, how a subject is
described, which folio and which mms it belongs to, the address by which a kernel stack would name it, the mappings that
prove a finding, and the command that shows more. Nothing else in the inspector lists kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, Mask, rows_of, take_or
from inspector.findings import Mapping, Subject
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.records import dataclass
from inspector.tables.ksm import KINDS as NODE_KINDS
from inspector.tables.swap_clusters import home_names
from inspector.tables.swap_devices import slot_place
from inspector.text import clean_bytes
from inspector.walk.lost_vmas import lead_to_lost_vmas
from inspector.walk.mappings import Mappings
from inspector.walk.names import file_paths
from inspector.walk.page_cache import address_space_name
from inspector.walk.swap import slot_users

if TYPE_CHECKING:
    from inspector.columns import AnyArray
    from inspector.snapshot import Snapshot

Describe = Callable[["Snapshot", int], Subject]
RowsOf = Callable[["Snapshot", I64], I64]
Addresses = Callable[["Snapshot", I64], U64]
Owned = Callable[["Snapshot", I64, Mask], Mask]
ProofOf = Callable[["Snapshot", int], tuple[list[Mapping], int]]
Look = Callable[[Subject], str]


def _none(_s: Snapshot, rows: I64) -> I64:
    return np.full(len(rows), -1, np.int64)


def _no_addresses(_s: Snapshot, rows: I64) -> U64:
    return np.zeros(len(rows), np.uint64)


def _of_no_mm(_s: Snapshot, rows: I64, _mms: Mask) -> Mask:
    return np.zeros(len(rows), np.bool_)


def _no_evidence(_s: Snapshot, _row: int) -> tuple[list[Mapping], int]:
    return [], 0


def _look_at_processes(_subject: Subject) -> str:
    return "ps"


def _nothing_stored(_s: Snapshot, _subject: Subject) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class SubjectKind:
    """A kind of subject.

    Attributes:
        name: As the findings report it; two kinds may share one (an entry is an entry, present or not).
        describe: The subject that a row is, for people and programs.
        heads: Row in the memory map of the head of the folio that each subject belongs to, -1 for none.
        pfns: The page frame that each subject is about where it has no head, -1 for none.
        addresses: Kernel address of each subject, or its entry, by which a stack would name it; 0 where it could not.
        owned: Which subjects are something of one of the marked mms.
        stretch: The page frames, first and number, whose mappings the evidence is; None where it is something else.
        evidence: The first mappings that prove a finding about a row, and how many there are.
        look: The command that shows more, without the options that open the target.
        of_one_mm: Each subject is part of one mm: only a task that works on that mm can have it half changed.
        of_the_machine: A counter of the whole machine: a task at work anywhere may have it half changed.
        of_folios: Each subject is part of a folio, or an entry that maps or names one.
        mapped: Its page frame is one that processes may map, so that its reverse map can be shown.
        opens: What its address is the address of, where there is a view of that.
        types: The struct types that may lie at its address, the first that the kernel has; none where what lies there
            says nothing of it.
        words: Address and size of what else is stored of one; None where nothing is.
        users: A sum over who refers to each of some subjects; None where what maps its page frames is all.
    """

    name: str
    describe: Describe
    heads: RowsOf = _none
    pfns: RowsOf = _none
    addresses: Addresses = _no_addresses
    owned: Owned = _of_no_mm
    stretch: Callable[[Snapshot, int], tuple[int, int]] | None = None
    evidence: ProofOf = _no_evidence
    look: Look = _look_at_processes
    of_one_mm: bool = False
    of_the_machine: bool = False
    of_folios: bool = False
    mapped: bool = False
    opens: Literal["", "anon_vma", "address_space"] = ""
    types: tuple[str, ...] = ()
    words: Callable[[Snapshot, Subject], tuple[int, int] | None] = _nothing_stored
    users: Callable[[Snapshot, I64], U64] | None = None

    def __post_init__(self) -> None:
        _BY_NAME.setdefault(self.name, self)


_BY_NAME: dict[str, SubjectKind] = {}

_MM_STATE = (
    *("mm_users", "mm_mt", "mmap_lock", "mm_lock_seq", "map_count", "pgtables_bytes", "rss_stat", "hugetlb_usage"),
    *("total_vm", "locked_vm", "data_vm", "exec_vm", "stack_vm"),
)
"""Members of struct mm_struct that change when its VMAs, page tables or counters do; others change whenever it runs."""

_COUNTER_PAGES = 4
"""Struct pages of a large folio in which counters and lists of the folio lie (include/linux/mm_types.h)."""


def kind_of(subject: Subject) -> SubjectKind:
    """The kind of a finding's subject."""
    return _BY_NAME[subject.kind]


def stored_at(s: Snapshot, subject: Subject) -> list[tuple[int, int]]:
    """Where what the kernel stores of a subject itself lies: addresses and numbers of bytes.

    That is the head of its folio (a large one keeps counters in up to four struct pages), its VMA, else the counters
    and locks of its mm, and what is at its address.
    """
    layout, kind = s.layout, kind_of(subject)
    out: list[tuple[int, int]] = []
    if subject.pfn is not None and layout.memmap.valid(np.array([subject.pfn])).item():
        pages = min(1 << (subject.order or 0), _COUNTER_PAGES)
        out.append((layout.memmap.page_addr(subject.pfn), pages * layout.memmap.page_size))
    if subject.vma is not None:
        out.append((subject.vma, layout.struct("struct vm_area_struct").size))
    elif subject.mm is not None and subject.va is None:
        known_fields = [layout.struct("struct mm_struct").find(name) for name in _MM_STATE]
        out += [(subject.mm + field.offset, field.size) for field in known_fields if field is not None]
    known = next((name for name in kind.types if layout.has_struct(name)), None)
    if known is not None and subject.address is not None:
        out.append((subject.address, layout.struct(known).size))
    words = kind.words(s, subject)
    if words is not None:
        out.append(words)
    return [(address, size) for address, size in out if 0 < address <= (1 << 64) - size]


# -- mms, VMAs, tasks ------------------------------------------------------------------------------------------------


def mm_of(s: Snapshot, mm_idx: int) -> dict[str, int | str | None]:
    """The mm's address, and pid and name of its first task when it has one."""
    mms = s.mms
    pid = int(mms.pid[mm_idx])
    return {
        "mm": int(mms.addr[mm_idx]),
        "pid": pid if pid >= 0 else None,
        "comm": clean_bytes(bytes(mms.comm[mm_idx])) if pid >= 0 else None,
    }


def _process(subject: Subject) -> str:
    """How a command names the mm: by its pid, or by its address where it has no task."""
    return str(subject.pid) if subject.pid is not None else f"{subject.mm:#x}" if subject.mm is not None else ""


def _look_at_process(subject: Subject) -> str:
    return f"vmas {_process(subject)}" if _process(subject) else "ps"


def _look_at_address(subject: Subject) -> str:
    if _process(subject) and subject.va is not None:
        return f"va {_process(subject)} {subject.va:#x}"
    return _look_at_process(subject)


def _look_at_stack(subject: Subject) -> str:
    return f"windows --stack {subject.pid}"


def _task(s: Snapshot, row: int) -> Subject:
    tasks = s.tasks
    who, address = clean_bytes(bytes(tasks.comm[row])), int(tasks.addr[row])
    return Subject(kind="task", pid=int(tasks.pid[row]), comm=who, address=address)


def _mm(s: Snapshot, row: int) -> Subject:
    return Subject(kind="mm", **mm_of(s, row))  # type: ignore[arg-type]


def _mm_owned(_s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return mms[rows]


def _vma(s: Snapshot, row: int) -> Subject:
    owner = mm_of(s, int(s.vmas.mm_idx[row]))
    return Subject(kind="vma", va=int(s.vmas.start[row]), vma=int(s.vmas.addr[row]), **owner)  # type: ignore[arg-type]


def _vma_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return vmas_of(s, mms)[rows]


TASK = SubjectKind(name="task", describe=_task, look=_look_at_stack)
MM = SubjectKind(name="mm", describe=_mm, owned=_mm_owned, look=_look_at_process, of_one_mm=True)
VMA = SubjectKind(name="vma", describe=_vma, owned=_vma_owned, look=_look_at_address, of_one_mm=True)


def vmas_of(s: Snapshot, mms: Mask) -> Mask:
    """VMAs of the marked mms."""
    return mms[s.vmas.mm_idx]


# -- pages and folios ------------------------------------------------------------------------------------------------


def _page(s: Snapshot, row: int) -> Subject:
    """A page; named as a folio when it heads one."""
    pfn = s.pages.memmap.pfn(row)
    folio = int(s.folio_of_page[row])
    order = int(s.folios.order[folio]) if folio >= 0 else 0
    return Subject(kind="page", pfn=pfn, page=s.pages.memmap.page_addr(pfn), order=order)


def _page_heads(s: Snapshot, rows: I64) -> I64:
    return s.pages.head_row[rows].astype(np.int64)


def _page_pfns(s: Snapshot, rows: I64) -> I64:
    return s.pages.memmap.pfns_of_rows(rows)


def _page_stretch(s: Snapshot, row: int) -> tuple[int, int]:
    return s.pages.memmap.pfn(row), 1


def _page_evidence(s: Snapshot, row: int) -> tuple[list[Mapping], int]:
    return _mappings_of_pages(s, *_page_stretch(s, row))


def _folio(s: Snapshot, row: int) -> Subject:
    pfn = int(s.folios.pfn[row])
    return Subject(kind="folio", pfn=pfn, page=s.pages.memmap.page_addr(pfn), order=int(s.folios.order[row]))


def _folio_heads(s: Snapshot, rows: I64) -> I64:
    return s.folios.row[rows].astype(np.int64)


def _folio_stretch(s: Snapshot, row: int) -> tuple[int, int]:
    return int(s.folios.pfn[row]), min(int(s.folios.nr_pages[row]), 1 << 20)


def _folio_evidence(s: Snapshot, row: int) -> tuple[list[Mapping], int]:
    return _mappings_of_pages(s, *_folio_stretch(s, row))


def _look_at_folio(subject: Subject) -> str:
    # What a check says of counters rests on all page tables.
    return f"folio {subject.pfn:#x} --all"


def page_addresses(s: Snapshot, heads: I64) -> U64:
    """Addresses of the struct pages at rows of the memory map; 0 for -1."""
    pfns = s.pages.memmap.pfns_of_rows(np.maximum(heads, 0)).astype(np.uint64)
    addr = np.uint64(s.layout.memmap.vmemmap) + pfns * np.uint64(s.layout.memmap.page_size)
    return np.where(heads >= 0, addr, np.uint64(0))


def _addresses_of(heads: RowsOf) -> Addresses:
    """Addresses of the folios of the subjects."""

    def addresses(s: Snapshot, rows: I64) -> U64:
        return page_addresses(s, heads(s, rows))

    return addresses


def _owned_by_mappers(heads: RowsOf) -> Owned:
    """Subjects whose folio an mm maps or may map: by its page tables, or because the reverse map leads to it."""

    def owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
        return reached(s, heads(s, rows), mms) | mapped_by(s, heads(s, rows), mms)

    return owned


def reached(s: Snapshot, head_rows: AnyArray, mms: Mask) -> Mask:
    """Folios that one of the marked mms may map: their anon_vma or file has a VMA of that mm.

    Args:
        s: The snapshot.
        head_rows: Rows of the folios' heads in the memory map; -1 for none.
        mms: bool by row of the mms.
    """
    head = np.maximum(head_rows, 0)
    if not mms.any():
        return np.zeros(len(head_rows), np.bool_)
    mapping = s.pages.mapping[head]
    tag = mapping & np.uint64(MAPPING_TAGS)
    pointer = mapping & ~np.uint64(MAPPING_TAGS)
    known = s.anon_rmap.anon_vmas.addr
    anon = marked_at(known, pointer, anon_vmas_of(s, mms)) & (tag == MAPPING_ANON)
    unlinked = np.flatnonzero((tag == MAPPING_ANON) & (rows_of(known, pointer) < 0) & (head_rows >= 0))
    if len(unlinked):
        anon[unlinked] = lead_to_lost_vmas(s, pointer[unlinked], mms)
    file = marked_at(s.file_rmap.address_spaces.addr, pointer, mapped_address_spaces_of(s, mms)) & (tag == 0)
    return (anon | file) & (head_rows >= 0)


def mapped_by(s: Snapshot, heads: I64, mms: Mask) -> Mask:
    """Folios that one of the marked mms maps, by its page tables."""
    order = np.argsort(heads, kind="stable")
    among = heads[order]
    # Where entries begin and end among the folios asked for: a run of entries may map many small folios.
    edges = np.zeros(len(heads) + 1, np.int64)
    if len(heads) and mms.any():
        for m in s.entry_batches(np.flatnonzero(mms[s.tables.mm_idx])):
            row = m.page_row.astype(np.int64)
            for first, end in ((row, row + m.nr * (row >= 0)), (m.head_row, m.head_row + 1)):
                edges += np.bincount(np.searchsorted(among, first), minlength=len(edges))
                edges -= np.bincount(np.searchsorted(among, end), minlength=len(edges))
    out = np.zeros(len(heads), np.bool_)
    out[order] = np.cumsum(edges[:-1]) > 0
    return out & (heads >= 0)


def marked_at(addrs: AnyArray, wanted: AnyArray, marked: Mask) -> Mask:
    """Which of the wanted addresses belong to a marked row of a table."""
    at = rows_of(addrs, wanted)
    return take_or(marked, at, False)


PAGE = SubjectKind(
    name="page",
    of_folios=True,
    mapped=True,
    describe=_page,
    heads=_page_heads,
    pfns=_page_pfns,
    addresses=_addresses_of(_page_heads),
    owned=_owned_by_mappers(_page_heads),
    stretch=_page_stretch,
    evidence=_page_evidence,
    look=_look_at_folio,
)
FOLIO = SubjectKind(
    name="folio",
    of_folios=True,
    mapped=True,
    describe=_folio,
    heads=_folio_heads,
    addresses=_addresses_of(_folio_heads),
    owned=_owned_by_mappers(_folio_heads),
    stretch=_folio_stretch,
    evidence=_folio_evidence,
    look=_look_at_folio,
)


# -- page-table entries and page tables -------------------------------------------------------------------------------


def describe_mapping(s: Snapshot, m: Mappings, at: int, *, pfn: int | None = None) -> Mapping:
    """One of some runs of leaf entries; with ``pfn`` the entry of the run that maps that page."""
    skip = 0
    if pfn is not None and m.level[at] == Level.PTE:
        skip = max(0, pfn - int(m.pfn[at]))
    va = int(m.va[at]) + (skip << s.layout.arch.page_shift)
    step = int(s.layout.arch.leaf_step(Level.PTE, m.entry[at : at + 1])[0]) if skip else 0
    first, page = int(m.pfn[at]) + skip, int(m.page_row[at])
    # A run of entries may map many small folios, whose heads are not that of the first.
    head = int(s.pages.head_row[page + skip]) if skip and page >= 0 else int(m.head_row[at])
    head_pfn = s.pages.memmap.pfn(head) if head >= 0 else first
    vma = int(m.vma_idx[at])
    owner = mm_of(s, int(m.mm_idx[at]))
    return Mapping(
        mm=int(owner["mm"] or 0),
        va=va,
        level=Level(int(m.level[at])).name,
        pfn=first,
        entry=(int(m.entry[at]) + skip * step) & ((1 << 64) - 1),
        pid=owner["pid"],  # type: ignore[arg-type]
        comm=owner["comm"],  # type: ignore[arg-type]
        vma=int(s.vmas.addr[vma]) if vma >= 0 else None,
        page_index=first - head_pfn,
    )


def _mappings_of_pages(s: Snapshot, pfn: int, nr: int) -> tuple[list[Mapping], int]:
    """The first mappings of the pages [pfn, pfn + nr), and how many entries there are in all."""
    m, nr_entries, _ = s.known_entries.of_pages([(pfn, nr)])[0]
    return [describe_mapping(s, m, at, pfn=max(pfn, int(m.pfn[at]))) for at in range(len(m))], nr_entries


def _entry_at(s: Snapshot, mm_idx: int, va: int, vma_idx: int, pfn: int | None = None) -> Subject:
    vma = int(s.vmas.addr[vma_idx]) if vma_idx >= 0 else None
    return Subject(kind="entry", pfn=pfn, va=va, vma=vma, **mm_of(s, mm_idx))  # type: ignore[arg-type]


def _leaf(s: Snapshot, row: int) -> Subject:
    m = s.entries(np.array([row]))
    return _entry_at(s, int(m.mm_idx[0]), int(m.va[0]), int(m.vma_idx[0]), int(m.pfn[0]))


def _leaf_heads(s: Snapshot, rows: I64) -> I64:
    return s.entries(rows).head_row.astype(np.int64)


def _leaf_pfns(s: Snapshot, rows: I64) -> I64:
    return s.entries(rows).pfn


def _leaf_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return mms[s.entries(rows).mm_idx]


def _leaf_evidence(s: Snapshot, row: int) -> tuple[list[Mapping], int]:
    m = s.entries(np.array([row]))
    return [describe_mapping(s, m, 0)], int(m.nr[0])


def _nonpresent(s: Snapshot, row: int) -> Subject:
    n = s.nonpresent
    return _entry_at(s, int(n.mm_idx[row]), int(n.va[row]), int(n.vma_idx[row]))


def _nonpresent_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return mms[s.nonpresent.mm_idx[rows]]


def _table(s: Snapshot, row: int) -> Subject:
    t = s.tables
    return Subject(kind="table", pfn=int(t.pfn[row]), va=int(t.va[row]), **mm_of(s, int(t.mm_idx[row])))  # type: ignore[arg-type]


def _table_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return mms[s.tables.mm_idx[rows]]


ENTRY = SubjectKind(
    name="entry",
    of_folios=True,
    mapped=True,
    describe=_leaf,
    heads=_leaf_heads,
    pfns=_leaf_pfns,
    addresses=_addresses_of(_leaf_heads),
    owned=_leaf_owned,
    evidence=_leaf_evidence,
    look=_look_at_address,
)
"""Present leaf entries; rows are their numbers, `inspector.walk.mappings.Mappings.entry_id`."""
NONPRESENT = SubjectKind(
    name="entry", of_folios=True, describe=_nonpresent, owned=_nonpresent_owned, look=_look_at_address
)
TABLE = SubjectKind(name="table", describe=_table, owned=_table_owned, look=_look_at_address, of_one_mm=True)


# -- reverse map ------------------------------------------------------------------------------------------------------


def anon_vmas_of(s: Snapshot, mms: Mask) -> Mask:
    """anon_vmas whose interval tree holds a VMA of one of the marked mms, one that left its mm's tree included."""
    avcs = s.anon_rmap.avcs
    out = np.zeros(len(s.anon_rmap.anon_vmas), np.bool_)
    own = take_or(vmas_of(s, mms), avcs.vma_idx, False) | _lost_of(s, avcs.vma, mms)
    out[avcs.tree_idx[own & (avcs.tree_idx >= 0)]] = True
    return out


def mapped_address_spaces_of(s: Snapshot, mms: Mask) -> Mask:
    """address_spaces, by row of the file rmap, that a VMA of one of the marked mms maps, as `anon_vmas_of`."""
    space, nodes = s.file_rmap.address_space_of_vma, s.file_rmap.nodes
    out = np.zeros(len(s.file_rmap.address_spaces), np.bool_)
    out[space[vmas_of(s, mms) & (space >= 0)]] = True
    out[nodes.address_space_idx[_lost_of(s, nodes.vma, mms)]] = True
    return out


def _lost_of(s: Snapshot, vma: U64, mms: Mask) -> Mask:
    """Which addresses are of VMAs in no mm's tree that name one of the marked mms.

    munmap() takes VMAs out of the tree before it clears their entries (mm/vma.c, vms_complete_munmap_vmas(); 6.1:
    mm/mmap.c, do_mas_align_munmap()).
    """
    lost = s.lost_vmas
    if not len(lost):
        return np.zeros(len(vma), np.bool_)
    return take_or(mms, take_or(lost.mm_idx, rows_of(lost.addr, vma), -1), False)


def _avc(s: Snapshot, row: int) -> Subject:
    """An anon_vma_chain, with the process of its VMA."""
    avcs = s.anon_rmap.avcs
    vma = int(avcs.vma_idx[row])
    owner = mm_of(s, int(s.vmas.mm_idx[vma])) if vma >= 0 else {}
    return Subject(kind="anon_vma_chain", address=int(avcs.addr[row]), vma=int(avcs.vma[row]), **owner)  # type: ignore[arg-type]


def _avc_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    avcs = s.anon_rmap.avcs
    vma = np.where(avcs.vma_idx[rows] >= 0, avcs.vma_idx[rows], avcs.list_vma_idx[rows])
    # A VMA that is in no tree yet, or no more, has its chains all the same, and names its mm.
    own = take_or(vmas_of(s, mms), vma, False) | _lost_of(s, avcs.vma[rows], mms)
    # While a tree is changed for one VMA, those of others in it may not be found (lib/rbtree.c).
    shared = anon_vmas_of(s, mms) & s.anon_vma_locked
    return own | take_or(shared, avcs.anon_vma_idx[rows], False)


def _anon_vma(s: Snapshot, row: int) -> Subject:
    return Subject(kind="anon_vma", address=int(s.anon_rmap.anon_vmas.addr[row]))


def _anon_vma_addresses(s: Snapshot, rows: I64) -> U64:
    return s.anon_rmap.anon_vmas.addr[rows]


def _anon_vma_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return anon_vmas_of(s, mms)[rows]


def _look_at_anon_vma(subject: Subject) -> str:
    return f"anon-vma {subject.address:#x}"


_TOP_BIT = np.uint64(1 << 63)


def address_space_ids(addresses: U64) -> I64:
    """Numbers of address_spaces as subjects: their addresses without the top bit, which all kernel addresses have."""
    return (addresses & ~_TOP_BIT).astype(np.int64)


def address_space_ids_at(addresses: U64, rows: AnyArray) -> I64:
    """Numbers of the address_spaces at rows of a table, -1 for -1."""
    return take_or(address_space_ids(addresses), rows, -1)


def _space(s: Snapshot, row: int) -> Subject:
    address = row | int(_TOP_BIT)
    at = int(rows_of(s.files.address_spaces.addr, np.array([address], np.uint64))[0])
    name = address_space_name(s, at) if at >= 0 else None
    return Subject(kind="address_space", address=address, name=name)


def _space_addresses(_s: Snapshot, rows: I64) -> U64:
    return rows.astype(np.uint64) | _TOP_BIT


def _space_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return marked_at(s.file_rmap.address_spaces.addr, _space_addresses(s, rows), mapped_address_spaces_of(s, mms))


def _i_mmap_node(s: Snapshot, row: int) -> Subject:
    nodes = s.file_rmap.nodes
    space = int(s.file_rmap.address_spaces.addr[nodes.address_space_idx[row]])
    return Subject(kind="address_space", address=space, vma=int(nodes.vma[row]))


def _i_mmap_owned(s: Snapshot, rows: I64, mms: Mask) -> Mask:
    return mapped_address_spaces_of(s, mms)[s.file_rmap.nodes.address_space_idx[rows]]


def _look_at_file(subject: Subject) -> str:
    return f"file {subject.address:#x}"


def in_changed_file_tree(s: Snapshot, vmas: I64, mms: Mask) -> Mask:
    """VMAs of files that one of the marked mms maps, too, and whose i_mmap_rwsem is held.

    While a tree is changed for one VMA, those of others in it may not be found (lib/rbtree.c).
    """
    shared = mapped_address_spaces_of(s, mms) & s.i_mmap_locked
    return take_or(shared, s.file_rmap.address_space_of_vma[vmas], False)


AVC = SubjectKind(
    name="anon_vma_chain", describe=_avc, owned=_avc_owned, look=_look_at_process, types=("struct anon_vma_chain",)
)
ANON_VMA = SubjectKind(
    name="anon_vma",
    opens="anon_vma",
    describe=_anon_vma,
    addresses=_anon_vma_addresses,
    owned=_anon_vma_owned,
    look=_look_at_anon_vma,
    types=("struct anon_vma",),
)
ADDRESS_SPACE = SubjectKind(
    name="address_space",
    opens="address_space",
    describe=_space,
    addresses=_space_addresses,
    owned=_space_owned,
    look=_look_at_file,
    types=("struct address_space",),
)
"""Rows are `address_space_ids`: several tables hold address_spaces, each those that it met."""
I_MMAP_NODE = SubjectKind(
    name="address_space",
    describe=_i_mmap_node,
    owned=_i_mmap_owned,
    look=_look_at_file,
    types=("struct address_space",),
)


# -- page cache and swap ----------------------------------------------------------------------------------------------


def _cache_entry(s: Snapshot, row: int) -> Subject:
    entry = s.files.numbered(np.array([row], np.int64))
    space = int(entry.address_space_idx[0])
    name = f"{address_space_name(s, space)} index {int(entry.index[0]):#x}"
    address = int(s.files.address_spaces.addr[space])
    return Subject(kind="cache_entry", pfn=int(entry.pfn[0]), address=address, name=name)


def _cache_entry_addresses(s: Snapshot, rows: I64) -> U64:
    return s.files.address_spaces.addr[s.files.numbered(rows).address_space_idx]


def _look_at_page(subject: Subject) -> str:
    return f"page {subject.pfn:#x}" if subject.pfn is not None else "ps"


def _swap_slot(s: Snapshot, row: int) -> Subject:
    slots, devices = s.swap.slots, s.swap.devices
    device = int(devices.type_[slots.device_idx[row]])
    name = f"type {device} offset {int(slots.offset[row]):#x}"
    return Subject(kind="swap_slot", address=int(slots.entry[row]), name=name)


def _swap_slot_entries(s: Snapshot, rows: I64) -> U64:
    """By its entry a task has a slot in hand: from the swap cache to put_swap_folio() no lock is held."""
    return s.swap.slots.entry[rows]


def _swap_slot_words(s: Snapshot, subject: Subject) -> tuple[int, int] | None:
    return slot_place(s.layout, s.swap.devices, subject.address or 0)


def _swap_device(s: Snapshot, row: int) -> Subject:
    devices = s.swap.devices
    path = file_paths(s.layout, devices.swap_file[row : row + 1])[0]
    return Subject(kind="swap_device", address=int(devices.addr[row]), name=path)


def _swap_device_addresses(s: Snapshot, rows: I64) -> U64:
    return s.swap.devices.addr[rows]


def _cluster(s: Snapshot, row: int) -> Subject:
    clusters, devices = s.swap_clusters.clusters, s.swap.devices
    device = int(devices.type_[clusters.device_idx[row]])
    name = f"type {device} cluster {clusters.number[row]}"
    return Subject(kind="swap_cluster", address=int(clusters.addr[row]), name=name)


def _cluster_addresses(s: Snapshot, rows: I64) -> U64:
    return s.swap_clusters.clusters.addr[rows]


def _cluster_list(s: Snapshot, row: int) -> Subject:
    lists, devices = s.swap_clusters.lists, s.swap.devices
    device = int(devices.type_[lists.device_idx[row]])
    home = home_names(lists.home[row : row + 1], lists.order[row : row + 1])[0]
    name = f"type {device} {home}"
    return Subject(kind="swap_cluster_list", address=int(lists.addr[row]), name=name)


def _cluster_list_addresses(s: Snapshot, rows: I64) -> U64:
    return s.swap.devices.addr[s.swap_clusters.lists.device_idx[rows]]


def _look_at_swap(_subject: Subject) -> str:
    return "swap"


CACHE_ENTRY = SubjectKind(
    name="cache_entry",
    of_folios=True,
    describe=_cache_entry,
    addresses=_cache_entry_addresses,
    look=_look_at_page,
    opens="address_space",
    types=("struct address_space",),
)
SWAP_SLOT = SubjectKind(
    name="swap_slot",
    describe=_swap_slot,
    addresses=_swap_slot_entries,
    look=_look_at_swap,
    words=_swap_slot_words,
    users=slot_users,
)
SWAP_DEVICE = SubjectKind(
    name="swap_device",
    describe=_swap_device,
    addresses=_swap_device_addresses,
    look=_look_at_swap,
    types=("struct swap_info_struct",),
)
SWAP_CLUSTER = SubjectKind(
    name="swap_cluster",
    describe=_cluster,
    addresses=_cluster_addresses,
    look=_look_at_swap,
    types=("struct swap_cluster_info",),
)
SWAP_CLUSTER_LIST = SubjectKind(
    name="swap_cluster_list",
    describe=_cluster_list,
    addresses=_cluster_list_addresses,
    look=_look_at_swap,
    types=("struct swap_info_struct",),
)


# -- KSM, hugetlb, zones, counters ------------------------------------------------------------------------------------


def _stable_node(s: Snapshot, row: int) -> Subject:
    """A stable node; -1 is KSM as a whole."""
    if row < 0:
        return _ksm(s, row)
    nodes = s.ksm.nodes
    return Subject(kind="stable_node", address=int(nodes.addr[row]), name=NODE_KINDS[int(nodes.kind[row])])


def _stable_node_addresses(s: Snapshot, rows: I64) -> U64:
    return take_or(s.ksm.nodes.addr, rows, 0)


def _ksm(_s: Snapshot, _row: int) -> Subject:
    return Subject(kind="ksm")


def _look_at_ksm(_subject: Subject) -> str:
    return "ksm"


def _hstate(s: Snapshot, row: int) -> Subject:
    hstates = s.hugetlb.hstates
    return Subject(kind="hstate", address=int(hstates.addr[row]), name=clean_bytes(bytes(hstates.name[row])))


def _look_at_hugetlb(_subject: Subject) -> str:
    return "hugetlb"


def zone_name(s: Snapshot, row: int) -> str:
    """Node and kind of a zone."""
    zones = s.buddy.zones
    kinds = {number: name for name, number in s.layout.enum("enum zone_type").items() if not name.startswith("__")}
    kind = kinds.get(int(zones.number[row]), "ZONE_?").removeprefix("ZONE_")
    return f"node {int(zones.node[row])} {kind}"


def _zone(s: Snapshot, row: int) -> Subject:
    return Subject(kind="zone", address=int(s.buddy.zones.addr[row]), name=zone_name(s, row))


def _free_list(s: Snapshot, row: int) -> Subject:
    lists = s.buddy.lists
    name = f"{zone_name(s, int(lists.zone_idx[row]))} order {int(lists.order[row])} type {int(lists.migratetype[row])}"
    return Subject(kind="free_list", address=int(lists.addr[row]), name=name)


def _cpu_list(s: Snapshot, row: int) -> Subject:
    lists = s.buddy.cpu_lists
    name = f"{zone_name(s, int(lists.zone_idx[row]))} cpu {int(lists.cpu[row])}"
    return Subject(kind="cpu_list", address=int(lists.addr[row]), name=name)


NODE_COUNTERS = (
    "NR_FILE_PAGES",
    "NR_SHMEM",
    "NR_SWAPCACHE",
    "NR_ANON_MAPPED",
    "NR_FILE_MAPPED",
    "NR_ANON_THPS",
    "NR_SHMEM_PMDMAPPED",
    "NR_FILE_PMDMAPPED",
    "NR_SHMEM_THPS",
    "NR_FILE_THPS",
)
"""Items of enum node_stat_item that rules add up: the rows of `VMSTAT`."""


def _vmstat(_s: Snapshot, row: int) -> Subject:
    return Subject(kind="vmstat", name=NODE_COUNTERS[row])


def _lruvec(s: Snapshot, row: int) -> Subject:
    lruvecs = s.lru.lruvecs
    memcg = int(lruvecs.memcg[row])
    of = f" of {s.lru.memcgs.path(memcg)}" if memcg >= 0 else ""
    return Subject(kind="lruvec", address=int(lruvecs.addr[row]), name=f"node {int(lruvecs.node[row])}{of}")


def _memcg(s: Snapshot, row: int) -> Subject:
    memcgs = s.lru.memcgs
    return Subject(kind="memcg", address=int(memcgs.addr[row]), name=memcgs.path(row))


def _look_at_memcg(_subject: Subject) -> str:
    return "memcg"


def _split_queue(s: Snapshot, row: int) -> Subject:
    queues = s.split_queues.queues
    memcg, node = int(queues.memcg[row]), int(queues.node[row])
    parts = [f"node {node}"] if node >= 0 else []
    parts += [s.lru.memcgs.path(memcg)] if memcg >= 0 else []
    return Subject(kind="split_queue", address=int(queues.head[row]), name=" ".join(parts))


MTHP_COUNTERS = ("NR_ANON", "NR_ANON_PARTIALLY_MAPPED")
"""Items of enum mthp_stat_item that rules add up; rows of `MTHP_COUNTER` are places here plus twice the order."""


def _mthp_counter(_s: Snapshot, row: int) -> Subject:
    order, item = divmod(row, len(MTHP_COUNTERS))
    return Subject(kind="vmstat", name=f"{MTHP_COUNTERS[item].lower()} of order {order}")


def _look_at_mthp(_subject: Subject) -> str:
    return "mthp"


def _node_counter(s: Snapshot, row: int) -> Subject:
    counters = s.node_counters
    zone = int(counters.zone[row])
    kinds = {number: name for name, number in s.layout.enum("enum zone_type").items() if not name.startswith("__")}
    kind = f" {kinds.get(zone, 'ZONE_?').removeprefix('ZONE_')}" if zone >= 0 else ""
    return Subject(kind="vmstat", name=f"{counters.item[row]} of node {int(counters.node[row])}{kind}")


def _stretch(s: Snapshot, row: int) -> Subject:
    return s.overwritten[row].subject


def _kernel_table(s: Snapshot, row: int) -> Subject:
    at = s.kernel_halves.own_at + 8 * row
    return Subject(kind="kernel_table", address=at, name="init_mm")


def _look_at_word(subject: Subject) -> str:
    return f"what {subject.address:#x}"


def _look_at_stretch(subject: Subject) -> str:
    return _look_at_address(subject) if subject.va is not None else f"page {subject.pfn:#x}"


STABLE_NODE = SubjectKind(
    name="stable_node",
    describe=_stable_node,
    addresses=_stable_node_addresses,
    look=_look_at_ksm,
    types=("struct ksm_stable_node", "struct stable_node"),
)
KSM = SubjectKind(name="ksm", describe=_ksm, look=_look_at_ksm)
HSTATE = SubjectKind(name="hstate", describe=_hstate, look=_look_at_hugetlb, types=("struct hstate",))
ZONE = SubjectKind(name="zone", describe=_zone, types=("struct zone",))
FREE_LIST = SubjectKind(name="free_list", describe=_free_list, types=("struct free_area",))
CPU_LIST = SubjectKind(name="cpu_list", describe=_cpu_list, types=("struct per_cpu_pages",))
SPLIT_QUEUE = SubjectKind(name="split_queue", describe=_split_queue, of_the_machine=True, look=_look_at_mthp)
LRUVEC = SubjectKind(name="lruvec", describe=_lruvec, of_the_machine=True, types=("struct lruvec",))
MEMCG = SubjectKind(
    name="memcg", describe=_memcg, of_the_machine=True, look=_look_at_memcg, types=("struct mem_cgroup",)
)
KERNEL_TABLE = SubjectKind(name="kernel_table", describe=_kernel_table, of_the_machine=True, look=_look_at_word)
"""Entries of init_mm's top page table; rows are their slots."""
STRETCH = SubjectKind(name="memory", describe=_stretch, look=_look_at_stretch)
"""Rows are those of `inspector.snapshot.Snapshot.overwritten`."""
VMSTAT = SubjectKind(name="vmstat", describe=_vmstat, of_the_machine=True)
MTHP_COUNTER = SubjectKind(name="vmstat", describe=_mthp_counter, of_the_machine=True, look=_look_at_mthp)
NODE_COUNTER = SubjectKind(name="vmstat", describe=_node_counter, of_the_machine=True)
"""Rows are those of `inspector.tables.node_counters.NodeCounters`."""
