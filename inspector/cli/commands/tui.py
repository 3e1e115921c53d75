"""The command that starts the terminal interface, in this terminal or served to a browser on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import inspector
from inspector.cli.params import InspectorCommand, Settings
from inspector.errors import Exit, UsageError

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@click.command(cls=InspectorCommand)
@click.argument("place", required=False, metavar="[PLACE]")
@click.option(
    "--every",
    "--interval",
    "interval",
    type=click.FloatRange(min=1),
    metavar="S",
    help="Read a running kernel again that often.",
)
@click.option("--web", is_flag=True, help="Serve it to a browser on this machine instead.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="For --web.")
@click.pass_obj
def tui(settings: Settings, place: str | None, interval: float | None, web: bool, port: int) -> int:
    """Browse a kernel's memory: findings, processes, VMAs, folios, reverse maps, physical memory.

    PLACE is where to begin: a page frame number, an address, a pid, pid:address, a name of a process, file, rule or
    screen. The check runs in the background; everything can be browsed meanwhile. Press ? on any screen for its help.

    With --web the same is served to a browser, on 127.0.0.1 only and to who knows the URL that it prints; it needs the
    extra: pip install 'folioscope[web]'.
    """
    settings.require_one_kind()
    settings.refuse_pause("See folioscope guard")
    if len(settings.dumps()) > 1:
        raise UsageError("this command takes one target", ", ".join(settings.cores), "Give one -c")
    if settings.format == "json":
        raise UsageError("the terminal interface prints no JSON", "--format json", "See folioscope check --format json")
    if web:
        return _serve(settings, place, interval, port)
    if not _has_terminal():
        raise UsageError(
            "the terminal interface needs a terminal", "", "Run it in one, use --web, or see folioscope --help"
        )
    try:
        from tui.app import FolioscopeApp  # noqa: PLC0415  (Textual, for this command only)
        from tui.session import Session  # noqa: PLC0415
    except ModuleNotFoundError as absent:
        if (absent.name or "").partition(".")[0] != "textual":
            raise
        what = "the terminal interface needs Textual, which is not installed"
        raise UsageError(what, "", "Run pip install textual") from None

    def opener() -> Snapshot:
        from inspector.snapshot import Snapshot  # noqa: PLC0415  (drgn and NumPy)

        return Snapshot(settings.open_running())

    if settings.color == "never":
        os.environ.setdefault("NO_COLOR", "1")
    app = FolioscopeApp(Session(opener=opener), interval=interval or 0, asked=place or "")
    error = app.run()
    if error is not None:
        raise error
    return Exit.CLEAN


def _has_terminal() -> bool:
    """Whether there is a terminal, or a browser behind textual-serve."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    return sys.stdin.isatty() and sys.stdout.isatty()


def _serve(settings: Settings, place: str | None, interval: float | None, port: int) -> int:
    """Serve until interrupted; every browser tab gets a process of its own."""
    try:
        from tui.web import serve  # noqa: PLC0415  (an extra)
    except ImportError:
        raise UsageError(
            "--web needs textual-serve, which is not installed", "", "Run pip install 'folioscope[web]'"
        ) from None
    words = [*_this_program(), "tui", *_target_options(settings)]
    words += [place] if place else []
    if interval:
        words += ["--every", str(interval)]
    try:
        serve(words, port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(f"the port cannot be used ({reason.lower()})", str(port), "Give another with --port") from None
    return Exit.CLEAN


def _this_program() -> list[str]:
    """What starts this same folioscope again.

    Python would import modules from the current directory first, whatever files are there (``-P`` says not to): it is
    given the one place that this package came from instead.
    """
    home = str(Path(inspector.__file__).resolve().parent.parent)
    code = f"import sys; {home!r} in sys.path or sys.path.insert(0, {home!r})"
    code += "; from inspector.cli import main; raise SystemExit(main())"
    return [sys.executable, "-P", "-c", code]


def _target_options(settings: Settings) -> list[str]:
    """The options that name the same target, and say how it is read."""
    words = [word for core in settings.cores for word in ("-c", core)]
    words += ["-k"] if settings.kernel else []
    words += ["--qemu", settings.qemu] if settings.qemu else []
    words += [word for file in settings.symbols for word in ("-s", file)]
    words += ["--no-cache"] if settings.no_cache else []
    words += ["--color", settings.color]
    words += ["--memory", str(settings.memory)] if settings.memory else []
    words += ["--workers", str(settings.workers)] if settings.workers else []
    return [*words, "--types", settings.types, "--log-level", settings.log_level]
