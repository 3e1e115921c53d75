"""Pack busybox, the workloads and the kernel's own modules into an initramfs."""

from __future__ import annotations

import lzma
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import GuestError

HERE = Path(__file__).resolve().parent
WORKLOADS = HERE / "workloads"

WARNINGS = ("-Wall", "-Wextra", "-Werror")

# Modules by name, each with what it depends on first. Names that a kernel has built in are not found and left out.
WANTED_MODULES = (
    "qemu_fw_cfg",
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "xfs",
    "ext4",
    "lzo_rle",
    "zram",
    "tun",
)


@dataclass(frozen=True)
class Entry:
    """One file, folder or device of the archive."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def encode_cpio(entries: list[Entry]) -> bytes:
    """Encode entries as a cpio archive of the "newc" kind."""
    parts: list[bytes] = []
    for inode, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        fields = (
            inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0,
        )  # fmt: skip
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts.append(header + b"\0" * (-len(header) % 4))
        parts.append(entry.content + b"\0" * (-len(entry.content) % 4))
    return b"".join(parts)


def compile_keeper(target: Path) -> None:
    """Compile all workloads into one static program."""
    sources = sorted(str(path) for path in WORKLOADS.glob("*.c"))
    command = ["gcc", "-static", "-O2", "-fno-toplevel-reorder", *WARNINGS, "-o", str(target), *sources]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError as error:
        raise GuestError("the workloads", "gcc is not installed") from error
    if done.returncode:
        raise GuestError("the workloads", f"gcc failed:\n{done.stderr.strip()}")


def _read_module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _dependencies(module: bytes) -> list[str]:
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    value = module[start + 9 : module.index(b"\0", start + 9)].decode()
    return [name for name in value.split(",") if name]


def pick_modules(root: Path, more: tuple[str, ...] = ()) -> list[tuple[str, bytes]]:
    """Find the wanted modules under root, dependencies first, and more after them."""
    by_name = {
        path.name.split(".ko", 1)[0].replace("-", "_"): path for path in root.rglob("*.ko*") if not path.is_symlink()
    }
    picked: dict[str, bytes] = {}

    def pick(name: str) -> None:
        path = by_name.get(name.replace("-", "_"))
        if path is None or path.name in picked or name in picked:
            return
        content = _read_module(path)
        for dependency in _dependencies(content):
            pick(dependency.replace("-", "_"))
        picked[name] = content

    for name in (*WANTED_MODULES, *more):
        pick(name)
    return list(picked.items())


def build_initramfs(root: Path, keeper: Path, mode: str, more_modules: tuple[str, ...] = ()) -> bytes:
    """Build the archive for a kernel unpacked at root; mode tells the keeper what to do."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise GuestError("the initramfs", "busybox is not installed (package busybox-static)")
    folder, program, text = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    modules = pick_modules(root, more_modules)
    order = "".join(f"{name}.ko\n" for name, _ in modules)
    entries = [
        *(Entry(name, folder) for name in ("bin", "dev", "proc", "sys", "mnt", "modules")),
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("bin/busybox", program, Path(busybox).read_bytes()),
        Entry("bin/keeper", program, keeper.read_bytes()),
        Entry("init", program, (WORKLOADS / "init.sh").read_bytes()),
        Entry("mode", text, mode.encode() + b"\n"),
        Entry("modules/order", text, order.encode()),
        *(Entry(f"modules/{name}.ko", text, content) for name, content in modules),
    ]
    return encode_cpio(entries)
