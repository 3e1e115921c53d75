"""The family of an anon_vma, found by its chains, is the one among all anon_vmas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pytest

from inspector.errors import UsageError
from inspector.report.anon_vma import AnonVmaReport, aim_at_family, anon_vma_of, build_anon_vma, find_anon_vma
from inspector.rules.damage import anon_vma_damage
from inspector.snapshot import Snapshot
from tests.agreement.planted import each_planted
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, sound

NEED_PAGE_TABLES = ["vma-anon-vma-missing", "vma-pgoff-mismatch"]


def asked_both_ways(s: Snapshot, addresses: Iterable[int]) -> Iterator[tuple[AnonVmaReport, AnonVmaReport]]:
    apart = Snapshot(s.target)
    for address in addresses:
        seen, row = aim_at_family(apart, address)
        yield build_anon_vma(s, find_anon_vma(s, address)), build_anon_vma(seen, row)
    assert not {"mms", "_vmas", "_walked", "_sweep", "anon_rmap"} & set(vars(apart))


@pytest.mark.parametrize("kernel", KERNELS)
def test_families_of_anon_vmas_and_vmas(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    vmas = s.vmas.addr[s.vmas.anon_vma != 0]
    largest = 0
    for whole, found in asked_both_ways(s, [*s.anon_rmap.anon_vmas.addr[::6].tolist(), *vmas[::23].tolist()]):
        assert msgspec.structs.replace(found, unchecked=[]) == whole
        assert sorted(found.unchecked) == NEED_PAGE_TABLES
        largest = max(largest, len(found.family))
    assert largest > 100


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_no_anon_vma(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    bare = int(s.vmas.addr[s.vmas.anon_vma == 0][0])
    for address in (0, 8, (1 << 64) - 8, bare, int(s.tasks.addr[0]), int(s.mms.addr[0]), s.layout.memmap.vmemmap):
        with pytest.raises(UsageError, match="there is no anon_vma of that address"):
            aim_at_family(Snapshot(s.target), address)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_anon_vma_of_a_folio(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    links = s.links.take(np.flatnonzero(s.links.is_anon)[::200])
    pfns = s.pages.memmap.pfns_of_rows(links.page_row)
    for pfn, word in zip(pfns.tolist(), links.mapping.tolist(), strict=True):
        assert anon_vma_of(s, pfn) == word & ~3
    file = int(s.pages.memmap.pfns_of_rows(s.links.page_row[s.links.is_file][:1])[0])
    with pytest.raises(UsageError, match="the folio names no anon_vma"):
        anon_vma_of(s, file)


NOT_LINKED = ("root-of-an-anon-vma-replaced", "list-of-chains-emptied")
"""What names the anon_vma without being linked to it is not found."""

FAULTS = [
    name for name in CATALOGUE if any(word in name for word in ("anon-vma", "avc", "chain", "root", "vma-", "interval"))
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kernel", [pytest.param(k, marks=pytest.mark.long if k == "6.12" else pytest.mark.whole) for k in KERNELS]
)
def test_families_with_faults(kernel: str) -> None:
    damaged = 0
    for name, _, s in each_planted(kernel, FAULTS):
        table = s.anon_rmap.anon_vmas
        broken = anon_vma_damage(s, np.arange(len(table))).broken
        rows = [r for r in range(len(table)) if broken and anon_vma_damage(s, np.array([r])).broken]
        chosen = {*range(0, len(table), 40), *rows[:10]}
        for whole, found in asked_both_ways(s, table.addr[sorted(chosen)].tolist()):
            assert {*found.damage} <= {*whole.damage}, name
            lost = {*whole.damage} - {*found.damage} - {*found.unchecked}
            assert not lost or name in NOT_LINKED, name
            damaged += bool(found.damage)
    assert damaged > 10
