"""Where the guests are kept, and the key that tells whether they are still what the sources would build."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .initramfs import HERE, WORKLOADS

VARIABLE = "FOLIOSCOPE_GUESTS"
REST = "rest"
BUSY = "busy"
# What a dump is made of; the rest of this package only fetches, loads or prints.
BUILDER_SOURCES = ("initramfs.py", "qemu.py", "qmp.py", "build.py", "oracle.py")


def guests_folder() -> Path:
    """Return the folder of all guests."""
    default = Path.home() / ".cache/folioscope/guests"
    return Path(os.environ.get(VARIABLE) or default).expanduser().absolute()


def dump_path(kernel: str, kind: str = REST) -> Path:
    """Return where a kernel's dump is, or would be."""
    return guests_folder() / kernel / f"{kind}.elf"


def build_key(kind: str, packages: dict[str, str]) -> str:
    """Hash everything a dump of that kind depends on."""
    digest = hashlib.sha256(json.dumps([kind, packages], sort_keys=True).encode())
    sources = [path for path in WORKLOADS.iterdir() if _belongs_to(path.name, kind)]
    for path in sorted([*sources, *(HERE / name for name in BUILDER_SOURCES)]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _belongs_to(name: str, kind: str) -> bool:
    """Racers do not change a guest at rest; everything else changes both."""
    return kind == BUSY or not name.startswith("race")


def read_manifest(kernel: str) -> dict[str, Any]:
    """Return what is known of a kernel's dumps; empty when nothing was built."""
    path = guests_folder() / kernel / "manifest.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content
