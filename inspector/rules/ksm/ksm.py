"""Rules of KSM: stable nodes, rmap_items and the counters that are kept of them."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import I64, AnyArray, Mask, rows_of, take_or
from inspector.layout.flags import MAPPING_TAGS
from inspector.rules.diagnosis import lost_rmap
from inspector.rules.needs import ANON_VMAS, MERGED, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import KSM, MM, PAGE, STABLE_NODE
from inspector.tables.ksm import CHAIN, DUP
from inspector.violations import NOTHING, Things, Unread, Violations, cannot_check, holds, one, violations
from inspector.walk.batches import Collector, EntryBatch, PagesByMm
from inspector.walk.counts import EntryClass
from inspector.walk.ksm_rmap import KsmEntries, KsmRmap, nodes_of, own_items_lost
from inspector.walk.mappings import Mappings
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect
from inspector.workers import InOrder


def _unread(s: Snapshot, nr: int) -> Unread:
    """So many subjects cannot be checked where KSM's structures could not be read whole; nothing where they were."""
    if not s.ksm.known:
        return cannot_check(nr, "KSM's stable trees cannot be found")
    if not s.ksm.sound:
        return cannot_check(nr, "some of KSM's nodes, items or lists cannot be read or followed")
    return Unread()


def _active(s: Snapshot, n: int) -> Mask:
    return np.full(n, s.ksm.active)


def _locked(s: Snapshot, rows: I64) -> Mask:
    return s.layout.flags.test(s.pages.flags[rows], "locked")


@rule(
    "ksm-node-mismatch",
    PAGE,
    "ksm",
    Phase.LINKS,
    effect=Effect.KSM,
    needs=MERGED,
    decides="61 62",
)
def ksm_node_mismatch(s: Snapshot) -> Violations:
    """A mapped KSM page and its stable node do not name each other.

    Invariant: the mapping of a KSM page is a stable node in one of KSM's trees or chains, and that node's kpfn is the
        page.
    Why: mm/ksm.c, stable_tree_insert() and folio_set_stable_node(); ksm_get_folio() tests the pair.
    Consequence: the node is taken for stale and pruned: the page's rmap_items are lost and it can never be unmapped.
    Exceptions: the page is not mapped any more (nodes outlive their pages and are pruned later); the page is locked
        (migration), or KSM is at work (ksm_thread_mutex held). The page names no node, and no node with rmap_items
        names it: try_to_merge_one_page() makes it a KSM page without one, and when the second page cannot be merged
        with it, or stable_tree_insert() fails, break_cow() takes it from its mm alone: a child that was forked in
        between keeps it.
    See also: folioscope ksm; folioscope folio PFN
    """
    pages, nodes = s.pages, s.ksm.nodes
    rows = s.named.ksm_heads
    node = nodes_of(s.ksm, pages.mapping[rows])
    pfn = pages.memmap.pfns_of_rows(rows)
    kpfn = take_or(nodes.kpfn, node, -1)
    gone = _unread(s, int((node < 0).sum()))
    in_use = nodes.kpfn[(nodes.kind != CHAIN) & (nodes.nr_items > 0)]
    broken = ((pages.mapping[rows] & ~np.uint64(MAPPING_TAGS)) == 0) & ~np.isin(pfn, in_use)
    bad = np.flatnonzero(((node >= 0) & (kpfn != pfn)) | ((node < 0) & ~broken & (not gone.nr)))
    return violations(
        rows[bad],
        observed={"kpfn": np.where(node[bad] >= 0, kpfn[bad], -1), "in_trees": node[bad] >= 0},
        expected={"kpfn": pfn[bad], "in_trees": np.ones(len(bad), np.bool_)},
        checked=len(rows) - gone.nr,
        unread=gone,
        facts={"stable_node": pages.mapping[rows[bad]] & ~np.uint64(MAPPING_TAGS)},
        claims=one("stable_node", node[bad]),
        transient=_active(s, len(bad)) | _locked(s, rows[bad]),
    )


