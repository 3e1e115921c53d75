"""The kernel's own tools/mm/thpmaps inside a guest, beside `mthp --vmas` of the same processes.

The script comes from Debian's package of the kernel's sources when it is first wanted; nothing of it is kept here.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inspector.report.mthp import MthpVma, build_mthp
from inspector.snapshot import Snapshot
from inspector.target.target import open_core

from .apt import Apt, unpack
from .build import AWAIT, prepare_guest
from .cache import REST, guests_folder
from .errors import GuestError
from .initramfs import Entry, encode_cpio
from .inside import MEMORY_MB, PLAIN_NUMPY, product
from .kernels import Kernel, kernel_named
from .packages import fetch_kernel, write_atomically
from .qemu import booted

HERE = Path(__file__).resolve().parent
SOURCES = "6.12"
"""The kernel whose thpmaps is used: 6.1 has none, and that of 7.3 is the same."""
CONT_ORDERS = (2, 4, 5, 9)
"""Of the blocks that --cont asks for: 16 KiB, 64 KiB, 128 KiB, 2 MiB."""
ORDERS = range(2, 10)

_ANSWER_MB = 32
_SECONDS = 900
_PROGRAM, _FILE = 0o100755, 0o100644

Place = tuple[int, int]
"""An address space (or a PID), and where a VMA begins."""
Figures = dict[str, int]
"""Bytes by the names of thpmaps; what is 0 may be left out."""


@dataclass
class Compared:
    """What one comparison gave.

    Attributes:
        kernel: Its name.
        where: Where our figures come from.
        vmas: VMAs compared.
        with_large: Those of them in which either side counts something.
        figures: Numbers compared.
        not_zero: Those of them that are not 0.
        passed_by: Bytes that we count in VMAs whose pages thpmaps does not look at, by the reason.
        differences: A line for each number that differs.
    """

    kernel: str
    where: str
    vmas: int = 0
    with_large: int = 0
    figures: int = 0
    not_zero: int = 0
    passed_by: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def fetch_script() -> bytes:
    """Return thpmaps, fetching the package that holds it if the cache has no copy."""
    folder = guests_folder() / "packages" / "thpmaps"
    script = folder / "thpmaps"
    if not script.is_file():
        kernel = kernel_named(SOURCES)
        apt = Apt(guests_folder() / "packages" / "apt" / kernel.name, kernel.suites)
        apt.update()
        package = apt.download(f"linux-source-{SOURCES}", folder)
        unpack(package, folder, "./usr/src/*")
        package.unlink()
        for path in (folder / "usr/src").glob("*.tar.*"):
            _take_script(path, script)
            path.unlink()
    return script.read_bytes()


def _take_script(sources: Path, target: Path) -> None:
    with tarfile.open(sources) as archive:
        for member in archive:
            if member.name.endswith("/tools/mm/thpmaps") and (content := archive.extractfile(member)):
                write_atomically(target, content.read())
                return
    raise GuestError("thpmaps", f"{sources.name} holds none")


def compare_thpmaps(kernel: Kernel, script: bytes | None = None) -> Iterator[Compared]:
    """Boot the guest that holds everything, stop its processes, and run thpmaps and `mthp` on them.

    Args:
        kernel: Which kernel.
        script: thpmaps; None fetches it.

    Yields:
        The comparison with `mthp -k` inside the guest, and then with that of a dump of it.
    """
    script = script or fetch_script()
    unpacked = fetch_kernel(kernel, guests_folder())
    with tempfile.TemporaryDirectory(prefix=".thpmaps-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare_guest(kernel, unpacked, REST, folder)
        with prepared.boot.initramfs.open("ab") as file:
            file.write(b"\0" * (-file.tell() % 512))
            file.write(encode_cpio([*product(), *_scripts(script)]))
        answer, dump = folder / "answer", folder / "dump"
        answer.touch()
        os.truncate(answer, _ANSWER_MB << 20)
        boot = replace(
            prepared.boot,
            memory_mb=MEMORY_MB,
            command_line=f"{prepared.boot.command_line} rdinit=/thpmaps.sh",
            drives=(*prepared.boot.drives, answer),
        )
        with booted(boot, AWAIT[REST]) as guest, guest.qmp() as qmp:
            lines = guest.wait_for("compared", _SECONDS)
            qmp.stop()
            qmp.dump(dump)
            qmp.quit()
        dump.chmod(0o644)
        length = int.from_bytes(answer.read_bytes()[:8], "little")
        if not length:
            raise GuestError("thpmaps in a guest", "it said:\n  " + "\n  ".join(lines[-15:]))
        said = json.loads(answer.read_bytes()[8 : 8 + length])
        s = Snapshot(open_core(str(dump), types="btf"))
        yield from compare(kernel.name, s, said)


def _scripts(script: bytes) -> list[Entry]:
    """The guest's first program, as that of other guests, and what runs when its workloads hold."""
    init = (HERE / "workloads" / "init.sh").read_text()
    start, keeper = init.rsplit("exec /bin/keeper", 1)
    python = f"{PLAIN_NUMPY} PYTHONHOME={sys.base_prefix} PYTHONPATH=/product {Path(sys.executable).resolve()}"
    own = f"""{start}/bin/keeper{keeper.rstrip()} &
{python} /thpmaps_guest.py /dev/vdd
echo compared
/bin/sleep 100000
"""
    return [
        Entry("thpmaps.sh", _PROGRAM, own.encode()),
        Entry("thpmaps.py", _FILE, script),
        Entry("thpmaps_guest.py", _FILE, (HERE / "thpmaps_guest.py").read_bytes()),
    ]


