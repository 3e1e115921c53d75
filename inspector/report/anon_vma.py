"""One anon_vma: its family, who uses each member, and its interval tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.aimed.family import FamilySnapshot, anon_vma_at
from inspector.columns import I32, MAX_MMS, distinct, rows_of, take_or
from inspector.errors import FolioscopeError, UsageError
from inspector.hex_json import Hex, Wide
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.rules.damage import anon_vma_damage
from inspector.snapshot import Snapshot
from inspector.tables.vmas import vma_rows
from inspector.text import counted
from inspector.walk.family import Family, family_of, red_chains
from inspector.walk.names import owners_of


class Member(msgspec.Struct, frozen=True):
    """One anon_vma of a family; stored counters beside rebuilt ones."""

    address: Hex
    parent: Hex
    depth: int
    """Generations below the root; -1 when its parents do not lead there."""
    refcount: int
    num_children: Wide
    children: int
    num_active_vmas: Wide
    active_vmas: int
    chains: int
    """In its interval tree."""
    processes: list[str]
    """Whose VMAs it is the anon_vma of."""


class Chain(msgspec.Struct, frozen=True):
    """One anon_vma_chain of the interval tree, in the order of offsets."""

    address: Hex
    depth: int
    """Below the top of the tree."""
    above: Hex | None
    """The chain above it, null for the top."""
    red: bool
    first: Wide
    last: Wide
    subtree_last: Wide
    expected_subtree_last: Wide
    vma: Hex
    start: Hex | None
    end: Hex | None
    pid: int | None
    comm: str | None
    on_list: bool


class AnonVmaReport(msgspec.Struct, frozen=True):
    """The object that ``anon-vma --format json`` prints."""

    schema: Literal["folioscope.anon_vma/3"]
    address: Hex
    root: Hex
    locked: bool
    """The root's rwsem is taken for writing: the family may be half changed."""
    family: list[Member]
    tree: list[Chain]
    damage: list[str]
    """Rules that what is shown breaks, by name; work in flight is not among them."""
    unchecked: list[str]
    """Rules that need more than was read: page tables, or the mms that hold a VMA which names another."""


def find_anon_vma(s: Snapshot, address: int) -> int:
    """Row of the anon_vma of an address: its own, or that of a VMA which has one.

    Raises:
        UsageError: It is neither.
    """
    table = s.anon_rmap.anon_vmas
    row = int(rows_of(table.addr, np.array([address], np.uint64))[0])
    if row < 0:
        vma = int(vma_rows(s.vmas, np.array([address], np.uint64))[0])
        row = int(rows_of(table.addr, s.vmas.anon_vma[vma : vma + 1])[0]) if vma >= 0 else -1
    if row < 0:
        raise _no_anon_vma(s, address)
    return row


def aim_at_family(s: Snapshot, address: int) -> tuple[FamilySnapshot, int]:
    """A snapshot of the family of an anon_vma, and its row there; named as for `find_anon_vma`.

    Raises:
        UsageError: The address is neither that of an anon_vma nor of a VMA that has one.
    """
    anon_vma = anon_vma_at(s, address)
    one = FamilySnapshot(s, anon_vma) if anon_vma else None
    if one is None or not one.is_one:
        raise _no_anon_vma(s, address)
    return one, int(rows_of(one.anon_rmap.anon_vmas.addr, np.array([anon_vma], np.uint64))[0])


def _no_anon_vma(s: Snapshot, address: int) -> FolioscopeError:
    todo = "Give the address of an anon_vma or of a VMA that has one; folioscope rmap PFN shows a folio's"
    error = UsageError("there is no anon_vma of that address", f"{address:#x}", todo)
    return s.missing.unless_lost(error, "tasks", "mms", "VMA tree nodes", "VMAs", "anon_vmas and chains")


def anon_vma_of(s: Snapshot, pfn: int) -> int:
    """Address of the anon_vma that the folio of a page names.

    Args:
        s: A snapshot; one of the folio's struct pages will do.
        pfn: Any page of the folio.

    Raises:
        UsageError: It names none.
    """
    head = int(s.pages.head_row[s.pages.memmap.row(pfn)])
    word = int(s.pages.mapping[max(head, 0)])
    named = head >= 0 and word & MAPPING_TAGS == MAPPING_ANON and word & ~MAPPING_TAGS
    if not named or not s.pages.is_anon(np.array([head]))[0]:
        raise UsageError("the folio names no anon_vma", f"pfn {pfn:#x}", "folioscope rmap PFN shows what it names")
    return word & ~MAPPING_TAGS


def build_anon_vma(s: Snapshot, row: int) -> AnonVmaReport:
    """The family of one anon_vma, and its tree."""
    table, family = s.anon_rmap.anon_vmas, family_of(s.anon_rmap, s.vmas, row)
    of_vma = rows_of(table.addr, s.vmas.anon_vma)
    damage = anon_vma_damage(s, family.row.astype(np.int64))
    return AnonVmaReport(
        "folioscope.anon_vma/3",
        int(table.addr[row]),
        int(table.root[row]),
        bool(s.anon_vma_locked[row]),
        _members(s, family, of_vma),
        _tree(s, row),
        damage.broken,
        damage.unchecked,
    )