@rule(
    "ksm-list-length-mismatch",
    STABLE_NODE,
    "ksm",
    Phase.LINKS,
    after=(
        "ksm-item-mm-mismatch",
        "ksm-tree-damaged",
    ),
    effect=Effect.KSM,
    needs=MERGED,
    decides="63",
    was="ksm-list-length",
)
def ksm_list_length_mismatch(s: Snapshot) -> Violations:
    """rmap_hlist_len of a stable node is not the length of its list, or the list cannot be followed.

    Invariant: rmap_hlist_len of a stable node is the number of rmap_items on its list.
    Why: mm/ksm.c, stable_tree_append() and remove_rmap_item_from_tree() change both together.
    Consequence: too long lists make chains too early or never; a lost item hides mappings from reclaim and migration.
    Exceptions: KSM is at work (ksm_thread_mutex held). The head of a chain counts nothing (STABLE_NODE_CHAIN).
    See also: folioscope ksm
    """
    nodes = s.ksm.nodes
    plain = nodes.kind != CHAIN
    # A list that leads to unread memory can be neither counted nor called broken.
    unread = plain & nodes.broken & (not s.ksm.items_whole)
    rows = np.flatnonzero(~unread & (nodes.broken | (plain & (nodes.hlist_len != nodes.nr_items))))
    return violations(
        rows,
        observed={"rmap_hlist_len": nodes.hlist_len[rows], "list_whole": ~nodes.broken[rows]},
        expected={
            "rmap_hlist_len": np.where(plain, nodes.nr_items, nodes.hlist_len)[rows],
            "list_whole": np.ones(len(rows), np.bool_),
        },
        checked=int((~unread).sum()),
        unread=cannot_check(int(unread.sum()), "some rmap_items are not in the dump"),
        facts={"kpfn": nodes.kpfn[rows]},
        claims=one("stable_node", rows) + one("ksm", np.where(nodes.broken[rows] | _lost_items(s), 0, -1)),
        transient=_active(s, len(rows)),
    )


def _lost_items(s: Snapshot) -> bool:
    """Whether items with STABLE_FLAG are on no stable node's list."""
    items = s.ksm.items
    return bool(((items.flags & 0x200 != 0) & (items.node_idx < 0)).any())


@rule(
    "ksm-tree-damaged",
    STABLE_NODE,
    "ksm",
    Phase.LINKS,
    effect=Effect.KSM,
    needs=MERGED,
    decides="64",
)
def ksm_tree_damaged(s: Snapshot) -> Violations:
    """A stable tree of KSM is damaged, or its list of mm slots or of migrated nodes is.

    Invariant: the stable trees are sound red-black trees: each node names its parent, no red node has a red parent, no
        node is reached twice. The lists of mm slots and of nodes that wait for another tree come back to their heads.
    Why: mm/ksm.c, stable_tree_insert() and stable_tree_search(); lib/rbtree.c.
    Consequence: ksmd loops or merges pages into a node that no rmap walk reaches.
    Exceptions: KSM is at work (ksm_thread_mutex held).
    See also: folioscope ksm
    """
    nodes, damaged = s.ksm.nodes, s.ksm.damaged_lists
    rows = np.flatnonzero(nodes.misplaced)
    if damaged and not len(rows):
        none = np.zeros(1, np.int64)
        observed, expected = {"damaged_lists": none + damaged}, {"damaged_lists": none}
        return violations(
            none - 1, observed=observed, expected=expected, checked=2, claims=one("ksm", none), transient=_active(s, 1)
        )
    return violations(
        rows,
        observed={"tree_sound": np.zeros(len(rows), np.bool_)},
        expected={"tree_sound": np.ones(len(rows), np.bool_)},
        checked=len(nodes) + 2,
        facts={"tree": nodes.tree[rows]},
        claims=one("ksm", np.zeros(len(rows), np.int64)),
        transient=_active(s, len(rows)),
    )


