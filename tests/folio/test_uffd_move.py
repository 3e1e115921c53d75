"""Whether UFFDIO_MOVE would move a page, and the error that it returns: each of the kernel's refusals, planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I64, Mask
from inspector.folio.look import look_at
from inspector.folio.moving import entry_move
from inspector.layout.flags import VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, VM_WRITE
from inspector.report.explain import build_explanation
from inspector.report.va import build_va
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, Patch, core_path, flags_xor, page_word, pfn_of, planted, put, sound, word
from tests.faults.plants import folios, pick, pmd_mapped, pte_mapped_thp, small_anon

MOVING = ("6.12", "7.3")
PRESENT = {"6.12": "move_present_pte()", "7.3": "move_present_ptes()"}
ENTRY = {"6.12": "move_pages_pte()", "7.3": "move_pages_ptes()"}

PatchOf = Callable[[Snapshot, int], Patch]


def exclusive_small(s: Snapshot) -> int:
    """The pfn of an anonymous page that could be moved."""
    rows = small_anon(s, 1)
    rows = rows[s.layout.flags.test(s.pages.flags[rows], "anon_exclusive")]
    for row in rows[:400].tolist():
        found = s.mappings_of(pfn_of(s, row), 1)
        vma = int(s.mappings.vma_idx[found[0]])
        if vma >= 0 and not s.vmas.ops[vma] and int(s.vmas.flags[vma]) & VM_WRITE:
            return pfn_of(s, row)
    raise AssertionError("no such page")


def _exclusive(s: Snapshot, found: I64) -> Mask:
    """Which folios have an exclusive head."""
    rows = np.array([s.pages.memmap.row(pfn) for pfn in s.folios.pfn[found].tolist()], np.int64)
    return s.layout.flags.test(s.pages.flags[rows], "anon_exclusive")


def thp_by_pte(s: Snapshot) -> int:
    """A large anonymous folio that PTEs map, with an exclusive head and a page that is not mapped twice."""
    found = pte_mapped_thp(s)
    return int(s.folios.pfn[pick(found[_exclusive(s, found)], "a THP by PTEs with an exclusive head")])


def thp_by_pmd(s: Snapshot) -> int:
    """A THP that one huge entry maps, exclusive."""
    found = pmd_mapped(s, anon=True)
    return int(s.folios.pfn[pick(found[_exclusive(s, found)], "an exclusive THP by a PMD")])


def moved(kernel: str, of: Callable[[Snapshot], int], *patches: PatchOf) -> list[tuple[str, str, str, str]]:
    """Pages, answer, reason and function, from the reverse map and among all page tables alike."""
    s = sound(core_path("fixture", kernel))
    pfn = of(s)
    changed = planted(s.target.path, *(patch(s, pfn) for patch in patches))
    aimed, whole = build_explanation(look_at(changed, pfn), pfn), build_explanation(changed, pfn, check=False)
    out = [
        [(d.pages, d.answer, d.reason, d.source) for d in e.decisions if d.question == "uffd move"]
        for e in (aimed, whole)
    ]
    assert out[0] == out[1]
    return out[0]


def vma_flags(turned: int) -> PatchOf:
    """Flags of the first VMA that maps the page turned over."""

    def patch(s: Snapshot, pfn: int) -> Patch:
        vma = int(s.mappings.vma_idx[s.mappings_of(pfn, 1)[0]])
        address = int(s.vmas.addr[vma]) + s.layout.struct("struct vm_area_struct").field("vm_flags").offset
        return put(s, address, word(s, address) ^ turned)

    return patch


def vma_ops(s: Snapshot, pfn: int) -> Patch:
    """The VMA made one of a file."""
    vma = int(s.mappings.vma_idx[s.mappings_of(pfn, 1)[0]])
    field = s.layout.struct("struct vm_area_struct").field("vm_ops")
    others = s.vmas.ops[s.vmas.ops != 0]
    return put(s, int(s.vmas.addr[vma]) + field.offset, int(others[0]))


def flags(*names: str) -> PatchOf:
    """Flags of the page turned over."""
    return lambda s, pfn: flags_xor(s, pfn, *names)


def references(s: Snapshot, pfn: int) -> Patch:
    """So many that the page counts as pinned."""
    return put(s, page_word(s, pfn, "_refcount"), 1025, 4)


def pincount(s: Snapshot, pfn: int) -> Patch:
    """A pin of a large folio."""
    folio = int(s.folio_of_page[s.pages.memmap.row(pfn)])
    field = s.layout.struct("struct folio").field("_pincount.counter")
    assert folios(s, s.folios.pfn == pfn).tolist() == [folio]
    return put(s, page_word(s, pfn, "flags.f", "flags") + field.offset, 1, 4)


def test_a_kernel_before_6_8_has_no_such_thing() -> None:
    for of in (exclusive_small, thp_by_pte, thp_by_pmd):
        ((_, answer, reason, _),) = moved("6.1", of)
        assert (answer, "has no UFFDIO_MOVE" in reason) == ("no", True)


@pytest.mark.parametrize("kernel", MOVING)
def test_an_exclusive_page_is_moved(kernel: str) -> None:
    ((_, answer, reason, source),) = moved(kernel, exclusive_small)
    assert (answer, source) == ("yes", PRESENT[kernel])
    assert "registered with userfaultfd" in reason


@pytest.mark.parametrize("kernel", MOVING)
@pytest.mark.parametrize(
    ("patch", "word_of_it", "error"),
    [
        (vma_flags(VM_SHARED), "VM_SHARED", "-EINVAL"),
        (vma_flags(VM_WRITE), "VM_WRITE", "-EINVAL"),
        (vma_flags(VM_PFNMAP), "another kind", "-EINVAL"),
        (vma_flags(VM_IO), "another kind", "-EINVAL"),
        (vma_flags(VM_MIXEDMAP), "another kind", "-EINVAL"),
        (vma_ops, "maps a file", "-EINVAL"),
        (flags("anon_exclusive"), "exclusive", "-EBUSY"),
        (references, "pinned", "-EBUSY"),
    ],
)
def test_each_refusal_of_a_small_page(kernel: str, patch: PatchOf, word_of_it: str, error: str) -> None:
    ((_, answer, reason, _),) = moved(kernel, exclusive_small, patch)
    assert answer == "no"
    assert word_of_it in reason
    assert error in reason


@pytest.mark.parametrize("kernel", MOVING)
def test_the_vma_is_asked_for_before_the_page(kernel: str) -> None:
    ((_, _, reason, _),) = moved(kernel, exclusive_small, vma_flags(VM_WRITE | VM_IO), flags("anon_exclusive"))
    assert "VM_WRITE" in reason


@pytest.mark.parametrize("kernel", MOVING)
def test_a_locked_page_is_waited_for(kernel: str) -> None:
    ((_, answer, reason, _),) = moved(kernel, exclusive_small, flags("locked"))
    assert answer == "yes"
    assert "waited for" in reason


@pytest.mark.parametrize("kernel", MOVING)
def test_other_references_do_not_hinder_a_small_page(kernel: str) -> None:
    def one_more(s: Snapshot, pfn: int) -> Patch:
        address = page_word(s, pfn, "_refcount")
        return put(s, address, word(s, address, 4) + 1, 4)

    ((_, answer, _, _),) = moved(kernel, exclusive_small, one_more)
    assert answer == "yes"


@pytest.mark.parametrize("kernel", MOVING)
def test_a_huge_page_is_moved_as_a_whole(kernel: str) -> None:
    ((_, answer, _, source),) = moved(kernel, thp_by_pmd)
    assert (answer, source) == ("yes", "move_pages_huge_pmd()")
    ((_, answer, reason, _),) = moved(kernel, thp_by_pmd, pincount)
    assert (answer, "pinned" in reason) == ("no", True)
    ((_, answer, reason, source),) = moved(kernel, thp_by_pmd, flags("anon_exclusive"))
    assert (answer, source, "-EBUSY" in reason) == ("no", "move_pages_huge_pmd()", True)


@pytest.mark.parametrize("kernel", MOVING)
def test_a_large_folio_under_ptes_is_split_first(kernel: str) -> None:
    found = moved(kernel, thp_by_pte, flags("writeback"))
    assert {x[1] for x in found} == {"no"}
    assert all("split first" in x[2] and "writeback" in x[2] and "-EBUSY" in x[2] for x in found)
    found = moved(kernel, thp_by_pte, flags("anon_exclusive"))
    assert {x[1] for x in found} == {"no"}
    assert all("its head is not marked exclusive" in x[2] and x[3] == ENTRY[kernel] for x in found)


def entry(s: Snapshot, kind: Kind, bits: int = 0, *, zero: bool = False) -> tuple[str, str]:
    """What is answered of an entry in an anonymous VMA that can be written."""
    fits = (s.vmas.ops == 0) & ((s.vmas.flags & np.uint64(VM_WRITE | VM_SHARED)) == VM_WRITE)
    d = entry_move(s, int(np.flatnonzero(fits)[0]), kind, Bit(bits), zero=zero)
    return d.answer, d.reason


@pytest.mark.parametrize("kernel", MOVING)
def test_entries_without_a_page(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    assert entry(s, Kind.LEAF, zero=True)[0] == "yes"
    assert "-ENOENT" in entry(s, Kind.NONE)[1]
    assert "-EBUSY" in entry(s, Kind.SWAP)[1]
    assert entry(s, Kind.SWAP, Bit.EXCLUSIVE)[0] == "yes"
    assert "waited for" in entry(s, Kind.MIGRATION_WRITE)[1]
    for kind in (Kind.MARKER, Kind.HWPOISON, Kind.DEVICE_WRITE, Kind.SWAPIN_ERROR):
        assert "-EFAULT" in entry(s, kind)[1]
    assert "-ENOENT" in entry_move(s, -1, Kind.NONE, Bit(0), zero=False).reason


@pytest.mark.parametrize("kernel", KERNELS)
def test_va_answers_for_swap_entries_and_the_zero_page(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    n = s.nonpresent
    rows = np.flatnonzero((n.kind == Kind.SWAP) & (n.vma_idx >= 0) & (n.level == Level.PTE))
    row = pick(rows[:1].astype(np.int64), "a swap entry")
    seen = build_va(s, int(n.mm_idx[row]), int(n.va[row]), 1).uffd_move
    assert seen is not None
    assert ("has no UFFDIO_MOVE" in seen.reason) == (kernel == "6.1")
    m = s.mappings
    zero = pick(s.mappings_of(s.layout.zero_pfn, 1), "the zero page")
    seen = build_va(s, int(m.mm_idx[zero]), int(m.va[zero]), 1).uffd_move
    assert seen is not None
    assert kernel == "6.1" or seen.source in ("move_zeropage_pte()", "validate_move_areas()", "move_pages()")
    page = exclusive_small(s)
    at = int(s.mappings_of(page, 1)[0])
    assert build_va(s, int(m.mm_idx[at]), int(m.va[at]), 1).uffd_move is None
