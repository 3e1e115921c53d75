"""What a command costs: CPU time, wall time and peak memory of that process and its own, and of nothing else.

This process may be large, and a child that begins as a copy of it would inherit its peak. So that a small process of
its own starts the command, waits for it, and reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_RUNNER = r"""
import json, os, resource, sys, time

GROUPS = "/sys/fs/cgroup/memory"

def write(path, text):
    with open(path, "w") as file:
        file.write(str(text))

def new_group(limit):
    # A memory cgroup of its own kills what grows over its limit; page cache counts and is given up first.
    group, name = f"{GROUPS}/folioscope-{os.getpid()}", "memory.limit_in_bytes"
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        group, name = f"/sys/fs/cgroup/folioscope-{os.getpid()}", "memory.max"
    try:
        os.mkdir(group)
        write(f"{group}/{name}", limit)
    except OSError:
        return ""
    return group

def below(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        return []
    return [p for child in children for p in (child, *below(child))]

def proportional(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
        except OSError:
            pass
    return total

report, limit, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
group = new_group(limit) if limit else ""
start = time.perf_counter()
pid = os.fork()
if not pid:
    try:
        if group:
            write(f"{group}/cgroup.procs", os.getpid())
        elif limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.execvp(command[0], command)
    finally:
        os._exit(127)
peak, pause = 0, 0.002
while True:
    done, status, usage = os.wait4(pid, os.WNOHANG)
    if done:
        break
    workers = below(pid)
    if workers:
        peak = max(peak, proportional([pid, *workers]))
    time.sleep(pause)
    pause = min(pause * 1.5, 0.1)
wall = time.perf_counter() - start
if group:
    os.rmdir(group)
with open(report, "w") as file:
    json.dump({
        "status": os.waitstatus_to_exitcode(status), "user": usage.ru_utime, "system": usage.ru_stime, "wall": wall,
        "peak_mib": max(peak, usage.ru_maxrss) / 1024,
        "limited_by": "cgroup" if group else "ulimit -v" if limit else "",
    }, file)
"""


_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        status: Exit code; negative for a signal.
        user, system: CPU seconds, those of children it waited for included.
        wall: Seconds from start to end.
        peak_mib: The most memory that was resident at once (VmHWM), in MiB; with workers, that of all of them, shared
            memory counted once.
        limited_by: What enforced the limit: a cgroup, which kills, or ``ulimit -v``, under which allocations fail.
    """

    status: int
    user: float
    system: float
    wall: float
    peak_mib: float
    limited_by: str = ""

    @property
    def cpu(self) -> float:
        """User and system together."""
        return self.user + self.system

    def row(self) -> dict[str, float]:
        """For a file of results."""
        numbers = {name: value for name, value in asdict(self).items() if name != "limited_by"}
        return {**numbers, "cpu": self.cpu}


class FailedError(Exception):
    """A command that is measured did not do what it is for."""


def measure(
    command: Sequence[str],
    *,
    codes: Sequence[int] = (0,),
    environment: Mapping[str, str] | None = None,
    words: str = "",
    limit: int = 0,
) -> tuple[Cost, str]:
    """Run a command and measure it.

    Args:
        command: Its words.
        codes: Exit codes that it may end with.
        environment: Variables to set beside those there are.
        words: What it reads from its input.
        limit: Bytes of memory that it may have; 0 for any.

    Returns:
        What it cost, and what it wrote to its output.

    Raises:
        FailedError: It ended with another code.
    """
    with tempfile.NamedTemporaryFile(prefix="folioscope-cost-") as report:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _RUNNER, report.name, str(limit), *command],
            input=words,
            capture_output=True,
            text=True,
            check=False,
            env={**_environment(), **(environment or {})},
        )
        text = Path(report.name).read_text()
    if done.returncode or not text:
        raise FailedError(f"{command[0]}: {done.stderr.strip()[-400:]}")
    cost = Cost(**json.loads(text))
    if cost.status not in codes:
        raise FailedError(f"{' '.join(command)[:200]} ended with {cost.status}: {done.stderr.strip()[-400:]}")
    return cost, done.stdout


def _environment() -> dict[str, str]:
    """Ours, but that compiled modules are kept: an install has them, and to compile ours takes 0.2 s of each start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def compile_modules() -> None:
    """Compile what an install has compiled, before the first process is measured.

    Raises:
        FailedError: It cannot be compiled.
    """
    measure([sys.executable, "-m", "compileall", "-q", *(str(_ROOT / name) for name in ("inspector", "tui"))])


def best(
    command: Sequence[str],
    rounds: int,
    *,
    codes: Sequence[int] = (0,),
    environment: Mapping[str, str] | None = None,
) -> tuple[Cost, str]:
    """The round that took least CPU time: what the command costs when it is disturbed least."""
    return min(
        (measure(command, codes=codes, environment=environment) for _ in range(rounds)), key=lambda found: found[0].cpu
    )
