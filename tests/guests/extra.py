"""Guests beside those that every kernel has: each holds what one folder of workloads makes, at rest.

Their workloads are linked with the keeper and some helpers of the other guests, but none of their files is part of the
others' keys.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .build import AWAIT, Prepared, prepare_guest, read_words, stop_idle
from .cache import BUILDER_SOURCES, REST, guests_folder
from .errors import GuestError
from .initramfs import HERE, WARNINGS, WORKLOADS, build_initramfs
from .kernels import Kernel
from .packages import Unpacked, write_atomically
from .qemu import COMMAND_LINE, MEMORY_MB, booted

_HEADERS = ("hold.h", "race.h", "uffd.h", "init.sh")
_KEEPER = ("keeper.c", "memory.c", "settle.c", "recorder.c", "race.c", "race_anon.c")
"""Of the other guests' files what makes no state, and a racer, without which the keeper is not whole."""


@dataclass(frozen=True)
class Extra:
    """One of them.

    Attributes:
        kind: Its name, and that of the folder with its workloads.
        shared: Files of the other guests' workloads that it takes beside the keeper.
        memory_mb: How large it is.
        modules: Of the kernel, beside those that all guests have.
        words: More of the kernel's command line.
        disk: Makes one more disk in this place.
    """

    kind: str
    shared: tuple[str, ...] = ()
    memory_mb: int = MEMORY_MB
    modules: tuple[str, ...] = ()
    words: str = ""
    disk: Callable[[Path], None] | None = None

    def path(self, kernel: str) -> Path:
        """Return where a kernel's dump is, or would be."""
        return guests_folder() / kernel / f"{self.kind}.elf"

    def facts(self, kernel: str) -> dict[str, Any]:
        """Return what is known of it; empty when it was not built."""
        path = guests_folder() / kernel / f"{self.kind}.json"
        if not path.is_file():
            return {}
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def prepare(self, kernel: Kernel, unpacked: Unpacked, folder: Path, mode: str = "") -> Prepared:
        """Make what it is booted from; ``mode`` tells the keeper what to do, if not to rest."""
        prepared = prepare_guest(kernel, unpacked, self.kind, folder)
        keeper = folder / "keeper"
        self._compile(keeper)
        root = Path(unpacked.root)
        prepared.boot.initramfs.write_bytes(build_initramfs(root, keeper, mode or self.kind, self.modules))
        drives = prepared.boot.drives
        if self.disk is not None:
            self.disk(folder / "more")
            drives += (folder / "more",)
        words = f"{COMMAND_LINE} {self.words}".strip()
        boot = replace(prepared.boot, memory_mb=self.memory_mb, command_line=words, drives=drives)
        return replace(prepared, boot=boot)

    def build(self, kernel: Kernel, unpacked: Unpacked, is_forced: bool = False) -> bool:
        """Build its dump unless the cache holds it; tell whether it was built."""
        key, dump = self._key(unpacked.packages), self.path(kernel.name)
        if self.facts(kernel.name).get("key") == key and dump.is_file() and not is_forced:
            return False
        dump.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
            folder = Path(name)
            prepared = self.prepare(kernel, unpacked, folder)
            with booted(prepared.boot, AWAIT[REST]) as guest, guest.qmp() as qmp:
                stop_idle(qmp)
                qmp.dump(folder / "dump")
                facts = {"key": key, "release": unpacked.release, **read_words(guest.lines())}
                qmp.quit()
            fresh = folder / "dump"
            fresh.chmod(0o644)
            facts["bytes"] = fresh.stat().st_size
            fresh.replace(dump)
        write_atomically(dump.with_suffix(".json"), json.dumps(facts, indent=1).encode())
        return True

    @property
    def _workloads(self) -> list[Path]:
        return [*(WORKLOADS / name for name in {*_KEEPER, *self.shared}), *(HERE / self.kind).glob("*.c")]

    def _compile(self, target: Path) -> None:
        sources = sorted(map(str, self._workloads))
        command = ["gcc", "-static", "-O2", "-fno-toplevel-reorder", *WARNINGS, f"-I{WORKLOADS}", "-o", str(target)]
        done = subprocess.run([*command, *sources], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise GuestError(f"the guest {self.kind}", f"gcc failed:\n{done.stderr.strip()}")

    def _key(self, packages: dict[str, str]) -> str:
        """Hash everything the dump depends on."""
        digest = hashlib.sha256(json.dumps([packages, self.memory_mb, self.words], sort_keys=True).encode())
        ours = [*self._workloads, *(WORKLOADS / name for name in _HEADERS), Path(__file__)]
        for path in sorted([*ours, *(HERE / name for name in BUILDER_SOURCES)]):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()
