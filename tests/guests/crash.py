"""A guest that panics: the kernel that its panic starts writes /proc/vmcore, as it is and by makedumpfile.

What users of kdump have, of one panic in several formats. It holds what the guest at rest holds, on one node, and is
panicked by an NMI. The kernel is loaded by kexec_file_load(), which is what ``kexec -s -p`` calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from .build import AWAIT, prepare_guest, read_words
from .cache import BUILDER_SOURCES, REST, guests_folder
from .errors import GuestError
from .initramfs import HERE, WARNINGS, WORKLOADS, Entry, encode_cpio, pick_modules
from .kernels import Kernel
from .makedumpfile import Makedumpfile, fetch_makedumpfile
from .packages import Unpacked, write_atomically
from .qemu import COMMAND_LINE, MEMORY_MB, booted

CRASH = "crash"
RESERVED_MB = 256
DISK_MB = 4096
CAPTURE_SECONDS = 1800
FORMATS = {
    "elf": "-E -d 31",
    "lzo": "-l -d 31",
    "zstd": "-z -d 31",
    "flat": "-F -c -d 31",
    "split": "-c -d 31 --splitblock-size 4096 --split",
}
"""What makedumpfile is asked for in the capture kernel, by the name of the file.

Beside them is ``vmcore.elf``, all of /proc/vmcore, of which it can be asked for others here (`tests.guests.formats`).
"""
_COMMAND_LINE = "console=ttyS0 quiet panic=-1 nr_cpus=1 reset_devices irqpoll"


def crash_folder(kernel: str) -> Path:
    """Where the dumps of a kernel's panic are, or would be."""
    return guests_folder() / kernel / CRASH


def crash_facts(kernel: str) -> dict[str, Any]:
    """What is known of them; empty when they were not made."""
    path = crash_folder(kernel) / "crash.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def build_crash(kernel: Kernel, unpacked: Unpacked, is_forced: bool = False) -> bool:
    """Make them unless the cache holds them; tell whether they were made."""
    program = fetch_makedumpfile()
    key, target = _key(unpacked, program), crash_folder(kernel.name)
    if crash_facts(kernel.name).get("key") == key and not is_forced:
        return False
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare_guest(kernel, unpacked, REST, folder)
        initramfs, disk = prepared.boot.initramfs, folder / "out"
        initramfs.write_bytes(initramfs.read_bytes() + _added(unpacked, program, folder))
        _make_disk(disk)
        words = f"{COMMAND_LINE} crashkernel={RESERVED_MB}M unknown_nmi_panic"
        boot = replace(
            prepared.boot,
            memory_mb=MEMORY_MB + RESERVED_MB,
            has_two_nodes=False,
            command_line=words,
            drives=(*prepared.boot.drives, disk),
        )
        with booted(boot, AWAIT[REST]) as guest, guest.qmp() as qmp:
            facts: dict[str, Any] = {"key": key, "release": unpacked.release, "makedumpfile": program.version}
            qmp.command("inject-nmi")
            facts |= read_words(guest.wait_for("captured", CAPTURE_SECONDS))
            qmp.quit()
        files = folder / "files"
        files.mkdir()
        _unpack_disk(disk, files)
        facts["bytes"] = {path.name: path.stat().st_size for path in sorted(files.iterdir())}
        facts["seconds"] = round(time.monotonic() - started, 1)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.rename(target)
    write_atomically(target / "crash.json", json.dumps(facts, indent=1).encode())
    return True


def _added(unpacked: Unpacked, program: Makedumpfile, folder: Path) -> bytes:
    """What is added to the guest's initramfs: the kernel for its panic, with an initramfs of its own."""
    loader = folder / "load"
    command = ["gcc", "-static", "-O2", *WARNINGS, "-o", str(loader), str(HERE / CRASH / "load.c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise GuestError("the guest that panics", f"gcc failed:\n{done.stderr.strip()}")
    place, run, text = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    return encode_cpio(
        [
            Entry("crash", place),
            Entry("crash/load", run, loader.read_bytes()),
            Entry("crash/vmlinuz", text, unpacked.image.read_bytes()),
            Entry("crash/initramfs", text, _capture_initramfs(unpacked, program)),
            Entry("crash/command-line", text, _COMMAND_LINE.encode()),
            Entry("init.rest", run, (WORKLOADS / "init.sh").read_bytes()),
            Entry("init", run, (HERE / CRASH / "init.sh").read_bytes()),
        ]
    )


def _capture_initramfs(unpacked: Unpacked, program: Makedumpfile) -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise GuestError("the initramfs", "busybox is not installed (package busybox-static)")
    place, run, text = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    modules = [(name, content) for name, content in pick_modules(Path(unpacked.root)) if name.startswith("virtio")]
    formats = "".join(f"{name} {words}\n" for name, words in FORMATS.items())
    return encode_cpio(
        [
            *(Entry(name, place) for name in ("bin", "dev", "lib", "lib/x86_64-linux-gnu", "modules")),
            Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry("bin/busybox", run, Path(busybox).read_bytes()),
            Entry("bin/makedumpfile", run, program.program.read_bytes()),
            Entry("lib/ld", run, program.loader.read_bytes()),
            *(Entry(f"lib/x86_64-linux-gnu/{path.name}", run, path.read_bytes()) for path in program.libraries()),
            Entry("init", run, (HERE / CRASH / "capture.sh").read_bytes()),
            Entry("formats", text, formats.encode()),
            Entry("modules/order", text, "".join(f"{name}.ko\n" for name, _ in modules).encode()),
            *(Entry(f"modules/{name}.ko", text, content) for name, content in modules),
        ]
    )


def _tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        raise GuestError("the disk for dumps", f"{name} is not installed (package e2fsprogs)")
    return found


def _make_disk(disk: Path) -> None:
    disk.touch()
    os.truncate(disk, DISK_MB << 20)
    done = subprocess.run([_tool("mkfs.ext4"), "-q", "-F", str(disk)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError("the disk for dumps", f"mkfs.ext4 failed: {done.stderr.strip()}")


def _unpack_disk(disk: Path, folder: Path) -> None:
    """Copy the files in the top folder of an ext4 image, without mounting it."""
    command = [_tool("debugfs"), "-R", f"rdump / {folder}", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(folder / "lost+found", ignore_errors=True)
    if done.returncode or not (folder / "vmcore.elf").is_file():
        raise GuestError("the disk for dumps", f"debugfs failed: {done.stderr.strip()[-300:]}")


def _key(unpacked: Unpacked, program: Makedumpfile) -> str:
    """Hash everything the dumps depend on."""
    digest = hashlib.sha256(json.dumps([unpacked.packages, program.version], sort_keys=True).encode())
    ours = [*WORKLOADS.iterdir(), *(HERE / CRASH).iterdir(), *(HERE / name for name in BUILDER_SOURCES)]
    for path in sorted([*ours, Path(__file__)]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
