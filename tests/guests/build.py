"""Build the dumps of one kernel: at rest with its oracle, and busy without."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .cache import BUSY, REST, build_key, guests_folder, read_manifest
from .errors import GuestError
from .initramfs import build_initramfs, compile_keeper
from .kernels import Kernel
from .oracle import unpack_record
from .packages import Unpacked, write_atomically
from .qemu import MEMORY_MB, Boot, Guest, booted
from .qmp import Qmp

DISK_MB, RECORD_MB, SWAP_MB = 320, 128, 16
SETTLE_SECONDS = 2.0
IDLE_TRIES = 200
BUSY_SECONDS = (6.0, 14.0)
# Two builds of one kernel may run side by side and share its manifest.
_MANIFEST = threading.Lock()


@dataclass(frozen=True)
class Prepared:
    """The files that one guest is booted from."""

    boot: Boot
    record: Path


def prepare_guest(kernel: Kernel, unpacked: Unpacked, kind: str, folder: Path) -> Prepared:
    """Make the initramfs and the disks of a guest in folder."""
    keeper = folder / "keeper"
    compile_keeper(keeper)
    initramfs = folder / "initramfs"
    initramfs.write_bytes(build_initramfs(Path(unpacked.root), keeper, kind))
    disk, record, swap = folder / "disk", folder / "record", folder / "swap"
    for path, megabytes in ((disk, DISK_MB), (record, RECORD_MB), (swap, SWAP_MB)):
        path.touch()
        os.truncate(path, megabytes << 20)
    _make_file_system(disk)
    return Prepared(Boot(kernel.name, unpacked.image, initramfs, (disk, record, swap)), record)


def build_dump(kernel: Kernel, unpacked: Unpacked, kind: str, is_forced: bool = False) -> bool:
    """Build one dump unless the cache holds it; tell whether it was built."""
    key = build_key(kind, unpacked.packages)
    target = guests_folder() / kernel.name
    dump = target / f"{kind}.elf"
    known = read_manifest(kernel.name).get(kind, {})
    if known.get("key") == key and dump.is_file() and not is_forced:
        return False
    started = time.monotonic()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare_guest(kernel, unpacked, kind, folder)
        with booted(prepared.boot, AWAIT[kind]) as guest:
            lines = _dump(guest, kind, folder / "dump")
        if kind == REST:
            unpack_record(prepared.record, folder / "oracle")
            shutil.rmtree(target / "oracle", ignore_errors=True)
            (folder / "oracle").rename(target / "oracle")
        fresh = folder / "dump"
        fresh.chmod(0o644)
        facts: dict[str, Any] = {
            "key": key,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "memory_mb": MEMORY_MB,
            "bytes": fresh.stat().st_size,
            "sha256": _sha256(fresh),
            **read_words(lines),
        }
        fresh.replace(dump)
    facts["seconds"] = round(time.monotonic() - started, 1)
    _write_manifest(kernel, unpacked, kind, facts)
    return True


def _await_rest(guest: Guest) -> None:
    guest.wait_for("recorded")
    time.sleep(SETTLE_SECONDS)


def _await_race(guest: Guest) -> None:
    guest.wait_for("racing")


# What a guest of each kind is waited for.
AWAIT = {REST: _await_rest, BUSY: _await_race}


def stop_idle(qmp: Qmp) -> None:
    """Stop the guest at a moment when both CPUs are halted: then every task sleeps, the recorder too."""
    for _ in range(IDLE_TRIES):
        qmp.stop()
        if qmp.are_cpus_halted():
            return
        qmp.resume()
        time.sleep(0.05)
    raise GuestError("the guest at rest", f"its CPUs were never idle in {IDLE_TRIES} looks")


def _dump(guest: Guest, kind: str, path: Path) -> list[str]:
    """Stop the guest, idle or at a random moment, dump it, and return what it said."""
    if kind == BUSY:
        time.sleep(random.uniform(*BUSY_SECONDS))
    with guest.qmp() as qmp:
        if kind == BUSY:
            qmp.stop()
        else:
            stop_idle(qmp)
        qmp.dump(path)
        lines = guest.lines()
        qmp.quit()
    return lines


def _make_file_system(disk: Path) -> None:
    commands = (["mkfs.xfs", "-q", str(disk)], ["mkfs.ext4", "-q", "-F", str(disk)])
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    for command in commands:
        program = shutil.which(command[0], path=path)
        if program is None:
            continue
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
        if done.returncode:
            raise GuestError("the guest's disk", f"{command[0]} failed: {done.stderr.strip()}")
        return
    raise GuestError("the guest's disk", "neither mkfs.xfs nor mkfs.ext4 is installed")


def read_words(lines: list[str]) -> dict[str, Any]:
    """Sort the guest's lines into ready, skipped, failed and notes."""
    ready: dict[str, int] = {}
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    notes: list[str] = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if kind == "ready" and text.isdecimal():
            ready[name] = int(text)
        elif kind == "skip":
            skipped[name] = text
        elif kind == "fail":
            failed[name] = text
        elif kind == "note":
            notes.append(rest)
    return {"ready": ready, "skipped": skipped, "failed": failed, "notes": notes}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(kernel: Kernel, unpacked: Unpacked, kind: str, facts: dict[str, Any]) -> None:
    with _MANIFEST:
        manifest = read_manifest(kernel.name)
        manifest |= {"kernel": kernel.name, "release": unpacked.release, "packages": unpacked.packages}
        manifest[kind] = facts
        text = json.dumps(manifest, indent=1)
        write_atomically(guests_folder() / kernel.name / "manifest.json", text.encode())


KINDS = (REST, BUSY)
