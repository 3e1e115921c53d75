"""One damaged word, one cause: what is found no more when the word is not read is what the word brought about.

A word of a page table above the last level, of a VMA or of an anon_vma breaks rules about everything that it leads to:
pages, totals of its mm, tables that are reached no more. Where the subject of one cause is a word, or an object, of an
mm, and other causes are about the same mm, the target is judged once more without it, as it is without stretches that
were overwritten (`inspector.check.overwritten`). Of several such words the one that explains most is the cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, Mask, distinct, is_among, take_or
from inspector.findings import Subject
from inspector.layout.flags import MAPPING_TAGS
from inspector.rules.cause import Cause, Causes
from inspector.rules.folios.mapcount import mapcount_mapping_missing, mapcount_too_high
from inspector.rules.mms.rss import rss_mismatch
from inspector.rules.needs import VMAS, lacking
from inspector.rules.page_tables.bytes import pgtables_bytes_mismatch
from inspector.rules.page_tables.lost_tables import may_hang_in, page_table_unreachable
from inspector.rules.registry import Phase, Rule
from inspector.rules.swap.swap import swap_count_high
from inspector.subjects import ADDRESS_SPACE, ANON_VMA, AVC, ENTRY, FOLIO, MM, NONPRESENT, PAGE, TABLE, VMA
from inspector.tables.overwritten import Stretch
from inspector.walk.batches import MappingsOfPages, run_collectors
from inspector.walk.lost_places import lost_places
from inspector.walk.mappings import ENTRY_ID_SLOT_BITS

if TYPE_CHECKING:
    from inspector.check.run import RulesRun
    from inspector.columns import U64, AnyArray
    from inspector.snapshot import Snapshot

_MOST_CAUSES = 1 << 12
"""More causes are no damage here and there, but a target that is not understood."""

_MOST_TRIED = 64
"""Causes whose own words are looked for."""

_MOST_WORDS = 4
"""Words that are tried: each is a check more."""

_MOST_PAGES = 3

_MOST_ROWS = 64
"""Subjects of one cause, and words, that are examined."""

_MOST_FOUND = 1 << 10
"""Violations of one rule, found without a word, that are compared."""

_ENTRY = 8

_SLOTS = 1 << ENTRY_ID_SLOT_BITS

_LOST_MAPPINGS = (mapcount_mapping_missing, mapcount_too_high)

_SWAPENTS = "MM_SWAPENTS"

_LARGEST = 1 << 18
"""Pages of a folio of 1 GiB."""

_COUNTER_PAGES = 4
"""Struct pages of a large folio that hold words of the folio."""

Key = tuple[str, int]
"""A cause in a look: its rule, and the row of its first subject."""


class Explained(NamedTuple):
    """What one word brought about: the cause that stays, and those that are part of it."""

    root: Key
    rest: tuple[Key, ...]


class _Word(NamedTuple):
    """A cause, where the words lie that it is about, the related causes, and those that are about these words too.

    ``ptes`` are the PTEs among the words, by number.
    """

    cause: Cause
    places: tuple[Stretch, ...]
    related: list[Cause]
    beside: list[Cause]
    ptes: I64 = np.empty(0, np.int64)


def key_of(cause: Cause) -> Key:
    """What names a cause in its look."""
    return cause.rule.slug, cause.first_row


def find_words(
    s: Snapshot, causes: Causes, without: Callable[[tuple[Stretch, ...]], RulesRun], fewer_than: int | None = None
) -> list[Explained]:
    """The words that explain several causes.

    Args:
        s: The snapshot.
        causes: Its causes.
        without: Judges the target without some stretches of its memory.
        fewer_than: Words are only tried while they may leave fewer causes than that.
    """
    some = [cause for cause in causes if _is_fault(cause)]
    if not 1 < len(some) <= _MOST_CAUSES:
        return []
    words = sorted([*_above(s, some), *_pages(s, some)], key=lambda word: -len(word.related))
    del words[_MOST_WORDS - 1 :]
    words += _own_words(s, some)
    explains: list[tuple[int, Cause, list[Cause]]] = []
    for tried, word in enumerate(words[:_MOST_WORDS]):
        may_go = {cause for each in words[tried:_MOST_WORDS] for cause in each.related}
        may_go.update(cause for cause in some if cause.rule.about in (ANON_VMA, AVC))
        may_go.update(cause for _, _, rest in explains for cause in rest)
        if fewer_than is not None and len(causes) - len(may_go) >= fewer_than:
            break
        look = without(word.places)
        gone = _held(s, word, _gone(s, word, look))
        gone += [cause for cause in some if cause not in gone and _has_vanished(s, cause, look.snapshot)]
        # Causes before consequences: what broke a word of an earlier phase is not known by one of a later.
        rest = [cause for cause in gone[1:] if cause.rule.phase >= gone[0].rule.phase]
        if rest:
            explains.append((sum(each.size for each in word.places), gone[0], rest))
        if len(gone) == len(some):
            break
    return _fewest(explains)


def _own_words(s: Snapshot, causes: list[Cause]) -> list[_Word]:
    """The words that causes are about, those that most others are related to first."""
    tried = causes[:_MOST_TRIED]
    mapped = _mapped(s, tried)
    words = [word for cause in tried if (word := _word(s, cause, causes, mapped.get(cause))) is not None]
    return sorted(words, key=lambda word: -len(word.related))


def join_explained(causes: Causes, explained: Iterable[Explained]) -> None:
    """Make one cause of what each word brought about."""
    by_key: dict[Key, list[Cause]] = {}
    for cause in causes:
        by_key.setdefault(key_of(cause), []).append(cause)
    for each in explained:
        if each.root not in by_key:
            continue
        # A rule may have several about one subject: they go together.
        mine = [cause for key in dict.fromkeys((each.root, *each.rest)) for cause in by_key.pop(key, [])]
        for cause in mine[1:]:
            mine[0].facts.update({name: value for name, value in cause.facts.items() if name not in mine[0].facts})
            causes.attach(cause, mine[0])


def _fewest(explains: list[tuple[int, Cause, list[Cause]]]) -> list[Explained]:
    """The words that explain most, the shortest of several that explain as much; each cause is explained once.

    Args:
        explains: How many bytes were not read, the cause that these are, and the others.
    """
    out, taken = [], set[Cause]()
    for _, root, rest in sorted(explains, key=lambda each: (-len(each[2]), each[0])):
        mine = [cause for cause in rest if cause not in taken]
        if root in taken or not mine:
            continue
        taken |= {root, *mine}
        out.append(Explained(key_of(root), tuple(key_of(cause) for cause in mine)))
    return out


def _is_fault(cause: Cause) -> bool:
    transient = cause.violations.details.transient
    in_flight = transient is not None and bool(np.asarray(transient[cause.positions]).all())
    return cause.rule.severity != "info" and not in_flight


def _gone(s: Snapshot, word: _Word, look: RulesRun) -> list[Cause]:
    """Which causes are not found any more; the first is the one whose words were not read.

    A rule that needs something whole is silent about all of the target where a part of it was not read. Where that
    part is of the VMAs of an mm, what it would have found in others is found still.
    """
    causes, found = [word.cause, *word.related], dict(look.results)
    left: dict[Rule, set[tuple[object, ...]]] = {}
    silent = set[Rule]()
    for rule in {cause.rule for cause in causes}:
        now = found.get(rule)
        gone = lacking(look.snapshot, rule.needs) if now is not None and not len(now) else ""
        if gone and VMAS.issuperset(gone.split(", ")):
            now = rule.run(look.snapshot)
            silent.add(rule)
        if now is not None and len(now) <= _MOST_FOUND:
            left[rule] = {rule.about.describe(look.snapshot, row).identity for row in now.rows.tolist()}
    subjects = {cause: cause.rule.about.describe(s, cause.first_row) for cause in (*causes, *word.beside)}
    here = {None, *(subjects[cause].mm for cause in (word.cause, *word.beside))}
    out = []
    for cause in causes:
        still, subject = left.get(cause.rule), subjects[cause]
        of_part = cause.rule in silent and subject.mm in here
        if still is not None and (of_part or subject.identity not in still):
            out.append(cause)
    return out


def _has_vanished(s: Snapshot, cause: Cause, now: Snapshot) -> bool:
    """Whether a cause is about anon_vmas or chains that nothing leads to any more: they were none, or led to by it."""
    if cause.rule.about is ANON_VMA:
        known, there = s.anon_rmap.anon_vmas.addr, now.anon_rmap.anon_vmas.addr
    elif cause.rule.about is AVC:
        known, there = s.anon_rmap.avcs.addr, now.anon_rmap.avcs.addr
    else:
        return False
    return not is_among(known[cause.rows], there).any()


def _word(s: Snapshot, cause: Cause, others: list[Cause], mapped: Mask | None) -> _Word | None:
    """The words that a cause is about; None where it is about no word, or no other cause is related to it.

    Args:
        s: The snapshot.
        cause: It.
        others: All causes.
        mapped: The mms that map the pages that it is about; None where it is about no pages.
    """
    places = tuple(_places(s, cause))
    if not places:
        return None
    mms = _mms(s, cause) if mapped is None else mapped
    related = [other for other in _related(s, others, mms) if other is not cause]
    return _Word(cause, places, related, [], _ptes(s, cause)) if related else None


def _ptes(s: Snapshot, cause: Cause) -> I64:
    """The entries of the last level that a cause is about, numbered by their places in memory."""
    rows, tables = cause.rows[:_MOST_ROWS], _tables(s, cause)[:_MOST_ROWS].astype(np.int64)
    slots = s.nonpresent.slot[rows] if cause.rule.about is NONPRESENT else rows & (_SLOTS - 1)
    last = s.tables.level[tables] == Level.PTE
    return s.tables.pfn[tables[last]].astype(np.int64) * _SLOTS + slots[: len(tables)][last]


def _held(s: Snapshot, word: _Word, gone: list[Cause]) -> list[Cause]:
    """Of what is found no more without some PTEs, pages that lost a mapping only where that was one of these PTEs.

    Without them all pages that may be mapped near them count as mapped by what cannot be read.
    """
    lost = [cause for cause in gone if cause.rule in _LOST_MAPPINGS and cause is not word.cause]
    if not len(word.ptes) or not lost:
        return gone
    rows = np.array([cause.first_row for cause in lost], np.int64)
    places = lost_places(s, rows, np.ones(len(s.mms), np.bool_))
    here = np.isin(s.tables.pfn[places.table_idx].astype(np.int64) * _SLOTS + places.slot, word.ptes)
    held = {lost[at] for at in places.asked[here].tolist()}
    return [cause for cause in gone if cause not in lost or cause in held]


def _above(s: Snapshot, causes: list[Cause]) -> Iterator[_Word]:
    """The entries that lead to tables in or below which several causes are: one may lead to a table of another place.

    Of tables above one another that have the same causes the lowest is meant. What is wrong with an entry that leads to
    a table is known by that table: it is the cause, where there is such a one.
    """
    of_table: dict[int, list[Cause]] = {}
    for cause in causes:
        itself = cause.rows if cause.rule.about is TABLE else cause.rows[:0]
        rows = distinct(np.concatenate([itself, _tables(s, cause)])[:_MOST_ROWS].astype(np.int64))
        found: list[int] = []
        while len(rows):
            found += s.tables.pfn[rows].tolist()
            rows = distinct(s.tables.parent[rows].astype(np.int64))
            rows = rows[rows >= 0]
        for pfn in dict.fromkeys(found):
            of_table.setdefault(pfn, []).append(cause)
    most_below = Counter[int]()
    for pfn, mine in of_table.items():
        for row in s.tables.parent[(s.tables.pfn == pfn) & (s.tables.parent >= 0)].tolist():
            above = int(s.tables.pfn[row])
            most_below[above] = max(most_below[above], len(mine))
    for pfn, mine in sorted(of_table.items(), key=lambda each: -len(each[1])):
        if len(mine) > max(1, most_below[pfn]):
            rows = np.flatnonzero((s.tables.pfn == pfn) & (s.tables.parent >= 0))[:_MOST_ROWS]
            mms = np.zeros(len(s.mms), np.bool_)
            mms[s.tables.mm_idx[rows]] = True
            places = tuple(_entries(s, s.tables.parent[rows], s.tables.slot[rows]))
            of_entry = (c for c in mine if c.rule.about is TABLE and s.tables.pfn[c.first_row] == pfn)
            root = next(of_entry, mine[0])
            yield _Word(root, places, [c for c in _related(s, causes, mms) if c is not root], mine)


def _pages(s: Snapshot, causes: list[Cause]) -> Iterator[_Word]:
    """Pages of slabs, objects in which several causes are about or name.

    In turn those in which most anon_vma_chains name no VMA (what names them is found by many causes, but is whole), and
    those that most causes name: what an overwritten anon_vma leads to looks like chains of no VMA too.
    """
    base, shift = s.layout.memory.direct_map_base, s.layout.memmap.page_shift
    of_page: dict[int, list[Cause]] = {}
    for cause in causes:
        named = _named(s, cause)
        for pfn in distinct((named[named >= np.uint64(base)] - np.uint64(base)) >> np.uint64(shift)).tolist():
            of_page.setdefault(pfn, []).append(cause)
    strange = s.anon_rmap.avcs.addr[s.anon_rmap.avcs.vma_idx < 0]
    nonsense = Counter(((strange[strange >= np.uint64(base)] - np.uint64(base)) >> np.uint64(shift)).tolist())
    by_nonsense = sorted(of_page, key=lambda pfn: (-nonsense[pfn], -len(of_page[pfn])))
    by_causes = sorted(of_page, key=lambda pfn: -len(of_page[pfn]))
    in_turn = dict.fromkeys(chain.from_iterable(zip(by_nonsense, by_causes, strict=True)))
    for pfn in islice(in_turn, _MOST_PAGES):
        mine = of_page[pfn]
        if len(mine) > 1 or mine[0].rule.about is MM:
            # An mm may begin in the page before.
            place, size = s.mms.addr - np.uint64(base), s.layout.struct("struct mm_struct").size
            mms = (place < np.uint64((pfn + 1) << shift)) & (place + np.uint64(size) > np.uint64(pfn << shift))
            # Only an mm in the page whose tables are not all found loses mappings with it.
            lossy = mms & ~s.mm_tables_complete
            mms = np.logical_or.reduce([mms, *(_mms(s, cause) for cause in mine)])
            page = _stretch(pfn << shift, 1 << shift, physical=True)
            near = {*mine, *_related(s, causes, mms)}
            related = [c for c in causes if c is not mine[0] and c in near and _may_go(s, c, lossy)]
            yield _Word(mine[0], (page,), related, mine)


def _may_go(s: Snapshot, cause: Cause, lossy: Mask) -> bool:
    """Whether a cause, if it is of a lost table, may be of one of some mms whose tables are not all known."""
    return cause.rule is not page_table_unreachable or _hangs_in(s, cause, lossy)


def _named(s: Snapshot, cause: Cause) -> U64:
    """Addresses of the objects that the subjects of a cause are, or name."""
    about, rows = cause.rule.about, cause.rows[:_MOST_ROWS]
    vmas, avcs, anon_vmas = s.vmas, s.anon_rmap.avcs, s.anon_rmap.anon_vmas
    found: tuple[U64, ...] = ()
    if about is MM and cause.rule.phase < Phase.SUMS:
        trees = s.vma_trees
        found = (s.mms.addr[rows], trees.stray[np.isin(trees.stray_mm, rows)])
    elif about is VMA:
        chains = avcs.addr[np.isin(avcs.list_vma_idx, rows)]
        found = (vmas.addr[rows], vmas.anon_vma[rows], s.mapping_of_vma[rows], chains)
    elif about is ADDRESS_SPACE and about.addresses is not None:
        found = (about.addresses(s, rows),)
    elif about is AVC:
        in_tree = rows[avcs.tree_idx[rows] >= 0]
        named = (column[rows] for column in (avcs.addr, avcs.vma, avcs.anon_vma, avcs.tree_parent))
        found = (*named, anon_vmas.addr[avcs.tree_idx[in_tree]])
    elif about is ANON_VMA:
        found = (anon_vmas.addr[rows], anon_vmas.root[rows], anon_vmas.parent[rows])
    return np.concatenate([np.empty(0, np.uint64), *found])


def _tables(s: Snapshot, cause: Cause) -> AnyArray:
    """Rows of the page tables in which the entries are that a cause is about."""
    about, rows = cause.rule.about, cause.rows
    if about is ENTRY:
        return rows >> ENTRY_ID_SLOT_BITS
    return s.nonpresent.table_idx[rows] if about is NONPRESENT else rows[:0]


def _related(s: Snapshot, causes: list[Cause], mms: Mask) -> list[Cause]:
    """The causes that are about something of some mms."""
    out = set[Cause]()
    owners = _owners_of_lost(s, mms)
    for about in {cause.rule.about for cause in causes}:
        mine = [cause for cause in causes if cause.rule.about is about and cause.rule is not page_table_unreachable]
        which = np.repeat(np.arange(len(mine)), [len(cause.rows[:_MOST_ROWS]) for cause in mine])
        rows = np.concatenate([np.empty(0, np.int64), *(cause.rows[:_MOST_ROWS] for cause in mine)])
        if not len(rows):
            continue
        owned = about.owned(s, rows, mms)
        if about in (PAGE, FOLIO) and len(owners):
            head = np.maximum(about.heads(s, rows), 0)
            owned = owned | np.isin(s.pages.mapping[head] & ~np.uint64(MAPPING_TAGS), owners)
        out |= {mine[at] for at in distinct(which[owned]).tolist()}
    for cause in causes:
        if cause.rule is page_table_unreachable and _hangs_in(s, cause, mms):
            out.add(cause)
    out |= _slots_of(causes, [cause for cause in out if cause.rule is rss_mismatch])
    return [cause for cause in causes if cause in out]


def _slots_of(causes: list[Cause], off: list[Cause]) -> set[Cause]:
    """Swap slots with as many references too many as some mms count swap entries too many: theirs were lost."""
    slots = [cause for cause in causes if cause.rule is swap_count_high]
    lost = sum(int((c.observed(_SWAPENTS) - c.expected(_SWAPENTS)).sum()) for c in off)
    high = sum(int((c.observed("count") - c.expected("count")).sum()) for c in slots)
    return set(slots) if lost == high else set()


def _hangs_in(s: Snapshot, cause: Cause, mms: Mask) -> bool:
    """Whether an unreachable page table may be of some mms; an empty one, whether one of all mms lacks it."""
    return may_hang_in(s, [cause], mms, empty=pgtables_bytes_mismatch.slug in cause.also)


def _owners_of_lost(s: Snapshot, mms: Mask) -> U64:
    """anon_vmas and address_spaces of the VMAs of some mms that their trees do not lead to."""
    avcs, nodes, addresses = s.anon_rmap.avcs, s.file_rmap.nodes, s.mms.addr[mms]
    strange = np.flatnonzero(avcs.vma_idx < 0)
    offset = np.uint64(s.layout.struct("struct vm_area_struct").field("vm_mm").offset)
    of_mm, _ = s.layout.memory.words(avcs.vma[strange] + offset)
    spaces = nodes.address_space_idx[(nodes.vma_idx < 0) & np.isin(nodes.vm_mm, addresses)]
    return np.concatenate([avcs.anon_vma[strange[np.isin(of_mm, addresses)]], s.file_rmap.address_spaces.addr[spaces]])


def _mapped(s: Snapshot, causes: list[Cause]) -> dict[Cause, Mask]:
    """The mms that map the first page, or folio, of those causes that are about some; found in one walk."""
    some = [cause for cause in causes if cause.rule.about in (PAGE, FOLIO)]
    if not some:
        return {}
    first, nr = np.array([_pfns(s, cause)[0] for cause in some], np.int64).T
    found = MappingsOfPages(s, first, nr, shared=True)
    run_collectors(s, [found])
    out = {}
    for cause, runs in zip(some, found.runs(), strict=True):
        out[cause] = np.zeros(len(s.mms), np.bool_)
        out[cause][runs.mm_idx] = True
    return out


def _mms(s: Snapshot, cause: Cause) -> Mask:
    """The mms that the subjects of a cause belong to, if these are no pages."""
    about, rows = cause.rule.about, cause.rows[:_MOST_ROWS]
    out = np.zeros(len(s.mms), np.bool_)
    if about is ENTRY:
        rows = (rows >> ENTRY_ID_SLOT_BITS).astype(np.int64)
    if about in (ENTRY, TABLE):
        # A table that several mms share is damaged for all of them.
        out[s.tables.mm_idx[np.isin(s.tables.pfn, s.tables.pfn[rows])]] = True
    elif about is NONPRESENT:
        out[s.nonpresent.mm_idx[rows]] = True
    elif about is VMA:
        out[s.vmas.mm_idx[rows]] = True
    elif about is MM:
        out[rows] = True
    elif about in (AVC, ANON_VMA):
        out[s.vmas.mm_idx[_vmas(s, cause)]] = True
    return out


def _vmas(s: Snapshot, cause: Cause) -> I64:
    """VMAs of the family of the anon_vmas that a cause is about."""
    avcs, anon_vmas, rows = s.anon_rmap.avcs, s.anon_rmap.anon_vmas, cause.rows[:_MOST_ROWS]
    if cause.rule.about is AVC:
        rows = np.concatenate([avcs.anon_vma_idx[rows], avcs.tree_idx[rows]])
        rows = rows[rows >= 0]
    roots = distinct(np.concatenate([rows, take_or(anon_vmas.root_idx, rows, -1)]).astype(np.int64))
    family = np.isin(anon_vmas.root_idx, roots[roots >= 0]) | np.isin(np.arange(len(anon_vmas)), roots)
    of_family = take_or(family, avcs.anon_vma_idx, False) | take_or(family, avcs.tree_idx, False)
    vmas = np.concatenate([avcs.vma_idx[of_family], avcs.list_vma_idx[of_family]])
    return distinct(vmas[vmas >= 0].astype(np.int64))


def _pfns(s: Snapshot, cause: Cause) -> list[tuple[int, int]]:
    if cause.rule.about is FOLIO:
        rows = cause.rows[:1]
        return [(int(s.folios.pfn[row]), max(min(int(s.folios.nr_pages[row]), _LARGEST), 1)) for row in rows.tolist()]
    return [(int(pfn), 1) for pfn in s.pages.memmap.pfns_of_rows(cause.rows[:1]).tolist()]


def _places(s: Snapshot, cause: Cause) -> Iterator[Stretch]:
    """The words, or objects, that a cause is about."""
    about, rows = cause.rule.about, cause.rows[:_MOST_ROWS]
    if about is ENTRY:
        yield from _entries(s, _tables(s, cause)[:_MOST_ROWS], rows & (_SLOTS - 1))
    elif about is NONPRESENT:
        yield from _entries(s, _tables(s, cause)[:_MOST_ROWS], s.nonpresent.slot[rows])
    elif about is TABLE:
        rows = rows[s.tables.parent[rows] >= 0]
        yield from _entries(s, s.tables.parent[rows], s.tables.slot[rows])
    elif about is VMA:
        yield from _objects(s, s.vmas.addr[rows], "struct vm_area_struct")
    elif about is AVC:
        yield from _objects(s, s.anon_rmap.avcs.addr[rows], "struct anon_vma_chain")
    elif about is ANON_VMA:
        yield from _objects(s, s.anon_rmap.anon_vmas.addr[rows], "struct anon_vma")
    elif about in (PAGE, FOLIO) and cause.rule is not page_table_unreachable:
        memmap = s.layout.memmap
        for pfn, nr in _pfns(s, cause):
            yield _stretch(memmap.page_addr(pfn), min(nr, _COUNTER_PAGES) * memmap.page_size, physical=False)


def _entries(s: Snapshot, table: AnyArray, slot: AnyArray) -> Iterator[Stretch]:
    shift = s.layout.memmap.page_shift
    for pfn, at in zip(s.tables.pfn[table].tolist(), slot.tolist(), strict=True):
        yield _stretch((pfn << shift) + _ENTRY * at, _ENTRY, physical=True)


def _objects(s: Snapshot, addresses: U64, struct: str) -> Iterator[Stretch]:
    base, size = s.layout.memory.direct_map_base, s.layout.struct(struct).size
    for address in addresses.tolist():
        if address >= base:
            yield _stretch(address - base, size, physical=True)


def _stretch(address: int, size: int, *, physical: bool) -> Stretch:
    return Stretch(Subject(kind="memory"), address, size, physical, "", "", "", "")
