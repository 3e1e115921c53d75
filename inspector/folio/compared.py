"""One folio in two captures of one boot: what it was before and after, and operations that lead there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.folio.captured import Captured, capture_folio
from inspector.folio.numbers import OneFolio, one_folio
from inspector.folio.what_if import Changed, call_of, changes_between
from inspector.hex_json import Hex
from inspector.model.path import MAX_STEPS, REUSE, Step, born, lead, unmapped
from inspector.model.state import Folio
from inspector.tables.pages import page_words
from inspector.text import clean_bytes, counted

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_PLACES = 8
"""Addresses that are listed of a folio."""


_NONE_FROM_NEW = f"no sequence of at most {MAX_STEPS} operations leads from a new folio to this one"

Sameness = Literal["unchanged", "same folio", "moved or another folio", "another folio"]


class FolioCompared(msgspec.Struct, frozen=True):
    """One folio before and after."""

    pfn: Hex
    same: Sameness
    """Whether it is the same one: by what it holds, its size, its mapping and its index."""
    changes: list[Changed]
    """Mapping, index, addresses, references and counters that differ."""
    kept: list[Changed]
    """Mapping, index and addresses that are the same in both."""
    steps: list[str]
    """Operations that lead from the one state to the other, the fewest that were found."""
    note: str
    """What the steps mean, or why there are none."""


def same_boot(a: Snapshot, b: Snapshot) -> str:
    """Why two captures are not of one boot of one kernel; "" where nothing says so."""
    for name in ("build_id", "release", "version"):
        old, new = getattr(a.target.identity, name), getattr(b.target.identity, name)
        if old is not None and new is not None and old != new:
            return f"the {name.replace('_', ' ')} is {old} in the first and {new} in the second"
    for name in ("init_mm", "init_task"):
        if a.target.symbol(name) != b.target.symbol(name):
            return f"{name} is at another address: the kernel was started anew"
    if a.layout.memmap.vmemmap != b.layout.memmap.vmemmap:
        return "the memory map is at another address: the kernel was started anew"
    return ""


def compare_folio(a: Snapshot, b: Snapshot, pfn: int) -> FolioCompared:
    """Compare the folio of a page in two captures.

    Args:
        a: The earlier one: a snapshot, or one that is aimed at the folio.
        b: The later one, likewise.
        pfn: Any page of the folio.
    """
    old, new = one_folio(a, pfn), one_folio(b, pfn)
    facts = [
        Changed("mapping", f"{_mapping(a, old):#x}", f"{_mapping(b, new):#x}"),
        Changed("index", _index(a, old), _index(b, new)),
        Changed("mapped at", _places(a, old), _places(b, new)),
        Changed("holds", f"{old.kind}, order {old.order}", f"{new.kind}, order {new.order}"),
        Changed("first page", f"{old.pfn:#x}", f"{new.pfn:#x}"),
    ]
    one, other = capture_folio(a, old), capture_folio(b, new)
    if one is None or other is None:
        return _counted_once(a, b, (old, new), (one, other), facts)
    other, joint = _joined(a, b, one, other)
    is_alike = old.pfn == new.pfn and (one.state.order, one.state.kind) == (other.state.order, other.state.kind)
    # Counters of folios of different sizes or kinds are not compared one by one.
    changes = [Changed(*c) for c in changes_between(b, joint, one.state, other.state)] if is_alike else []
    stays = is_alike and all(x.before == x.after for x in facts[:2])
    if stays:
        steps = lead(one.state, other.state)
        if steps == []:
            changed = bool(changes) or any(x.before != x.after for x in facts)
            note = "no rmap operation: other words changed alone" if changed else ""
            return _compared(new, "same folio" if changed else "unchanged", facts, changes, [], note)
        note = "" if steps else f"no sequence of at most {MAX_STEPS} operations leads from one to the other"
        return _compared(new, "same folio", facts, changes, _calls(b, joint, one.state, steps or []), note)
    then = born(other.state)
    gone = unmapped(one.state)
    both = [*_calls(b, joint, one.state, gone), "freed, and made anew", *_calls(b, joint, other.state, then or [])]
    note = "" if then is not None else _NONE_FROM_NEW
    if is_alike and one.state.kind.is_anon and one.state.total == other.state.total == 1:
        note = "or moved by UFFDIO_MOVE or mremap(), which keep the counters (mm/userfaultfd.c, move_present_ptes())"
        return _compared(new, "moved or another folio", facts, changes, both, note)
    return _compared(new, "another folio", facts, changes, both, note)


def _counted_once(
    a: Snapshot,
    b: Snapshot,
    folios: tuple[OneFolio, OneFolio],
    captured: tuple[Captured | None, Captured | None],
    facts: list[Changed],
) -> FolioCompared:
    """Where the page is one that the rmap counts in one of the captures, or in none: free, or memory of the kernel."""
    one, other = captured
    if one is None and other is None:
        same: Sameness = "unchanged" if all(x.before == x.after for x in facts) else "another folio"
        return _compared(folios[1], same, facts, [], [], "the rmap counts it in neither")
    if one is not None:
        steps = [*_calls(a, one, one.state, unmapped(one.state)), "freed"]
        return _compared(folios[1], "another folio", facts, [], steps, "")
    assert other is not None
    then = born(other.state)
    note = "" if then is not None else _NONE_FROM_NEW
    return _compared(folios[1], "another folio", facts, [], ["made", *_calls(b, other, other.state, then or [])], note)


def _compared(
    f: OneFolio, same: Sameness, facts: list[Changed], changes: list[Changed], steps: list[str], note: str
) -> FolioCompared:
    differ, kept = [x for x in facts if x.before != x.after], [x for x in facts if x.before == x.after]
    return FolioCompared(f.pfn, same, [*differ, *changes], kept, steps, note)


def _mapping(s: Snapshot, f: OneFolio) -> int:
    return int(s.pages.mapping[f.head])


def _index(s: Snapshot, f: OneFolio) -> str:
    word, known = page_words(s.layout, s.pages, np.array([f.head], np.int64), "__folio_index", "index")
    return f"{int(word[0]):#x}" if known[0] else "unknown"


def _places(s: Snapshot, f: OneFolio) -> str:
    """Virtual addresses with their mm, of the folio's first page that each entry maps."""
    m = s.mappings
    found = sorted(
        (f"{_name(s, int(m.mm_idx[row]))} {int(m.va[row]):#x}" for row in f.mapping_rows.tolist()),
    )
    more = f" and {counted(len(found) - _PLACES, 'more entry', 'more entries')}" if len(found) > _PLACES else ""
    return (", ".join(found[:_PLACES]) or "nowhere") + more


