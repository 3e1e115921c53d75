"""Rules that compare the reverse map of files (address_space and its i_mmap tree) with VMAs and page tables.

Rules about mapped pages compare an entry with its VMA and with the folio that it maps: they are judged over
links (`inspector.rules.rmap.links`), which join the three, and not over pieces of any one table.
"""

from __future__ import annotations

import numpy as np

from inspector.columns import Mask, rows_of, take_or
from inspector.layout.flags import VM_MAYWRITE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import FILES, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.rules.rmap.anon_vmas_map import mapping_ids
from inspector.rules.rmap.links import FileIndexCheck, IndexCheck, LinkCheck, mistagged_links
from inspector.rules.vmas.lost_vmas import lost_vma_rows, mm_of_lost_vma
from inspector.snapshot import Snapshot
from inspector.subjects import ADDRESS_SPACE, I_MMAP_NODE, PAGE, VMA, address_space_ids, address_space_ids_at
from inspector.tables.i_mmap import writable_shares
from inspector.violations import Violations, one, violations
from inspector.walk.batches import EntryBatch
from inspector.walk.linear import linear_index
from inspector.windows.window import Effect


class _ForeignMappings(LinkCheck):
    """Links of files' folios that name another file than the VMA, or none where one is needed."""

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        vmas = s.vmas
        driver = (vmas.flags & np.uint64(VM_MIXEDMAP | VM_PFNMAP)) != 0
        self._driver = driver | take_or(s.maps_driver_pages, s.file_rmap.address_space_of_vma, False)

    def judge(self, batch: EntryBatch) -> tuple[Mask, Mask]:
        """As `LinkCheck.judge`."""
        links = batch.link_kinds.examples
        wrong = links.mapping != batch.s.mapping_of_vma[links.vma_idx]
        mistagged = batch.view(mistagged_links)
        return wrong & ((links.mapping != 0) | ~self._driver[links.vma_idx]), links.is_file | mistagged


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
    collects=(_ForeignMappings,),
)
def file_mapping_mismatch(s: Snapshot) -> Violations:
    """A file VMA maps a folio whose mapping is not the file's address_space.

    Invariant: folio->mapping is the address_space of the VMA's file, without the tag of anonymous folios.
    Why: mm/memory.c, finish_fault() installs what the file's fault handler found; mm/rmap.c, rmap_walk_file().
    Consequence: truncation and reclaim of the folio's own file never find this mapping.
    Exceptions: folio->mapping is null and the VMA is VM_MIXEDMAP or VM_PFNMAP, has no file, or its file is a device, a
        socket or an anonymous file: pages of drivers, of BPF, io_uring and packet rings, and of the vDSO. A folio that
        is locked may be under truncation.
    See also: folioscope rmap PFN; folioscope file ADDRESS
    """
    seen = s.collected(_ForeignMappings)
    found = seen.found
    locked = s.layout.flags.test(s.pages.flags[found.head_row], "locked")
    return violations(
        found.page_row,
        observed={"mapping": found.mapping},
        expected={"mapping": s.mapping_of_vma[found.vma_idx]},
        checked=seen.checked,
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
    collects=(FileIndexCheck,),
)
def file_index_mismatch(s: Snapshot) -> Violations:
    """A file folio's index differs from the page offset that it is mapped at.

    Invariant: folio->index plus the page's place in the folio is vm_pgoff plus the distance from vm_start.
    Why: include/linux/pagemap.h, linear_page_index(); mm/rmap.c, rmap_walk_file() searches at no other address.
    Consequence: the process sees another part of the file; truncation leaves the mapping behind.
    Exceptions: the folio belongs to no file (pages of drivers); the VMA's mm is being changed.
    See also: folioscope rmap PFN
    """
    return index_violations(s, s.collected(FileIndexCheck))


