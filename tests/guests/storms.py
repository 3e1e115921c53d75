"""Guests in which one kind of work goes on everywhere at once: see storms/."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .build import Prepared, prepare_guest
from .errors import GuestError
from .initramfs import HERE, WARNINGS, build_initramfs
from .kernels import Kernel
from .packages import Unpacked

STORMS = (
    *("storm-mprotect", "storm-mremap", "storm-vma", "storm-fork", "storm-exec", "storm-swap", "storm-ksm"),
    *("storm-compact", "storm-memcg", "storm-hugetlb", "storm-uffd", "storm-file", "storm-groups"),
)
"""By name, as the first argument of storms/storm.c."""


def prepare_storm(kernel: Kernel, unpacked: Unpacked, kind: str, folder: Path) -> Prepared:
    """Make what the guest of a storm is booted from."""
    prepared = prepare_guest(kernel, unpacked, kind, folder)
    program = folder / "storm"
    sources = sorted(map(str, (HERE / "storms").glob("*.c")))
    command = ["gcc", "-static", "-O2", "-pthread", *WARNINGS, "-o", str(program), *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise GuestError("the storms", f"gcc failed:\n{done.stderr.strip()}")
    prepared.boot.initramfs.write_bytes(build_initramfs(Path(unpacked.root), program, kind))
    return prepared
