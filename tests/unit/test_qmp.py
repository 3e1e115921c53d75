"""QEMU asked to stop, to show registers and to go on: it goes on however the pause ends."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from inspector.errors import TargetError
from inspector.target.prstatus import decode
from inspector.target.qmp import Monitor, Pause, pause_of

REGISTERS = """
CPU#0
RAX=0000000000000000 RBX=0000000000000009 RCX=000000000000fc2c RDX=00000000003d24ca
RSI=0000000000000200 RDI=ffff8d89c69f03d4 RBP=00000000000000f0 RSP=ffffd2ea434c3ad8
R8 =ffff8d89d3638f00 R9 =0000000000000000 R10=ffff8d89d3fd5680 R11=0000000000000000
RIP=ffffffffbb0f3773 RFL=00000286 [--S--P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]
CR0=80050033 CR2=00007f0e619e0d58 CR3=0000000003a99000 CR4=00750ef0

CPU#1
RAX=0000000000000001 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RSI=0000000000000000 RDI=0000000000000000 RBP=00007ffc00000000 RSP=00007ffc12345678
RIP=0000000000401000 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0
CS =0033 0000000000000000 ffffffff 00affb00 DPL=3 CS64 [-RA]
SS =002b 0000000000000000 ffffffff 00c0f300 DPL=3 DS   [-WA]
"""


class FakeQemu:
    """Answers commands at one end of a connection, with events between, and remembers them."""

    def __init__(self, *, running: bool = True, refuse: str = "") -> None:
        ours, self._theirs = socket.socketpair()
        self.monitor = Monitor(ours, "a-socket")
        self.running = running
        self.refuse = refuse
        self.commands: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for line in self._theirs.makefile("rb"):
            command = json.loads(line)["execute"]
            self.commands.append(command)
            self._send({"event": "STOP", "timestamp": {}})
            if command == self.refuse:
                self._send({"error": {"class": "GenericError", "desc": "not now"}})
                continue
            answers: dict[str, Any] = {
                "query-status": {"running": self.running},
                "human-monitor-command": REGISTERS.replace("\n", "\r\n"),
            }
            self.running = {"stop": False, "cont": True}.get(command, self.running)
            self._send({"return": answers.get(command, {})})

    def _send(self, answer: object) -> None:
        self._theirs.sendall(json.dumps(answer).encode() + b"\r\n")

    def close(self) -> None:
        self._theirs.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def qemu() -> Iterator[FakeQemu]:
    server = FakeQemu()
    yield server
    server.close()


def test_a_guest_is_stopped_read_and_let_run_on(qemu: FakeQemu) -> None:
    with Pause(qemu.monitor) as pause:
        assert not qemu.running
        first, second = map(decode, pause.registers)
    assert qemu.running
    assert qemu.commands == ["query-status", "stop", "human-monitor-command", "cont"]
    assert first is not None
    assert second is not None
    assert (first.pid, first.ip, first.sp, first.bp, first.user) == (
        1,
        0xFFFFFFFFBB0F3773,
        0xFFFFD2EA434C3AD8,
        0xF0,
        False,
    )
    assert (second.pid, second.user) == (2, True)
    length = pause.seconds
    assert 0 < length == pause.seconds, "it is over"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, TargetError])
def test_it_runs_on_whatever_happens(qemu: FakeQemu, error: type[BaseException]) -> None:
    with pytest.raises(error), Pause(qemu.monitor):
        raise error("x")
    assert qemu.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_runs_on_after_a_signal_and_handlers_are_as_before(qemu: FakeQemu, number: signal.Signals) -> None:
    # Tests may be run with signals ignored, as nohup does.
    found = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), Pause(qemu.monitor):
            signal.raise_signal(number)
        assert qemu.running
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, found)


def test_it_runs_on_when_its_registers_are_refused() -> None:
    server = FakeQemu(refuse="human-monitor-command")
    with pytest.raises(TargetError, match="not now"), Pause(server.monitor):
        raise AssertionError("the body is not entered")
    assert server.running
    server.close()


def test_a_guest_that_was_stopped_before_is_left_so() -> None:
    server = FakeQemu(running=False)
    with Pause(server.monitor) as pause:
        assert len(pause.registers) == 2
    assert (server.running, pause.seconds) == (False, 0)
    assert "cont" not in server.commands
    server.close()


def test_a_guest_found_stopped_that_another_lets_run_on_is_no_one_moment() -> None:
    server = FakeQemu(running=False)
    with pytest.raises(TargetError, match="let run on while it was read"), Pause(server.monitor):
        server.running = True
    server.close()


def test_it_can_be_left_stopped(qemu: FakeQemu) -> None:
    with Pause(qemu.monitor) as pause:
        pause.keep()
    assert not qemu.running


def test_a_qemu_that_is_gone_is_one_clear_line(qemu: FakeQemu) -> None:
    qemu.close()
    with pytest.raises(TargetError, match="QEMU cannot be asked"):
        qemu.monitor.is_running()


def test_only_guests_can_be_stopped() -> None:
    with pytest.raises(TargetError, match="only a QEMU guest"):
        pause_of(None)
