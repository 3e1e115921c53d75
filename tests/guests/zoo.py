"""The zoo: a guest that holds every legal state that looks like damage; at rest, and while racers run through it.

It is built beside the other guests and shares their keeper and helpers, but none of its files is part of their keys.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .build import AWAIT, Prepared, _read_words, prepare_guest, stop_idle
from .cache import BUILDER_SOURCES, BUSY, REST, guests_folder
from .errors import GuestError
from .initramfs import HERE, WARNINGS, WORKLOADS, build_initramfs
from .kernels import Kernel
from .packages import Unpacked, write_atomically
from .qemu import Guest, booted

ZOO = "zoo"
ZOO_RACES = "zoo-races"
SOURCES = HERE / "zoo"
# Of the other guests' files the zoo takes what makes no state, the racers, and what opens a userfaultfd.
SHARED = ("keeper.c", "memory.c", "settle.c", "recorder.c", "uffd.c", "race.c", "race_anon.c", "race_file.c")
HEADERS = ("hold.h", "race.h", "uffd.h", "init.sh")


def zoo_path(kernel: str) -> Path:
    """Return where a kernel's zoo at rest is, or would be."""
    return guests_folder() / kernel / f"{ZOO}.elf"


def read_zoo_facts(kernel: str) -> dict[str, Any]:
    """Return what is known of a kernel's zoo; empty when it was not built."""
    path = guests_folder() / kernel / f"{ZOO}.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def prepare(kernel: Kernel, unpacked: Unpacked, kind: str, folder: Path) -> Prepared:
    """Make what a guest of any kind is booted from, the zoo's included."""
    prepared = prepare_guest(kernel, unpacked, kind, folder)
    if kind in (ZOO, ZOO_RACES):
        keeper = folder / "keeper"
        _compile(keeper)
        prepared.boot.initramfs.write_bytes(build_initramfs(Path(unpacked.root), keeper, kind))
    return prepared


def await_kind(guest: Guest, kind: str) -> None:
    """Wait until a guest of any kind is in the state that it was booted for."""
    AWAIT[REST if kind == ZOO else BUSY if kind == ZOO_RACES else kind](guest)


def build_zoo(kernel: Kernel, unpacked: Unpacked, is_forced: bool = False) -> bool:
    """Build the dump of the zoo at rest unless the cache holds it; tell whether it was built."""
    key, dump = _key(unpacked.packages), zoo_path(kernel.name)
    if read_zoo_facts(kernel.name).get("key") == key and dump.is_file() and not is_forced:
        return False
    dump.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare(kernel, unpacked, ZOO, folder)
        with booted(prepared.boot, lambda guest: await_kind(guest, ZOO)) as guest, guest.qmp() as qmp:
            stop_idle(qmp)
            qmp.dump(folder / "dump")
            facts = {"key": key, "release": unpacked.release, **_read_words(guest.lines())}
            qmp.quit()
        fresh = folder / "dump"
        fresh.chmod(0o644)
        facts["bytes"] = fresh.stat().st_size
        fresh.replace(dump)
    write_atomically(dump.with_suffix(".json"), json.dumps(facts, indent=1).encode())
    return True


def _compile(target: Path) -> None:
    sources = [*(WORKLOADS / name for name in SHARED if name.endswith(".c")), *sorted(SOURCES.glob("*.c"))]
    command = ["gcc", "-static", "-O2", "-fno-toplevel-reorder", *WARNINGS, f"-I{WORKLOADS}", "-o", str(target)]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise GuestError("the zoo", f"gcc failed:\n{done.stderr.strip()}")


def _key(packages: dict[str, str]) -> str:
    """Hash everything the dump depends on."""
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode())
    ours = [*SOURCES.iterdir(), *(WORKLOADS / name for name in (*SHARED, *HEADERS)), Path(__file__)]
    for path in sorted([*ours, *(HERE / name for name in BUILDER_SOURCES)]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
