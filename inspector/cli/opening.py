"""Targets opened as the options say, drgn's log sent where it belongs."""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.errors import TargetError
from inspector.scratch import use_at_most
from inspector.target.target import Target, open_core, open_live, open_qemu
from inspector.workers import use_workers

if TYPE_CHECKING:
    from inspector.cli.params import Settings

_PLUGINS = b"[drgn.plugins]"
"""The section of a package's entry points in which it offers plugins."""

_AT_PROMPT = ("builtin_commands", "crash_commands", "folioscope")
"""Plugins that are commands of drgn's prompt."""

_OWN = ("drgn-", "folioscope")
"""Names of the folders in which drgn and this package say what they offer, for the prompt alone."""

_KCORE = "/proc/kcore"


def open_target(settings: Settings, core: tuple[str, ...] | None) -> Target:
    """Open a core, which may be in parts, or what the options name when ``core`` is None.

    Raises:
        TargetError: It cannot be opened.
    """
    if settings.at_hand is not None:
        use_at_most(settings.memory)
        use_workers(settings.workers)
        return settings.at_hand()
    set_log_level(settings.log_level)
    leave_out_plugins()
    use_at_most(settings.memory)
    use_workers(settings.workers)
    try:
        return _open(settings, core)
    finally:
        # `inspector.cli.main` turned it off. An answer about a dump is over before there is much garbage; at a kernel
        # that runs on there is more than one look.
        if core is None:
            gc.enable()


def _open(settings: Settings, core: tuple[str, ...] | None) -> Target:
    symbols, types = settings.symbols, settings.types
    if core is not None:
        settings.target_name = ", ".join(core)
        return open_core(core if len(core) > 1 else core[0], symbols, types=types, cache=not settings.no_cache)
    if settings.qemu:
        settings.target_name = settings.qemu
        target = open_qemu(settings.qemu, symbols, types=types)
        # A guest that is found stopped is at one moment, as if it had been stopped for this.
        stopped = target.monitor is not None and not target.monitor.is_running()
        return settings.stop(target) if settings.pause or stopped else target
    settings.target_name = _KCORE
    if not settings.kernel:
        _require_live()
    return open_live(symbols, types=types)


def leave_out_plugins() -> None:
    """Keep drgn from loading the commands of its own prompt, which cannot be typed here: 0.2 s of every start.

    Where no package offers other plugins it need not even look for them, which takes 0.03 s.
    """
    asked = os.environ.get("DRGN_DISABLE_PLUGINS", "")
    if asked == "*" or "crash_commands" in asked:
        return
    if _may_have_plugins():
        os.environ["DRGN_DISABLE_PLUGINS"] = ",".join(filter(None, (asked, *_AT_PROMPT)))
    else:
        os.environ["DRGN_DISABLE_PLUGINS"] = "*"


def _may_have_plugins() -> bool:
    """Whether an installed package, drgn and this one left out, offers plugins for drgn (its entry points)."""
    for place in map(Path, sys.path):
        if place.is_file():
            # A zip file; drgn can look into it.
            return True
        for file in place.glob("*-info/entry_points.txt"):
            try:
                if not file.parent.name.startswith(_OWN) and _PLUGINS in file.read_bytes():
                    return True
            except OSError:
                return True
    return False


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
