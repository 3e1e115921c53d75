"""Numbers that people type for a page turned into page frames, and ranges of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.errors import UsageError
from inspector.places.named import PAGE, taking
from inspector.places.pages import pages_named
from inspector.report.pages import FoundPage, build_place
from inspector.text import parse_number

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

MAX_RANGE = 1 << 26
"""Page frames in one range at most: 256 GiB of memory."""


def find_place(s: Snapshot, asked: str, form: str | None) -> FoundPage:
    """The page that a name leads to, as for `pages_named`.

    Args:
        s: The snapshot.
        asked: The name.
        form: One of `FORMS`; None for whatever it can be, page frame numbers first.

    Raises:
        UsageError: It leads to no page of this target; the message has what else it names.
    """
    with taking(s, asked, PAGE):
        taken, *others = pages_named(s, asked, form)
    return build_place(s, asked, taken, others)


def find_ranges(s: Snapshot, words: tuple[str, ...], form: str | None) -> tuple[list[FoundPage], list[tuple[int, int]]]:
    """Places and ranges of page frames: ``A``, ``A-B`` (B included) or ``A+N``.

    Raises:
        UsageError: One of them cannot be understood.
    """
    places, ranges = [], []
    for word in words:
        head, mark, tail = word.rpartition("@" if word.rfind("@") > word.rfind(":") else ":")
        first, plus, count = tail.partition("+")
        start, dash, end = first.partition("-")
        if parse_number(start) is None:
            # The name of something has these signs in it.
            start, plus, dash = tail, "", ""
        place = find_place(s, f"{head}{mark}{start}", form)
        last = place.pfn
        if place.taken_for in {"user", "file"} and (plus or dash):
            raise UsageError("this is no range", word, "Give FIRST of page frames, or PID:ADDRESS or FILE@PGOFF alone")
        if plus:
            nr = parse_number(count)
            if nr is None or nr < 1 or dash:
                raise UsageError("this is no range", word, "Give FIRST+COUNT or FIRST-LAST")
            last = place.pfn + nr - 1
        elif dash:
            last = pages_named(s, end, place.taken_for)[0].pfn
        if last < place.pfn or last - place.pfn >= MAX_RANGE:
            todo = f"Give FIRST-LAST with FIRST the smaller, or FIRST+COUNT, up to {MAX_RANGE} pages"
            raise UsageError("this is no range", word, todo)
        places.append(place)
        ranges.append((place.pfn, min(last, s.layout.memmap.max_pfn)))
    return places, ranges