def index_violations(s: Snapshot, seen: IndexCheck) -> Violations:
    """Pages whose index differs from the page offset that they are mapped at; the VMA may be the cause.

    Args:
        s: The snapshot.
        seen: The links that were compared.
    """
    found = seen.found
    linear = linear_index(s.vmas, found.vma_idx, found.va, found.is_anon, s.layout.memmap.page_shift)
    return violations(
        found.page_row,
        observed={"index": linear + found.delta.astype(np.uint64)},
        expected={"index": linear},
        checked=seen.checked,
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
    diagnose=lost_rmap("the file's i_mmap tree does not hold the VMA"),
)
def i_mmap_vma_missing(s: Snapshot) -> Violations:
    """A file VMA is missing from the i_mmap tree of its address_space.

    Invariant: every VMA with a file is in the i_mmap tree of the file's address_space.
    Why: mm/vma.c, vma_link_file(); rmap_walk_file() and unmap_mapping_range() find VMAs only there.
    Consequence: truncation leaves its mappings behind: they keep pages of a shorter or deleted file.
    Exceptions: the mm is being built, changed or torn down: VMAs leave the tree before their page tables go. While
        i_mmap_rwsem is held, the tree is changed for another VMA, and this one's branch may hang nowhere (lib/rbtree.c,
        __rb_erase_color() and __rb_insert() rotate it).
    See also: folioscope file ADDRESS
    """
    rmap, vmas = s.file_rmap, s.vmas
    has_file = rmap.address_space_of_vma >= 0
    broken = np.isin(rmap.address_space_of_vma, rmap.broken_trees)
    rows = np.flatnonzero(has_file & ~rmap.in_tree & ~broken)
    return violations(
        rows,
        observed={"in_tree": False},
        expected={"in_tree": True},
        checked=has_file,
        facts={"address_space": rmap.address_spaces.addr[rmap.address_space_of_vma[rows]]},
        claims=one("vma", rows)
        + one("address_space", address_space_ids_at(rmap.address_spaces.addr, rmap.address_space_of_vma[rows])),
        transient=s.mm_in_motion[vmas.mm_idx[rows]] | s.i_mmap_locked[rmap.address_space_of_vma[rows]],
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
    """A file's i_mmap tree is out of order, has wrong cached bounds, or holds a VMA that no mm has.

    Invariant: VMAs are ordered by vm_pgoff, each keeps the greatest last offset below it (rb_subtree_last), the first
        is cached, and each is in its mm's tree of VMAs.
    Why: mm/interval_tree.c, vma_interval_tree_insert(); mm/vma.c, unlink_file_vma().
    Consequence: truncation and reclaim miss mappings, or follow a freed VMA.
    Exceptions: the VMA's mm is being built, changed or torn down, or i_mmap_rwsem is held: to insert or erase one VMA
        changes nodes of others, colours and bounds last (lib/rbtree.c, __rb_insert(); rbtree_augmented.h,
        __rb_erase_augmented()).
    See also: folioscope file ADDRESS
    """
    rmap, nodes = s.file_rmap, s.file_rmap.nodes
    rb = np.uint64(s.layout.struct("struct vm_area_struct").field("shared.rb").offset)
    cached = rmap.address_spaces.leftmost[nodes.address_space_idx]
    bad = nodes.misordered | nodes.red_red | nodes.mislinked | (nodes.subtree_last != nodes.true_subtree_last)
    bad |= nodes.is_leftmost & (cached != nodes.vma + rb)
    gone = nodes.vma_idx < 0
    # Deepest first: a wrong bound makes those above it wrong.
    rows = np.flatnonzero(bad | gone)[::-1]
    tree = nodes.address_space_idx[rows]
    address_space = rmap.address_spaces.addr[tree]
    return violations(
        rows,
        observed={"rb_subtree_last": nodes.subtree_last[rows], "vma_in_use": ~gone[rows]},
        expected={"rb_subtree_last": nodes.true_subtree_last[rows], "vma_in_use": True},
        checked=len(nodes),
        facts={"vma": nodes.vma[rows], "address_space": address_space},
        claims=one("i_mmap", tree),
        depends=one("vma", nodes.vma_idx[rows])
        + one("address_space", address_space_ids(address_space))
        + one("mapping", mapping_ids(address_space))
        + one("lost_vma", lost_vma_rows(s, nodes.vma[rows]))
        + one("mm", mm_of_lost_vma(s, nodes.vma[rows])),
        transient=take_or(s.mm_in_motion, rows_of(s.mms.addr, nodes.vm_mm[rows]), True) | s.i_mmap_locked[tree],
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
    """A VMA is in the i_mmap tree of a file that it does not map.

    Invariant: each VMA in an i_mmap tree has a vm_file whose f_mapping is the tree's address_space.
    Why: mm/vma.c, vma_link_file() and unlink_file_vma() take the tree from vm_file.
    Consequence: the VMA is never taken out of that tree: truncation walks a freed VMA. Drivers whose mmap failed
        half-way left such VMAs before 6.12.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope file ADDRESS; folioscope vmas PID
    """
    rmap, nodes = s.file_rmap, s.file_rmap.nodes
    known = np.flatnonzero(nodes.vma_idx >= 0)
    vma = nodes.vma_idx[known].astype(np.int64)
    bad = np.flatnonzero(rmap.address_space_of_vma[vma] != nodes.address_space_idx[known])
    rows = vma[bad]
    return violations(
        rows,
        observed={"address_space": s.mapping_of_vma[rows]},
        expected={"address_space": rmap.address_spaces.addr[nodes.address_space_idx[known[bad]]]},
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
    """i_mmap_writable is lower than the number of writable shared mappings of the file.

    Invariant: i_mmap_writable is at least the number of VMAs with VM_SHARED and VM_MAYWRITE that map the file; a
        negative value denies such mappings, so that there must be none.
    Why: include/linux/fs.h, mapping_map_writable() and mapping_deny_writable().
    Consequence: a memfd can be sealed against writing while a process can still write to it.
    Exceptions: an mm that maps the file is being built, changed or torn down.
    See also: folioscope file ADDRESS
    """
    rmap, spaces = s.file_rmap, s.file_rmap.address_spaces
    wanted = writable_shares(s.vmas, rmap, VM_SHARED | VM_MAYWRITE)
    rows = np.flatnonzero(spaces.readable & (np.maximum(spaces.writable, 0) < wanted))
    moving = np.zeros(len(spaces), np.bool_)
    has_file = rmap.address_space_of_vma >= 0
    moving[rmap.address_space_of_vma[has_file & s.mm_in_motion[s.vmas.mm_idx]]] = True
    ids = address_space_ids(spaces.addr[rows])
    return violations(
        ids,
        observed={"i_mmap_writable": spaces.writable[rows]},
        expected={"at_least": wanted[rows]},
        checked=len(spaces),
        depends=one("address_space", ids),
        transient=moving[rows],
    )
