"""Both views of a folio's mappings, the rmap walk beside the page tables; and interval trees drawn as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inspector.report.mappings import MappingRow
from inspector.report.rmap import RmapReport, SearchedPlace, contents_text
from tui.places import UserPlace, VmaPlace
from tui.views.rows import Rows, words
from tui.views.vmas import vma_place

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

Mark = Literal["=", "·", "≠", "<"]

MARKS: dict[Mark, str] = {
    "=": "both views agree",
    "·": "the rmap walk searches here, and it is not mapped here now: normal after a copy, an unmapping or a fork",
    "<": "only the page tables know it",
    "≠": "both know it, but count differently",
}


@dataclass(frozen=True)
class SideRow:
    """One place that the rmap walk searches, one mapping, or both.

    Attributes:
        who: Process of either.
        place: Where the walk searches; None for a mapping that it misses, and for further mappings of one place.
        mapping: What the page tables hold; None where they hold nothing.
        mark: How they compare.
        note: Why, where they do not agree.
    """

    who: str
    place: SearchedPlace | None
    mapping: MappingRow | None
    mark: Mark
    note: str


def side_by_side(report: RmapReport, page_shift: int) -> list[SideRow]:
    """Both views merged, by process and address; what differs comes first."""
    lost = {(o.mapping.mm, o.mapping.va): o.reason for o in report.orphans}
    found: dict[int, list[MappingRow]] = {}
    rows = []
    for m in report.mappings:
        if (m.mm, m.va) in lost:
            rows.append(SideRow(_who(m.pid, m.comm, m.mm), None, m, "<", lost[m.mm, m.va]))
        else:
            found.setdefault(m.vma or 0, []).append(m)
    for place in report.places:
        inside = [m for m in found.get(place.vma, ()) if 0 <= m.va - place.va < place.pages << page_shift]
        who = _who(place.pid, place.comm, place.mm)
        if not inside:
            rows.append(
                SideRow(who, place, None, "≠" if place.entries else "·", f"not mapped here: {contents_text(place)}")
            )
            continue
        agree = sum(m.entries for m in inside) == place.entries
        note = "" if agree else f"{place.entries} by the rmap walk, {sum(m.entries for m in inside)} by the page tables"
        for i, m in enumerate(inside):
            rows.append(SideRow(who, None if i else place, m, "=" if agree else "≠", note))
    searched = {place.vma for place in report.places}
    for vma, inside in found.items():
        if vma not in searched and not report.agree:
            rows += [
                SideRow(_who(m.pid, m.comm, m.mm), None, m, "<", "the rmap walk does not come here") for m in inside
            ]
    return sorted(rows, key=lambda r: r.mark not in "<≠")


def _who(pid: int | None, comm: str | None, mm: int) -> str:
    return f"{pid} {comm}" if pid is not None else f"mm {mm:#x}"


def place_text(p: SearchedPlace | None) -> str:
    """Where the walk searches, in few words."""
    if p is None:
        return ""
    pages = f"+{p.page_index}" if p.pages == 1 else f"+{p.page_index}..+{p.page_index + p.pages - 1}"
    return f"{p.va:#x} {pages}"


def attributes_text(r: SideRow) -> str:
    """The entry's attributes, beginning with the reason why it may not be there; else why there is none."""
    if r.mapping is None:
        return r.note
    mark = [] if r.mapping.entry_class == "normal" else [f"[{r.mapping.entry_class}]"]
    return " ".join([*mark, *r.mapping.bits])


def mapping_text(m: MappingRow | None) -> str:
    """What the page tables hold, in few words."""
    if m is None:
        return ""
    pages = f"+{m.page_index}" if m.pages == 1 else f"+{m.page_index}..+{m.page_index + m.pages - 1}"
    return f"{m.va:#x} {pages} {m.level}"


_SHADES = {"=": "ok", "·": "free", "≠": "fail", "<": "fail"}


def rmap_rows(s: Snapshot, sides: list[SideRow]) -> Rows:
    """The rmap walk on the left, page tables on the right."""

    def leads(row: int) -> VmaPlace | UserPlace | None:
        side = sides[row]
        if side.mapping is not None:
            return vma_place(s, side.mapping.vma or 0, side.mapping.va)
        return vma_place(s, side.place.vma, side.place.va) if side.place else None

    return Rows(
        [
            words("process", [r.who for r in sides]),
            words("rmap walk checks", [place_text(r.place) for r in sides]),
            words("", [r.mark for r in sides], shade=lambda m: _SHADES.get(m, "")),
            words("the page tables hold", [mapping_text(r.mapping) for r in sides]),
            words("attributes", [attributes_text(r) for r in sides], drop=1),
        ],
        leads,
    )
