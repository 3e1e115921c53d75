"""Runs inside a guest (`tests.guests.thpmaps`): thpmaps and `mthp --vmas` of its stopped processes, to a disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROC = Path("/proc")
CONT_SIZES = ("16K", "64K", "128K", "2M")
RECORDER = "recorder"
"""The process that the keeper starts last."""
PAUSE = "34 "
"""The system call in which it stays when it is done."""


def processes() -> list[int]:
    """Those that the keeper started, and itself, if they have memory of their own."""
    own = {os.getpid(), os.getppid(), 1}
    pids = sorted({int(path.name) for path in PROC.iterdir() if path.name.isdecimal()} - own)
    return [pid for pid in pids if has_memory(pid)]


def is_waiting_recorder(folder: Path) -> bool:
    """Whether that process is the recorder, and done."""
    try:
        return (folder / "comm").read_text().strip() == RECORDER and (folder / "syscall").read_text().startswith(PAUSE)
    except OSError:
        return False


def has_memory(pid: int) -> bool:
    """Whether smaps shows any."""
    try:
        return bool(Path(f"/proc/{pid}/smaps").read_text())
    except OSError:
        return False


def said_by(*command: str) -> str:
    """What a program prints; what it says of errors goes to the console."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd="/")
    for line in done.stderr.splitlines()[-6:]:
        print(f"note {command[0]} {done.returncode}: {line}", flush=True)
    if done.returncode:
        print(f"note {command[0]}: exit {done.returncode}", *done.stdout.splitlines()[-2:], flush=True)
    return done.stdout


def main() -> None:
    """Wait until the workloads hold, stop them, and write down what both say."""
    os.environ["FOLIOSCOPE_CACHE"] = "no"
    while not any(map(is_waiting_recorder, PROC.iterdir())):
        time.sleep(1)
    pids = processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    print(f"note thpmaps: {len(pids)} processes stopped", flush=True)
    asked = [word for pid in pids for word in ("--pid", str(pid))]
    conts = [word for size in CONT_SIZES for word in ("--cont", size)]
    theirs = said_by("/thpmaps.py", *asked, *conts, "--inc-empty")
    ours = said_by("-m", "inspector", "-k", "--types", "btf", "mthp", "--vmas", "--format", "json")
    said = json.dumps({"pids": pids, "thpmaps": theirs, "mthp": json.loads(ours)}).encode()
    with Path(sys.argv[1]).open("r+b") as disk:
        disk.write(len(said).to_bytes(8, "little") + said)
        disk.flush()
        os.fsync(disk.fileno())


if __name__ == "__main__":
    main()
