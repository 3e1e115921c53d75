"""Places gone to, as words in the file of a dump: what the jump dialog of the next run offers first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.text import clean
from tui.places import AnonVmaPlace, FilePlace, FolioPlace, MmPlace, Place, RmapPlace, SlotPlace, UserPlace, VmaPlace

if TYPE_CHECKING:
    from tui.session import Session

KEPT = 16
"""Places of one dump that are remembered."""

_LONGEST = 200
"""Letters of one of them."""

_MAX_PFN = 1 << 52
_MAX_WORD = 1 << 64


def words_of(session: Session, place: Place) -> str:
    """A place in words that mean the same in the next run, and its name; "" for screens that are always near."""
    s = session.snapshot
    match place:
        case FolioPlace(pfn):
            words = f"folio {pfn:#x}"
        case RmapPlace(pfn):
            words = f"rmap {pfn:#x}"
        case MmPlace(mm_idx):
            words = f"mm {int(s.mms.addr[mm_idx]):#x}"
        case VmaPlace(mm_idx, vma_idx, va):
            words = f"vma {int(s.mms.addr[mm_idx]):#x} {int(s.vmas.start[vma_idx]) if va is None else va:#x}"
        case AnonVmaPlace(addr):
            words = f"anon_vma {addr:#x}"
        case FilePlace(addr):
            words = f"file {addr:#x}"
        case SlotPlace(type_, offset):
            words = f"slot {type_:#x} {offset:#x}"
        case _:
            return ""
    return f"{words}\t{clean(session.crumb(place))}"[:_LONGEST]


def place_of(words: str) -> tuple[Place, str] | None:
    """The place that was kept, with what it is called; None for what this program did not write."""
    named, _, title = words[:_LONGEST].partition("\t")
    kind, *numbers = named.split(" ")
    try:
        values = [int(number, 16) for number in numbers]
    except ValueError:
        return None
    if any(not 0 <= value < _MAX_WORD for value in values):
        return None
    place: Place | None = None
    match kind, values:
        case "folio", [pfn] if pfn < _MAX_PFN:
            place = FolioPlace(pfn)
        case "rmap", [pfn] if pfn < _MAX_PFN:
            place = RmapPlace(pfn)
        case "mm", [mm]:
            place = UserPlace(mm)
        case "vma", [mm, va]:
            place = UserPlace(mm, va)
        case "anon_vma", [addr]:
            place = AnonVmaPlace(addr)
        case "file", [addr]:
            place = FilePlace(addr)
        case "slot", [type_, offset] if type_ < 1 << 6 and offset < _MAX_PFN:
            place = SlotPlace(type_, offset)
        case _:
            return None
    return place, clean(title) or place.title
