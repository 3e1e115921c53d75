"""Boot one guest under QEMU, wait for its words on the serial line, and end it."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .errors import BootError, GuestError
from .qmp import Qmp

MEMORY_MB = 640
BOOT_SECONDS = 240
# Emulation loses a race now and then while the kernel patches its own code, and the guest dies in its first seconds.
BOOT_TRIES = 4
TAIL_LINES = 15
COMMAND_LINE = "console=ttyS0 quiet panic=-1 oops=panic secretmem.enable=1"


@dataclass(frozen=True)
class Boot:
    """What one guest is started with."""

    name: str
    kernel: Path
    initramfs: Path
    drives: tuple[Path, ...] = ()
    memory_mb: int = MEMORY_MB
    has_two_nodes: bool = True
    command_line: str = COMMAND_LINE
    cpus: int = 2
    has_five_levels: bool = False


@dataclass
class Guest:
    """A running QEMU, its serial log and its QMP socket; a context manager that ends it."""

    boot: Boot
    folder: tempfile.TemporaryDirectory[str] = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        """Start QEMU."""
        self.folder = tempfile.TemporaryDirectory(prefix="folioscope-guest-")
        try:
            self.process = subprocess.Popen(
                self._arguments(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(self._path("qemu.err")).open("wb"),
            )
        except FileNotFoundError as error:
            self.folder.cleanup()
            raise GuestError("QEMU", "qemu-system-x86_64 is not installed") from error
        return self

    def __exit__(self, *_: object) -> None:
        """End this QEMU, by its own process id, and remove its folder."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.folder.cleanup()

    @property
    def socket(self) -> Path:
        """The QMP socket for the builder."""
        return self._path("qmp")

    @property
    def spare_socket(self) -> Path:
        """A second QMP socket, for a debugger."""
        return self._path("qmp-spare")

    def lines(self) -> list[str]:
        """Return the complete lines the guest has printed so far."""
        try:
            text = self._path("serial").read_text(errors="replace")
        except FileNotFoundError:
            return []
        return text.replace("\r", "").split("\n")[:-1]

    def wait_for(self, wanted: str, seconds: float = BOOT_SECONDS) -> list[str]:
        """Wait until a line that equals wanted is printed; return all lines."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.lines()
            if wanted in lines:
                return lines
            if self.process.poll() is not None:
                raise self._failure(f"QEMU ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"no {wanted!r} in {seconds:.0f} s")
            time.sleep(0.1)

    def qmp(self) -> Qmp:
        """Connect to this guest."""
        return Qmp(self.socket)

    def _failure(self, why: str) -> GuestError:
        lines = self.lines()
        steps = [line[5:] for line in lines if line.startswith("step ")]
        where = steps[-1] if steps else "boot"
        tail = "\n  ".join([*self._errors(), *lines[-TAIL_LINES:]])
        # A kernel that panics ends QEMU (-no-reboot): static keys are patched while workloads begin, too.
        kind = BootError if not steps or self.process.poll() is not None else GuestError
        return kind(f"guest {self.boot.name} at step {where}", f"{why}; it said:\n  {tail}")

    def _errors(self) -> list[str]:
        return self._path("qemu.err").read_text(errors="replace").splitlines()

    def _path(self, name: str) -> Path:
        return Path(self.folder.name) / name

    def _arguments(self) -> list[str]:
        boot = self.boot
        arguments = [
            "qemu-system-x86_64",
            *("-accel", "tcg,thread=multi"),
            *("-cpu", "max" if boot.has_five_levels else "max,la57=off"),
            *("-smp", str(boot.cpus)),
            *("-m", str(boot.memory_mb)),
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            *("-display", "none"),
            *("-device", "VGA,vgamem_mb=2"),
            *("-device", "vmcoreinfo"),
            *("-serial", f"file:{self._path('serial')}"),
            *("-qmp", f"unix:{self.socket},server=on,wait=off"),
            *("-qmp", f"unix:{self.spare_socket},server=on,wait=off"),
            *("-kernel", str(boot.kernel)),
            *("-initrd", str(boot.initramfs)),
            *("-append", boot.command_line),
        ]
        if boot.has_two_nodes:
            half = boot.memory_mb // 2
            for node in range(2):
                arguments += [
                    *("-object", f"memory-backend-ram,id=ram{node},size={half}M"),
                    *("-numa", f"node,nodeid={node},cpus={_cpus_of(node, boot.cpus)},memdev=ram{node}"),
                ]
        for drive in boot.drives:
            arguments += ["-drive", f"file={drive},format=raw,if=virtio,cache=unsafe"]
        return arguments


def _cpus_of(node: int, cpus: int) -> str:
    """The half of the CPUs that is one of two nodes'."""
    half = cpus // 2
    first, last = node * half, half - 1 if node == 0 else cpus - 1
    return str(first) if first == last else f"{first}-{last}"


@contextmanager
def booted(boot: Boot, await_ready: Callable[[Guest], object]) -> Iterator[Guest]:
    """Yield a guest that await_ready has waited for; a kernel that dies before that is booted again."""
    for attempt in range(1, BOOT_TRIES + 1):
        with Guest(boot) as guest:
            try:
                await_ready(guest)
            except BootError:
                if attempt == BOOT_TRIES:
                    raise
                continue
            yield guest
            return
