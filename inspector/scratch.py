"""Columns with a row a struct page: in memory or, where memory is short, in files that have no name.

A machine of 1 TB has 268 million struct pages: such a column takes a gigabyte. In a file it takes what the kernel can
spare: pages of it that are not needed just now are written out, as those of swap are.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inspector.columns import S
from inspector.errors import TargetError

_LONG = 16 << 20
"""Bytes of a column below which it is no matter."""

_HUGE = 4 << 20
"""Bytes of a column from which on NumPy asks the kernel for huge pages."""

_REST = 512 << 20
"""Bytes that everything else takes: tables, pieces, the libraries."""

_MANY_PAGES = 1 << 19
"""Struct pages from which on columns with a value a page are long."""

_LIBRARY = ctypes.CDLL(None)
"""The C library; only GNU's has malloc_trim()."""

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


class _Columns:
    """Where the columns of this process are."""

    limit: int | None = None
    """Bytes of memory to use, None for what is available."""
    in_memory = 0
    """Bytes of long columns in memory."""


def use_at_most(size: int | None) -> None:
    """Say how many bytes of memory may be used, None for as many as are available: later columns keep to it."""
    _Columns.limit = size


def shared_zeros(n: int, dtype: type[S]) -> npt.NDArray[S]:
    """A column of zeros that processes forked from this one write to as well.

    Two workers must not write to the same element: nothing orders their writes.
    """
    size = max(n * np.dtype(dtype).itemsize, 1)
    memory = mmap.mmap(-1, size)
    _shared.add(memory)
    if size >= _HUGE:
        with suppress(OSError):
            # As NumPy does: less for the processor to look up. Not all kernels have it for shared memory.
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, n)


def is_shared(column: npt.NDArray[S]) -> bool:
    """Whether processes forked from this one write to the same column."""
    return _memory_of(column) is not None


def _memory_of(column: npt.NDArray[S]) -> mmap.mmap | None:
    """The mapping that a column is in; None where it is in memory of NumPy's own."""
    base: object = column
    while isinstance(base, np.ndarray):
        base = base.base
    memory = base.obj if isinstance(base, memoryview) else base
    return memory if isinstance(memory, mmap.mmap) else None


_shared: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
"""Shared memory that is no file."""


def long_zeros(n: int, dtype: type[S], *, shared: bool = False) -> npt.NDArray[S]:
    """A column of zeros, in a file where memory does not suffice.

    Args:
        n: Rows.
        dtype: Of what.
        shared: Whether workers write to it (`shared_zeros`).

    Raises:
        TargetError: Nor does the file system.
    """
    size = n * np.dtype(dtype).itemsize
    zeros = shared_zeros if shared else np.zeros
    if size < _LONG:
        return zeros(n, dtype)
    limit = _Columns.limit
    if limit is None:
        limit = available_memory() + _Columns.in_memory
    if _Columns.in_memory + size > limit - _REST:
        return np.frombuffer(_scratch_file(size), dtype, n)
    return _noted(zeros(n, dtype))


def settled(column: npt.NDArray[S]) -> npt.NDArray[S]:
    """A column that no worker writes to any more.

    Out of shared memory it is copied: for memory of one process more kernels have huge pages, and to look things up in
    any order takes half as long there.
    """
    if _memory_of(column) not in _shared or column.nbytes < _HUGE:
        return column
    return _noted(column.copy())


def _noted(column: npt.NDArray[S]) -> npt.NDArray[S]:
    _Columns.in_memory += column.nbytes
    weakref.finalize(column, _forget, column.nbytes)
    return column


def _forget(size: int) -> None:
    _Columns.in_memory -= size


def _folder() -> str:
    return os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else "/tmp")  # noqa: S108


def give_back(nr_pages: int) -> None:
    """Return freed memory to the kernel that the C library keeps: stages differ in the sizes that they ask it for.

    Without it holes remain between long columns, a tenth of the peak. Where columns are short that is little, and it
    takes as long as the process has pieces of free memory.

    Args:
        nr_pages: Struct pages of the target.
    """
    if nr_pages >= _MANY_PAGES and hasattr(_LIBRARY, "malloc_trim"):
        _LIBRARY.malloc_trim(0)


def _scratch_file(size: int) -> mmap.mmap:
    import tempfile  # noqa: PLC0415  (random numbers and packers, which few starts need)

    folder = _folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # All of it at once: a write to a full disk through a mapping would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        what = f"no room for a scratch file of {size >> 20:,} MiB ({(error.strerror or str(error)).lower()})"
        raise TargetError(what, folder, "Set TMPDIR to a larger file system, or let --memory be more") from None


def nameless_file(flags: int = 0) -> int | None:
    """Descriptor of an empty file that is gone with the last process that has it open; None where none can be made.

    It has holes where nothing was written, and its pages are the page cache's: no process has them in memory of its
    own.

    Args:
        flags: How it is opened besides: such as O_APPEND.
    """
    folder = _folder()
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except OSError:
        # Not every file system has O_TMPFILE.
        import tempfile  # noqa: PLC0415

        try:
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                return os.open(file.name, os.O_RDWR | os.O_CLOEXEC | flags)
        except OSError:
            return None


def room_in(file: int) -> int:
    """Bytes that a nameless file may still grow by.

    It takes no more than half of the memory that may be used, because what the page cache has to write out is dearer
    than to be worked out again, and half of what the file system has free.
    """
    used, system = os.fstat(file).st_blocks * 512, os.fstatvfs(file)
    memory = available_memory() if _Columns.limit is None else _Columns.limit
    return min(memory // 2 - used, system.f_bavail * system.f_frsize // 2)


def available_memory() -> int:
    """Bytes of memory that this process may still take: of the machine, and of the control groups that it is in."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(_MEMINFO), re.MULTILINE)
    left = [int(found[1]) << 10] if found else []
    groups = re.search(r"^0::/(.*)$", _text(_OWN_CGROUP), re.MULTILINE)
    group = _CGROUPS / groups[1] if groups else _CGROUPS
    for folder in (group, *group.parents):
        limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            left.append(max(int(limit) - int(used), 0))
    return min(left, default=1 << 40)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
