"""Fetch and unpack a kernel's packages; once fetched they are kept."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from .apt import Apt, package_version, unpack
from .errors import GuestError
from .kernels import Kernel

NAMES = "^linux-(image|binary|modules)-[0-9].*-amd64$"


@dataclass(frozen=True)
class Unpacked:
    """A kernel on this machine: its release, the packages it came from, and the folder that holds it."""

    release: str
    packages: dict[str, str]
    root: str

    @property
    def image(self) -> Path:
        """The compressed kernel."""
        images = sorted(Path(self.root).rglob("vmlinuz*"))
        if not images:
            raise GuestError(f"kernel {self.release}", "its packages hold no vmlinuz")
        return images[0]


def fetch_kernel(kernel: Kernel, cache: Path) -> Unpacked:
    """Return the unpacked kernel, fetching it if the cache has none."""
    folder = cache / "packages" / kernel.name
    picked = folder / "picked.json"
    if picked.is_file():
        unpacked = Unpacked(**json.loads(picked.read_text()))
        if Path(unpacked.root).is_dir():
            return unpacked
    apt = Apt(cache / "packages" / "apt" / kernel.name, kernel.suites)
    apt.update()
    names = apt.names(NAMES)
    version = kernel.pick(names)
    parts = [f"linux-{part}-{version}-{kernel.flavour}" for part in ("binary", "modules", "image")]
    # From 7.3 on the image package is empty and depends on binary and modules.
    wanted = [name for name in parts[:2] if name in names] or [parts[2]]
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    versions: dict[str, str] = {}
    for name in wanted:
        package = apt.download(name, folder)
        versions[name] = package_version(package)
        unpack(package, root)
        package.unlink()
    unpacked = Unpacked(f"{version}-{kernel.flavour}", versions, str(root))
    write_atomically(picked, json.dumps(asdict(unpacked), indent=1).encode())
    return unpacked


def fetch_debug_info(kernel: Kernel, unpacked: Unpacked, cache: Path) -> Path:
    """Return the vmlinux with DWARF of an unpacked kernel, fetching it if the cache has none."""
    target = cache / kernel.name / "vmlinux"
    stamp = cache / kernel.name / "vmlinux.release"
    if target.is_file() and stamp.is_file() and stamp.read_text() == unpacked.release:
        return target
    apt = Apt(cache / "packages" / "apt" / kernel.name, kernel.suites)
    folder = cache / "packages" / kernel.name
    name = f"linux-image-{unpacked.release}-dbg"
    try:
        package = apt.download(name, folder)
    except GuestError:
        apt.update()
        package = apt.download(name, folder)
    unpack(package, folder / "debug", "*/vmlinux*")
    package.unlink()
    files = [path for path in (folder / "debug").rglob("vmlinux*") if path.is_file() and not path.is_symlink()]
    if not files:
        raise GuestError(f"package {name}", "holds no vmlinux")
    target.parent.mkdir(parents=True, exist_ok=True)
    files[0].replace(target)
    shutil.rmtree(folder / "debug", ignore_errors=True)
    write_atomically(stamp, unpacked.release.encode())
    return target


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
