"""A small guest of two nodes: folios of several memory cgroups on its LRU lists, one of the cgroups dying; at rest.

It is small so that captures of it can be kept beside the tests. Like the zoo it shares the keeper of the other guests
and is part of none of their keys.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .build import AWAIT, _read_words, prepare_guest, stop_idle
from .cache import BUILDER_SOURCES, REST, guests_folder
from .errors import GuestError
from .initramfs import HERE, WARNINGS, WORKLOADS, build_initramfs
from .kernels import Kernel
from .packages import Unpacked, write_atomically
from .qemu import booted
from .zoo import HEADERS

NUMA = "numa"
SOURCES = HERE / "numa"
MEMORY_MB = 192
# Of the other guests' files what makes no state, and a racer, without which the keeper is not whole.
SHARED = ("keeper.c", "memory.c", "settle.c", "recorder.c", "race.c", "race_anon.c")


def numa_path(kernel: str) -> Path:
    """Return where a kernel's guest of two nodes is, or would be."""
    return guests_folder() / kernel / f"{NUMA}.elf"


def read_numa_facts(kernel: str) -> dict[str, Any]:
    """Return what is known of it; empty when it was not built."""
    path = guests_folder() / kernel / f"{NUMA}.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def build_numa(kernel: Kernel, unpacked: Unpacked, is_forced: bool = False) -> bool:
    """Build its dump unless the cache holds it; tell whether it was built."""
    key, dump = _key(unpacked.packages), numa_path(kernel.name)
    if read_numa_facts(kernel.name).get("key") == key and dump.is_file() and not is_forced:
        return False
    dump.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare_guest(kernel, unpacked, NUMA, folder)
        keeper = folder / "keeper"
        _compile(keeper)
        prepared.boot.initramfs.write_bytes(build_initramfs(Path(unpacked.root), keeper, NUMA))
        with booted(replace(prepared.boot, memory_mb=MEMORY_MB), AWAIT[REST]) as guest, guest.qmp() as qmp:
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
        raise GuestError("the guest of two nodes", f"gcc failed:\n{done.stderr.strip()}")


def _key(packages: dict[str, str]) -> str:
    """Hash everything the dump depends on."""
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode())
    ours = [*SOURCES.iterdir(), *(WORKLOADS / name for name in (*SHARED, *HEADERS)), Path(__file__)]
    for path in sorted([*ours, *(HERE / name for name in BUILDER_SOURCES)]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