def _members(s: Snapshot, family: Family, of_vma: I32) -> list[Member]:
    """The family; ``of_vma`` is the row of each VMA's own anon_vma."""
    table = s.anon_rmap.anon_vmas.take(family.row)
    used, user = np.divmod(distinct(of_vma.astype(np.int64) * MAX_MMS + s.vmas.mm_idx), MAX_MMS)
    first, end = (np.searchsorted(used, family.row, side).tolist() for side in ("left", "right"))
    owners = [
        f"{pid} {comm}" if pid is not None else f"mm {mm:#x}" for mm, pid, comm in owners_of(s, user.astype(np.int32))
    ]
    columns = zip(
        table.addr.tolist(),
        table.parent.tolist(),
        family.depth.tolist(),
        table.refcount.tolist(),
        table.num_children.tolist(),
        family.children.tolist(),
        table.num_active_vmas.tolist(),
        family.active_vmas.tolist(),
        family.chains.tolist(),
        first,
        end,
        strict=True,
    )
    return [
        Member(
            address=address,
            parent=parent,
            depth=depth,
            refcount=refcount,
            num_children=num_children,
            children=children,
            num_active_vmas=num_active_vmas,
            active_vmas=active_vmas,
            chains=chains,
            processes=owners[low:high] if active_vmas else [],
        )
        for (
            address,
            parent,
            depth,
            refcount,
            num_children,
            children,
            num_active_vmas,
            active_vmas,
            chains,
            low,
            high,
        ) in columns
    ]


def _tree(s: Snapshot, row: int) -> list[Chain]:
    avcs, vmas = s.anon_rmap.avcs, s.vmas
    rows = np.flatnonzero(avcs.tree_idx == row)
    rows = rows[np.lexsort((avcs.last[rows], avcs.first[rows]))]
    a = avcs.take(rows)
    known = a.vma_idx >= 0
    owners = iter(owners_of(s, vmas.mm_idx[a.vma_idx[known]]))
    columns = zip(
        a.addr.tolist(),
        a.tree_depth.tolist(),
        a.tree_parent.tolist(),
        red_chains(s.layout, s.anon_rmap, rows).tolist(),
        a.first.tolist(),
        a.last.tolist(),
        a.subtree_last.tolist(),
        a.true_subtree_last.tolist(),
        a.vma.tolist(),
        known.tolist(),
        take_or(vmas.start, a.vma_idx, 0).tolist(),
        take_or(vmas.end, a.vma_idx, 0).tolist(),
        (a.list_vma_idx >= 0).tolist(),
        strict=True,
    )
    out = []
    for address, depth, above, red, first, last, stored, true, vma, known_here, start, end, on_list in columns:
        _, pid, comm = next(owners) if known_here else (0, None, None)
        out.append(
            Chain(
                address=address,
                depth=depth,
                above=above or None,
                red=red,
                first=first,
                last=last,
                subtree_last=stored,
                expected_subtree_last=true,
                vma=vma,
                start=start if known_here else None,
                end=end if known_here else None,
                pid=pid,
                comm=comm,
                on_list=on_list,
            )
        )
    return out


_FAMILY = (
    TableColumn("anon_vma"),
    TableColumn("refcount", right=True),
    TableColumn("children", right=True),
    TableColumn("active VMAs", right=True),
    TableColumn("chains", right=True),
    TableColumn("processes"),
)
_TREE = (
    TableColumn("colour"),
    TableColumn("offsets"),
    TableColumn("subtree last", right=True),
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("VMA"),
    TableColumn("chain", right=True),
    TableColumn("", style="fail"),
)


def render_anon_vma(screen: Screen, report: AnonVmaReport) -> Iterator[str]:
    """The report for people."""
    held = ", taken for writing" if report.locked else ""
    yield from render_facts(
        screen, [("anon_vma", f"{report.address:#x}"), ("root", f"{report.root:#x}: its rwsem guards the family{held}")]
    )
    yield ""
    yield screen.paint("bold", f"family: {counted(len(report.family), 'anon_vma')}")
    yield from render_table(screen, _FAMILY, [_member_cells(m, report.address) for m in report.family])
    yield ""
    chains = counted(len(report.tree), "chain")
    yield screen.paint("bold", f"interval tree of {report.address:#x}: {chains} by page offset, indented by depth")
    yield from render_table(screen, _TREE, [_chain_cells(c) for c in report.tree])
    for slug in report.damage:
        yield screen.paint("fail", f"damaged: {slug}")
    if report.unchecked:
        yield f"not checked, for that takes all page tables and VMAs (--all): {', '.join(report.unchecked)}"


def _both(stored: int, rebuilt: int) -> str:
    return str(stored) if stored == rebuilt else f"{stored} (rebuilt {rebuilt})"


def _member_cells(m: Member, asked: int) -> tuple[str, ...]:
    mark = " <" if m.address == asked else ""
    counts = _both(m.num_children, m.children), _both(m.num_active_vmas, m.active_vmas)
    place = "? " if m.depth < 0 else "  " * m.depth
    return f"{place}{m.address:#x}{mark}", str(m.refcount), *counts, str(m.chains), ", ".join(m.processes)


def _chain_cells(c: Chain) -> tuple[str, ...]:
    bounds = f"{c.start:#x}-{c.end:#x}" if c.start is not None else f"vma {c.vma:#x} of no process"
    last = f"{c.subtree_last:#x}"
    if c.subtree_last != c.expected_subtree_last:
        last += f" (must be {c.expected_subtree_last:#x})"
    pid = "" if c.pid is None else str(c.pid)
    odd = "" if c.on_list else "not on its VMA's list"
    offsets = f"{'  ' * c.depth}{c.first:#x}-{c.last:#x}"
    return "red" if c.red else "black", offsets, last, pid, c.comm or "", bounds, f"{c.address:#x}", odd
