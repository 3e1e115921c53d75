"""Every view of one folio, and all that must be the same in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from inspector.aimed.pages import partial_of_folio
from inspector.check.run import violations_of
from inspector.folio.account import stored_account
from inspector.folio.counters import CounterLine
from inspector.folio.look import look_at
from inspector.model.counters import RmapCounter, field_name
from inspector.report.explain import Explanation, Holding, build_explanation
from inspector.report.folio import FolioReport, build_folio
from inspector.report.mappings import MappingRow
from inspector.report.pages import build_place
from inspector.report.rmap import build_rmap
from inspector.rules import all_rules
from inspector.snapshot import Snapshot
from inspector.subjects import ENTRY, FOLIO, PAGE
from inspector.walk.counts import REJECTED
from inspector.walk.page_numbers import NumberMeaning
from inspector.walk.references import expected_references
from tui.places import FolioPlace, RmapPlace
from tui.screens.folio import FolioScreen
from tui.screens.rmap import RmapScreen
from tui.session import Session
from tui.views.folio import PageColumns


@dataclass(frozen=True)
class Reported:
    """One value that a rule finds wrong.

    Attributes:
        rule: Its slug.
        head: Row of the folio's head.
        page: Index of the page in the folio, -1 for a value of the folio.
        name: Of the value.
        stored, expected: As the finding has them; None where it has no number.
        transient: Work in flight explains it.
        bound: Whether it is expected to be at least that.
    """

    rule: str
    head: int
    page: int
    name: str
    stored: int | None
    expected: int | None
    transient: bool
    bound: bool = False


@dataclass
class Checked:
    """What a check finds in a snapshot, value by value; and how much was compared so far."""

    s: Snapshot
    unwalked: Snapshot
    """Another one of the same target, of which nothing but struct pages and tasks is ever read as a whole."""
    reported: list[Reported] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    folios: int = 0


def checked(s: Snapshot) -> Checked:
    """Run the rules about pages, folios and the entries that map them, as a check does."""
    out = Checked(s, Snapshot(s.target))
    for rule in all_rules():
        if rule.about not in (PAGE, FOLIO, ENTRY) or rule.applies(s.scheme):
            continue
        found = violations_of(s, rule)
        details = found.details
        heads = rule.about.heads(s, found.rows)
        for i in range(len(found)):
            page = int(found.rows[i] - heads[i]) if rule.about is PAGE else -1
            transient = details.transient is not None and bool(details.transient[i])
            for name, column in details.observed.items():
                bound = name == "_refcount" and "at_least" in details.expected
                wanted = details.expected["at_least"] if bound else details.expected.get(name)
                number = None if wanted is None or wanted.dtype.kind not in "iu" else int(wanted[i])
                stored = int(column[i]) if column.dtype.kind in "iu" else None
                one = Reported(rule.slug, int(heads[i]), page, name, stored, number, transient, bound)
                out.reported.append(one)
    return out


def _same(checked: Checked, what: str, one: object, other: object, where: object) -> None:
    checked.compared[what] += 1
    assert one == other, f"{what} of {where}: {one} != {other}"


def agree(checked: Checked, pfn: int) -> Explanation:
    """Hold all views of the folio that a page belongs to together; gives the long form."""
    s = checked.s
    checked.folios += 1
    place = build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    short = build_folio(s, place)
    long = build_explanation(s, pfn, check=False)
    session = Session(s)
    screen = FolioScreen(session, FolioPlace(pfn)).load()
    if long.head is None:
        assert short.head is None
        return long
    _counters(checked, short, long, pfn)
    _screen(checked, long, screen.explanation, pfn)
    _grid(checked, long, screen.pages, pfn)
    _numbers(checked, long, pfn)
    _rules(checked, long, pfn)
    _mappings(checked, short, long, pfn)
    _references(checked, long, pfn)
    _stored(checked, long, pfn)
    _aimed(checked, short, long, pfn)
    return long


def _key(x: CounterLine) -> tuple[object, ...]:
    return x.counter, x.stored, x.relation, x.expected, x.verdict


def _is_page_mapcount(x: CounterLine) -> bool:
    """Whether a line is of the mapcount of single pages, which `folio` shows in a table of its own."""
    return x.pages > 0 and x.counter == "_mapcount"


def _counters(checked: Checked, short: FolioReport, long: Explanation, pfn: int) -> None:
    ledger = [x for x in long.ledger if not _is_page_mapcount(x)]
    told = [(x.name, x.stored, x.relation, x.expected, x.verdict) for x in short.counters]
    _same(checked, "number of counters", len(told), len(ledger), f"{pfn:#x}")
    for mine, theirs in zip(told, ledger, strict=True):
        _same(checked, "folio and explain", mine, _key(theirs), f"{pfn:#x}")
    runs = [(x.first, x.pages, x.mapcount_raw, x.expected_raw, x.verdict) for x in short.page_counts]
    lines = [(x.first, x.pages, x.stored, x.expected, x.verdict) for x in long.ledger if _is_page_mapcount(x)]
    _same(checked, "pages of folio and explain", runs, lines, f"{pfn:#x}")
    _same(checked, "mm ids of folio and explain", short.mm_ids, long.mm_ids, f"{pfn:#x}")
    wrong = any(x.verdict == "WRONG" for part in (long.ledger, long.mm_ids, long.sharing) for x in part)
    _same(checked, "entries that may not map it", short.rejected, long.rejected, f"{pfn:#x}")
    _same(checked, "exit codes", short.exit_code == 1, wrong or short.rejected > 0, f"{pfn:#x}")


def _screen(checked: Checked, long: Explanation, shown: Explanation, pfn: int) -> None:
    for part in ("ledger", "mm_ids", "references", "sharing", "decisions"):
        _same(checked, f"{part} on the screen", getattr(shown, part), getattr(long, part), f"{pfn:#x}")


def _grid(checked: Checked, long: Explanation, pages: PageColumns, pfn: int) -> None:
    for x in (x for x in long.ledger if x.counter == "_mapcount" and x.expected is not None):
        here = slice(x.first, x.first + x.pages) if x.pages else slice(0, 1)
        _same(checked, "stored in the grid", set(pages.stored[here].tolist()), {x.stored}, f"{pfn:#x}")
        _same(checked, "expected in the grid", set(pages.expected[here].tolist()), {x.expected}, f"{pfn:#x}")
        _same(checked, "wrong in the grid", set(pages.wrong[here].tolist()), {x.verdict == "WRONG"}, f"{pfn:#x}")


def _numbers(checked: Checked, long: Explanation, pfn: int) -> None:
    """The values that rules compare are those that are shown; formulas come to the expected value."""
    s = checked.s
    head = int(s.pages.head_row[s.pages.memmap.row(pfn)])
    head = head if head >= 0 else s.pages.memmap.row(pfn)
    folio = int(s.folio_of_page[head])
    columns = {}
    if s.scheme is not None and s.expected is not None:
        columns = {
            field_name(s.scheme, RmapCounter.ENTIRE): "entire_raw",
            field_name(s.scheme, RmapCounter.LARGE): "large_raw",
            field_name(s.scheme, RmapCounter.NR_PAGES_MAPPED): "word_raw",
        }
    for x in long.ledger:
        if x.expected is None:
            continue
        if x.counter in columns:
            column = columns[x.counter]
            _same(checked, "stored", x.stored, int(getattr(s.folios, column)[folio]), f"{x.counter} of {pfn:#x}")
            _same(checked, "expected", x.expected, int(getattr(s.expected, column)[folio]), f"{x.counter} of {pfn:#x}")
        elif x.counter == "_mapcount":
            assert s.expected is not None
            at = head + max(x.first, 0)
            here = slice(at, at + max(x.pages, 1))
            _same(checked, "stored", {x.stored}, set(s.pages.mapcount_raw[here].tolist()), f"_mapcount of {pfn:#x}")
            wanted = set(s.expected.page_mapcount_raw[here].tolist())
            _same(checked, "expected", {x.expected}, wanted, f"_mapcount of {pfn:#x}")
        elif x.counter == "_refcount" and x.relation == "at least":
            least = int(expected_references(s, np.array([head])).total[0]) if x.stored > 0 else 0
            _same(checked, "expected", x.expected, least, f"_refcount of {pfn:#x}")
            _same(checked, "stored", x.stored, int(s.pages.refcount[head + max(x.first, 0)]), f"_refcount of {pfn:#x}")
        if x.relation == "equal" and x.counter != "_refcount":
            bias = 0 if columns.get(x.counter) == "word_raw" else 1
            _same(checked, "formula", sum(x.terms.values()) - bias, x.expected, f"{x.formula} of {pfn:#x}")


_OTHER_NAMES = {"FOLIO_MM_IDS_SHARED": "shared"}


def _rules(checked: Checked, long: Explanation, pfn: int) -> None:
    """What rules report is shown as wrong, with their numbers and their grade; and nothing else is."""
    s = checked.s
    assert long.head is not None
    head = s.pages.memmap.row(long.head.pfn)
    mine = [r for r in checked.reported if r.head == head]
    for x in long.ledger:
        name = _OTHER_NAMES.get(x.counter, x.counter)
        inside = range(x.first, x.first + x.pages) if x.pages else range(-1, 1)
        hits = [r for r in mine if r.name == name and (r.page in inside or r.page < 0)]
        compared = [r for r in hits if r.expected is not None]
        for r in compared:
            _same(checked, "stored, by check", r.stored, x.stored, f"{r} of {pfn:#x}")
            if x.relation == ("at least" if r.bound else "equal"):
                _same(checked, "expected, by check", r.expected, x.expected, f"{r} of {pfn:#x}")
        if x.verdict in ("ok", ""):
            _same(
                checked,
                "verdict ok, by check",
                [r for r in compared if x.verdict and r.stored != r.expected],
                [],
                f"{x} of {pfn:#x}",
            )
        elif x.verdict == "not checked":
            _same(checked, "verdict not checked, by check", hits, [], f"{x} of {pfn:#x}")
        else:
            grades = {r.transient for r in hits}
            _same(checked, "verdict, by check", x.verdict == "in flight", grades == {True}, f"{x} of {pfn:#x}")
            _same(checked, "reported by check", bool(hits), True, f"{x} of {pfn:#x}")
    counted = {_OTHER_NAMES.get(x.counter, x.counter) for x in long.ledger}
    shown = {_OTHER_NAMES.get(x.counter, x.counter) for x in long.ledger if x.verdict in ("WRONG", "in flight")}
    for r in mine:
        of_tail = r.page > 0 and r.name not in ("_mapcount", "_refcount")
        if r.name in counted and r.expected not in (None, r.stored) and not of_tail:
            _same(checked, "value of check shown", r.name in shown, True, f"{r} of {pfn:#x}")
    slots = {r.name for r in mine if r.name.startswith("_mm_id_mapcount")}
    for slot in long.mm_ids:
        if slot.verdict in ("WRONG", "in flight"):
            _same(checked, "slot, by check", f"_mm_id_mapcount[{slot.slot}]" in slots, True, f"{slot} of {pfn:#x}")
    marked = any(r.name == "anon_exclusive" for r in checked.reported)
    for run in long.sharing:
        if run.verdict in ("WRONG", "in flight"):
            _same(checked, "exclusive, by check", marked, True, f"{run} of {pfn:#x}")


def _mappings(checked: Checked, short: FolioReport, long: Explanation, pfn: int) -> None:
    s = checked.s
    assert short.head is not None
    _same(checked, "mappings of folio and explain", short.mappings, long.mappings, f"{pfn:#x}")
    _same(checked, "huge entries", short.entire_mappings, long.pmd + long.pud, f"{pfn:#x}")
    _same(checked, "PTEs", short.pte_mappings, long.pte, f"{pfn:#x}")
    _same(checked, "mms", short.mms, long.mms, f"{pfn:#x}")
    place = build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    rmap = build_rmap(s, place)
    _same(checked, "kind by rmap", (rmap.folio.pfn, rmap.folio.kind), (short.head.pfn, short.kind), f"{pfn:#x}")
    mapped = [m for m in long.mappings if m.present and m.entry_class in FOUND]
    _same(checked, "mappings of rmap", rmap.mappings, mapped, f"{pfn:#x}")
    entries = sum(m.entries for m in mapped if m.counted and m.entry_class == "normal")
    _same(checked, "counted entries", entries, short.entire_mappings + short.pte_mappings, f"{pfn:#x}")
    screen = RmapScreen(Session(s), RmapPlace(pfn)).load()
    _same(checked, "rmap on the screen", screen.report, rmap, f"{pfn:#x}")
    shown = sum(row.mark in "<≠" for row in screen.sides) == 0
    _same(checked, "rmap agrees on the screen", shown, rmap.agree, f"{pfn:#x}")


def _references(checked: Checked, long: Explanation, pfn: int) -> None:
    """``references``, which adds them up for all folios, has the same terms."""
    s = checked.s
    assert long.head is not None
    t, head = s.reference_terms, s.pages.memmap.row(long.head.pfn)
    at = int(np.searchsorted(t.rows, head))
    if at >= len(t) or t.rows[at] != head:
        return
    assert long.references is not None
    terms = {name: int(column[at]) for name, column in t.terms.items() if column[at]}
    _same(checked, "terms of references", {x.term: x.count for x in long.references.terms}, terms, f"{pfn:#x}")
    _same(checked, "references left over", long.references.unexplained, int(t.remainder[at]), f"{pfn:#x}")


def _stored(checked: Checked, long: Explanation, pfn: int) -> None:
    """``folio --no-mappings`` has the same names and stored values."""
    s = checked.s
    part = partial_of_folio(s, pfn)
    quick = stored_account(part, pfn, s.scheme)
    names = [(x.counter, x.stored) for x in quick.counters if not x.pages]
    _same(checked, "stored alone", names, [(x.counter, x.stored) for x in long.ledger if not x.pages], f"{pfn:#x}")


_UNLINKED = "is not in the dump, or is none"


def _aimed(checked: Checked, short: FolioReport, long: Explanation, pfn: int) -> None:
    """The road of the reverse map comes to the same, or says what it cannot know.

    Where the rmap walk reaches every mapping, all that is compared has the same numbers and verdicts; but a value
    above what was found is not called wrong, for that takes all page tables. Where it does not reach them all, the
    mappings found are the others, and what is wrong by them is wrong.
    """
    s, unwalked = checked.s, checked.unwalked
    place = build_place(s, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    aimed = look_at(unwalked, pfn)
    assert not unwalked.has_walked
    quick, brief, walk = build_explanation(aimed, pfn), build_folio(aimed, place), build_rmap(aimed, place)
    _same(checked, "counters of folio and explain, aimed", brief.exit_code, quick.exit_code, f"{pfn:#x}")
    _same(checked, "aimed, of the folio", _identity(quick), _identity(long), f"{pfn:#x}")
    _same(checked, "rules not run", (quick.rules_run, quick.findings), (False, []), f"{pfn:#x}")
    stored = [(x.counter, x.first, x.pages, x.stored) for x in long.ledger if not _is_page_mapcount(x)]
    seen = [(x.counter, x.first, x.pages, x.stored) for x in quick.ledger if not _is_page_mapcount(x)]
    if quick.searched == "nothing":
        # Tails with references are lines of what is compared alone.
        stored = [x for x in stored if not (x[0] == "_refcount" and x[1] > 0)]
        _same(checked, "stored, aimed at no mapping", seen, stored, f"{pfn:#x}")
        _same(checked, "nothing compared", {x.verdict for x in quick.ledger} <= {""}, True, f"{pfn:#x}")
        _same(checked, "nothing mapped", (quick.mappings, brief.mappings, walk.places), ([], [], []), f"{pfn:#x}")
        claims = long.pte + long.pmd + long.pud > 0
        if claims and long.exit_code == 0 and walk.mapcount:
            _same(checked, "unproven", (brief.exit_code, walk.exit_code), (4, 4), f"{pfn:#x}")
        return
    _same(checked, "stored, aimed", seen, stored, f"{pfn:#x}")
    whole = build_rmap(s, place)
    reached = not whole.orphans
    lost = {(o.mapping.mm, o.mapping.va) for o in whole.orphans}
    kept = [m for m in long.mappings if (m.mm, m.va) not in lost]
    # An anon_vma that no VMA leads to any more is known by the folio's own word alone, which the aimed view follows.
    if any(_UNLINKED in o.reason for o in whole.orphans):
        _same(checked, "found by the folio's word", walk.by_walk >= whole.by_walk, True, f"{pfn:#x}")
    elif not quick.gaps:
        _same(checked, "entries by the walk, aimed", walk.by_walk, whole.by_walk, f"{pfn:#x}")
        here = [m for m in quick.mappings if m.present and m.entry_class == "normal"]
        there = [m for m in kept if m.present and m.entry_class == "normal"]
        _same(checked, "mappings, aimed", _cut(here), _cut(there), f"{pfn:#x}")
    else:
        _same(checked, "gaps leave it open", quick.exit_code != 0, True, f"{pfn:#x}")
    # The walk goes by the order: of a folio that has more pages than that it misses some.
    folio = int(s.folio_of_page[s.pages.memmap.row(quick.head.pfn)]) if quick.head else -1
    if not reached or quick.gaps or (folio >= 0 and s.compound_wrong[folio]):
        _bounded(checked, long, quick, pfn)
        return
    # Entries that count as no mappings, by the damage that they are or as those of drivers, may be anywhere.
    odd = [m for m in long.mappings if m not in quick.mappings]
    _same(checked, "all mappings, aimed", [m for m in quick.mappings if m not in long.mappings], [], f"{pfn:#x}")
    _same(checked, "others, aimed", {m.present and m.entry_class != "normal" for m in odd} <= {True}, True, f"{pfn:#x}")
    free = quick.head is not None and quick.head.refcount == 0
    impossible = [x.verdict == "WRONG" and (free or x.counter in _impossible(checked, long)) for x in quick.ledger]
    pairs = zip(long.ledger, impossible, strict=True)
    lines = [_key(x) if proven else _unproven(x) for x, proven in pairs]
    _same(checked, "lines, aimed", [_key(x) for x in quick.ledger], lines, f"{pfn:#x}")
    _same(checked, "sharing, aimed", quick.sharing, long.sharing, f"{pfn:#x}")
    for mine, theirs in zip(quick.mm_ids, long.mm_ids, strict=True):
        pair = (mine.mm_id, mine.count_raw, mine.at_most), (theirs.mm_id, theirs.count_raw, theirs.at_most)
        _same(checked, "slots, aimed", *pair, f"{pfn:#x}")
        if theirs.verdict == "ok":
            _same(checked, "slots, aimed", mine, theirs, f"{pfn:#x}")
        else:
            _same(checked, "verdict on slots, aimed", mine.verdict in ("not checked", "WRONG"), True, f"{pfn:#x}")
    if quick.references is not None and long.references is not None:
        sought = [x for x in long.references.terms if x.term not in ("pipe", "gather", "owner", "isolated")]
        found = [x for x in quick.references.terms if x.term not in ("owner", "isolated")]
        _same(checked, "references, aimed", _terms(found), _terms(sought), f"{pfn:#x}")
    proven = _is_low(long) or any(impossible) or quick.rejected > 0
    _same(checked, "proven wrong", quick.exit_code == 1, proven, f"{pfn:#x}")
    if quick.exit_code == 0 and long.rejected == quick.rejected:
        _same(checked, "consistent, aimed", long.exit_code in (0, 4), True, f"{pfn:#x}")


FOUND = ("normal", *(each.name.lower() for each in REJECTED))
"""Classes of entries that an rmap walk finds: those that count, and those of pages that none may map."""

WORDS = ("_nr_pages_mapped", "_subpages_mapcount")
"""Counters with values that no mappings at all explain (nr-pages-mapped-invalid), as every count of a free page is."""


def _impossible(checked: Checked, long: Explanation) -> set[str]:
    """Those, and what contradicts them: a folio that counts huge entries has the bit ENTIRELY_MAPPED."""
    head = long.head.pfn if long.head else -1
    return {*WORDS, *(r.name for r in checked.reported if r.head == head and r.rule == "nr-pages-mapped-invalid")}


def _identity(e: Explanation) -> tuple[object, ...]:
    return e.head, e.scheme, e.order, e.pages, e.page_index


def _cut(rows: list[MappingRow]) -> list[tuple[int, int, int]]:
    """Pages of the folio that are mapped: mm, address and page, whatever the runs."""
    return [(m.mm, m.va + (i << 12), m.page_index + i) for m in rows for i in range(m.pages)]


def _terms(held: list[Holding]) -> list[tuple[str, int]]:
    return [(x.term, x.count) for x in held if x.term != "pins"]


def _unproven(x: CounterLine) -> tuple[object, ...]:
    """A line as it is where not all page tables were searched."""
    counts_mappings = x.expected is not None and x.relation == "equal" and x.counter != "_refcount"
    high = counts_mappings and x.expected is not None and x.stored > x.expected
    left = x.counter == "FOLIO_MM_IDS_SHARED" and x.stored and "nothing maps" in x.formula
    verdict = "not checked" if x.verdict in ("WRONG", "in flight") and (high or left) else x.verdict
    return (*_key(x)[:-1], verdict)


def _is_low(long: Explanation) -> bool:
    """Whether anything is wrong that a mapping more could not set right."""
    slots = any(x.verdict == "WRONG" and (not x.mm_id or x.at_most is None) for x in long.mm_ids)
    return (
        slots
        or any(x.verdict == "WRONG" for x in long.sharing)
        or any(x.verdict == "WRONG" and _unproven(x)[-1] == "WRONG" for x in long.ledger)
    )


def _bounded(checked: Checked, long: Explanation, quick: Explanation, pfn: int) -> None:
    """By fewer mappings less is expected: what is wrong by them is wrong by all, and no more is called wrong."""
    theirs = {(x.counter, at): x for x in long.ledger for at in range(x.first, x.first + max(x.pages, 1))}
    for x in quick.ledger:
        for at in range(x.first, x.first + max(x.pages, 1)):
            other = theirs[x.counter, at]
            if x.expected is not None and other.expected is not None and x.relation == "equal":
                _same(checked, "expected of fewer", x.expected <= other.expected, True, f"{x} of {pfn:#x}")
            if x.verdict == "WRONG" and x.relation in ("equal", "at least"):
                _same(checked, "wrong by fewer", other.verdict in ("WRONG", "in flight"), True, f"{x} of {pfn:#x}")


def no_members(s: Snapshot, names: Iterable[str]) -> list[str]:
    """Which names that look like the kernel's own are members of neither struct page nor struct folio."""
    known = [s.layout.struct(name) for name in ("struct page", "struct folio")]
    mine = sorted({n for n in names if n.startswith("_")})
    return [n for n in mine if not any(struct.has(n) or struct.has(f"{n}.counter") for struct in known)]


def names_shown(long: Explanation) -> list[str]:
    """Names of all counters that are shown."""
    names = [x.counter for x in long.ledger]
    names += [f"_mm_id_mapcount[{x.slot}]" for x in long.mm_ids]
    names += [f"_mm_id[{x.slot}]" for x in long.mm_ids]
    return names
