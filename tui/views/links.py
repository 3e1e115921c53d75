"""Things named in a text, as places to go to: processes, folios, anon_vmas, files, swap slots, CPUs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FolioPlace,
    Place,
    SlotPlace,
    SubjectPlace,
    UserPlace,
)

_KINDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Place]], ...] = (
    (re.compile(r"\bpid (\d+)\b(?: [^\s,;:()]+)?"), lambda m: UserPlace(int(m[1]))),
    (re.compile(r"\bmm (0x[0-9a-f]+)\b"), lambda m: UserPlace(int(m[1], 16))),
    (re.compile(r"\banon_vma (0x[0-9a-f]+)\b"), lambda m: AnonVmaPlace(int(m[1], 16))),
    (re.compile(r"\baddress_space (0x[0-9a-f]+)\b"), lambda m: FilePlace(int(m[1], 16))),
    (re.compile(r"\b(?:pfn|folio) (0x[0-9a-f]+)\b"), lambda m: FolioPlace(int(m[1], 16))),
    (re.compile(r"\bswap type (\d+), offset (0x[0-9a-f]+)"), lambda m: SlotPlace(int(m[1]), int(m[2], 16))),
    (re.compile(r"\bCPU \d+\b"), lambda _: SubjectPlace("cpus")),
)
"""How text names things, and where each leads."""


@dataclass(frozen=True)
class TextLink:
    """Part of a text that leads on.

    Attributes:
        start, end: Where in the text.
        place: Where it leads.
    """

    start: int
    end: int
    place: Place


def text_links(text: str, known: Mapping[str, Place], here: Place | None = None) -> list[TextLink]:
    """The links of a text, in its order; none in another.

    Args:
        text: Plain text.
        known: Words that lead somewhere, whatever is around them.
        here: Where the text is shown, which it does not link to.
    """
    found = [TextLink(m.start(), m.end(), place(m)) for pattern, place in _KINDS for m in pattern.finditer(text)]
    for words, place in known.items():
        found += [TextLink(m.start(), m.end(), place) for m in re.finditer(re.escape(words), text)]
    out: list[TextLink] = []
    for link in sorted(found, key=lambda one: (one.start, -one.end)):
        if link.place != here and (not out or link.start >= out[-1].end):
            out.append(link)
    return out
