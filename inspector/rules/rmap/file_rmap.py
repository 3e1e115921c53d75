"""Rules that hold the reverse map of files (address_space and its tree of VMAs) against the page tables."""

from __future__ import annotations

import numpy as np

from inspector.columns import U64, Mask, take_or
from inspector.layout.flags import VM_MAYWRITE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import FILES, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.anon_vmas_map import space_key
from inspector.rules.vmas.lost_vmas import lost_vma_rows, mm_of_lost_vma
from inspector.snapshot import Snapshot
from inspector.subjects import ADDRESS_SPACE, I_MMAP_NODE, PAGE, VMA, address_space_ids, address_space_ids_at
from inspector.tables.device_files import is_driver_file
from inspector.tables.i_mmap import writable_shares
from inspector.violations import Violations, one, violations
from inspector.walk.linear import linear_index
from inspector.windows.window import Effect


def _space_of_vma(s: Snapshot) -> U64:
    """The address_space of the file behind each VMA, 0 without."""
    rmap = s.file_rmap
    return take_or(rmap.address_spaces.addr, rmap.address_space_of_vma, 0)


def _host_of_vma(s: Snapshot) -> U64:
    """The inode of the file behind each VMA, 0 without."""
    rmap = s.file_rmap
    return take_or(rmap.address_spaces.host, rmap.address_space_of_vma, 0)


def own_file_links(s: Snapshot) -> Mask:
    """Links of folios that belong to the file of the VMA that maps them."""
    links, out = s.links, s.links.is_file
    rows = np.flatnonzero(out)
    out[rows] = (links.mapping[rows] != 0) & (links.mapping[rows] == _space_of_vma(s)[links.vma_idx[rows]])
    return out


@rule(
    "file-mapping-mismatch",
    PAGE,
    "file-rmap",
    Phase.LINKS,
    after=("shared-vma-anon-page-unexpected",),
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I6 55 148",
    diagnose=lost_rmap("the folio names another file than the VMA, or none"),
)
def file_mapping_mismatch(s: Snapshot) -> Violations:
    """A file's VMA maps a folio that belongs to another file, or to none.

    Invariant: folio->mapping is the address_space of the VMA's file.
    Why: mm/memory.c, finish_fault() installs what the file's fault handler found; mm/rmap.c, rmap_walk_file().
    Consequence: truncation and reclaim of the folio's own file never find this mapping.
    Exceptions: the folio has no mapping and the VMA is VM_MIXEDMAP, VM_PFNMAP, has no file, or its file is a device, a
        socket or an anonymous file: pages of drivers, of BPF, io_uring and packet rings, and of the vDSO. A folio that
        is locked may be under truncation.
    See also: folioscope rmap PFN; folioscope file ADDRESS
    """
    links = s.links.take(np.flatnonzero(s.links.is_file))
    space = _space_of_vma(s)[links.vma_idx]
    flags = s.vmas.flags[links.vma_idx] if len(s.vmas) else np.zeros(len(links), np.uint64)
    driver = (links.mapping == 0) & ((flags & np.uint64(VM_MIXEDMAP | VM_PFNMAP)) != 0)
    rows = np.flatnonzero((links.mapping != space) & ~driver)
    lent = (links.mapping[rows] == 0) & is_driver_file(s.layout, _host_of_vma(s)[links.vma_idx[rows]])
    rows = rows[~lent]
    found = links.take(rows)
    locked = s.layout.flags.test(s.pages.flags[found.head_row], "locked")
    return violations(
        found.head_row.astype(np.int64) + found.page,
        observed={"mapping": found.mapping},
        expected={"mapping": space[rows]},
        checked=len(links),
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx]},
        depends=one("vma", found.vma_idx),
        transient=locked & (found.mapping == 0),
    )


