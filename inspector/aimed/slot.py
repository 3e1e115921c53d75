"""One swap slot and what refers to it, searched for where swapoff would."""

from __future__ import annotations

import numpy as np

from inspector.aimed.snapshot import AimedSnapshot
from inspector.columns import I64, U64, Mask
from inspector.records import cached_property
from inspector.snapshot import Snapshot
from inspector.tables.files import Files, read_files, swapped_spaces, swapper_spaces
from inspector.tables.mms import RSS_SWAP, mms_swapped_out
from inspector.tables.swap import Swap, build_swap
from inspector.tables.swap_devices import swap_entries
from inspector.tables.vmas import Vmas
from inspector.walk.mappings import TABLE_UNREADABLE, Mappings, NonPresent
from inspector.walk.pagetable import Sharing, walk_page_tables
from inspector.walk.swap import shmem_swap, swap_rows

_SLOTS_OF_SPACE = 1 << 14
"""Slots of one swapper address_space (SWAP_ADDRESS_SPACE_PAGES, mm/swap.h)."""

_TABLES_AT_ONCE = 8 << 20
"""Bytes of page tables searched before it is seen whether all that is counted was found."""


class SlotSnapshot(AimedSnapshot):
    """One swap slot, and the entries that refer to it.

    No reverse map leads from a slot to them. The kernel searches as well, when a device is turned off: the page tables
    of all mms on init_mm's list, and the files on shmem's (mm/swapfile.c, try_to_unuse()). Of those page tables only
    entries for this slot are kept; the search ends when as many were found as the slot counts.

    Args:
        whole: A snapshot of the target.
        type_: Swap type of the device.
        offset: Of the slot.
    """

    _ONLY = frozenset({"layout", "tasks", "static_mms", "mms", "nonpresent", "files", "swap", "swap_refs"})

    def __init__(self, whole: Snapshot, type_: int, offset: int) -> None:
        listed, breaks = mms_swapped_out(whole.layout)
        super().__init__(whole, np.union1d(listed, whole.tasks.mm))
        self.missing.add("mms", breaks)
        self._slot = type_, offset
        self.mms_searched = 0
        """Address spaces whose page tables were searched; meaningful once `nonpresent` was asked for."""
        self.files_searched = 0
        """shmem files searched; likewise of `files`."""

    @cached_property
    def mms_listed(self) -> I64:
        """Rows of the mms that may have swap entries, those with most of them first."""
        mms = self.mms
        rows = np.flatnonzero(mms.on_mmlist | (mms.rss[:, RSS_SWAP] != 0) | ~mms.rss_valid)
        return rows[np.argsort(-mms.rss[rows, RSS_SWAP], kind="stable")]

    @cached_property
    def swap(self) -> Swap:
        """The devices, and the slots of the cluster that the slot is in."""
        type_, offset = self._slot
        spaces = swapper_spaces(self.layout)
        at = (spaces.swap_type == type_) & (spaces.first_slot == offset - offset % _SLOTS_OF_SPACE)
        swap = build_swap(self.layout, read_files(self.layout, spaces.addr[at]), self._entry, self._slot)
        lost = ~swap.whole & swap.devices.may_be_used & (swap.devices.type_ == type_)
        self.missing.add("swap devices", int(lost.sum()))
        return swap

    @property
    def _entry(self) -> U64:
        return swap_entries(*(np.array([n], np.int64) for n in self._slot))

    @property
    def _counted(self) -> int:
        """References that the slot counts; more than there can be where it counts none: then all is searched."""
        swap = self.swap
        row = int(np.searchsorted(swap.slots.entry, self._entry[0]))
        known = row < len(swap.slots) and swap.slots.entry[row] == self._entry[0] and not swap.slots.is_shmem[row]
        count = int(swap.slots.count[row]) if known else -1
        return count if count > 0 else 1 << 62

    def _names_slot(self, words: U64) -> Mask:
        arch, (type_, offset) = self.layout.arch, self._slot
        return (arch.swap_type(words) == type_) & (arch.swap_offset(words) == np.uint64(offset)) & (words != 0)

    @cached_property
    def nonpresent(self) -> NonPresent:
        """Entries for the slot in the page tables searched."""
        mms, none = self.mms, Vmas.empty()
        found, nr = NonPresent.empty(), 0
        before = np.cumsum(mms.pgtables_bytes[self.mms_listed]) // _TABLES_AT_ONCE
        for rows in np.split(self.mms_listed, np.flatnonzero(np.diff(before)) + 1):
            if nr >= self._counted or not len(rows):
                break
            some, sharing = mms.take(rows), Sharing(self.nr_workers)
            walk = walk_page_tables(
                self.layout, self._pages_now, some, none, _drop, ptes=self._names_slot, sharing=sharing
            )
            self.missing.add("page tables", int((walk.tables.state == TABLE_UNREADABLE).sum()))
            here = walk.nonpresent.take(np.flatnonzero(self._names_slot(walk.nonpresent.entry)))
            here.mm_idx[:] = rows[here.mm_idx]
            found = NonPresent.concat([found, here])
            nr += len(swap_rows(here))
            self.mms_searched += len(rows)
        return found

    @cached_property
    def files(self) -> Files:
        """Files of shmem with pages in swap, searched where the page tables do not have all that is counted."""
        if len(swap_rows(self.nonpresent)) >= self._counted:
            return read_files(self.layout, np.empty(0, np.uint64))
        spaces, breaks = swapped_spaces(self.layout)
        files = read_files(self.layout, spaces)
        self.missing.add("page cache trees", files.unreadable + breaks)
        self.files_searched = len(files.address_spaces)
        return files

    @property
    def all_found(self) -> bool:
        """Whether as many references were found as the slot counts."""
        in_files = int((shmem_swap(self.layout, self.files)[2] == self._entry[0]).sum())
        return len(swap_rows(self.nonpresent)) + in_files >= self._counted


def _drop(_leaves: Mappings) -> None:
    """Leaf entries, none of which is wanted."""
