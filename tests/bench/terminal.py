"""A program on a pseudo-terminal, and how soon it answers a key: what somebody at a real terminal would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEYS = {
    "down": b"\x1b[B",
    "up": b"\x1b[A",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
    "pagedown": b"\x1b[6~",
    "pageup": b"\x1b[5~",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "enter": b"\r",
    "backspace": b"\x7f",
}
"""What a terminal sends for keys that are no letters."""

_CPU_FIELDS = range(11, 15)
"""Behind the name in /proc/PID/stat: user and system time, its own and that of children it waited for."""


@dataclass(frozen=True)
class Answer:
    """What became of a key: seconds until the first byte on the screen, and until the last one."""

    first: float
    last: float


class Terminal:
    """A program started on a terminal of its own.

    Args:
        words: The command.
        size: Columns and lines.
        kind: What it says it is (TERM).
    """

    def __init__(self, words: Sequence[str], size: tuple[int, int] = (140, 45), kind: str = "xterm-256color") -> None:
        self.started = time.perf_counter()
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.environ.update(TERM=kind, TEXTUAL_ANIMATIONS="none")
            os.environ.pop("COLORTERM", None)
            os.execv(words[0], list(words))
        columns, lines = size
        # A select() would fail in a process that has more than a thousand files open.
        self._written = select.poll()
        self._written.register(self._fd, select.POLLIN)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.seen = b""

    def wait_for(self, text: bytes, seconds: float = 120.0) -> float:
        """Seconds from the start until ``text`` has been written.

        Raises:
            SystemExit: It never was.
        """
        while text not in self.seen:
            if time.perf_counter() - self.started > seconds or not self._read(0.05):
                raise SystemExit(f"{text.decode()} never appeared: {self.seen[-2000:]!r}")
        return time.perf_counter() - self.started

    def has_written(self, text: bytes, since: int, seconds: float = 60.0) -> bool:
        """Whether ``text`` is written, soon, behind so many bytes."""
        start = time.perf_counter()
        while text not in self.seen[since:]:
            if time.perf_counter() - start > seconds or not self._read(0.05):
                return False
        return True

    def settle(self, quiet: float) -> None:
        """Wait until nothing has been written for so many seconds."""
        last = time.perf_counter()
        while (now := time.perf_counter()) - last < quiet:
            before = len(self.seen)
            self._read(quiet / 10)
            if len(self.seen) > before:
                last = now

    def until_idle(self, quiet: float, seconds: float = 60.0) -> None:
        """Wait until no thread of the program wants to run, for so many seconds, however little it gets to."""
        end = time.perf_counter() + seconds
        last = time.perf_counter()
        while (now := time.perf_counter()) - last < quiet and now < end:
            before = len(self.seen)
            self._read(quiet / 10)
            if len(self.seen) > before or self._is_running():
                last = time.perf_counter()

    def _is_running(self) -> bool:
        for each in Path(f"/proc/{self._pid}/task").iterdir():
            try:
                if each.joinpath("stat").read_text().rsplit(")", 1)[1].split()[0] in "RD":
                    return True
            except OSError:
                continue
        return False

    def press(self, key: str, quiet: float = 0.15) -> Answer:
        """Press a key; what it does counts as done when nothing was written for ``quiet`` seconds."""
        start = time.perf_counter()
        os.write(self._fd, KEYS.get(key, key.encode()))
        first = last = 0.0
        while (now := time.perf_counter() - start) < quiet or now - last < quiet:
            before = len(self.seen)
            self._read(0.005)
            if len(self.seen) > before:
                last = time.perf_counter() - start
                first = first or last
        return Answer(first, last)

    def used(self) -> dict[str, float]:
        """CPU seconds that the program has used so far, and the most memory of it that was resident, in MiB."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()
        status = Path(f"/proc/{self._pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        ticks = sum(int(fields[at]) for at in _CPU_FIELDS)
        return {"cpu": ticks / os.sysconf("SC_CLK_TCK"), "peak_mib": int(peak[1]) / 1024 if peak else 0.0}

    @property
    def pid(self) -> int:
        """Of the program."""
        return self._pid

    def gone(self) -> bool:
        """Whether the program has ended."""
        return Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"

    def ended(self) -> bool:
        """Whether the program ends by itself, soon; then there is nothing to close."""
        for _ in range(200):
            if not self._read(0.05):
                time.sleep(0.05)
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                os.close(self._fd)
                return True
        return False

    def close(self) -> None:
        """Ask it to quit, and wait until it has."""
        os.write(self._fd, b"\x11")
        while self._read(0.05):
            pass
        os.close(self._fd)
        os.waitpid(self._pid, 0)

    def _read(self, seconds: float) -> bool:
        """Take what has been written; False once the program has ended."""
        if self._written.poll(seconds * 1000):
            try:
                piece = os.read(self._fd, 1 << 16)
            except OSError:
                return False
            self.seen += piece
            return bool(piece)
        return True