def _name(s: Snapshot, row: int) -> str:
    pid = int(s.mms.pid[row])
    return f"pid {pid} {clean_bytes(bytes(s.mms.comm[row]))}" if pid >= 0 else f"mm {int(s.mms.addr[row]):#x}"


def _joined(a: Snapshot, b: Snapshot, one: Captured, other: Captured) -> tuple[Captured, Captured]:
    """The later state with the numbers of the earlier one for mms that are in both; and the names of all."""
    names = {key: _name(a, row) for key, row in one.mm_of_key.items()}
    known = {int(a.mms.addr[row]): key for key, row in one.mm_of_key.items()}
    keys, free = {0: 0}, max([*known.values(), 0]) + 1
    for key, row in other.mm_of_key.items():
        has_ids = other.state.scheme.has_mm_ids
        number = key if has_ids else known.get(int(b.mms.addr[row]), free)
        free += number == free
        keys[key] = number
        names[number] = _name(b, row)
    f = other.state

    def at(key: int) -> int:
        return keys.get(key, key)

    slots = ((at(f.slots[0][0]), f.slots[0][1]), (at(f.slots[1][0]), f.slots[1][1]))
    state = replace(
        f,
        ptes=tuple(sorted(((at(mm), page), n) for (mm, page), n in f.ptes)),
        huge=tuple(sorted((at(mm), n) for mm, n in f.huge)),
        rss=tuple(sorted((at(mm), n) for mm, n in f.rss)),
        slots=slots,
    )
    return replace(other, state=state), replace(one, names=names)


def _calls(s: Snapshot, joint: Captured, like: Folio, steps: list[Step]) -> list[str]:
    shown = replace(joint, state=like)
    out = []
    for step in steps:
        call = call_of(s, shown, step.op)
        out.append(call if step.name != REUSE else f"{REUSE}{call[call.index('(') :]}")
    return out
