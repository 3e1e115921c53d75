"""A guest with devices whose memory processes map, and whose drivers watch address spaces; at rest.

* Persistent memory, taken out of RAM by the kernel's command line: a file system on it, and a device of its own, whose
  pages processes map without the page cache (DAX).
* A virtual machine's memory: KVM is called back when the kernel unmaps it (MMU notifiers).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .errors import GuestError
from .extra import Extra

_DISK_MB = 62
"""Of the file system: what the persistent memory it is copied to has room for."""


def _make_disk(path: Path) -> None:
    """An ext4 image with blocks as large as pages: another one cannot be mounted for DAX."""
    program = shutil.which("mkfs.ext4", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if program is None:
        raise GuestError("the guest's persistent memory", "mkfs.ext4 is not installed (package e2fsprogs)")
    path.touch()
    os.truncate(path, _DISK_MB << 20)
    command = [program, "-q", "-F", "-b", "4096", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError("the guest's persistent memory", f"mkfs.ext4 failed: {done.stderr.strip()}")


DEVICES = Extra(
    "devices",
    memory_mb=384,
    modules=("kvm_amd", "libnvdimm", "nd_e820", "nd_pmem", "dax_pmem", "device_dax"),
    # Bytes of each, and where: below the second node.
    words="memmap=64M!96M memmap=32M!160M",
    disk=_make_disk,
)
