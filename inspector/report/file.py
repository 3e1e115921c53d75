"""One file: who maps which part of it, and its page cache by order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.aimed.file import FileSnapshot
from inspector.columns import AnyArray, rows_of
from inspector.hex_json import Hex, Wide
from inspector.layout.flags import VM_MAYWRITE, VM_SHARED
from inspector.places.files import file_named, no_file, several_files
from inspector.places.named import FILE, taking
from inspector.report.mappings import owner_of
from inspector.report.processes import perms
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.rules.damage import file_damage
from inspector.snapshot import Snapshot
from inspector.tables.i_mmap import IMmapNodes, writable_shares
from inspector.text import counted, parse_number
from inspector.walk.cache_view import OrderView, cache_by_order, cache_of, find_address_spaces, mapped_by_order
from inspector.walk.names import file_paths
from inspector.walk.page_cache import address_space_name


class Mapper(msgspec.Struct, frozen=True):
    """One VMA that maps the file."""

    mm: Hex
    pid: int | None
    comm: str | None
    vma: Hex
    start: Hex
    end: Hex
    perms: str
    pgoff: Wide
    in_tree: bool
    """Whether it is in the file's i_mmap tree, where rmap looks."""


class StrangeVma(msgspec.Struct, frozen=True):
    """A VMA of the i_mmap tree that is in no process's tree of VMAs."""

    vma: Hex
    mm: Hex
    """The mm that it names."""
    first: Wide
    last: Wide


class OrderOfFolios(msgspec.Struct, frozen=True):
    """Folios of one order in the page cache."""

    order: int
    folios: int
    pages: int
    dirty_pages: int
    writeback_pages: int
    mapped_folios: int
    """Folios that at least one entry maps."""
    mapped_pages: int
    """Pages of theirs that an entry maps."""


class FileReport(msgspec.Struct, frozen=True):
    """The object that ``file --format json`` prints."""

    schema: Literal["folioscope.file/2"]
    address_space: Hex
    inode: Hex
    ino: Wide
    name: str
    nrpages: Wide
    i_mmap_writable: int | None
    writable_vmas: int
    """VMAs that must count in i_mmap_writable."""
    tree_vmas: int
    tree_damage: list[str]
    """What is wrong with the i_mmap tree."""
    mappers: list[Mapper]
    strange_vmas: list[StrangeVma]
    orders: list[OrderOfFolios]
    damage: list[str]
    """Rules that what is shown breaks, by name; work in flight is not among them."""
    unchecked: list[str]
    """Rules that need more than was read."""
    searched: Literal["all page tables", "its tree of VMAs"]
    """Where VMAs of the file and mappings were searched for; the second: in the mms that its i_mmap tree leads to."""


def find_file(s: Snapshot, asked: str) -> int:
    """Row of the address_space that is meant, named as for `file_named`.

    Raises:
        UsageError: There is none, or several.
    """
    number = parse_number(asked)
    rows = (
        find_address_spaces(s.files, address=number, ino=number)
        if number is not None and number < 1 << 64
        else _by_path(s, asked)
    )
    if not len(rows):
        with taking(s, asked, FILE):
            rows = np.flatnonzero(s.files.address_spaces.addr == np.uint64(file_named(s, asked)))
    if not len(rows):
        raise no_file(s, asked)
    if len(rows) > 1:
        found = [f"{int(s.files.address_spaces.addr[r]):#x} ({address_space_name(s, r)})" for r in rows.tolist()]
        raise several_files(asked, found)
    return int(rows[0])


def aim_at_file(s: Snapshot, asked: str) -> FileSnapshot:
    """A snapshot of the one file that is meant, named as for `file_named`.

    Raises:
        UsageError: There is none, or several.
    """
    with taking(s, asked, FILE):
        return FileSnapshot(s, file_named(s, asked))


