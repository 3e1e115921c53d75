"""Targets opened as the options say, drgn's log sent where it belongs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import TargetError
from inspector.target.target import Target, open_core, open_live, open_qemu

if TYPE_CHECKING:
    from inspector.cli.params import Settings

_KCORE = "/proc/kcore"


def open_target(settings: Settings, core: str | None) -> Target:
    """Open a core, or what the options name when ``core`` is None.

    Raises:
        TargetError: It cannot be opened.
    """
    set_log_level(settings.log_level)
    _leave_out_commands()
    symbols, types = settings.symbols, settings.types
    if core is not None:
        settings.target_name = core
        return open_core(core, symbols, types=types)
    if settings.qemu:
        settings.target_name = settings.qemu
        return open_qemu(settings.qemu, symbols, types=types)
    settings.target_name = _KCORE
    if not settings.kernel:
        _require_live()
    return open_live(symbols, types=types)


def _leave_out_commands() -> None:
    """Keep drgn from loading the commands of its own prompt, which cannot be typed here: 0.2 s of every start."""
    asked = os.environ.get("DRGN_DISABLE_PLUGINS", "")
    if asked != "*" and "crash_commands" not in asked:
        os.environ["DRGN_DISABLE_PLUGINS"] = ",".join(filter(None, (asked, "builtin_commands", "crash_commands")))


def _require_live() -> None:
    """Where no target was named and the running kernel cannot be had, say what can be given."""
    try:
        Path(_KCORE).open("rb").close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        what = f"no target was named and the running kernel cannot be read ({reason})"
        raise TargetError(what, _KCORE, "Name a vmcore with -c CORE, or run as root") from None


def set_log_level(name: str) -> None:
    """Let drgn's messages of that level and above through to stderr."""
    level = logging.CRITICAL + 1 if name == "none" else getattr(logging, name.upper())
    logging.basicConfig(format="folioscope: %(levelname)s: %(message)s")
    logging.getLogger("drgn").setLevel(level)
