"""The guests that speed is measured on, each with one program of its own.

`large`: gigabytes of small pages, most of them shared by several processes. `forks`: many children of one parent, whose
VMAs hang on its anon_vmas. `vmas`: one process with very many VMAs on one anon_vma, and a child that shares them.
`big`: two thousand address spaces that fill a machine in all common ways (`make bench-big`).
"""

from __future__ import annotations

import argparse
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.guests.build import stop_idle
from tests.guests.cache import guests_folder
from tests.guests.errors import GuestError
from tests.guests.initramfs import WARNINGS, Entry, encode_cpio, pick_modules
from tests.guests.kernels import kernel_named
from tests.guests.packages import fetch_kernel
from tests.guests.qemu import COMMAND_LINE, Boot, Guest, booted

KERNEL = "7.3"
BIG_MB = 12 << 10
BIG_MMS = 2000
POPULATE_SECONDS = 3600
DUMP_SECONDS = 1800
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Program:
    """What one of these guests runs.

    Attributes:
        folder: Of its dumps.
        name: Of its dump.
        source: The C file.
        memory_mb: Its memory.
        arguments: Of the program.
        modules: Which of the kernel's modules it may load; None for all that any guest wants.
    """

    folder: str
    name: str
    source: str
    memory_mb: int
    arguments: str = ""
    modules: tuple[str, ...] | None = ("qemu_fw_cfg",)


def large_dump() -> Path:
    """The dump of the large guest, built when this machine has none yet (a few minutes, 6 GB of disk)."""
    return _dump(Program("large", "rest", "populate.c", 6144))


def big_dump(memory_mb: int = BIG_MB) -> Path:
    """The dump of a guest of that many megabytes with some 2,000 address spaces (a quarter of an hour for 12 GB)."""
    return _dump(Program("big", f"{memory_mb}", "big.c", memory_mb, f"{BIG_MMS}", modules=None))


def forks_dump(children: int) -> Path:
    """The dump of a guest where one process has that many children (half a minute, 1 GB of disk)."""
    return _dump(Program("scale", f"forks-{children}", "scale.c", 1024, f"forks {children}"))


def vmas_dump(vmas: int) -> Path:
    """The dump of a guest with a process of that many VMAs (half a minute, 1 GB of disk)."""
    return _dump(Program("scale", f"vmas-{vmas}", "scale.c", 1024, f"vmas {vmas}"))


def _dump(program: Program) -> Path:
    target = guests_folder() / f"{program.folder}-{KERNEL}" / f"{program.name}.elf"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unpacked = fetch_kernel(kernel_named(KERNEL), guests_folder())
    with tempfile.TemporaryDirectory(prefix=".build-", dir=guests_folder()) as name:
        folder = Path(name)
        initramfs = folder / "initramfs"
        initramfs.write_bytes(_initramfs(Path(unpacked.root), folder / "init", program))
        boot = Boot(
            program.name,
            unpacked.image,
            initramfs,
            memory_mb=program.memory_mb,
            has_two_nodes=False,
            command_line=f"{COMMAND_LINE} -- {program.arguments}".rstrip(" -"),
        )
        with booted(boot, _await_populated) as guest, guest.qmp() as qmp:
            stop_idle(qmp)
            # Longer than the builder of the small guests waits.
            qmp.command("dump-guest-memory", timeout=DUMP_SECONDS, paging=False, protocol=f"file:{folder / 'dump'}")
            qmp.quit()
        (folder / "dump").chmod(0o644)
        (folder / "dump").replace(target)
    return target


def _await_populated(guest: Guest) -> None:
    guest.wait_for("populated", POPULATE_SECONDS)


def _initramfs(root: Path, init: Path, program: Program) -> bytes:
    source = HERE / program.source
    command = ["gcc", "-static", "-O2", *WARNINGS, "-o", str(init), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise GuestError(f"the guest of {source.name}", f"gcc failed:\n{done.stderr.strip()}")
    picked = [(name, content) for name, content in pick_modules(root) if _is_wanted(name, program.modules)]
    if not any(_is_wanted(name, ("qemu_fw_cfg",)) for name, _ in picked):
        raise GuestError(f"the guest of {source.name}", "its kernel has no module qemu_fw_cfg")
    return encode_cpio(
        [
            Entry("dev", stat.S_IFDIR | 0o755),
            Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry("init", stat.S_IFREG | 0o755, init.read_bytes()),
            Entry("order", stat.S_IFREG | 0o644, "".join(f"/{name}.ko\n" for name, _ in picked).encode()),
            *(Entry(f"{name}.ko", stat.S_IFREG | 0o644, content) for name, content in picked),
        ]
    )


def _is_wanted(name: str, wanted: tuple[str, ...] | None) -> bool:
    return wanted is None or name.replace("-", "_") in wanted


def main() -> None:
    """`make bench-big`: build the big guest and say where its dump is."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.guest", description=main.__doc__)
    parser.add_argument("--megabytes", type=int, default=BIG_MB, help=f"memory of the guest [default: {BIG_MB}]")
    parser.add_argument("--large", action="store_true", help="the large guest of 6 GB instead")
    asked = parser.parse_args()
    print(large_dump() if asked.large else big_dump(asked.megabytes))


if __name__ == "__main__":
    main()
