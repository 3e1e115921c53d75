"""The large guest that speed is measured on: gigabytes of small pages, most of them shared by several processes."""

from __future__ import annotations

import stat
import subprocess
import tempfile
from pathlib import Path

from tests.guests.build import stop_idle
from tests.guests.cache import guests_folder
from tests.guests.errors import GuestError
from tests.guests.initramfs import WARNINGS, Entry, encode_cpio, pick_modules
from tests.guests.kernels import kernel_named
from tests.guests.packages import fetch_kernel
from tests.guests.qemu import Boot, Guest, booted

KERNEL = "7.3"
MEMORY_MB = 6144


def large_dump() -> Path:
    """The dump of the large guest, built when this machine has none yet (a few minutes, 6 GB of disk)."""
    target = guests_folder() / f"large-{KERNEL}" / "rest.elf"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unpacked = fetch_kernel(kernel_named(KERNEL), guests_folder())
    with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
        folder = Path(name)
        initramfs = folder / "initramfs"
        initramfs.write_bytes(_initramfs(Path(unpacked.root), folder / "init"))
        boot = Boot("large", unpacked.image, initramfs, memory_mb=MEMORY_MB, has_two_nodes=False)
        with booted(boot, _await_populated) as guest, guest.qmp() as qmp:
            stop_idle(qmp)
            qmp.dump(folder / "dump")
            qmp.quit()
        (folder / "dump").chmod(0o644)
        (folder / "dump").replace(target)
    return target


def _await_populated(guest: Guest) -> None:
    guest.wait_for("populated", 900)


def _initramfs(root: Path, program: Path) -> bytes:
    source = Path(__file__).with_name("populate.c")
    command = ["gcc", "-static", "-O2", *WARNINGS, "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise GuestError("the large guest", f"gcc failed:\n{done.stderr.strip()}")
    module = dict(pick_modules(root)).get("qemu_fw_cfg")
    if module is None:
        raise GuestError("the large guest", "its kernel has no module qemu_fw_cfg")
    return encode_cpio(
        [
            Entry("dev", stat.S_IFDIR | 0o755),
            Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry("init", stat.S_IFREG | 0o755, program.read_bytes()),
            Entry("qemu_fw_cfg.ko", stat.S_IFREG | 0o644, module),
        ]
    )
