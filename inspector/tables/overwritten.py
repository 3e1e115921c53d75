"""Stretches of memory in which something else was written than belongs there, and what their bytes look like."""

from __future__ import annotations

import numpy as np

from inspector.columns import U8
from inspector.findings import Subject
from inspector.records import dataclass
from inspector.text import clean

_SHOWN = 64
"""Bytes that are shown of a stretch."""

_TEXT = 0.9
"""Share of printable bytes in text; zeros between strings are as good."""

_KERNEL_HALF = np.uint64(0xFFFF800000000000)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring words that are wrong together.

    Attributes:
        subject: Where it is, as a finding names it.
        address, size: Its first byte and how many there are.
        physical: Whether the address is physical, as those of page tables; else it is of the memory map.
        instead: What belongs there.
        looks_like: What is there, in words.
        hexadecimal, text: Its first bytes in hexadecimal, and as text without control characters.
        broke: Which rules its words and what they lead to break, with numbers.
    """

    subject: Subject
    address: int
    size: int
    physical: bool
    instead: str
    looks_like: str
    hexadecimal: str
    text: str
    broke: str = ""


def shown(data: bytes) -> tuple[str, str]:
    """The first bytes in hexadecimal, and as text."""
    some = data[:_SHOWN]
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in some)
    more = " ..." if len(data) > _SHOWN else ""
    return some.hex(" ", 8) + more, clean(text) + more


def looks_like(data: bytes, before: bytes | None, behind: bytes | None) -> str:
    """What some bytes look like.

    Args:
        data: The bytes, a multiple of 8.
        before: As many in front of them, None where those cannot be read.
        behind: As many behind them.
    """
    octets = np.frombuffer(data, np.uint8)
    words = octets.view(np.uint64)
    if not octets.any():
        return "zeros"
    if (octets == octets[0]).all():
        return f"one byte, {octets[0]:#04x}, again and again"
    if len(words) > 1 and (words == words[0]).all():
        return f"one word, {words[0]:#x}, again and again"
    if data in {before, behind}:
        return "a copy of its neighbour"
    if _is_text(octets):
        return "text"
    used = words[words != 0]
    # struct pages and page-table entries have other words beside pointers; objects of the kernel are full of them.
    if (used >= _KERNEL_HALF).mean() > 1 / 2:
        return "pointers of the kernel"
    present = used & np.uint64(0xFFF0000000000067)
    if (
        np.isin(present, np.array([0x25, 0x65, 0x27, 0x67, 0x8000000000000025, 0x8000000000000067], np.uint64)).mean()
        > 1 / 2
    ):
        return "page-table entries"
    return "other data"


def _is_text(octets: U8) -> bool:
    printable = ((octets >= 32) & (octets < 127)) | np.isin(octets, np.frombuffer(b"\t\n\r", np.uint8))
    used = octets != 0
    return bool(printable.sum() >= _TEXT * used.sum() and used.mean() > 1 / 4)
