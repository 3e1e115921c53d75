"""Stop a guest's CPUs at places in the kernel: QEMU's debugging stub, spoken to directly."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any, Self

from .errors import GuestError
from .qmp import Qmp

_RSP, _RIP = 7, 16
"""Places in the reply to "g" of x86-64, in words of eight bytes."""


class Gdb:
    """A connection to the stub; the guest stands still from the moment it is made, and runs in `resume` only.

    Args:
        qmp: To ask QEMU for the stub.
        path: Where its socket is made.
    """

    def __init__(self, qmp: Qmp, path: Path) -> None:
        line: dict[str, Any] = {"command-line": f"gdbserver unix:{path},server=on,wait=off"}
        qmp.command("human-monitor-command", **line)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + 10
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise GuestError("the debugging stub", str(error)) from error
                time.sleep(0.05)
        self._read = bytearray()
        self.ask("?")

    def __enter__(self) -> Self:
        """Return the open connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, request: str, seconds: float = 20) -> str:
        """Send one packet and return the answer."""
        self._send(request)
        answer = self._answer(seconds)
        if answer is None:
            raise GuestError(f"the debugging stub, {request}", f"no answer in {seconds:.0f} s")
        return answer

    def set_breakpoint(self, address: int) -> None:
        """Stop all CPUs when one is about to execute this address."""
        self._must(f"Z0,{address:x},1")

    def clear_breakpoint(self, address: int) -> None:
        """No longer."""
        self._must(f"z0,{address:x},1")

    def resume(self, seconds: float) -> int | None:
        """Let all CPUs run until one meets a breakpoint: its number from 1 up; None when none did in time.

        All stand still afterwards, whichever it was.
        """
        self._send("vCont;c")
        answer = self._answer(seconds)
        if answer is None:
            self._socket.sendall(b"\x03")
            answer = self._answer(20)
            if answer is None:
                raise GuestError("the debugging stub", "the guest does not stop")
            # It may have met a breakpoint in the meantime.
            return None if not answer.startswith("T05") else self._cpu(answer)
        return self._cpu(answer)

    def step(self, cpu: int) -> None:
        """Let one CPU execute one instruction; the others stand still."""
        self._send(f"vCont;s:{cpu:x}")
        if self._answer(20) is None:
            raise GuestError("the debugging stub", "a step did not end")

    def registers(self, cpu: int) -> tuple[int, int]:
        """The instruction and the stack pointer of a CPU."""
        self._must(f"Hg{cpu:x}")
        words = bytes.fromhex(self.ask("g")[: 2 * 8 * (_RIP + 1)])
        rip, rsp = (int.from_bytes(words[8 * n : 8 * n + 8], "little") for n in (_RIP, _RSP))
        return rip, rsp

    def word(self, cpu: int, address: int) -> int:
        """Eight bytes of memory as a CPU sees it."""
        self._must(f"Hg{cpu:x}")
        return int.from_bytes(bytes.fromhex(self.ask(f"m{address:x},8")), "little")

    def write(self, cpu: int, address: int, data: bytes) -> None:
        """Write memory as a CPU sees it."""
        self._must(f"Hg{cpu:x}")
        self._must(f"M{address:x},{len(data):x}:{data.hex()}")

    def _must(self, request: str) -> None:
        answer = self.ask(request)
        if answer != "OK":
            raise GuestError(f"the debugging stub, {request}", answer or "not known to it")

    def _send(self, request: str) -> None:
        data = request.encode()
        self._socket.sendall(b"$" + data + b"#" + f"{sum(data) & 0xFF:02x}".encode())

    def _answer(self, seconds: float) -> str | None:
        """The next packet; acknowledgements are given and taken, and console output is left out."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(rb"\$([^#]*)#[0-9a-f]{2}", self._read)
            if found:
                text = found[1].decode()
                del self._read[: found.end()]
                self._socket.sendall(b"+")
                if not re.match("O[0-9a-f]", text):
                    return text
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                more = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            if not more:
                raise GuestError("the debugging stub", "QEMU closed the connection")
            self._read += more

    @staticmethod
    def _cpu(answer: str) -> int:
        found = re.search(r"thread:(?:p[0-9a-f]+\.)?([0-9a-f]+)", answer)
        return int(found[1], 16) if found else 1
