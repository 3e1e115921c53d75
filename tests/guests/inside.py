"""The inspector inside a guest: the kernel that it runs on is the one that it reads, through /proc/kcore."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from .build import prepare_guest
from .cache import BUSY, guests_folder
from .errors import GuestError
from .initramfs import Entry, encode_cpio
from .kernels import kernel_named
from .packages import fetch_kernel
from .qemu import TAIL_LINES, booted

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
MEMORY_MB = 1792
NEEDED = ("numpy", "drgn", "msgspec", "click")
"""Packages that a check imports."""

_LEFT_OUT = frozenset({"site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "__pycache__"})
_SECONDS = 1500
PLAIN_NUMPY = "NPY_DISABLE_CPU_FEATURES=X86_V3"
"""NumPy's sorts with AVX2 give wrong orders on QEMU's emulated CPUs: of 300 argsort() of random numbers 247, of 300
isin() 17."""
_DIRECTORY, _PROGRAM, _FILE = 0o040755, 0o100755, 0o100644


def checks_inside(name: str, looks: int, options: str = "") -> Iterator[dict[str, Any]]:
    """Boot a racing guest and check it from inside, as root and then as another user.

    Args:
        name: The kernel.
        looks: How often root checks it.
        options: More for the kernel's command line.

    Yields:
        What `inside.py` of the guest says of each check: user, exit code, what was found, what stderr shows.
    """
    kernel = kernel_named(name)
    unpacked = fetch_kernel(kernel, guests_folder())
    with tempfile.TemporaryDirectory(prefix=".inside-", dir=guests_folder()) as folder:
        prepared = prepare_guest(kernel, unpacked, BUSY, Path(folder))
        with prepared.boot.initramfs.open("ab") as file:
            file.write(b"\0" * (-file.tell() % 512))
            file.write(encode_cpio([*product(), *_scripts(looks)]))
        line = f"{prepared.boot.command_line} rdinit=/inside.sh {options}".rstrip()
        boot = replace(prepared.boot, memory_mb=MEMORY_MB, command_line=line)
        with booted(boot, lambda guest: guest.wait_for("inside", _SECONDS)) as guest:
            lines = guest.wait_for("checked", _SECONDS)
    checks = [json.loads(line.removeprefix("check ")) for line in lines if line.startswith("check ")]
    if not checks:
        raise GuestError("the inspector inside", "it said:\n  " + "\n  ".join(lines[-TAIL_LINES:]))
    yield from checks


def _scripts(looks: int) -> list[Entry]:
    """The guest's first program: as that of other guests, but it goes on when the workloads race."""
    init = (HERE / "workloads" / "init.sh").read_text()
    start, keeper = init.rsplit("exec /bin/keeper", 1)
    python = f"{PLAIN_NUMPY} PYTHONHOME={sys.base_prefix} PYTHONPATH=/product {Path(sys.executable).resolve()}"
    own = f"""{start}/bin/keeper{keeper.rstrip()} &
/bin/sleep 20
echo inside
{python} /inside.py {looks}
echo checked
/bin/sleep 100000
"""
    return [
        Entry("inside.sh", _PROGRAM, own.encode()),
        Entry("inside.py", _FILE, (HERE / "inside_guest.py").read_bytes()),
    ]


@cache
def product() -> tuple[Entry, ...]:
    """This Python with what the inspector needs, at the places where they are here; the inspector in /product."""
    files: dict[Path, Path] = {}
    python = Path(sys.executable).resolve()
    files[python] = python
    files |= {path: path for path in _tree(Path(sysconfig.get_path("stdlib")))}
    site = Path(sysconfig.get_path("purelib"))
    for package in NEEDED:
        for top in site.glob(f"*{package}*"):
            for path in _tree(top) if top.is_dir() else [top]:
                files[Path("/product") / path.relative_to(site)] = path
    files |= {Path("/product") / path.relative_to(PROJECT): path for path in _tree(PROJECT / "inspector")}
    libraries = {lib for path in files.values() if ".so" in path.name or path == python for lib in _libraries(path)}
    files.update({lib: lib for lib in libraries if lib not in files and not lib.is_relative_to(site)})
    folders = sorted({parent for path in files for parent in path.parents if parent != Path("/")})
    made = [Entry(str(folder)[1:], _DIRECTORY) for folder in folders]
    made += [Entry(str(at)[1:], _PROGRAM, path.read_bytes()) for at, path in sorted(files.items())]
    return tuple(made)


def _tree(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        yield from (Path(folder) / name for name in names if not name.endswith((".a", ".pyc")))


def _libraries(path: Path) -> Iterator[Path]:
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, timeout=60, check=False)
    for line in done.stdout.splitlines():
        word = next((word for word in line.split() if word.startswith("/")), "")
        if "not found" in line:
            raise GuestError("the inspector's libraries", line.strip())
        if word:
            yield Path(word)
