"""Check, folio, explain, rmap and the screens report the same about every folio, sound or broken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.walk.kinds import page_kinds
from inspector.walk.references import expected_references
from tests.agreement.planted import each_planted
from tests.agreement.views import Checked, agree, checked, names_shown, no_members
from tests.faults.every import ABSENT, CATALOGUE
from tests.faults.overlay import KERNELS, core_path, pfn_of, sound


def small_classes(s: Snapshot, each: int) -> tuple[list[int], int, int]:
    """Some small folios of each class: kind, mappings, references beyond the expected, LRU, caches, pins.

    Returns:
        Their page frames, how many classes there are, and how many small folios in all.
    """
    rows = np.flatnonzero(s.pages.readable & (s.folio_of_page < 0) & ~s.pages.is_tail)
    flags = s.layout.flags
    kinds = page_kinds(s.layout, s.pages, s.folios, s.folio_of_page, rows)
    names, kind = np.unique(kinds, return_inverse=True)
    word = s.pages.flags[rows]
    extra = s.pages.refcount[rows] - expected_references(s, rows).total
    columns = [
        kind,
        np.minimum(s.counts.page_mappings[rows], 3),
        np.clip(extra, -1, 3),
        np.minimum(s.pages.refcount[rows], 2),
        *(flags.test(word, name).astype(np.int64) for name in ("lru", "swapcache", "private", "locked", "mlocked")),
    ]
    table = np.stack([np.asarray(c, np.int64) for c in columns], axis=1)
    _, which, counts = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(which.ravel(), kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen: list[int] = []
    for start, nr in zip(starts.tolist(), counts.tolist(), strict=True):
        at = np.unique(np.linspace(start, start + nr - 1, min(each, nr)).astype(np.int64))
        chosen += [pfn_of(s, int(rows[order[i]])) for i in at.tolist()]
    assert len(names) > 8
    return chosen, len(counts), len(rows)


def large(s: Snapshot, most: int) -> list[int]:
    """All large folios, or so many of them, evenly spread."""
    pfns = s.folios.pfn[s.folios.readable]
    at = np.unique(np.linspace(0, len(pfns) - 1, min(most, len(pfns))).astype(np.int64))
    return [int(p) for p in pfns[at]]


def hold(kernel: str, each: int, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    s = sound(core_path("fixture", kernel))
    c = checked(s)
    assert not [r for r in c.reported if not r.transient]
    small, classes, in_all = small_classes(s, each)
    big = large(s, most)
    names: set[str] = set()
    for pfn in [*big, *small]:
        names.update(names_shown(agree(c, pfn)))
    assert not no_members(s, names)
    with capsys.disabled():
        print(
            f"\n  {kernel}: {len(big):,} of {len(s.folios):,} large folios, {len(small):,} of {in_all:,} small ones "
            f"({classes} classes); {c.compared.total():,} comparisons of {len(c.compared)} kinds"
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_views_of_sound_folios_agree(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    hold(kernel, 1, 20, capsys)


@pytest.mark.long
@pytest.mark.parametrize("kernel", KERNELS)
def test_views_of_many_sound_folios_agree(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    hold(kernel, 4, 200, capsys)


@pytest.mark.whole
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kernel", KERNELS)
def test_views_of_all_sound_folios_agree(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    hold(kernel, 12, 1 << 30, capsys)


def broken(kernel: str, names: Iterable[str]) -> Iterator[Checked]:
    """The views of the folios that each of some faults touches, compared."""
    for _, fault, s in each_planted(kernel, names):
        c = checked(s)
        pfns = {r.head for r in c.reported if r.head >= 0}
        heads = {pfn_of(s, row) for row in sorted(pfns)[:8]}
        if fault.pfn is not None and s.pages.memmap.row(fault.pfn) >= 0:
            heads.add(fault.pfn)
        for pfn in sorted(heads):
            assert not no_members(s, names_shown(agree(c, pfn)))
        assert not no_members(s, (r.name for r in c.reported))
        yield c


SAMPLE = (
    "mapcount-of-a-shared-file-page-lowered",
    "ghost-mapping",
    "reference-of-a-cached-folio-lost",
    "entire-mapcount-of-an-anon-thp-raised",
    "shared-page-marked-exclusive",
)
"""Faults for the quick suite: one of each family of counters."""


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SAMPLE)
def test_views_of_broken_folios_agree(kernel: str, name: str) -> None:
    assert len([*broken(kernel, [name])]) == (name not in ABSENT[kernel])


# Of 24 parts of the faults a kernel gets every third, and the others in `make test-whole`.
PARTS = [
    pytest.param(kernel, part, marks=pytest.mark.long if part % len(KERNELS) == at else pytest.mark.whole)
    for at, kernel in enumerate(KERNELS)
    for part in range(24)
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kernel", "part"), PARTS)
def test_views_of_all_broken_folios_agree(kernel: str, part: int, capsys: pytest.CaptureFixture[str]) -> None:
    views = [*broken(kernel, sorted(CATALOGUE)[part::24])]
    with capsys.disabled():
        print(
            f"\n  {kernel}, part {part + 1} of 24: {len(views)} faults, {sum(c.folios for c in views)} folios, "
            f"{sum(c.compared.total() for c in views):,} comparisons"
        )
