"""A guest that keeps running, for tests that attach to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .build import AWAIT, prepare_guest
from .cache import BUSY, REST, guests_folder
from .kernels import kernel_named
from .packages import fetch_kernel
from .qemu import booted


@contextmanager
def running_guest(name: str, *, is_busy: bool = False, options: str = "") -> Iterator[Path]:
    """Boot a kernel's guest, wait until its workloads hold or race, and yield its QMP socket.

    Args:
        name: The kernel.
        is_busy: Let it race.
        options: More for the kernel's command line.
    """
    kernel = kernel_named(name)
    unpacked = fetch_kernel(kernel, guests_folder())
    kind = BUSY if is_busy else REST
    with tempfile.TemporaryDirectory(prefix="folioscope-live-") as folder:
        prepared = prepare_guest(kernel, unpacked, kind, Path(folder))
        boot = replace(prepared.boot, command_line=f"{prepared.boot.command_line} {options}".rstrip())
        with booted(boot, AWAIT[kind]) as guest:
            yield guest.spare_socket