def compare(kernel: str, s: Snapshot, said: dict[str, Any]) -> Iterator[Compared]:
    """Compare what thpmaps said with our figures from inside the guest, and with those of the dump."""
    mm_of = {int(pid): int(mm) for pid, mm in zip(s.tasks.pid.tolist(), s.tasks.mm.tolist(), strict=True)}
    theirs = parse(said["thpmaps"])
    inside = _by_place([(int(v["mm"], 16), int(v["start"], 16), v) for v in said["mthp"]["vmas"]])
    yield _compare(Compared(kernel, "mthp -k inside"), s, mm_of, theirs, _sums_of(inside, (4,)), (4,))
    dumped: dict[Place, Figures] = defaultdict(lambda: defaultdict(int))
    for order in CONT_ORDERS:
        vmas = build_mthp(s, by_vma=True, cont_order=order).vmas
        own = _sums_of(_by_place([(v.mm, v.start, _fields(v)) for v in vmas]), (order,))
        for place, figures in own.items():
            dumped[place].update(figures)
    yield _compare(Compared(kernel, "mthp of a dump"), s, mm_of, theirs, dumped, CONT_ORDERS)


def _fields(vma: MthpVma) -> dict[str, Any]:
    return {name: getattr(vma, name) for name in vma.__struct_fields__}


def _by_place(rows: list[tuple[int, int, dict[str, Any]]]) -> dict[Place, list[dict[str, Any]]]:
    out: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    for mm, start, row in rows:
        out[mm, start].append(row)
    return out


def _sums_of(rows: dict[Place, list[dict[str, Any]]], cont_orders: tuple[int, ...]) -> dict[Place, Figures]:
    """Our figures by the names of thpmaps."""
    out: dict[Place, Figures] = {}
    for place, each in rows.items():
        sums: Figures = defaultdict(int)
        for row in each:
            kind, kb = row["kind"], 4 << row["order"]
            sums[f"{kind}-thp-pmd-aligned-2048kB"] += row["by_pmd"]
            sums[f"{kind}-thp-pte-aligned-{kb}kB"] += row["aligned"]
            sums[f"{kind}-thp-pte-unaligned-{kb}kB"] += row["unaligned"]
            sums[f"{kind}-thp-pte-partial"] += row["partial"]
            for order in cont_orders:
                sums[f"{kind}-cont-pte-aligned-{4 << order}kB"] += row["cont"]
                sums[f"{kind}-cont-pmd-aligned-{4 << order}kB"] += row["by_pmd"]
        out[place] = sums
    return out


