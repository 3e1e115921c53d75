"""Talk to QEMU over its machine protocol socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from .errors import GuestError


class Qmp:
    """A connection to one QEMU; commands are answered in order."""

    def __init__(self, path: Path, timeout: float = 20) -> None:
        """Connect to the socket at path, waiting until QEMU has made it."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    self._socket.close()
                    raise GuestError("QMP", f"no connection in {timeout:.0f} s: {error}") from error
                time.sleep(0.05)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self.command("qmp_capabilities")

    def __enter__(self) -> Self:
        """Return the open connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; QEMU goes on."""
        self._lines.close()
        self._socket.close()

    def command(self, name: str, timeout: float = 20, **arguments: object) -> Any:
        """Run one command and return its answer."""
        return self._run(name, arguments, timeout)

    def _run(self, name: str, arguments: Mapping[str, object], timeout: float = 20) -> Any:
        request = {"execute": name, "arguments": arguments}
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while line := self._lines.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise GuestError(f"QMP {name}", str(answer["error"].get("desc")))
        except OSError as error:
            raise GuestError(f"QMP {name}", f"no answer in {timeout:.0f} s") from error
        raise GuestError(f"QMP {name}", "QEMU closed the connection")

    def stop(self) -> None:
        """Stop all CPUs."""
        self.command("stop")

    def resume(self) -> None:
        """Let all CPUs run on."""
        self.command("cont")

    def are_cpus_halted(self) -> bool:
        """Tell whether every CPU sits in its idle loop's halt."""
        text = self._run("human-monitor-command", {"command-line": "info registers -a"})
        states = [word for word in str(text).split() if word.startswith("HLT=")]
        return bool(states) and all(state == "HLT=1" for state in states)

    def dump(self, path: Path) -> None:
        """Write the guest's physical memory to path as an ELF vmcore."""
        self.command("dump-guest-memory", timeout=120, paging=False, protocol=f"file:{path}")

    def quit(self) -> None:
        """End QEMU."""
        self.command("quit")