@rule(
    "ksm-item-mm-mismatch",
    KSM,
    "ksm",
    Phase.LINKS,
    effect=Effect.KSM,
    needs=MERGED,
    decides="64",
    was="ksm-item-of-another-mm",
)
def ksm_item_mm_mismatch(s: Snapshot) -> Violations:
    """An rmap_item names another mm than the one on whose list it is.

    Invariant: every rmap_item on an mm slot's list names that slot's mm.
    Why: mm/ksm.c, get_next_rmap_item() sets both when it makes the item.
    Consequence: when that mm goes, its items are freed while others use them, or stay behind and name a dead mm.
    Exceptions: ksm_thread_mutex is held.
    See also: folioscope ksm
    """
    items, slots = s.ksm.items, s.ksm.slots
    able = items.slot_idx >= 0
    own = take_or(slots.mm, items.slot_idx, 0)
    rows = np.flatnonzero(able & (items.mm != own))
    gone = _unread(s, len(rows))
    return violations(
        np.zeros(len(rows), np.int64),
        observed={"mm": items.mm[rows]},
        expected={"mm": own[rows]},
        checked=int(able.sum()),
        unread=gone,
        facts={"rmap_item": items.addr[rows], "va": items.va[rows]},
        claims=one("ksm", np.zeros(len(rows), np.int64)),
        transient=_active(s, len(rows)),
    )


class _KsmMappings(Collector):
    """Entries of KSM pages, those of them that no rmap_item leads to, and the items that lead to one of their own mm.

    Attributes:
        nr: How many there are.
    """

    gathers = ("nr", "_lost", "_leading")

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self._rmap = KsmRmap(s) if len(s.named.ksm_heads) else None
        self._lost: InOrder[KsmEntries] = InOrder()
        self._leading: InOrder[I64] = InOrder()
        self.nr = 0

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        ksm = batch.link_kinds.examples.is_ksm
        if self._rmap is not None and ksm.any():
            entries = self._rmap.entries(batch.link_kinds.links(ksm))
            self.nr += len(entries)
            self._lost.add(batch.number, entries.take(~entries.reached))
            s, found = self.s, entries.take(entries.reached)
            own = s.ksm.items.mm[found.item_idx] == s.mms.addr[s.vmas.mm_idx[found.vma_idx]]
            self._leading.add(batch.number, np.unique(found.item_idx[own]).astype(np.int64))

    @property
    def lost(self) -> KsmEntries:
        """The entries that an item of their own mm should lead to, and none does."""
        lost = KsmEntries.concat([KsmEntries.empty(), *self._lost])
        leading = np.concatenate([np.empty(0, np.int64), *self._leading])
        return lost.take(own_items_lost(self.s, lost, leading))

    @property
    def nr_without_item(self) -> int:
        """How many entries no item leads to, of its own mm or of another."""
        return sum(map(len, self._lost))


