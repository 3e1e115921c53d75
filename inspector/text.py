"""The only door from the kernel's bytes to a terminal: control characters never pass it."""

from __future__ import annotations

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def clean(text: str) -> str:
    """``text`` with every character that is not printable replaced by an escape such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clean_bytes(data: bytes) -> str:
    """A C string of the kernel up to its terminator, safe to show; bytes that are no UTF-8 become escapes."""
    return clean(data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace"))


def size(nr_bytes: int) -> str:
    """A number of bytes with a binary unit, three significant digits: ``512 MiB``."""
    value = float(nr_bytes)
    for unit in _SIZES:
        if value < 1024 or unit == _SIZES[-1]:
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{nr_bytes} B"


def hex64(value: int) -> str:
    """An address as the kernel prints it."""
    return f"{value & ((1 << 64) - 1):#018x}"
