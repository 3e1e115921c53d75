"""userfaultfd: the contexts that VMAs are registered with."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, rows_of
from inspector.layout.flags import UFFD_KNOWN_TO, uffd_modes
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.mms import Mms
from inspector.tables.vmas import Vmas


@dataclass(frozen=True, slots=True)
class UffdContexts(Table):
    """One row a userfaultfd_ctx that a VMA names, ordered by address.

    Attributes:
        addr: uint64; userfaultfd_ctx.
        mm_idx: int32; row of the mm it watches, -1 for one that is not known.
        mm: uint64; that mm_struct.
        features: uint64; UFFD_FEATURE_* as asked for, bit 31 once UFFDIO_API was called.
        flags: int64; of the open file (O_NONBLOCK, UFFD_USER_MODE_ONLY).
        refcount: int64.
        released: bool; the file descriptor is closed.
        changing: bool; an mremap, fork or madvise waits for the reader (mmap_changing).
        readable: bool.
    """

    addr: U64
    mm_idx: I32
    mm: U64
    features: U64
    flags: I64
    refcount: I64
    released: Mask
    changing: Mask
    readable: Mask


@dataclass(frozen=True)
class Uffd:
    """Everything about userfaultfd.

    Attributes:
        contexts: Table of contexts.
        context_of_vma: int32; row of the context each VMA is registered with, -1 for VMAs without.
        unreadable: Contexts and VMAs that could not be read.
        known: Whether this kernel has userfaultfd.
        modes: VM_ bit of each way to watch.
        all_modes: Whether these are all that the kernel has.
    """

    contexts: UffdContexts
    context_of_vma: I32
    unreadable: int
    known: bool
    modes: dict[str, int]
    all_modes: bool

    @property
    def watching(self) -> np.uint64:
        """The bits of all modes."""
        return np.uint64(sum(self.modes.values()))


def build_uffd(layout: Layout, mms: Mms, vmas: Vmas) -> Uffd:
    """Read the contexts that VMAs name (fs/userfaultfd.c, userfaultfd_register() and dup_userfaultfd())."""
    field = layout.struct("struct vm_area_struct").find("vm_userfaultfd_ctx.ctx")
    version = layout.version
    modes, all_modes = uffd_modes(version), version is not None and version <= UFFD_KNOWN_TO
    if field is None or not layout.has_struct("struct userfaultfd_ctx"):
        none = _contexts(layout, mms, np.empty(0, np.uint64))
        return Uffd(none, np.full(len(vmas), -1, np.int32), 0, False, modes, all_modes)
    named, known = layout.memory.words(vmas.addr + np.uint64(field.offset))
    contexts = _contexts(layout, mms, np.unique(named[named != 0]))
    of_vma = np.where(named != 0, rows_of(contexts.addr, named), -1).astype(np.int32)
    return Uffd(contexts, of_vma, int((~known).sum()) + int((~contexts.readable).sum()), True, modes, all_modes)


def _contexts(layout: Layout, mms: Mms, addr: U64) -> UffdContexts:
    if not len(addr):
        return UffdContexts.empty()
    struct = layout.struct("struct userfaultfd_ctx")
    raw = layout.memory.gather(addr, struct.size)

    def column(*names: str) -> I64:
        found = struct.find(*names)
        return np.zeros(len(addr), np.int64) if found is None else found.column(raw.bytes).astype(np.int64)

    mm = struct.field("mm").column(raw.bytes)
    return UffdContexts(
        addr=addr,
        mm_idx=rows_of(mms.addr, mm),
        mm=mm,
        features=column("features").astype(np.uint64),
        flags=column("flags"),
        refcount=column("refcount.refs.counter"),
        released=column("released") != 0,
        changing=column("mmap_changing.counter", "mmap_changing") != 0,
        readable=raw.valid,
    )
