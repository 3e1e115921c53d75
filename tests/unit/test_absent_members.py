"""A kernel that lacks one member, type or symbol that we know: what needs it is lost and named, the rest goes on."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.columns import UnknownColumn
from inspector.errors import LayoutError, TargetError
from inspector.snapshot import Snapshot
from tests.absent import Asked, asked_for, lacking
from tests.faults.overlay import opened
from tests.fixtures import KERNELS, fixture_path

DEPTH = int(os.environ.get("FOLIOSCOPE_DEPTH", "4"))
"""How many are lacking in turn on each kernel."""

ALL = 16
"""Depth from which on they all are."""

NOTHING_WITHOUT = {
    ("symbol", "page_offset_base"),  # where memory is
    ("symbol", "mem_section"),  # and, in these captures, how much there is
    ("struct mem_section", "section_mem_map"),
    ("type", "struct mem_section"),
    ("type", "struct page"),
    ("type", "struct folio"),
    ("type", "struct kmem_cache"),
    ("struct page", "flags.f"),
    ("struct page", "compound_info"),
    ("struct page", "mapping"),
    ("struct page", "_mapcount.counter"),
    ("struct page", "_refcount.counter"),
    ("struct page", "lru"),
    ("struct page", "private"),
    ("symbol", "migrate_pages"),  # how swap types are numbered
    ("symbol", "make_device_exclusive"),
    ("symbol", "make_device_exclusive_range"),
}
"""What no question can be answered without, by the first spelling: one clear line."""

AS_OLDER_KERNELS = {
    ("type", "struct ptdesc"),
    ("struct ptdesc", "pt_share_count.counter"),
    ("struct mm_struct", "ksm_zero_pages.counter"),
}
"""What kernels before some version lack rightly, so that one without it is taken for such."""


@lru_cache(maxsize=3)
def asked(kernel: str) -> list[Asked]:
    return asked_for(str(fixture_path(kernel)))


@pytest.mark.parametrize("part", range(DEPTH))
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_absent(kernel: str, part: int) -> None:
    every = asked(kernel)
    # Others on each kernel.
    at = (2 * part + 1) * len(every) // (2 * DEPTH) + KERNELS.index(kernel)
    for one in every[min(at, len(every) - 1) :][: 1 if DEPTH < ALL else len(every) // DEPTH + 1]:
        goes_on_without(kernel, one)


def goes_on_without(kernel: str, one: Asked) -> None:
    """A check of a kernel that lacks one thing."""
    kind, names = one
    with lacking(one):
        try:
            report = run_check(Snapshot(opened(str(fixture_path(kernel)))))
        except TargetError:
            assert (kind, names[0]) in NOTHING_WITHOUT
            return
    if (kind, names[0]) not in AS_OLDER_KERNELS:
        assert [f.rule for f in report.findings if f.severity != "info"] == [], one
    judged = [c for c in report.coverage.rules if c.state not in ("not-checked", "not-applicable")]
    assert len(judged) > len(report.coverage.rules) // 3, one
    assert all(c.reason for c in report.coverage.rules if c.state in ("partial", "not-checked")), one


def test_member_of_a_table_is_named(any_core: str) -> None:
    """The lock's word is unknown, the rest of the mm is known; rules that need the lock say why they were not run."""
    with lacking(("struct mm_struct", ("mmap_lock.count.counter",))):
        s = Snapshot(opened(any_core))
        report = run_check(s)
        assert len(s.mms) > 50
        assert int(s.mms.map_count.sum()) > 100
        with pytest.raises(LayoutError, match=r"mmap_lock\.count\.counter"):
            np.flatnonzero(s.mms.locked)
    lost = [c for c in report.coverage.rules if "mmap_lock.count.counter" in c.reason]
    assert lost
    assert all(c.state == "not-checked" for c in lost)


def test_unknown_column() -> None:
    """What is made of it is unknown, and to use it says why."""
    unknown, known = UnknownColumn("struct a has no member b"), np.arange(3)
    for made in (unknown != 0, known | unknown, known + unknown, np.add(known, unknown), unknown[known], ~unknown):
        assert isinstance(made, UnknownColumn)
    for use in (np.asarray, np.flatnonzero, len, bool, list, lambda x: known[x], lambda x: x.any(), np.sum):
        with pytest.raises(LayoutError, match="has no member b"):
            use(unknown)
