"""The socket through which a running QEMU guest is read, stopped and let run on."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from inspector.errors import TargetError
from inspector.target.prstatus import encode

PATIENCE = 10.0
"""Seconds that a QEMU may take to answer."""

_REGISTER = re.compile(r"\b(R[A-Z]{2}|R\d+) *=([0-9a-f]{8,16})\b")
"""A register in the text of `info registers` (target/i386/cpu-dump.c, x86_cpu_dump_state())."""

_SELECTOR = re.compile(r"^(CS|SS) *=([0-9a-f]{4}) ", re.MULTILINE)

_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that would end this process and leave the guest stopped."""


def qmp_socket(address: str) -> socket.socket:
    """A connection to a QMP server that has greeted; the greeting is left for drgn to read.

    Args:
        address: Path of the socket, or host:port.

    Raises:
        TargetError: No server listens there, or it is no QMP server, or it is busy with another client.
    """
    todo = "Start QEMU with -qmp unix:PATH,server=on,wait=off and name that PATH"
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit() and not address.startswith(("/", ".")):
            connection = socket.create_connection((host or "localhost", int(port)), PATIENCE)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(PATIENCE)
            connection.connect(address)
        greeting = connection.recv(256, socket.MSG_PEEK)
    except FileNotFoundError:
        raise TargetError("no such QMP socket", address, todo) from None
    except TimeoutError:
        raise TargetError("the socket does not answer", address, f"Another client may be connected. {todo}") from None
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"the QMP socket cannot be used ({reason})", address, todo) from None
    if b'"QMP"' not in greeting:
        connection.close()
        raise TargetError("this socket is no QMP server", address, todo)
    connection.settimeout(None)
    # drgn blocks on this socket: a QEMU that stops answering must end in an error, not in a hang.
    patience = struct.pack("@ll", int(PATIENCE), int(PATIENCE % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    return connection


class Monitor:
    """Commands to a QEMU through the connection by which drgn reads the guest.

    Both wait for the answer before they do anything else, so that answers do not mix.

    Args:
        connection: To a QMP server whose greeting was answered; taken over.
        address: What it is connected to.
    """

    def __init__(self, connection: socket.socket, address: str) -> None:
        self._connection = connection
        self.address = address
        self._left = b""

    def command(self, name: str, **arguments: object) -> Any:
        """Run a command and return what it gives; events that come before are left out.

        Raises:
            TargetError: QEMU refuses it or does not answer.
        """
        try:
            self._connection.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            while True:
                answer = json.loads(self._line())
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    reason = str(answer["error"].get("desc"))
                    raise TargetError(f"QEMU refuses {name} ({reason})", self.address, "")
        except (OSError, ValueError) as error:
            what = "QEMU does not answer" if isinstance(error, BlockingIOError) else f"QEMU cannot be asked ({error})"
            raise TargetError(what, self.address, "Look whether the guest still runs") from None

    def _line(self) -> bytes:
        while b"\n" not in self._left:
            data = self._connection.recv(1 << 16)
            if not data:
                raise ConnectionError("it closed the connection")
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return line

    def is_running(self) -> bool:
        """Whether the guest's CPUs run."""
        return bool(self.command("query-status")["running"])

    def registers(self) -> tuple[bytes, ...]:
        """The registers of each CPU as NT_PRSTATUS notes, in the order of the CPUs."""
        text = str(self.command("human-monitor-command", **{"command-line": "info registers -a"}))
        notes = []
        for number, part in enumerate(text.replace("\r", "").split("CPU#")[1:]):
            found = {name.lower(): int(value, 16) for name, value in _REGISTER.findall(part)}
            found |= {name.lower(): int(value, 16) for name, value in _SELECTOR.findall(part)}
            # As QEMU numbers CPUs in its dumps (target/i386/arch_dump.c, x86_64_write_elf64_note()).
            notes.append(encode(number + 1, found))
        return tuple(notes)


class Pause:
    """A guest stopped while the body runs; let run on however that ends, unless it was stopped before.

    Attributes:
        registers: Of each CPU, as NT_PRSTATUS notes.
        seconds: How long it was stopped, or is by now; 0 where it was not running.

    Raises:
        TargetError: On closing, where a guest that was found stopped was let run on by another.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._began = self._ended = 0.0
        self._stopped = self._found_stopped = False
        self._handlers: dict[signal.Signals, Any] = {}
        self.registers: tuple[bytes, ...] = ()

    @property
    def seconds(self) -> float:
        """How long the guest was stopped."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, _interrupt) for number in _ENDINGS}
        try:
            self._stopped = self._monitor.is_running()
            self._found_stopped = not self._stopped
            if self._stopped:
                self._began = time.monotonic()
                self._monitor.command("stop")
            self.registers = self._monitor.registers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def keep(self) -> None:
        """Leave the guest stopped."""
        self._stopped = False

    def close(self) -> None:
        """Let the guest run on; again does nothing."""
        # A second signal must not keep it from that.
        handlers, self._handlers = self._handlers, {}
        if handlers:
            handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
            for number in _ENDINGS:
                signal.signal(number, signal.SIG_IGN)
        try:
            if self._stopped:
                self._stopped = False
                self._monitor.command("cont")
                self._ended = time.monotonic()
            elif self._found_stopped:
                self._found_stopped = False
                if self._monitor.is_running():
                    raise TargetError("the guest was let run on while it was read", self._monitor.address, "Try again")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def pause_of(monitor: Monitor | None) -> Pause:
    """A pause of a guest that is about to begin.

    Raises:
        TargetError: The target is no guest that QEMU can be asked to stop.
    """
    if monitor is None:
        raise TargetError("only a QEMU guest can be stopped", "", "Name one with --qemu")
    return Pause(monitor)
