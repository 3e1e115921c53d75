"""What named rmap operations would make of a folio as it is: the model applied to the captured state."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.errors import UsageError
from inspector.folio.captured import Captured, capture_folio, folio_names
from inspector.folio.numbers import OneFolio
from inspector.model.counters import RmapCounter, field_name
from inspector.model.interface import SPECS, Op, OpLevel, name_in, resolve
from inspector.model.operations import apply
from inspector.model.preconditions import RefusedError
from inspector.model.state import Folio
from inspector.places.named import PROCESS, taking
from inspector.places.processes import aim_at_mm, find_process
from inspector.places.words import MAX_PID
from inspector.text import clean_bytes, parse_number

if TYPE_CHECKING:
    from inspector.columns import U64
    from inspector.snapshot import Snapshot

_WORD = re.compile(r"(?P<name>\w+)(?::(?P<page>\w+)(?:\+(?P<nr>\w+))?)?(?:@(?P<who>.+))?")


class Changed(msgspec.Struct, frozen=True):
    """What an operation changes."""

    what: str
    before: str
    after: str


class WhatIf(msgspec.Struct, frozen=True):
    """One operation applied to the folio as it is."""

    operation: str
    """As this kernel calls it, with its pages and process."""
    refused: str
    """Why it cannot be done, with the kernel's assertion; "" when it can."""
    changes: list[Changed]
    note: str = ""
    """What it returned when that was not success."""


def named_mms(s: Snapshot, words: Sequence[str]) -> U64:
    """Addresses of the mms of the processes that operations name after @; read is what finds these processes.

    Raises:
        UsageError: There is no such process, or several have the name.
    """
    found = [_WORD.fullmatch(word.strip()) for word in words]
    who = [x["who"] for x in found if x is not None and x["who"]]
    return np.array([_mm_address(s, one) for one in who], np.uint64)


def what_if(s: Snapshot, f: OneFolio, words: Sequence[str]) -> list[WhatIf]:
    """Apply operations one after the other; the first that is refused is the last.

    Args:
        s: The snapshot.
        f: The folio.
        words: ``NAME``, ``NAME:PAGE`` or ``NAME:PAGE+COUNT``, each with ``@`` and a process behind it, named as for
            `find_process`.
            Names of older kernels will do.

    Raises:
        UsageError: An operation cannot be understood, or the folio is none that the rmap counts.
    """
    captured = capture_folio(s, f)
    if captured is None:
        raise UsageError("rmap operations apply to folios of processes and files only", f"{f.pfn:#x} is {f.kind}")
    out: list[WhatIf] = []
    state = captured.state
    for word in words:
        op = _parse(s, f, captured, state, word)
        operation = call_of(s, captured, op)
        try:
            outcome = apply(state, op)
        except RefusedError as error:
            reason = re.sub(r"\bmm (\d+)", lambda m: _who(s, captured, int(m[1])), error.reason)
            return [*out, WhatIf(operation, f"{reason} [{error.condition}]", [])]
        note = "-EBUSY: the pages may be pinned, nothing changed" if outcome.busy else ""
        out.append(
            WhatIf(operation, "", [Changed(*c) for c in changes_between(s, captured, state, outcome.folio)], note)
        )
        state = outcome.folio
    return out


def _parse(s: Snapshot, f: OneFolio, captured: Captured, state: Folio, word: str) -> Op:
    found = _WORD.fullmatch(word.strip())
    if found is None:
        raise UsageError(
            "this is no operation",
            word,
            "Give NAME, NAME:PAGE or NAME:PAGE+COUNT, with @PROCESS if you like",
        )
    page = parse_number(found["page"]) if found["page"] else None
    nr = parse_number(found["nr"]) if found["nr"] else 1
    if (found["page"] and page is None) or nr is None:
        raise UsageError("this is no number", found["page"] if page is None else found["nr"], "Give page and count")
    name = _name(f, found["name"], page, nr)
    spec = SPECS[name]
    who = _mm(s, captured, found["who"]) if found["who"] else _mapper(state, spec.level, page or 0)
    return Op(name, mm=who, page=page or 0, nr=nr, exclusive=spec.action == "new")


def _name(f: OneFolio, asked: str, page: int | None, nr: int) -> str:
    """Today's name; of an older one's successors that of the right family and level."""
    names = resolve(asked)
    if not names:
        import difflib  # noqa: PLC0415  (only to help after a mistake)

        near = difflib.get_close_matches(asked, SPECS, 1)
        hint = f"Did you mean {near[0]}?" if near else "There is " + ", ".join(list(SPECS)[:4]) + " and their like"
        raise UsageError("there is no such rmap operation", asked, hint)
    if len(names) == 1:
        return names[0]
    if f.is_hugetlb:
        return next((n for n in names if n.startswith("hugetlb")), names[0])
    by_pte = page is not None or not f.pmd
    ending = "_pmd" if not by_pte else "_ptes" if nr > 1 else "_pte"
    return next((n for n in names if n.endswith(ending)), names[0])


def _mm(s: Snapshot, captured: Captured, asked: str) -> int:
    mm = np.flatnonzero(s.mms.addr == np.uint64(_mm_address(s, asked)))
    if not len(mm):
        raise s.missing.unless_lost(UsageError("this task has no address space", asked, "See folioscope ps"), "mms")
    return captured.key_of(int(mm[0]))


def _mm_address(s: Snapshot, asked: str) -> int:
    with taking(s, asked, PROCESS):
        number = find_process(s, asked)
        try:
            return int(aim_at_mm(s, number).mms.addr[0])
        except UsageError:
            if (s.tasks.pid == min(number, MAX_PID)).any():
                raise UsageError("this task has no address space", asked, "See folioscope ps") from None
            raise


