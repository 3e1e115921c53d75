"""Used memory for enlarged dumps: families of processes that share anonymous pages, each page mapped by every member.

A family is a parent and its children as fork leaves them: one VMA each over the same addresses, the children's VMAs on
the parent's anon_vma as well as on their own, every page with as many entries as there are members. The mm_structs,
VMAs, anon_vmas and chains are copies of real ones of the dump with other numbers in them; no task uses them. Neighbours
in a page table are none in memory, so that nearly every entry is a run of its own. The members' page tables have equal
content and are in the file once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, U8, U64, Mask
from inspector.layout.flags import MAPPING_ANON
from inspector.layout.offsets import Field, Struct
from inspector.model.stats import RssKind
from inspector.snapshot import Snapshot
from tests.bench.listed import Listed
from tests.bench.patching import PAGE, Patched, put
from tests.bench.writers import Writer

_PER_TABLE = 512
_FAMILY_PAGES = 1 << 18
_VA = 0x7000_0000_0000
_TABLE = 0x067
"""_PAGE_TABLE: present, writable, for users, accessed, dirty."""
_SHARED, _OWN = 0x8000000000000025, 0x8000000000000067
"""Entries of pages that several mms map, read-only, and of those of one, writable and dirty; not executable."""
_VM_READ_WRITE, _VM_UNLIKE = 0x3, 0x4 | 0x8 | 0x100 | 0x2000 | 0x400000
"""Flags that the VMA to copy must have; those it must not: executable, shared, growing, locked, hugetlb."""
_MAPLE_LEAF = 1
"""maple_leaf_64 of enum maple_type (include/linux/maple_tree.h)."""
_RED, _BLACK = 0, 1
_MAP_PAGES = 64
"""Struct pages in a page of memory map."""
_PIECE = 512
_ALIGNMENT = 1024
_ALL_ONES = 0xFFFFFF
"""Upper bits of compound_info where it is a mask."""


@dataclass(frozen=True)
class Plan:
    """How much there is of everything, and where; page frames are the first of each region.

    Attributes:
        families, members, pages: Families, mms of each, pages of each.
        slabs, tables, user, end: Slabs of mm_structs, page tables, the pages themselves, what follows.
        slab_order: Of one slab.
        mms_a_slab: mm_structs in one.
    """

    families: int
    members: int
    pages: int
    slabs: int
    tables: int
    user: int
    end: int
    slab_order: int
    mms_a_slab: int

    @property
    def nr_mms(self) -> int:
        """All mms."""
        return self.families * self.members

    @property
    def lower_tables(self) -> int:
        """Tables of PTEs of one mm."""
        return self.pages // _PER_TABLE

    @property
    def upper_tables(self) -> int:
        """Tables of PMD entries of one mm."""
        return -(-self.lower_tables // _PER_TABLE)

    @property
    def tables_each(self) -> int:
        """All tables of one mm, the top one included."""
        return self.lower_tables + self.upper_tables + 2


class Users:
    """Adds families to a dump that is being enlarged.

    Args:
        s: The dump.
        patched: It with changes; gives out page frames for objects of the kernel, the last that are reserved.
        nr_pages: How many pages are to be used at most.
        members: mms that map each.
    """

    def __init__(self, s: Snapshot, patched: Patched, nr_pages: int, members: int) -> None:
        self._s, self._layout, self._patched = s, s.layout, patched
        self._memory, self._page = s.layout.memory, s.layout.struct("struct page")
        cache = s.layout.struct("struct kmem_cache")
        at = s.layout.variable("mm_cachep") or 0
        self._slot_size = self._number(at, cache.field("size"))
        pad = cache.find("red_left_pad")
        self._slot_pad = self._number(at, pad) if pad is not None else 0
        self._mm_row, self._vma_row = self._likely_mm(), self._likely_vma()
        self._slab_pages = self._likely_slab()
        order = len(self._slab_pages).bit_length() - 1
        each = (PAGE << order) // self._slot_size
        pages = min(_FAMILY_PAGES, nr_pages // _PER_TABLE * _PER_TABLE)
        if not pages:
            raise SystemExit(f"fewer than {_PER_TABLE} pages cannot be shared")
        families = nr_pages // pages
        self._kinds = {
            name: _Kind(s.layout.struct(f"struct {name}").size, families * members * nr)
            for name, nr in (("vm_area_struct", 1), ("anon_vma", 1), ("anon_vma_chain", 2), ("maple_node", 1))
        }
        self._listed = Listed(s, patched, file=False)
        self._at = {name: patched.take(kind.nr_pages) for name, kind in self._kinds.items()}
        slabs = -(-patched.next_free // _MAP_PAGES) * _MAP_PAGES
        tables = slabs + -(-(-(-families * members // each) << order) // _MAP_PAGES) * _MAP_PAGES
        # Page frames of which the last two numbers are not known yet only count.
        counts = Plan(families, members, pages, slabs, tables, 0, 0, order, each)
        user = _aligned(tables + counts.tables_each * counts.nr_mms)
        self.plan = Plan(families, members, pages, slabs, tables, user, _aligned(user + families * pages), order, each)
        # Neighbours in the page table are none in memory; in each table alike.
        self._place = np.random.default_rng(7).permutation(_PER_TABLE)

    def _number(self, address: int, field: Field) -> int:
        """A member of a struct, of which a capture may hold no more than what a check reads."""
        data = self._memory.read(address + field.offset, field.size)
        if data is None:
            raise SystemExit(f"the dump lacks what is at {address + field.offset:#x}")
        return int.from_bytes(data, "little")

    def _raw(self, struct: Struct, address: int) -> U8:
        """One struct as it is in the dump: uint8[1, size]."""
        found = self._memory.gather(np.array([address], np.uint64), struct.size)
        if not found.valid.all():
            raise SystemExit(f"the dump lacks the {struct.name} at {address:#x}")
        return found.bytes.copy()

    def _likely_mm(self) -> int:
        """Row of an mm to copy: of a process at rest that has nothing special."""
        mms = self._s.mms
        words, number, count = np.unique(mms.flags, return_inverse=True, return_counts=True)
        fits = (mms.nr_tasks == 1) & ~mms.locked & ~mms.read_locked & ~mms.on_mmlist & mms.rss_valid
        fits &= (mms.hugetlb_pages == 0) & (mms.tlb_flush_pending == 0) & (number == np.argmax(count))
        return _first(fits, f"an mm to copy among {len(words)} kinds")

    def _likely_vma(self) -> int:
        """Row of a VMA to copy: private anonymous memory that has been written to."""
        v = self._s.vmas
        fits = (v.file == 0) & (v.ops == 0) & (v.anon_vma != 0) & v.attached & (v.private == 0)
        fits &= (v.flags & np.uint64(_VM_READ_WRITE | _VM_UNLIKE)) == np.uint64(_VM_READ_WRITE)
        words, number = np.unique(v.flags, return_inverse=True)
        usual = np.argmax(np.bincount(number[fits], minlength=len(words)))
        return _first(fits & (number == usual), "a VMA to copy")

    def _likely_slab(self) -> U8:
        """The struct pages of a slab of mm_structs."""
        layout, page, memmap = self._layout, self._page, self._layout.memmap
        pfn = (int(self._s.mms.addr[self._mm_row]) - self._memory.direct_map_base) // PAGE
        link = int(page.field("compound_info", "compound_head").column(self._struct_page(pfn))[0])
        if link & 1:
            # The mask of 7.1 and later, or a pointer.
            head = memmap.page_addr(pfn) & link & ~1 if link >> 40 == _ALL_ONES else link - 1
            pfn = int(memmap.pfns(np.array([head], np.uint64))[0])
        order = 0
        if layout.flags.test(page.field("flags.f", "flags").column(self._struct_page(pfn)), "head")[0]:
            tail = self._struct_page(pfn + 1)
            own = page.find("compound_order")
            word = own.column(tail)[0] if own is not None else page.field("flags.f", "flags").column(tail)[0]
            order = int(word) & 0xFF
        return self._memory.gather(memmap.page_addrs(np.arange(pfn, pfn + (1 << order))), page.size).bytes.copy()

    def _struct_page(self, pfn: int) -> U8:
        return self._raw(self._page, self._layout.memmap.page_addr(pfn))

    def write(self, writer: Writer, added: int, own_map: int, zone_word: int) -> None:
        """Write everything, the memory map of it included.

        Args:
            writer: Of the dump.
            added: The first page frame that is added.
            own_map: Where its struct page lies: a page frame.
            zone_word: The bits of page flags that say zone and node.
        """
        self._zone, self._map = zone_word, own_map - added // _MAP_PAGES
        self._write_kernel(writer)
        self._write_mms(writer)
        self._write_tables(writer)
        self._write_pages(writer)
        self._count()

    def _addresses(self, name: str) -> U64:
        """Of all objects of a kind."""
        kind = self._kinds[name]
        return _from(self._patched.address(self._at[name]), np.arange(kind.nr) * kind.step)

    @property
    def _mms(self) -> U64:
        """Addresses of the mm_structs."""
        plan = self.plan
        slab, slot = np.divmod(np.arange(plan.nr_mms), plan.mms_a_slab)
        base = self._patched.address(plan.slabs) + self._slot_pad
        return _from(base, (slab << plan.slab_order) * PAGE + slot * self._slot_size)

    def _copies(self, name: str, address: int) -> U8:
        """As many copies of a struct as there are objects of the kind; pointers into itself point into each copy."""
        struct = self._layout.struct(f"struct {name}")
        return _copied(self._raw(struct, address), address, self._addresses(name))

    def _store(self, writer: Writer, name: str, rows: U8) -> None:
        """Put objects where they belong."""
        kind = self._kinds[name]
        whole = np.zeros((kind.nr_pages * PAGE // kind.step, kind.step), np.uint8)
        whole[: len(rows), : rows.shape[1]] = rows
        writer.place(self._at[name], writer.store(whole), kind.nr_pages)

    def _write_kernel(self, writer: Writer) -> None:
        """VMAs, their trees, anon_vmas and chains, as anon_vma_fork() leaves them (mm/rmap.c)."""
        plan, v = self.plan, self._s.vmas
        vmas, anon_vmas, avcs = (self._addresses(n) for n in ("vm_area_struct", "anon_vma", "anon_vma_chain"))
        own, above = avcs[: plan.nr_mms], avcs[plan.nr_mms :]
        parent = np.repeat(np.arange(plan.families) * plan.members, plan.members)
        is_child = np.arange(plan.nr_mms) != parent
        end, first = _VA + plan.pages * PAGE, _VA // PAGE
        last = first + plan.pages - 1

        vma = self._layout.struct("struct vm_area_struct")
        rows = self._copies("vm_area_struct", int(v.addr[self._vma_row]))
        values: dict[str, int | U64] = {"vm_start": _VA, "vm_end": end, "vm_mm": self._mms, "vm_pgoff": first}
        values |= {"anon_vma": anon_vmas, "__vm_anon_pgoff_lo": first & 0xFFFFFFFF, "__vm_anon_pgoff_hi": first >> 32}
        for name, value in values.items():
            if (field := vma.find(name)) is not None:
                put(rows, field, value)
        # The list of a parent's VMA has its own chain, a child's that one and then the one to the parent's anon_vma.
        avc = self._layout.struct("struct anon_vma_chain")
        link = np.uint64(avc.field("same_vma").offset)
        head = vmas + np.uint64(vma.field("anon_vma_chain").offset)
        put(rows, vma.field("anon_vma_chain.next"), own + link)
        put(rows, vma.field("anon_vma_chain.prev"), np.where(is_child, above, own) + link)
        self._store(writer, "vm_area_struct", rows)

        chains = np.zeros((len(avcs), avc.size), np.uint8)
        put(chains, avc.field("vma"), np.tile(vmas, 2))
        put(chains, avc.field("anon_vma"), np.concatenate([anon_vmas, anon_vmas[parent]]))
        put(chains, avc.field("rb_subtree_last"), last)
        put(chains, avc.field("same_vma.next"), np.concatenate([np.where(is_child, above + link, head), head]))
        put(chains, avc.field("same_vma.prev"), np.concatenate([head, own + link]))
        node = np.uint64(avc.field("rb").offset)
        # The tree of a parent's anon_vma has its own chain and its children's, a child's only its own.
        tree = np.where(is_child, above, own).reshape(plan.families, plan.members) + node
        at = np.where(is_child, plan.nr_mms, 0) + np.arange(plan.nr_mms)
        for name, word in zip(("__rb_parent_color", "rb_left", "rb_right"), _tree_words(tree), strict=True):
            put_some(chains, avc.field(f"rb.{name}"), at, word.ravel())
        put_some(chains, avc.field("rb.__rb_parent_color"), np.flatnonzero(is_child), _BLACK)
        self._store(writer, "anon_vma_chain", chains)

        family = self._layout.struct("struct anon_vma")
        rows = self._copies("anon_vma", int(v.anon_vma[self._vma_row]))
        put(rows, family.field("root"), anon_vmas[parent])
        put(rows, family.field("parent"), anon_vmas[parent])
        put(rows, family.field("refcount.counter"), np.where(is_child, 1, plan.members))
        # A root counts as its own child.
        put(rows, family.field("num_children"), np.where(is_child, 0, plan.members))
        put(rows, family.field("num_active_vmas"), 1)
        put(rows, family.field("rb_root.rb_root.rb_node"), own + node)
        leftmost = np.where(is_child, own + node, np.repeat(tree[:, _leftmost(plan.members)], plan.members))
        put(rows, family.field("rb_root.rb_leftmost"), leftmost)
        self._store(writer, "anon_vma", rows)

        leaf = self._layout.struct("struct maple_range_64")
        maple = np.zeros((plan.nr_mms, leaf.size), np.uint8)
        root = self._mms + np.uint64(self._layout.struct("struct mm_struct").field("mm_mt").offset)
        put(maple, leaf.field("parent"), root | np.uint64(1))
        pivot, slot = leaf.field("pivot"), leaf.field("slot")
        put(maple, pivot.element(0), _VA - 1)
        put(maple, pivot.element(1), end - 1)
        put(maple, pivot.element(2), 0xFFFFFFFFFFFFFFFF)
        put(maple, slot.element(1), vmas)
        # The last byte says which slot is the last in use (struct maple_metadata).
        put(maple, leaf.field("meta.end"), 2)
        self._store(writer, "maple_node", maple)

    def _write_mms(self, writer: Writer) -> None:
        """mm_structs in slabs of their own."""
        plan, mms, struct = self.plan, self._s.mms, self._layout.struct("struct mm_struct")
        row = self._mm_row
        here = int(mms.addr[row])
        size = min(self._slot_size - self._slot_pad, PAGE << plan.slab_order)
        found = self._memory.gather(np.array([here], np.uint64), size)
        rows = _copied(found.bytes if found.valid[0] else self._raw(struct, here), here, self._mms)
        tops = plan.tables + np.arange(plan.nr_mms) * plan.tables_each + plan.tables_each - 1
        leaf = self._addresses("maple_node") | np.uint64(_MAPLE_LEAF << 3 | 2)
        lower = plan.tables_each - 1
        values: dict[str, int | U64] = {
            "mm_users.counter": 1,
            "mm_count.counter": 1,
            "map_count": 1,
            "total_vm": plan.pages,
            "data_vm": plan.pages,
            "exec_vm": 0,
            "stack_vm": 0,
            "locked_vm": 0,
            "pgd": _from(self._patched.address(0), tops * PAGE),
            "pgtables_bytes.counter": lower * PAGE,
            "mm_mt.ma_root": leaf,
            "owner": 0,
            "mm_id": (int(mms.mm_id.max()) + 1 + np.arange(plan.nr_mms)).astype(np.uint64),
        }
        for name, value in values.items():
            if (field := struct.find(name)) is not None:
                put(rows, field, value)
        for kind in RssKind:
            wanted = plan.pages if kind is RssKind.ANON else 0
            split = struct.find(f"rss_stat[{int(kind)}].count")
            field = split or struct.field(f"rss_stat.count[{int(kind)}].counter")
            # The copies share the per-CPU parts of the mm they are copied from; before 6.2 a task has them.
            parts = int(mms.rss[row, kind]) - int(field.column(rows).astype(np.int64)[0]) if split else 0
            put(rows, field, (wanted - parts) % (1 << 64))
        slabs = np.zeros((-(-plan.nr_mms // plan.mms_a_slab), PAGE << plan.slab_order), np.uint8)
        at = self._slot_pad + np.arange(plan.nr_mms) % plan.mms_a_slab * self._slot_size
        for i in range(plan.nr_mms):
            slabs[i // plan.mms_a_slab, at[i] : at[i] + rows.shape[1]] = rows[i]
        writer.place(plan.slabs, writer.store(slabs), len(slabs) << plan.slab_order)
        each = self._slab_pages.copy()
        heads = plan.slabs + (np.arange(len(slabs)) << plan.slab_order)
        pages = np.tile(each, (len(slabs), 1))
        self._set_zone(pages)
        link = self._page.field("compound_info", "compound_head")
        words = link.column(pages)
        owner = self._layout.memmap.page_addrs(np.repeat(heads, len(each))) | np.uint64(1)
        is_pointer = ((words & np.uint64(1)) != 0) & ((words >> np.uint64(40)) != _ALL_ONES)
        put(pages, link, np.where(is_pointer, owner, words))
        self._write_map(writer, plan.slabs, plan.tables, pages)

    def _set_zone(self, pages: U8) -> None:
        field, bits = self._page.field("flags.f", "flags"), np.uint64(self._layout.zone_bits)
        put(pages, field, field.column(pages) & ~bits | np.uint64(self._zone))

    def _reserved(self) -> U8:
        """A struct page of the kernel's own memory."""
        blank = np.zeros((1, self._page.size), np.uint8)
        put(blank, self._page.field("flags.f", "flags"), self._zone | int(self._layout.flags.mask("reserved")))
        put(blank, self._page.field("_mapcount.counter"), 0xFFFFFFFF)
        put(blank, self._page.field("_refcount.counter"), 1)
        return blank

    def _write_map(self, writer: Writer, start: int, end: int, pages: U8) -> None:
        """The struct pages from ``start`` on; the rest, up to ``end``, are reserved."""
        rest = np.tile(self._reserved(), (end - start - len(pages), 1))
        writer.place(self._map + start // _MAP_PAGES, writer.store(np.concatenate([pages, rest])), (end - start) // 64)

    def _write_tables(self, writer: Writer) -> None:
        """Page tables: those of PTEs are equal in all members of a family and written once."""
        plan = self.plan
        flags = np.uint64(_SHARED if plan.members > 1 else _OWN)
        order = (np.arange(plan.lower_tables)[:, None] * _PER_TABLE + self._place[None, :]).ravel()
        kernel = np.frombuffer(self._patched.read(self._patched.pgd, PAGE), np.uint64)
        for family in range(plan.families):
            pfns = (plan.user + family * plan.pages + order).astype(np.uint64)
            stored = writer.store(pfns << np.uint64(12) | flags)
            first = plan.tables + (np.arange(plan.members) + family * plan.members) * plan.tables_each
            writer.place(first, stored, plan.lower_tables)
            upper = np.zeros((plan.members, plan.upper_tables + 2, _PER_TABLE), np.uint64)
            for member, start in enumerate(first.tolist()):
                self._fill_upper(upper[member], start, kernel)
            stored = writer.store(upper)
            step = plan.upper_tables + 2
            writer.place(first + plan.lower_tables, stored + np.arange(plan.members) * step, step)
        self._write_table_map(writer)

    def _fill_upper(self, upper: U64, start: int, kernel: U64) -> None:
        """Tables of PMD entries, of PUD entries, and the top one of an mm whose tables begin at ``start``."""
        plan = self.plan
        lower = np.arange(start, start + plan.lower_tables, dtype=np.uint64) << np.uint64(12) | np.uint64(_TABLE)
        upper[: plan.upper_tables].reshape(-1)[: len(lower)] = lower
        middle = np.arange(plan.upper_tables) + start + plan.lower_tables
        at = _VA >> 30 & 511
        upper[plan.upper_tables, at : at + len(middle)] = middle.astype(np.uint64) << np.uint64(12) | np.uint64(_TABLE)
        top = upper[plan.upper_tables + 1]
        top[256:] = kernel[256:]
        top[_VA >> 39 & 511] = (start + plan.lower_tables + plan.upper_tables) * PAGE | _TABLE

    def _write_table_map(self, writer: Writer) -> None:
        """Struct pages of page tables: all alike (struct ptdesc)."""
        plan, s = self.plan, self._s
        sample = self._struct_page(int(s.tables.pfn[np.flatnonzero(s.tables.level == 1)[0]]))
        table = np.zeros((1, self._page.size), np.uint8)
        for names in (("flags.f", "flags"), ("_mapcount.counter",), ("_refcount.counter",)):
            field = self._page.field(*names)
            put(table, field, field.column(sample))
        self._set_zone(table)
        nr = plan.tables_each * plan.nr_mms
        alike = writer.store(np.tile(table, (_MAP_PAGES * _PIECE, 1)))
        starts: I64 = np.arange(0, nr // _MAP_PAGES, _PIECE)
        at = self._map + plan.tables // _MAP_PAGES
        writer.place(at + starts, alike, np.minimum(_PIECE, nr // _MAP_PAGES - starts))
        whole = nr // _MAP_PAGES * _MAP_PAGES
        self._write_map(writer, plan.tables + whole, plan.user, np.tile(table, (nr - whole, 1)))

    def _write_pages(self, writer: Writer) -> None:
        """Struct pages of the users' own pages."""
        plan, page, flags = self.plan, self._page, self._layout.flags
        word = self._zone
        for name in ("uptodate", "lru", "swapbacked", "dirty"):
            word |= int(flags.mask(name))
        word |= self._listed.flags
        if plan.members == 1:
            word |= int(flags.mask("anon_exclusive"))
        blank = np.zeros((1, page.size), np.uint8)
        put(blank, page.field("flags.f", "flags"), word)
        put(blank, page.field("_mapcount.counter"), plan.members - 1)
        put(blank, page.field("_refcount.counter"), plan.members)
        pages = np.tile(blank, (plan.pages, 1))
        index = np.empty(plan.pages, np.uint64)
        index[(np.arange(plan.lower_tables)[:, None] * _PER_TABLE + self._place[None, :]).ravel()] = np.arange(
            plan.pages
        )
        put(pages, page.field("__folio_index", "index"), index + np.uint64(_VA // PAGE))
        roots, link = self._addresses("anon_vma")[:: plan.members], page.field("lru").offset
        links = self._listed.links(plan.user, plan.families * plan.pages)
        for family, root in enumerate(roots.tolist()):
            put(pages, page.field("mapping"), root | MAPPING_ANON)
            first, own = plan.user + family * plan.pages, slice(family * plan.pages, (family + 1) * plan.pages)
            for at, words in zip((link, link + 8), links, strict=True):
                pages[:, at : at + 8] = words[own].view(np.uint8).reshape(-1, 8)
            writer.place(self._map + first // _MAP_PAGES, writer.store(pages), plan.pages // _MAP_PAGES)
        end = plan.user + plan.families * plan.pages
        if end < plan.end:
            self._write_map(writer, end, plan.end, np.empty((0, page.size), np.uint8))

    def _count(self) -> None:
        """Counters of memory nodes (mm/vmstat.c)."""
        plan = self.plan
        used = plan.families * plan.pages
        for name, value in (("NR_ANON_MAPPED", used), ("NR_PAGETABLE", self._all_tables)):
            self._listed.count(name, value)

    @property
    def _all_tables(self) -> int:
        return self.plan.tables_each * self.plan.nr_mms


@dataclass(frozen=True)
class _Kind:
    """Objects of one struct, side by side."""

    size: int
    nr: int

    @property
    def step(self) -> int:
        """Bytes from one to the next: a power of two, so that none crosses a page without need."""
        return 1 << max(self.size - 1, 63).bit_length()

    @property
    def nr_pages(self) -> int:
        """Pages that they take."""
        return -(-self.nr * self.step // PAGE)


def _first(fits: Mask, what: str) -> int:
    found = np.flatnonzero(fits)
    if not len(found):
        raise SystemExit(f"the dump has not {what}")
    return int(found[0])


def _from(base: int, offsets: I64) -> U64:
    return np.uint64(base) + offsets.astype(np.uint64)


def _aligned(pfn: int) -> int:
    return -(-pfn // _ALIGNMENT) * _ALIGNMENT


def _copied(raw: U8, address: int, places: U64) -> U8:
    """Copies of a struct at other places; pointers into it point into the copy (empty lists, most of all)."""
    size = raw.shape[1] // 8 * 8
    words = np.ascontiguousarray(raw[:, :size]).view(np.uint64)[0]
    inside = (words >= np.uint64(address)) & (words < np.uint64(address + raw.shape[1]))
    out = np.tile(raw, (len(places), 1))
    for at in np.flatnonzero(inside).tolist():
        out[:, 8 * at : 8 * at + 8] = (words[at] - np.uint64(address) + places).view(np.uint8).reshape(-1, 8)
    return out


def put_some(raw: U8, field: Field, rows: I64, value: int | U64) -> None:
    """Set a member of some rows of raw structs."""
    some = raw[rows]
    put(some, field, value)
    raw[rows] = some


def _tree_words(nodes: U64) -> tuple[U64, U64, U64]:
    """Parent and colour, left and right of the nodes of red-black trees whose keys are all equal.

    Args:
        nodes: uint64[trees, n]; addresses. Node i is above 2 i + 1 and 2 i + 2.
    """
    n = nodes.shape[1]
    at = np.arange(n)
    depth = np.array([(i + 1).bit_length() for i in range(n)])
    # All levels are full and black but the last, which is red.
    colour = np.where((depth == depth[-1]) & (n > 1), _RED, _BLACK).astype(np.uint64)
    above = np.where(at > 0, nodes[:, np.maximum(at - 1, 0) // 2], np.uint64(0))
    left, right = (np.where(at * 2 + k < n, nodes[:, np.minimum(at * 2 + k, n - 1)], np.uint64(0)) for k in (1, 2))
    return above | colour, left, right


def _leftmost(n: int) -> int:
    at = 0
    while 2 * at + 1 < n:
        at = 2 * at + 1
    return at