def _by_path(s: Snapshot, path: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    files, vma = np.unique(s.vmas.file[s.vmas.file != 0], return_index=True)
    vma = np.flatnonzero(s.vmas.file)[vma]
    same = np.array([name == path for name in file_paths(s.layout, files)], np.bool_)
    space = np.unique(s.file_rmap.address_space_of_vma[vma[same]]) if same.any() else np.empty(0, np.int32)
    at = rows_of(s.files.address_spaces.addr, s.file_rmap.address_spaces.addr[space[space >= 0]])
    return at[at >= 0].astype(np.int64)


def build_file(s: Snapshot, row: int) -> FileReport:
    """Everything about one file."""
    spaces, rmap = s.files.address_spaces, s.file_rmap
    address = int(spaces.addr[row])
    mapped = int(rows_of(rmap.address_spaces.addr, spaces.addr[row : row + 1])[0])
    vmas = np.flatnonzero(rmap.address_space_of_vma == mapped) if mapped >= 0 else np.empty(0, np.int64)
    nodes = rmap.nodes.take(np.flatnonzero(rmap.nodes.address_space_idx == mapped))
    cache = cache_of(s, row)
    orders, used = cache_by_order(cache), mapped_by_order(s, cache)
    damage = file_damage(s, address)
    writable = writable_shares(s.vmas, rmap, VM_SHARED | VM_MAYWRITE)
    return FileReport(
        "folioscope.file/2",
        address,
        int(spaces.host[row]),
        int(spaces.ino[row]),
        _name(s, row, vmas),
        int(spaces.nrpages[row]),
        int(rmap.address_spaces.writable[mapped]) if mapped >= 0 and (len(vmas) or len(nodes)) else None,
        int(writable[mapped]) if mapped >= 0 else 0,
        len(nodes),
        _damage(nodes, broken=mapped in rmap.broken_trees),
        [_mapper(s, int(v)) for v in vmas],
        [_strange(nodes, i) for i in np.flatnonzero(nodes.vma_idx < 0).tolist()],
        [_order(orders, used, i) for i in range(len(orders))],
        damage.broken,
        damage.unchecked,
        "its tree of VMAs" if isinstance(s, FileSnapshot) else "all page tables",
    )


def _damage(nodes: IMmapNodes, *, broken: bool) -> list[str]:
    """What is wrong with one i_mmap tree, in words."""
    wrong = {
        "nodes out of order": nodes.misordered,
        "red nodes under red ones": nodes.red_red,
        "nodes that name another parent": nodes.mislinked,
        "nodes with a wrong rb_subtree_last": nodes.subtree_last != nodes.true_subtree_last,
    }
    words = [f"{int(mask.sum())} {word}" for word, mask in wrong.items() if mask.any()]
    return [*words, "it cannot be followed to the end"] if broken else words


def _strange(nodes: IMmapNodes, i: int) -> StrangeVma:
    return StrangeVma(int(nodes.vma[i]), int(nodes.vm_mm[i]), int(nodes.first[i]), int(nodes.last[i]))


def _order(orders: OrderView, used: AnyArray, i: int) -> OrderOfFolios:
    columns = orders.order, orders.folios, orders.pages, orders.dirty, orders.writeback
    return OrderOfFolios(*(int(c[i]) for c in columns), *used[i].tolist())


def _name(s: Snapshot, row: int, vmas: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    """The path by which a process mapped it, else what the inode shows."""
    return file_paths(s.layout, s.vmas.file[vmas[:1]])[0] if len(vmas) else address_space_name(s, row)


def _mapper(s: Snapshot, vma: int) -> Mapper:
    v = s.vmas
    mm, pid, comm = owner_of(s, int(v.mm_idx[vma]))
    bounds = int(v.start[vma]), int(v.end[vma])
    in_tree = bool(s.file_rmap.in_tree[vma])
    return Mapper(mm, pid, comm, int(v.addr[vma]), *bounds, perms(int(v.flags[vma])), int(v.pgoff[vma]), in_tree)


_MAPPERS = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("start", right=True),
    TableColumn("end", right=True),
    TableColumn("perms"),
    TableColumn("pgoff", right=True),
    TableColumn("vma", right=True),
    TableColumn("", style="fail"),
)
_ORDERS = tuple(
    TableColumn(name, right=True)
    for name in ("order", "folios", "pages", "dirty", "writeback", "mapped folios", "mapped pages")
)


def render_file(screen: Screen, report: FileReport) -> Iterator[str]:
    """The report for people."""
    writable = ""
    if report.i_mmap_writable is not None:
        writable = f", i_mmap_writable {report.i_mmap_writable} ({counted(report.writable_vmas, 'VMA')} may write)"
    yield from render_facts(
        screen,
        [
            ("file", report.name or "without a name"),
            ("inode", f"{report.inode:#x}, number {report.ino}"),
            ("address_space", f"{report.address_space:#x}, {counted(report.nrpages, 'page')} cached"),
            ("i_mmap", "; ".join([f"{counted(report.tree_vmas, 'VMA')}{writable}", *report.tree_damage])),
        ],
    )
    if report.orders:
        yield ""
        rows = [tuple(map(str, msgspec.structs.astuple(o))) for o in report.orders]
        yield from render_table(screen, _ORDERS, rows)
    yield ""
    yield screen.paint("bold", f"mapped by {counted(len(report.mappers), 'VMA')}")
    yield from render_table(screen, _MAPPERS, [_cells(m) for m in report.mappers])
    for odd in report.strange_vmas:
        words = (
            f"in the tree, but of no process: vma {odd.vma:#x} of mm {odd.mm:#x}, offsets {odd.first:#x}-{odd.last:#x}"
        )
        yield screen.paint("fail", words)
    for slug in report.damage:
        yield screen.paint("fail", f"damaged: {slug}")
    if report.unchecked:
        yield f"not checked, for that takes the VMAs of all processes (--all): {', '.join(report.unchecked)}"
    if report.searched == "its tree of VMAs":
        yield "VMAs were searched for in the processes that its i_mmap tree leads to; --all searches all"


def _cells(m: Mapper) -> tuple[str, ...]:
    pid = "" if m.pid is None else str(m.pid)
    odd = "" if m.in_tree else "not in the i_mmap tree"
    return pid, m.comm or "", f"{m.start:#x}", f"{m.end:#x}", m.perms, f"{m.pgoff:#x}", f"{m.vma:#x}", odd