@rule(
    "file-index-mismatch",
    PAGE,
    "file-rmap",
    Phase.LINKS,
    after=("shared-vma-anon-page-unexpected",),
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I6 56 148",
    diagnose=lost_rmap("the folio's index is not that of the place in the VMA"),
)
def file_index_mismatch(s: Snapshot) -> Violations:
    """A folio of a file is mapped at another offset of the file than its index says.

    Invariant: folio->index plus the page's place in the folio is vm_pgoff plus the distance from vm_start.
    Why: include/linux/pagemap.h, linear_page_index(); mm/rmap.c, rmap_walk_file() looks nowhere else.
    Consequence: the process sees another part of the file; truncation leaves the mapping behind.
    Exceptions: the folio belongs to no file (pages of drivers); the VMA's mm is being changed.
    See also: folioscope rmap PFN
    """
    own = own_file_links(s)
    found = s.links.take(np.flatnonzero(own & (s.links.delta != 0)))
    linear = linear_index(s.vmas, found.vma_idx, found.va, np.zeros(len(found), np.bool_), s.layout.memmap.page_shift)
    return violations(
        found.head_row.astype(np.int64) + found.page,
        observed={"index": linear + found.delta.astype(np.uint64)},
        expected={"index": linear},
        checked=int(own.sum()),
        facts={"va": found.va, "vma": s.vmas.addr[found.vma_idx]},
        depends=one("vma", found.vma_idx),
        transient=s.mm_in_motion[s.vmas.mm_idx[found.vma_idx]],
    )


@rule(
    "i-mmap-vma-missing",
    VMA,
    "file-rmap",
    Phase.STRUCTURES,
    after=("avc-link-missing",),
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I4 57 148",
    was="vma-not-in-i-mmap",
    diagnose=lost_rmap("the file's tree of VMAs does not hold the VMA"),
)
def i_mmap_vma_missing(s: Snapshot) -> Violations:
    """A VMA that maps a file is missing from the file's tree of VMAs.

    Invariant: every VMA with a file is in the i_mmap tree of the file's address_space.
    Why: mm/vma.c, vma_link_file(); rmap_walk_file() and unmap_mapping_range() find VMAs only there.
    Consequence: truncation leaves its mappings behind: they keep pages of a shorter or deleted file.
    Exceptions: the mm is being built, changed or torn down: VMAs leave the tree before their page tables go.
    See also: folioscope file ADDRESS
    """
    rmap, vmas = s.file_rmap, s.vmas
    has = rmap.address_space_of_vma >= 0
    broken = np.isin(rmap.address_space_of_vma, rmap.broken_trees)
    rows = np.flatnonzero(has & ~rmap.in_tree & ~broken)
    return violations(
        rows,
        observed={"in_tree": rmap.in_tree[rows]},
        expected={"in_tree": np.ones(len(rows), np.bool_)},
        checked=int(has.sum()),
        facts={"address_space": rmap.address_spaces.addr[rmap.address_space_of_vma[rows]]},
        claims=one("vma", rows)
        + one("address_space", address_space_ids_at(rmap.address_spaces.addr, rmap.address_space_of_vma[rows])),
        transient=s.mm_in_motion[vmas.mm_idx[rows]],
    )


@rule(
    "i-mmap-tree-damaged",
    I_MMAP_NODE,
    "file-rmap",
    Phase.STRUCTURES,
    after=(
        "anon-folio-mapping-invalid",
        "i-mmap-vma-missing",
    ),
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I17 58 59",
)
def i_mmap_tree_damaged(s: Snapshot) -> Violations:
    """A file's interval tree of VMAs is out of order, its cached bounds are wrong, or it holds a VMA that is gone.

    Invariant: VMAs are ordered by vm_pgoff, each keeps the greatest last offset below it (rb_subtree_last), the first
        is cached, and each is in its mm's tree of VMAs.
    Why: mm/interval_tree.c, vma_interval_tree_insert(); mm/vma.c, unlink_file_vma().
    Consequence: truncation and reclaim pass by mappings, or follow a freed VMA.
    Exceptions: the VMA's mm is being built, changed or torn down.
    See also: folioscope file ADDRESS
    """
    rmap, nodes = s.file_rmap, s.file_rmap.nodes
    rb = np.uint64(s.layout.struct("struct vm_area_struct").field("shared.rb").offset)
    cached = (
        rmap.address_spaces.leftmost[nodes.address_space_idx] if len(rmap.address_spaces) else np.zeros(0, np.uint64)
    )
    bad = nodes.misordered | nodes.red_red | nodes.misparented | (nodes.subtree_last != nodes.true_subtree_last)
    bad |= nodes.is_leftmost & (cached != nodes.vma + rb)
    gone = nodes.vma_idx < 0
    rows = np.flatnonzero(bad | gone)[::-1]  # deepest first: a wrong bound below spoils those above
    mm = np.searchsorted(s.mms.addr, nodes.vm_mm[rows])
    mm = np.minimum(mm, max(len(s.mms) - 1, 0))
    moving = (s.mms.addr[mm] != nodes.vm_mm[rows]) | s.mm_in_motion[mm] if len(s.mms) else gone[rows]
    return violations(
        rows,
        observed={"rb_subtree_last": nodes.subtree_last[rows], "vma_in_use": ~gone[rows]},
        expected={"rb_subtree_last": nodes.true_subtree_last[rows], "vma_in_use": np.ones(len(rows), np.bool_)},
        checked=len(nodes),
        facts={"vma": nodes.vma[rows], "address_space": rmap.address_spaces.addr[nodes.address_space_idx[rows]]},
        claims=one("i_mmap", nodes.address_space_idx[rows]),
        depends=one("vma", nodes.vma_idx[rows])
        + one("address_space", address_space_ids_at(rmap.address_spaces.addr, nodes.address_space_idx[rows]))
        + one("i_mmap", nodes.address_space_idx[rows])
        + one("space_word", space_key(rmap.address_spaces.addr[nodes.address_space_idx[rows]]))
        + one("space_word", space_key(rmap.address_spaces.addr[nodes.address_space_idx[rows]]))
        + one("lost_vma", lost_vma_rows(s, nodes.vma[rows]))
        + one("mm", mm_of_lost_vma(s, nodes.vma[rows])),
        transient=moving,
    )