@rule(
    "ksm-mapping-unreachable",
    PAGE,
    "ksm",
    Phase.LINKS,
    after=(
        "ksm-list-length-mismatch",
        "ksm-node-mismatch",
        "shared-vma-anon-page-unexpected",
    ),
    effect=Effect.KSM,
    needs=MERGED | VMAS | ANON_VMAS,
    decides="64",
    diagnose=lost_rmap("no rmap_item of the stable node leads to the entry"),
    collects=(_KsmMappings,),
)
def ksm_mapping_unreachable(s: Snapshot) -> Violations:
    """An entry maps a KSM page at an address that no rmap_item of its stable node leads to.

    Invariant: an mm's stable rmap_item is on the list of the stable node that it names, has the address of an entry of
        that node's page, and an anon_vma in whose interval tree the entry's VMA is.
    Why: mm/ksm.c, stable_tree_append() puts it there, rmap_walk_ksm() goes that way (6.1 to 7.3); from 7.2 on the
        item's linear_page_index must lie in the VMA, too.
    Consequence: reclaim and migration leave the entry behind: it maps a page that is used for other data then.
    Exceptions: the entry's mm has no stable item of that node: fork() copied the entry, it was found through the item
        of the mm that it was copied from (rmap_walk_ksm(), search_new_forks), and that item is gone. KSM is at work
        (ksm_thread_mutex held), or the mm is being built, changed or torn down.
    See also: folioscope ksm; folioscope rmap PFN
    """
    seen, vmas = s.collected(_KsmMappings), s.vmas
    gone = _unread(s, seen.nr_without_item)
    found = seen.lost.take(slice(0, 0) if gone.nr else slice(None))
    n = len(found)
    moving = np.zeros(n, np.bool_)
    if len(vmas):
        moving = (mm_in_flight(s) | s.mm_in_motion)[vmas.mm_idx[found.vma_idx]]
    return violations(
        found.head_row.astype(np.int64),
        observed={"found_by_rmap": np.zeros(n, np.bool_)},
        expected={"found_by_rmap": np.ones(n, np.bool_)},
        checked=seen.nr - gone.nr,
        unread=gone,
        facts={"va": found.va, "mm": s.mms.addr[vmas.mm_idx[found.vma_idx]] if len(vmas) else found.va},
        depends=one("stable_node", found.node_idx) + one("vma", found.vma_idx) + _anon_vmas_of(s, found.vma_idx),
        transient=_active(s, n) | moving,
    )


def _anon_vmas_of(s: Snapshot, vma_idx: AnyArray) -> Things:
    """The anon_vma of each VMA."""
    if not len(s.vmas):
        return NOTHING
    return one("anon_vma", rows_of(s.anon_rmap.anon_vmas.addr, s.vmas.anon_vma[vma_idx]))


@rule(
    "ksm-totals-mismatch",
    KSM,
    "ksm",
    Phase.TOTALS,
    effect=Effect.KSM,
    needs=MERGED,
    decides="65",
    severity="warn",
)
def ksm_totals_mismatch(s: Snapshot) -> Violations:
    """KSM's totals are not the numbers of its stable nodes and rmap_items.

    Invariant: pages_shared is the number of stable nodes with rmap_items, pages_sharing that of all other rmap_items on
        their lists; stable_node_chains and stable_node_dups count the chains and their members.
    Why: mm/ksm.c, stable_tree_append(), remove_rmap_item_from_tree(), alloc_stable_node_chain().
    Consequence: /sys/kernel/mm/ksm shows wrong savings.
    Exceptions: KSM is at work (ksm_thread_mutex held), or some of its lists cannot be read.
    See also: folioscope ksm
    """
    ksm, nodes = s.ksm, s.ksm.nodes
    gone = _unread(s, 1)
    if gone.nr or not ksm.totals:
        return holds(0, gone)
    used = (nodes.kind != CHAIN) & (nodes.nr_items > 0)
    expected = {
        "pages_shared": int(used.sum()),
        "pages_sharing": int(nodes.nr_items[used].sum()) - int(used.sum()),
        "stable_node_chains": int((nodes.kind == CHAIN).sum()),
        "stable_node_dups": int((nodes.kind == DUP).sum()),
    }
    # A kernel may keep fewer of them than we know.
    expected = {name: value for name, value in expected.items() if name in ksm.totals}
    rows = np.arange(any(ksm.totals[name] != value for name, value in expected.items()), dtype=np.int64)
    return violations(
        rows,
        observed={name: np.full(len(rows), ksm.totals[name]) for name in expected},
        expected={name: np.full(len(rows), value) for name, value in expected.items()},
        checked=len(expected),
        claims=one("ksm", rows),
        transient=_active(s, len(rows)),
    )