def _mapper(state: Folio, level: OpLevel, page: int) -> int:
    """The first mm that maps the page at that level; else any that maps the folio, else none at all."""
    by_page = [mm for (mm, at), _ in state.ptes if at == page]
    by_huge = [mm for mm, _ in state.huge]
    wanted = by_page + by_huge if level is OpLevel.PTE else by_huge + by_page
    return next(iter([*wanted, *(mm for (mm, _), _ in state.ptes)]), 1)


def _who(s: Snapshot, captured: Captured, key: int) -> str:
    if captured.names is not None:
        return captured.names.get(key, "a new process")
    row = captured.mm_of_key.get(key)
    if row is None:
        return "a new process"
    pid = int(s.mms.pid[row])
    return f"pid {pid} {clean_bytes(bytes(s.mms.comm[row]))}" if pid >= 0 else f"mm {int(s.mms.addr[row]):#x}"


def call_of(s: Snapshot, captured: Captured, op: Op) -> str:
    """An operation as this kernel calls it, with its pages and its process."""
    spec, name = SPECS[op.name], name_in(captured.state.scheme, op.name, folio_names=folio_names(s))
    pages = ""
    if spec.level is OpLevel.PTE and captured.state.is_large:
        pages = f"page +{op.page}" if op.nr == 1 else f"pages +{op.page}..+{op.page + op.nr - 1}"
        pages += ", "
    return f"{name}({pages}{_who(s, captured, op.mm)})"


_BOOLS = {
    "double_map": "PG_double_map",
    "shared": "FOLIO_MM_IDS_SHARED",
    "anon_mapping": "mapping says anonymous",
    "mlocked": "PG_mlocked",
    "deferred": "on the deferred split queue",
    "partially_mapped": "PG_partially_mapped",
}


def changes_between(s: Snapshot, captured: Captured, a: Folio, b: Folio) -> list[tuple[str, str, str]]:
    """What differs, under the kernel's names."""
    out: list[tuple[str, str, str]] = []
    counters = {"entire": RmapCounter.ENTIRE, "large": RmapCounter.LARGE, "word": RmapCounter.NR_PAGES_MAPPED}
    numbers = [
        *((name, field_name(a.scheme, counter)) for name, counter in counters.items()),
        ("refcount", "_refcount"),
    ]
    for name, shown in numbers:
        old, new = getattr(a, name), getattr(b, name)
        if old != new:
            form = hex if name == "word" and max(old, new) >= 1 << 20 else str
            out.append((shown, form(old), form(new)))
    out += [(f"_mapcount{where}", str(old), str(new)) for where, old, new in _page_changes(a, b)]
    for i, (old_slot, new_slot) in enumerate(zip(a.slots, b.slots, strict=True)):
        if old_slot != new_slot:
            out.append((f"slot {i}", _slot(s, captured, old_slot), _slot(s, captured, new_slot)))
    for name, shown in _BOOLS.items():
        if getattr(a, name) != getattr(b, name):
            out.append((shown, *(("clear", "set") if getattr(b, name) else ("set", "clear"))))
    for pages, before, after in (
        (b.exclusive - a.exclusive, "clear", "set"),
        (a.exclusive - b.exclusive, "set", "clear"),
    ):
        if pages:
            out.append((f"PG_anon_exclusive{_pages(a, sorted(pages))}", before, after))
    for name in ("nr_anon_mapped", "nr_file_mapped", "nr_anon_thps", "nr_shmem_pmdmapped", "nr_file_pmdmapped"):
        moved = getattr(b.stats, name) - getattr(a.stats, name)
        if moved:
            out.append((name.upper(), "", f"{moved:+d}"))
    return [*out, *_bag_changes(s, captured, a, b)]


def _bag_changes(s: Snapshot, captured: Captured, a: Folio, b: Folio) -> list[tuple[str, str, str]]:
    """Entries and rss, by process."""
    out = []
    for what, old, new in (
        ("PTEs", _by_mm(a.ptes), _by_mm(b.ptes)),
        ("huge entries", dict(a.huge), dict(b.huge)),
        ("rss", dict(a.rss), dict(b.rss)),
        ("pages behind migration entries", dict(a.migration), dict(b.migration)),
    ):
        out += [
            (f"{what} of {_who(s, captured, key)}", str(old.get(key, 0)), str(new.get(key, 0)))
            for key in sorted(old.keys() | new.keys())
            if old.get(key, 0) != new.get(key, 0)
        ]
    return out


def _by_mm(ptes: tuple[tuple[tuple[int, int], int], ...]) -> dict[int, int]:
    out: dict[int, int] = {}
    for (mm, _), n in ptes:
        out[mm] = out.get(mm, 0) + n
    return out


def _slot(s: Snapshot, captured: Captured, slot: tuple[int, int]) -> str:
    return f"{slot[1]} of {_who(s, captured, slot[0])}" if slot[0] else "free"


def _page_changes(a: Folio, b: Folio) -> list[tuple[str, int, int]]:
    """Runs of pages whose counts changed alike."""
    out: list[tuple[str, int, int]] = []
    old, new = np.array(a.pages), np.array(b.pages)
    odd = np.flatnonzero(old != new)
    for pair in dict.fromkeys((int(old[i]), int(new[i])) for i in odd):
        where = odd[(old[odd] == pair[0]) & (new[odd] == pair[1])]
        out.append((_pages(a, where.tolist()), *pair))
    return out


def _pages(a: Folio, pages: list[int]) -> str:
    if not a.is_large:
        return ""
    if len(pages) == 1:
        return f" of page +{pages[0]}"
    if pages[-1] - pages[0] + 1 == len(pages):
        return f" of pages +{pages[0]}..+{pages[-1]}"
    return f" of {len(pages)} pages from +{pages[0]} to +{pages[-1]}"
