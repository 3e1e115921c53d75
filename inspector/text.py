"""The only way from the kernel's bytes to a terminal: control characters never pass it."""

from __future__ import annotations

import re
from unicodedata import combining, east_asian_width

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def clean(text: str) -> str:
    r"""``text`` with every character that is not printable replaced by an escape such as ``\x1b``."""
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


def cell_width(text: str) -> int:
    """Columns that ``text`` takes on a terminal; it must have been cleaned."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def grouped(value: int) -> str:
    """A number with its thousands apart: ``163,840``."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 finding``, ``2 findings``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def singular(many: str) -> str:
    """One of what a plural names: ``swap device``, ``KSM node or item``, ``holder of mms``."""
    head, of, rest = many.partition(" of ")
    last = [part.removesuffix("es" if part.endswith("ches") else "s") for part in head.split(" and ")]
    return " or ".join(last) + of + rest


def duration(seconds: int) -> str:
    """A length of time in its two largest units: ``2 d 3 h``, ``18 s``."""
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    parts: list[str] = []
    for length, name in units:
        if seconds >= length or (length == 1 and not parts):
            parts.append(f"{seconds // length} {name}")
            seconds %= length
    return " ".join(parts[:2])


def parse_size(text: str) -> int | None:
    """Bytes: a decimal number, with K, M, G or T for powers of 1024 (``4G``, ``1.5GiB``); None for anything else."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if found else None


def parse_number(text: str) -> int | None:
    """A number as people paste it: decimal, ``0x`` hex, or bare hex that has a letter in it; None for anything else."""
    word = text.strip().lower().replace("_", "")
    try:
        if word.startswith("0x"):
            value = int(word, 16)
        elif word.isascii() and word.isdigit():
            value = int(word)
        elif word.isascii() and word.isalnum():
            value = int(word, 16)
        else:
            return None
    except ValueError:
        return None
    return value if value < 1 << 64 else None
