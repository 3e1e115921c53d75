"""Dumps that lack a page that an LRU vector lies in: what is not known of it accuses nobody."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.errors import Exit
from inspector.snapshot import Snapshot
from inspector.tables.memcgs import MEMCG_TAGS
from tests.faults.overlay import core_path, opened, sound
from tests.fixtures import NUMA_KERNELS, numa_fixture_path
from tests.holes import PAGE, leave_out, with_holes


def pages_of_vectors(path: str) -> list[int]:
    """Physical addresses of the pages that vectors lie in."""
    s = sound(path)
    size, base = s.layout.struct("struct lruvec").size, s.layout.memory.direct_map_base
    starts = [address - base for address in s.lru.lruvecs.addr.tolist()]
    return sorted({page for at in starts for page in range(at // PAGE * PAGE, at + size, PAGE)})


@pytest.mark.parametrize("kernel", NUMA_KERNELS)
def test_a_page_of_a_vector_is_missing(kernel: str) -> None:
    path = str(numa_fixture_path(kernel))
    pages, nr_unread = pages_of_vectors(path), 0
    assert len(pages) >= 8
    for page in pages:
        s = with_holes(path, [page])
        report = run_check(s)
        assert [f.rule for f in report.findings if f.severity != "info"] == [], hex(page)
        # With the root's page all memory cgroups are lost, which is noted.
        nr = int((~s.lru.lruvecs.readable).sum())
        assert report.exit_code == (Exit.INCOMPLETE if nr else Exit.CLEAN)
        nr_unread += nr
    assert nr_unread >= 7


@pytest.mark.guest
@pytest.mark.parametrize("kind", ["rest", "busy"])
def test_what_a_folio_is_charged_to_is_missing(kind: str) -> None:
    """From 7.x on folio->memcg_data leads to an obj_cgroup: without it the folio is of no known vector."""
    path = core_path(kind, "7.3")
    whole = sound(path)
    found = whole.lru_pages
    assert found is not None
    assert whole.lru.is_by_objcg
    base = whole.layout.memory.direct_map_base
    data = np.unique(found.classes.memcg_data[found.classes.nr_pages > 0] & ~MEMCG_TAGS)
    pages = np.unique(data[data > base] - np.uint64(base) & ~np.uint64(PAGE - 1)).tolist()
    assert pages
    for lost in [[page] for page in pages[:4]] + [pages]:
        target = opened(path)
        leave_out(target, lost)
        # QEMU's dumps are read by physical address only where drgn translates itself.
        leave_out(target, [base + page for page in lost], physical=False)
        report = run_check(Snapshot(target))
        assert [f.rule for f in report.findings if f.severity != "info"] == []
        assert report.exit_code == Exit.INCOMPLETE