def names_of(cont_orders: tuple[int, ...]) -> list[str]:
    """Everything that thpmaps says of a VMA."""
    out = []
    for kind in ("anon", "file"):
        out += [f"{kind}-thp-pmd-aligned-2048kB", f"{kind}-thp-pte-partial"]
        out += [f"{kind}-thp-pte-{how}-{4 << order}kB" for how in ("aligned", "unaligned") for order in ORDERS]
        out += [f"{kind}-cont-{by}-aligned-{4 << order}kB" for by in ("pte", "pmd") for order in cont_orders]
    return out


def parse(text: str) -> dict[Place, Figures | None]:
    """What thpmaps printed, by PID and start; None of a VMA at whose pages it did not look."""
    out: dict[Place, Figures | None] = {}
    place = 0, 0
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0].endswith(":") and words[0][:-1].isdecimal():
            place = int(words[0][:-1]), int(words[1].partition("-")[0], 16)
            out[place] = None
        elif len(words) > 2 and words[2] == "kB":  # noqa: PLR2004
            out[place] = (out[place] or {}) | {words[0][:-1]: int(words[1]) << 10}
    return out


def _compare(  # noqa: PLR0913, PLR0917
    table: Compared,
    s: Snapshot,
    mm_of: dict[int, int],
    theirs: dict[Place, Figures | None],
    ours: dict[Place, Figures],
    cont_orders: tuple[int, ...],
) -> Compared:
    names, seen = names_of(cont_orders), set()
    mms = {mm_of.get(pid, 0) for pid, _ in theirs}
    for (pid, start), figures in theirs.items():
        place = mm_of.get(pid, 0), start
        seen.add(place)
        own = ours.get(place, {})
        if figures is None:
            # No access, or nothing present by smaps.
            table.passed_by["no access or no Rss"] += sum(own.get(name, 0) for name in names if "-thp-" in name)
            continue
        table.vmas += 1
        table.with_large += any(own.get(name, 0) or figures[name] for name in names)
        for name in names:
            table.figures += 1
            table.not_zero += bool(figures[name])
            if own.get(name, 0) != figures[name]:
                table.differences.append(
                    f"pid {pid} vma {start:#x} {name}: thpmaps {figures[name] >> 10} kB, ours {own.get(name, 0) >> 10}"
                )
    for (mm, start), own in ours.items():
        if mm in mms and (mm, start) not in seen and any(own.values()):
            table.differences.append(f"mm {mm:#x} vma {start:#x}: not in thpmaps")
    return table


def show_thpmaps(kernels: list[Kernel], script: Path | None) -> int:
    """Print the table; return the exit code: 1 where something differs."""
    content = script.read_bytes() if script else fetch_script()
    bad = 0
    print(f"{'kernel':<7} {'ours':<16} {'VMAs':>6} {'with large':>11} {'figures':>8} {'not 0':>6} {'different':>10}")
    for kernel in kernels:
        for each in compare_thpmaps(kernel, content):
            print(
                f"{each.kernel:<7} {each.where:<16} {each.vmas:>6} {each.with_large:>11} {each.figures:>8}"
                f" {each.not_zero:>6} {len(each.differences):>10}",
                flush=True,
            )
            for reason, number in each.passed_by.items():
                print(f"        passed by thpmaps, {reason}: {number >> 10} kB that we count")
            for line in each.differences[:40]:
                print(f"        {line}")
            bad += len(each.differences)
    return 1 if bad else 0
