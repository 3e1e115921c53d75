"""Numbers that people type for a page turned into page frames, and ranges of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.errors import UsageError
from inspector.report.named import split_address, user_page
from inspector.report.pages import FoundPage, build_place
from inspector.text import parse_number
from inspector.walk.page_numbers import NumberMeaning, number_meanings

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

FORMS = ("pfn", "phys", "page", "virt", "kernel")
"""What a number can be: page frame number, physical address, address of a struct page, direct-map address, or another
address that the kernel's page tables map: of its image, of vmalloc, of a module."""

MAX_RANGE = 1 << 26
"""Page frames in one range at most: 256 GiB of memory."""


def find_place(s: Snapshot, asked: str, form: str | None) -> FoundPage:
    """The page that a number, an address of a process or a symbol of the kernel leads to.

    Args:
        s: The snapshot.
        asked: A number, a number after one of `FORMS` and a colon, an address after a process and a colon, or a symbol.
        form: One of `FORMS`; None for whatever it can be, page frame numbers first.

    Raises:
        UsageError: It is nothing of that, or leads to no page of this target.
    """
    word = asked.strip()
    prefix, colon, rest = word.partition(":")
    if colon and prefix in FORMS:
        form, word = prefix, rest
    of_process = split_address(word)
    if of_process is not None:
        return build_place(s, asked, user_page(s, *of_process), [])
    number = parse_number(word)
    if number is None:
        number = s.target.symbol(word)
    if number is None:
        todo = "Give decimal, or hex that begins with 0x; PID:ADDRESS for memory of a process"
        raise UsageError("this is no number", asked, todo)
    found = number_meanings(s.layout, number)
    fitting = [r for r in found if form in (None, r.form)]
    if not fitting:
        raise UsageError(_nowhere(s, form), asked, _hint(found))
    taken = fitting[0]
    others = [r for r in found if r is not taken and not form and _worth_a_note(number, r)]
    return build_place(s, asked, taken, others)


def _worth_a_note(number: int, reading: NumberMeaning) -> bool:
    """A number with low bits set is unlikely to be the physical address of a page."""
    return reading.form != "phys" or number % 4096 == 0


def _nowhere(s: Snapshot, form: str | None) -> str:
    end = s.layout.memmap.max_pfn
    names = {
        "pfn": "page frame number",
        "phys": "physical address",
        "page": "struct page address",
        "virt": "direct-map address",
        "kernel": "address of the kernel",
    }
    what = names[form] if form else "page frame number or address"
    return f"no memory of this target has that {what} (page frames end at {end - 1:#x})"


def _hint(found: list[NumberMeaning]) -> str:
    if found:
        return f"It could be read --as {found[0].form}"
    return "Give a page frame number, a physical, struct page or kernel address, or PID:ADDRESS"


def find_ranges(s: Snapshot, words: tuple[str, ...], form: str | None) -> tuple[list[FoundPage], list[tuple[int, int]]]:
    """Places and ranges of page frames: ``A``, ``A-B`` (B included) or ``A+N``.

    Raises:
        UsageError: One of them cannot be understood.
    """
    places, ranges = [], []
    for word in words:
        head, colon, tail = word.rpartition(":")
        first, plus, count = tail.partition("+")
        start, dash, end = first.partition("-")
        place = find_place(s, f"{head}{colon}{start}", form)
        last = place.pfn
        if place.taken_for == "user" and (plus or dash):
            raise UsageError("this is no range", word, "Give FIRST of page frames, or one PID:ADDRESS alone")
        if plus:
            nr = parse_number(count)
            if nr is None or nr < 1 or dash:
                raise UsageError("this is no range", word, "Give FIRST+COUNT or FIRST-LAST")
            last = place.pfn + nr - 1
        elif dash:
            last = find_place(s, end, place.taken_for).pfn
        if last < place.pfn or last - place.pfn >= MAX_RANGE:
            todo = f"Give FIRST-LAST with FIRST the smaller, or FIRST+COUNT, up to {MAX_RANGE} pages"
            raise UsageError("this is no range", word, todo)
        places.append(place)
        ranges.append((place.pfn, min(last, s.layout.memmap.max_pfn)))
    return places, ranges
