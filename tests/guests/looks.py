"""A racing guest looked into while it runs, and stopped again and again: nothing is wrong with it, until a count is."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inspector.report.rounds import Round
from inspector.snapshot import Snapshot
from inspector.target.qmp import pause_of
from inspector.target.target import open_qemu
from tests.faults.plants import mapcount_at, page_at_rest

from .cache import guests_folder
from .errors import GuestError
from .gdb import Gdb
from .inside import checks_inside
from .kernels import Kernel
from .packages import fetch_kernel
from .qemu import Guest, booted
from .silence import Machine, prepare_racing
from .zoo import await_kind

_ROUND_SECONDS = 600


@dataclass(frozen=True)
class Ways:
    """How often a guest is checked in each way.

    Attributes:
        watch: Rounds of `folioscope watch`, each of several looks, while it runs.
        guard: Rounds of `folioscope guard`, which stops it.
        inside: Checks by root inside another such guest, through /proc/kcore.
    """

    watch: int
    guard: int
    inside: int


def check_live(kernel: Kernel, kind: str, ways: Ways, machine: Machine, results: Path | None) -> int:
    """Print a line for each way and every finding of a guest in order; return the exit code.

    At the end one mapcount of a page at rest is made wrong through QEMU: the guest must be found guilty of that alone,
    within two rounds of each way.
    """
    wrong = 0
    where = f"{kernel.name} {kind} {machine}".rstrip()
    with _racing(kernel, kind, machine) as (guest, folder):
        for command, nr in (("watch", ways.watch), ("guard", ways.guard)):
            rounds = []
            for made in _rounds(guest.spare_socket, command, nr):
                rounds.append(made)
                wrong += len(made.new)
                for finding in made.new:
                    print(f"         {finding.rule}: {finding.subject} {finding.evidence}", flush=True)
                if results:
                    with results.open("ab") as file:
                        file.write(msgspec.json.encode({"guest": where, "way": command, "round": made}) + b"\n")
            if len(rounds) < nr:
                wrong += 1
                print(f"{where} {command}: ended after {len(rounds)} of {nr} rounds")
            if rounds:
                print(f"{where} {command}: {_told(rounds)}", flush=True)
        _make_wrong(guest, folder)
        for command in ("watch", "guard"):
            found = [[f.rule for f in made.new] for made in _rounds(guest.spare_socket, command, 2)]
            wrong += found != [["mapcount-too-high"], []]
            print(f"{where} {command}, one mapcount made wrong: new in each of two rounds: {found}", flush=True)
    if ways.inside:
        checks = list(checks_inside(kernel.name, ways.inside))[:-1]
        bad = [check for check in checks if (check["code"], check["findings"], check["stderr"]) != (0, [], [])]
        wrong += len(bad) + (len(checks) < ways.inside)
        print(f"{kernel.name} inside: {len(checks)} checks, {len(bad)} not silent", *bad, sep="\n         ", flush=True)
    return 1 if wrong else 0


@contextmanager
def _racing(kernel: Kernel, kind: str, machine: Machine) -> Iterator[tuple[Guest, Path]]:
    unpacked = fetch_kernel(kernel, guests_folder())
    with tempfile.TemporaryDirectory(prefix=".live-", dir=guests_folder()) as name:
        prepared, state = prepare_racing(kernel, unpacked, kind, Path(name))
        with booted(machine.boot(prepared.boot), lambda guest: await_kind(guest, state)) as guest:
            yield guest, Path(name)


def _rounds(socket: Path, command: str, nr: int) -> Iterator[Round]:
    """What the command says of each round; its errors go to stderr."""
    if not nr:
        return
    line = [sys.executable, "-m", "inspector", command, "--qemu", str(socket), "--every", "0", "--rounds", str(nr)]
    with subprocess.Popen([*line, "--format", "json", "-q"], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        for text in running.stdout:
            yield msgspec.json.decode(text, type=Round)
    if running.returncode not in (0, 1):
        raise GuestError(f"folioscope {command}", f"it ended with exit code {running.returncode}")


def _told(rounds: list[Round]) -> str:
    """How many there were, what was dismissed and why, and what it cost."""
    why: Counter[str] = Counter()
    looks = suspects = 0
    for made in rounds:
        if made.confirmation is not None:
            looks += made.confirmation.looks
            suspects += made.confirmation.suspects
            why.update(made.confirmation.why)
    parts = [f"{len(rounds)} rounds", f"{sum(len(made.new) for made in rounds)} findings"]
    parts.append(f"exit codes {dict(Counter(made.exit_code for made in rounds))}")
    if looks:
        parts += [f"{looks} looks", f"{suspects} suspects", "dismissed: " + json.dumps(dict(why.most_common()))]
    parts.append(f"seconds {_spread([made.seconds for made in rounds])}")
    paused = [made.paused_seconds for made in rounds if made.paused_seconds is not None]
    if paused:
        parts.append(f"stopped {_spread(paused)}")
    return "; ".join(parts)


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f} (at most {ordered[-1]:.2f})"


def _make_wrong(guest: Guest, folder: Path) -> None:
    """Add one to the mapcount of a page that nobody works on."""
    target = open_qemu(str(guest.spare_socket), types="btf")
    with pause_of(target.monitor) as pause:
        s = Snapshot(target.paused(pause))
        page = page_at_rest(s)
        if page is None:
            raise GuestError("the racing guest", "no page of it is at rest")
        address = mapcount_at(s, page)
        word: Any = s.layout.memory.read(address, 4)
        more = (int.from_bytes(word, "little") + 1) & 0xFFFF_FFFF
        with guest.qmp() as qmp, Gdb(qmp, folder / "gdb") as gdb:
            gdb.write(1, address, more.to_bytes(4, "little"))
