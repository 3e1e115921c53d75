"""Build guests, say where a kernel's guests are, or check them at moments of their work."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .build import KINDS, build_dump
from .cache import BUSY, guests_folder, read_manifest
from .crash import CRASH, build_crash, crash_facts
from .devices import DEVICES
from .errors import GuestError
from .kernels import KERNELS, Kernel, kernel_named
from .makedumpfile import fetch_makedumpfile
from .numa import NUMA
from .packages import Unpacked, fetch_debug_info, fetch_kernel
from .zoo import ZOO, ZOO_RACES

EXTRAS = {extra.kind: extra for extra in (ZOO, NUMA, DEVICES)}
ALL_KINDS = (*KINDS, *EXTRAS)
# More guests than this only slow each other down on two processors.
SIDE_BY_SIDE = 2


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.guests", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the dumps that the cache lacks")
    build.add_argument("kernels", nargs="*", metavar="KERNEL", help="6.1, 6.12, 7.3 (default: all)")
    build.add_argument("--rest", action="store_true", help="only the dumps at rest")
    build.add_argument("--busy", action="store_true", help="only the busy dumps")
    build.add_argument("--zoo", action="store_true", help="only the dumps of the zoo")
    build.add_argument("--numa", action="store_true", help="only the dumps of the small guest of two nodes")
    build.add_argument("--devices", action="store_true", help="only the dumps of the guest with devices")
    build.add_argument("--crash", action="store_true", help="only the dumps of a panic (never built by default)")
    build.add_argument("--debug-info", action="store_true", help="fetch vmlinux with DWARF, too")
    build.add_argument("--force", action="store_true", help="build even what the cache holds")
    path = commands.add_parser("path", help="print the folder of a kernel's dumps")
    path.add_argument("kernel", metavar="KERNEL")
    silence = commands.add_parser("silence", help="check dumps of random moments; fail if anything is called wrong")
    silence.add_argument(
        "kernels", nargs="*", metavar="KERNEL", help="6.1, 6.12, 7.3 (default: all); 6.18, sid; 7.3-rt, sid-plain"
    )
    silence.add_argument("--cpus", type=int, default=2, help="of each guest (default: 2)")
    silence.add_argument("--five-levels", action="store_true", help="page tables of five levels")
    silence.add_argument("--words", default="", help='more of the kernel\'s command line, such as "pti=on"')
    silence.add_argument("--runs", type=int, default=20, help="dumps of each racing guest (default: 20)")
    silence.add_argument(
        "--guests",
        default=f"{ZOO.kind},{ZOO_RACES},{BUSY}",
        help="which guests, all for storms too (default: %(default)s)",
    )
    silence.add_argument("--keep", type=Path, help="a folder for captures of dumps that are not silent")
    silence.add_argument("--keep-all", action="store_true", help="keep captures of the silent ones too, for judge")
    silence.add_argument("--results", type=Path, help="a file with a line of JSON a dump; a run that was ended goes on")
    judge = commands.add_parser("judge", help="check the captures that silence kept")
    judge.add_argument("results", type=Path, metavar="FILE", help="its file of results")
    live = commands.add_parser("live", help="check a racing guest while it runs, and with a count made wrong")
    live.add_argument("kernel", metavar="KERNEL", help="as for silence")
    live.add_argument("--guest", default=BUSY, help="zoo-races, busy or a storm (default: %(default)s)")
    live.add_argument("--cpus", type=int, default=4, help="of the guest (default: 4)")
    live.add_argument("--watch", type=int, default=5, help="rounds of watch (default: 5)")
    live.add_argument("--guard", type=int, default=5, help="rounds of guard (default: 5)")
    live.add_argument("--inside", type=int, default=0, help="checks inside another such guest (default: none)")
    live.add_argument("--results", type=Path, help="a file with a line of JSON a round")
    between = commands.add_parser("gaps", help="check guests stopped between the stores of functions of mm/")
    between.add_argument("kernels", nargs="*", metavar="KERNEL", help="6.1, 6.12, 7.3 (default: all)")
    between.add_argument("--functions", default="", help="which, with commas between (default: all known ones)")
    between.add_argument("--guests", default=BUSY, help="busy, zoo-races (default: %(default)s)")
    between.add_argument("--most", type=int, default=8, help="gaps of each function (default: %(default)s)")
    between.add_argument("--seconds", type=float, default=10, help="to wait for each function (default: %(default)s)")
    between.add_argument("--keep", type=Path, help="a folder for captures of those that are not silent")
    between.add_argument("--results", type=Path, help="a file with a line of JSON a gap; a run that was ended goes on")
    forms = commands.add_parser(
        "formats", help="compare dumps in every format and at several levels with the whole one"
    )
    forms.add_argument("kernels", nargs="*", metavar="KERNEL", help="6.1, 6.12, 7.3 (default: all)")
    forms.add_argument("--guests", default="rest,crash", help="which of those that were built (default: %(default)s)")
    forms.add_argument("--short", action="store_true", help="one level of each kind of format")
    forms.add_argument("--sound", action="store_true", help="plant nothing")
    thpmaps = commands.add_parser("thpmaps", help="compare the kernel's thpmaps in a live guest with mthp")
    thpmaps.add_argument("kernels", nargs="*", metavar="KERNEL", help="6.1, 6.12, 7.3 (default: all)")
    thpmaps.add_argument("--script", type=Path, help="tools/mm/thpmaps (default: from linux-source-6.12)")
    books = commands.add_parser("books", help="compare the rebuilt counters of dumps at rest with the stored ones")
    books.add_argument("kernels", nargs="*", metavar="KERNEL", help="6.1, 6.12, 7.3 (default: all)")
    books.add_argument("--guests", default="numa,rest,zoo,devices", help="which dumps (default: %(default)s)")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(f"guests: {text}\n")
    sys.stderr.flush()


def _build_one(job: tuple[Kernel, Unpacked, str], is_forced: bool) -> str | None:
    """Build one dump; return the error, if any."""
    kernel, unpacked, kind = job
    started = time.monotonic()
    try:
        if kind in EXTRAS:
            is_new, facts = EXTRAS[kind].build(kernel, unpacked, is_forced), EXTRAS[kind].facts(kernel.name)
        else:
            is_new, facts = build_dump(kernel, unpacked, kind, is_forced), read_manifest(kernel.name)[kind]
    except GuestError as error:
        return f"{kernel.name} {kind}: {error}"
    state = f"built in {time.monotonic() - started:.0f} s" if is_new else "kept"
    counts = ", ".join(f"{len(facts[word])} {word}" for word in ("ready", "skipped", "failed"))
    detail = f" ({counts})" if kind != BUSY else ""
    _say(f"{kernel.name} {kind}: {state}{detail}, {unpacked.release}, {facts['bytes'] >> 20} MiB")
    return None


def _build_crash(kernel: Kernel, is_forced: bool) -> str | None:
    """Make the dumps of a panic; return the error, if any."""
    started = time.monotonic()
    try:
        is_new = build_crash(kernel, fetch_kernel(kernel, guests_folder()), is_forced)
    except GuestError as error:
        return f"{kernel.name} {CRASH}: {error}"
    facts = crash_facts(kernel.name)
    state = f"built in {time.monotonic() - started:.0f} s" if is_new else "kept"
    detail = "".join(f"\n  {note}" for note in facts["notes"] if note.startswith("capture"))
    _say(f"{kernel.name} {CRASH}: {state}, {facts['release']}, makedumpfile {facts['makedumpfile']}{detail}")
    return None


def _build(arguments: argparse.Namespace) -> int:
    kernels = [kernel_named(name) for name in arguments.kernels] or list(KERNELS)
    if arguments.crash:
        errors = [error for kernel in kernels if (error := _build_crash(kernel, arguments.force))]
        for error in errors:
            _say(f"error: {error}")
        return 1 if errors else 0
    chosen = [kind for kind in ALL_KINDS if getattr(arguments, kind)]
    jobs = []
    # For the tests that ask it for dumps in other formats.
    fetch_makedumpfile()
    for kernel in kernels:
        unpacked = fetch_kernel(kernel, guests_folder())
        if arguments.debug_info:
            fetch_debug_info(kernel, unpacked, guests_folder())
        jobs += [(kernel, unpacked, kind) for kind in chosen or ALL_KINDS]
    jobs.sort(key=lambda job: ALL_KINDS.index(job[2]))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        errors = [error for error in pool.map(lambda job: _build_one(job, arguments.force), jobs) if error]
    for error in errors:
        _say(f"error: {error}")
    return 1 if errors else 0


def _gaps(arguments: argparse.Namespace) -> int:
    from .gaps import check_gaps  # noqa: PLC0415  (drgn and NumPy)

    kernels = [kernel_named(name) for name in arguments.kernels] or list(KERNELS)
    functions = [name for name in arguments.functions.split(",") if name]
    guests, results, seconds = arguments.guests.split(","), arguments.results, arguments.seconds
    return check_gaps(kernels, guests, functions, arguments.most, arguments.keep, results, seconds)


def _live(arguments: argparse.Namespace) -> int:
    from .looks import Ways, check_live  # noqa: PLC0415  (drgn and NumPy)
    from .silence import Machine  # noqa: PLC0415

    ways = Ways(arguments.watch, arguments.guard, arguments.inside)
    kernel, machine = kernel_named(arguments.kernel), Machine(arguments.cpus)
    return check_live(kernel, arguments.guest, ways, machine, arguments.results)


def main() -> int:
    """Run one command and return the exit code."""
    arguments = _parse()
    try:
        if arguments.command == "path":
            sys.stdout.write(f"{guests_folder() / kernel_named(arguments.kernel).name}\n")
            return 0
        if arguments.command == "silence":
            from .silence import KINDS as KINDS_OF_SILENCE  # noqa: PLC0415  (drgn and NumPy)
            from .silence import Keep, Machine, silence  # noqa: PLC0415

            kernels = [kernel_named(name) for name in arguments.kernels] or list(KERNELS)
            kinds = [*KINDS_OF_SILENCE] if arguments.guests == "all" else arguments.guests.split(",")
            machine = Machine(arguments.cpus, arguments.five_levels, arguments.words)
            keep = Keep(arguments.keep, arguments.keep_all) if arguments.keep else None
            return silence(kernels, kinds, arguments.runs, keep, arguments.results, machine)
        if arguments.command == "judge":
            from .silence import judge  # noqa: PLC0415

            return judge(arguments.results)
        if arguments.command == "gaps":
            return _gaps(arguments)
        if arguments.command == "formats":
            from .formats import FORMATS, PLANTED, SHORT, matrix  # noqa: PLC0415  (drgn and NumPy)

            kernels = [kernel_named(name) for name in arguments.kernels] or list(KERNELS)
            kinds, faults = tuple(arguments.guests.split(",")), () if arguments.sound else PLANTED
            return 1 if matrix(kernels, kinds, SHORT if arguments.short else tuple(FORMATS), faults) else 0
        if arguments.command == "books":
            from .books import show_books  # noqa: PLC0415  (drgn and NumPy)

            kernels = [kernel_named(name) for name in arguments.kernels] or list(KERNELS)
            return show_books(kernels, tuple(arguments.guests.split(",")))
        if arguments.command == "thpmaps":
            from .thpmaps import show_thpmaps  # noqa: PLC0415  (drgn and NumPy)

            return show_thpmaps([kernel_named(name) for name in arguments.kernels] or list(KERNELS), arguments.script)
        if arguments.command == "live":
            return _live(arguments)
        return _build(arguments)
    except GuestError as error:
        _say(f"error: {error}")
        return 1


sys.exit(main())
