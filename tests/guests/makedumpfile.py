"""Debian's makedumpfile with the libraries it needs, unpacked and not installed; and QEMU's dumps as it wants them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .apt import Apt, package_version, unpack
from .cache import guests_folder
from .errors import GuestError
from .packages import write_atomically

SUITE = "sid"
"""The newest: older ones know fewer kernels."""

_PACKAGES = (
    "makedumpfile",
    *("libc6", "libdw1t64", "libelf1t64", "liblzo2-2", "libzstd1", "zlib1g", "liblzma5", "libbz2-1.0"),
)
_EHDR, _PHDR = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")


@dataclass(frozen=True)
class Makedumpfile:
    """makedumpfile on this machine.

    Attributes:
        root: Where its packages are unpacked.
        version: Of its package.
    """

    root: Path
    version: str

    @property
    def loader(self) -> Path:
        """What starts programs with that C library."""
        return self.root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"

    @property
    def program(self) -> Path:
        """The program itself."""
        return self.root / "usr/bin/makedumpfile"

    def libraries(self) -> list[Path]:
        """Those that it needs, by the names it asks for."""
        names = ("libc.so.6", "libdw.so.1", "libelf.so.1", "liblzo2.so.2", "libzstd.so.1", "libz.so.1")
        more = ("liblzma.so.5", "libbz2.so.1.0", "libpthread.so.0")
        return [self.loader.parent / name for name in (*names, *more)]

    def run(self, *words: str | Path, out: Path | None = None) -> str:
        """Run it; what it says.

        Args:
            words: Its options and files.
            out: Where what it writes to stdout goes.

        Raises:
            GuestError: It failed.
        """
        command = [self.loader, "--library-path", self.loader.parent, self.program, *words]
        with (out or Path("/dev/null")).open("wb") as stdout:
            done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
            raise GuestError(f"makedumpfile {' '.join(map(str, words))}", "; ".join(last) or "it failed")
        return done.stderr


def fetch_makedumpfile() -> Makedumpfile:
    """makedumpfile, fetched if the cache has none.

    Raises:
        GuestError: The archive has none.
    """
    folder = guests_folder() / "packages" / "makedumpfile"
    picked = folder / "picked"
    if picked.is_file():
        return Makedumpfile(folder / "root", picked.read_text())
    apt = Apt(guests_folder() / "packages" / "apt" / "makedumpfile", (SUITE,))
    apt.update()
    shutil.rmtree(folder / "root", ignore_errors=True)
    version = ""
    for name in _PACKAGES:
        package = apt.download(name, folder)
        version = version or package_version(package)
        unpack(package, folder / "root")
        package.unlink()
    write_atomically(picked, version.encode())
    return Makedumpfile(folder / "root", version)


def as_vmcore(dump: Path, direct_map: int, out: Path) -> None:
    """Copy a dump by QEMU so that its headers are like those of /proc/vmcore, which is all that makedumpfile reads.

    It takes program headers to follow the ELF header, and learns from the virtual addresses where the direct map is.

    Args:
        dump: As QEMU wrote it.
        direct_map: Where the direct map begins (page_offset_base).
        out: The copy.
    """
    shutil.copyfile(dump, out)
    with out.open("r+b") as file:
        ident, *words = _EHDR.unpack(file.read(_EHDR.size))
        phoff, phnum = words[4], words[9]
        file.seek(phoff)
        rows = list(_PHDR.iter_unpack(file.read(phnum * _PHDR.size)))
        if _EHDR.size + phnum * _PHDR.size > min(row[2] for row in rows):
            raise GuestError(f"the dump {dump}", "its headers leave no room")
        file.seek(0)
        file.write(_EHDR.pack(ident, 4, 62, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, phnum, 0, 0, 0))
        for kind, flags, at, va, pa, stored, size, align in rows:
            place = (direct_map + pa) % (1 << 64) if kind == 1 else va
            file.write(_PHDR.pack(kind, flags, at, place, pa, stored, size, align))


def split_names(out: Path, parts: int = 3) -> list[Path]:
    """The files of a dump in parts."""
    return [out.with_name(f"{out.name}.{number}") for number in range(parts)]


def words_of(out: Path, dump: Path, options: Sequence[str]) -> tuple[list[str | Path], Path | None, list[Path]]:
    """How makedumpfile is asked for a format: its words, where its stdout goes, the files that come of it."""
    if "-F" in options:
        return [*options, dump], out, [out]
    if "--split" in options:
        return [*options, dump, *split_names(out)], None, split_names(out)
    return [*options, dump, out], None, [out]