@rule(
    "i-mmap-vma-unexpected",
    VMA,
    "file-rmap",
    Phase.STRUCTURES,
    after=("anon-vma-chain-damaged",),
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I17 58",
    was="vma-in-foreign-i-mmap",
)
def i_mmap_vma_unexpected(s: Snapshot) -> Violations:
    """A VMA stands in a file's tree of VMAs but maps another file, or none.

    Invariant: each VMA in an i_mmap tree has a vm_file whose f_mapping is the tree's address_space.
    Why: mm/vma.c, vma_link_file() and unlink_file_vma() take the tree from vm_file.
    Consequence: the VMA is never taken out of that tree: truncation walks a freed VMA. Drivers whose mmap failed
        half-way left such VMAs behind before 6.12.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope file ADDRESS; folioscope vmas PID
    """
    rmap, nodes = s.file_rmap, s.file_rmap.nodes
    known = np.flatnonzero(nodes.vma_idx >= 0)
    vma = nodes.vma_idx[known].astype(np.int64)
    bad = np.flatnonzero(rmap.address_space_of_vma[vma] != nodes.address_space_idx[known])
    rows = vma[bad]
    spaces = rmap.address_spaces.addr
    return violations(
        rows,
        observed={"address_space": _space_of_vma(s)[rows]},
        expected={"address_space": spaces[nodes.address_space_idx[known[bad]]]},
        checked=len(known),
        claims=one("vma", rows),
        transient=s.mm_in_motion[s.vmas.mm_idx[rows]],
    )


@rule(
    "i-mmap-writable-low",
    ADDRESS_SPACE,
    "file-rmap",
    Phase.LINKS,
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I17 60",
    exactness="bound",
)
def i_mmap_writable_low(s: Snapshot) -> Violations:
    """A file counts fewer writable shared mappings than it has.

    Invariant: i_mmap_writable is at least the number of VMAs with VM_SHARED and VM_MAYWRITE that map the file; a
        negative value denies such mappings, so that there must be none.
    Why: include/linux/fs.h, mapping_map_writable() and mapping_deny_writable().
    Consequence: a memfd can be sealed against writing while somebody still writes to it.
    Exceptions: an mm that maps the file is being built, changed or torn down.
    See also: folioscope file ADDRESS
    """
    rmap, vmas = s.file_rmap, s.vmas
    wanted = writable_shares(vmas, rmap, VM_SHARED | VM_MAYWRITE)
    rows = np.flatnonzero(rmap.address_spaces.readable & (np.maximum(rmap.address_spaces.writable, 0) < wanted))
    moving = np.zeros(len(rmap.address_spaces), np.bool_)
    inside = rmap.address_space_of_vma >= 0
    if len(vmas):
        moving[rmap.address_space_of_vma[inside & s.mm_in_motion[vmas.mm_idx]]] = True
    ids = address_space_ids(rmap.address_spaces.addr[rows])
    return violations(
        ids,
        observed={"i_mmap_writable": rmap.address_spaces.writable[rows]},
        expected={"at_least": wanted[rows]},
        checked=len(rmap.address_spaces),
        depends=one("address_space", ids),
        transient=moving[rows],
    )
