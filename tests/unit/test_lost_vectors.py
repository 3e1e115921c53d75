"""Dumps that lack a page that an LRU vector lies in: what is not known of it accuses nobody."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from inspector.errors import Exit
from tests.faults.overlay import sound
from tests.fixtures import NUMA_KERNELS, numa_fixture_path
from tests.holes import PAGE, with_holes


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
