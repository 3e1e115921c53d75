"""What is remembered between runs: the theme; of a dump the findings marked as seen, notes and places gone to.

In files of the user's own under ``$XDG_STATE_HOME/folioscope`` (``~/.local/state/folioscope``), which may be deleted at
any time. Where they cannot be read or written nothing is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "FOLIOSCOPE_STATE"
"""Environment variable with the directory; empty for none at all."""

_LARGEST = 1 << 20
"""Bytes of a file that is read; longer ones are not ours."""


def state_directory() -> Path | None:
    """Where the files are; None where nothing is to be remembered."""
    asked = os.environ.get(VARIABLE)
    if asked is not None:
        return Path(asked) if asked else None
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        return (Path(base) if base else Path.home() / ".local/state") / "folioscope"
    except RuntimeError:
        return None


class State:
    """One file of names and values.

    Args:
        name: Of the file, without its end.
    """

    def __init__(self, name: str) -> None:
        directory = state_directory()
        self._path = None if directory is None else directory / f"{name}.json"
        self._values = self._read()

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            if self._path is not None and self._path.stat().st_size <= _LARGEST:
                found = json.loads(self._path.read_text("utf-8"))
                return found if isinstance(found, dict) else {}
        return {}

    @property
    def is_kept(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def text(self, name: str) -> str:
        """A value; "" where there is none."""
        value = self._values.get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        """A list of words; empty where there is none."""
        value = self._values.get(name)
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def keep(self, name: str, value: str | list[str]) -> None:
        """Remember a value."""
        if self._values.get(name) == value:
            return
        self._values[name] = value
        if self._path is None:
            return
        # A name that no other run uses, then moved: what is read is whole.
        beside = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as out:
                json.dump(self._values, out)
            beside.replace(self._path)


def dump_name(path: str) -> str:
    """What the file of a dump is called: made of where the dump is, its size and when it was written."""
    try:
        real = Path(path).resolve()
        found = real.stat()
    except OSError:
        return ""
    words = f"{real}\0{found.st_size}\0{found.st_mtime_ns}"
    return "dump-" + hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:24]