@rule(
    "ksm-mm-counters-low",
    MM,
    "ksm",
    Phase.TOTALS,
    after=("ksm-totals-mismatch",),
    effect=Effect.KSM,
    needs=MERGED,
    decides="65",
    severity="warn",
    exactness="bound",
)
def ksm_mm_counters_low(s: Snapshot) -> Violations:
    """An mm's count of merged pages is lower than the number of its rmap_items on stable nodes.

    Invariant: ksm_merging_pages is at least the number of the mm's rmap_items on stable nodes, ksm_rmap_items at least
        that of the items on its list. (More is legal: before 6.17 a child began with its parent's counts.)
    Why: mm/ksm.c, stable_tree_append() and get_next_rmap_item().
    Consequence: /proc/PID/ksm_stat is wrong; the counts run below zero when the items go.
    Exceptions: KSM is at work (ksm_thread_mutex held), or some of its lists cannot be read.
    See also: folioscope ksm
    """
    ksm, mms = s.ksm, s.mms
    gone = _unread(s, len(mms))
    if gone.nr or not len(mms):
        return holds(0, gone)
    merged = _per_mm(s, ksm.items.mm[ksm.items.node_idx >= 0])
    items = np.zeros(len(mms), np.int64)
    at = rows_of(s.mms.addr, ksm.slots.mm)
    np.add.at(items, at[at >= 0], ksm.slots.nr_items[at >= 0])
    low = (ksm.mms.merging_pages < merged) & (ksm.mms.merging_pages != -1)
    low |= (ksm.mms.rmap_items < items) & (ksm.mms.rmap_items != -1)
    rows = np.flatnonzero(low & ksm.mms.readable)
    return violations(
        rows,
        observed={"ksm_merging_pages": ksm.mms.merging_pages[rows], "ksm_rmap_items": ksm.mms.rmap_items[rows]},
        expected={"ksm_merging_pages": merged[rows], "ksm_rmap_items": items[rows]},
        checked=int(ksm.mms.readable.sum()),
        depends=one("ksm", np.zeros(len(rows), np.int64)),
        transient=_active(s, len(rows)),
    )


def _per_mm(s: Snapshot, mm: AnyArray) -> I64:
    """How many of the given addresses are those of each mm."""
    at = rows_of(s.mms.addr, mm)
    return np.bincount(at[at >= 0], minlength=len(s.mms)).astype(np.int64)


class _KsmZeroPages(PagesByMm):
    """Dirty entries of the shared zero page."""

    def some(self, m: Mappings) -> Mask:
        """Which entries count."""
        return (m.entry_class == EntryClass.ZERO) & (m.level == Level.PTE) & ((m.bits & Bit.DIRTY) != 0)


@rule(
    "ksm-zero-pages-mismatch",
    MM,
    "ksm",
    Phase.TOTALS,
    effect=Effect.KSM,
    needs=VMAS | PAGES,
    decides="136",
    severity="warn",
    collects=(_KsmZeroPages,),
)
def ksm_zero_pages_mismatch(s: Snapshot) -> Violations:
    """ksm_zero_pages of an mm is not the number of dirty entries of the zero page in its page tables.

    Invariant: ksm_zero_pages of an mm is the number of its entries of the shared zero page that are dirty: that is how
        KSM marks those it placed (use_zero_pages). Kept since 6.6. The global count drifts and is not checked.
    Why: include/linux/ksm.h, is_ksm_zero_pte(); mm/ksm.c, replace_page().
    Consequence: /proc/PID/ksm_stat shows a wrong saving.
    Exceptions: the mm is being built, changed or torn down, KSM is at work, or page tables are missing.
    See also: folioscope vmas PID
    """
    stored, mms = s.ksm.mms, s.mms
    rebuilt = s.collected(_KsmZeroPages).pages
    has = s.layout.struct("struct mm_struct").has("ksm_zero_pages")
    able = stored.readable & s.mm_tables_complete & (mms.users > 0) & has
    rows = np.flatnonzero(able & (stored.zero_pages != rebuilt))
    unchecked = int((~s.mm_tables_complete).sum())
    return violations(
        rows,
        observed={"ksm_zero_pages": stored.zero_pages[rows]},
        expected={"ksm_zero_pages": rebuilt[rows]},
        checked=int(able.sum()),
        unread=cannot_check(unchecked if has else 0, "page tables of some processes are missing"),
        transient=_active(s, len(rows)) | mm_in_flight(s)[rows],
    )
