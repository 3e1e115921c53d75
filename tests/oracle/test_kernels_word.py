"""The kernel's own /proc, recorded in the guest before the dump, agrees with what the page tables say, to the page."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.faults.overlay import sound
from tests.fixtures import KERNELS, fixture_path
from tests.guests import dump_path, load_oracle
from tests.guests.oracle import Oracle
from tests.oracle.compare import (
    Compared,
    compare_kpagecount,
    compare_kpageflags,
    compare_pagemap,
    compare_smaps,
)
from tests.oracle.fixture_oracle import load_fixture_oracle

Pair = tuple[Snapshot, Oracle]


@cache
def opened(where: str, kernel: str) -> Pair:
    """A dump at rest and what its kernel said: the fixture in the repository, or the guest built on this machine."""
    if where == "fixture":
        return sound(str(fixture_path(kernel))), load_fixture_oracle(kernel)
    return Snapshot(open_core(str(dump_path(kernel, "rest")))), load_oracle(kernel)


@pytest.fixture(
    params=[
        *(pytest.param(("fixture", k), id=f"fixture-{k}") for k in KERNELS),
        *(pytest.param(("guest", k), id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
    ]
)
def pair(request: pytest.FixtureRequest) -> Pair:
    where, kernel = request.param
    return opened(where, kernel)


def report(name: str, found: Compared, capsys: pytest.CaptureFixture[str]) -> None:
    """Print what was compared, and fail over the first things that differ without a reason."""
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in found.explained.items() if count) or "none"
    with capsys.disabled():
        print(f"\n  {name}: {found.compared:,} compared, {len(found.wrong)} differ; explained: {reasons}")
    assert not found.wrong, "\n".join(found.wrong[:20])


@pytest.mark.parametrize(
    ("compare", "least"),
    [
        pytest.param(compare_kpagecount, 150_000, id="kpagecount"),
        pytest.param(compare_kpageflags, 1_000_000, id="kpageflags"),
        pytest.param(compare_smaps, 1_500, id="smaps"),
        pytest.param(compare_pagemap, 1_500_000, id="pagemap"),
    ],
)
def test_proc_agrees(
    pair: Pair,
    compare: Callable[[Snapshot, Oracle], Compared],
    least: int,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    found = compare(*pair)
    report(request.node.callspec.id, found, capsys)
    assert found.compared >= least


def test_every_process_of_the_record_is_in_the_dump(pair: Pair) -> None:
    snapshot, oracle = pair
    assert len(oracle.processes) > 100
    recorded = {process.pid for process in oracle.processes}
    assert recorded <= set(snapshot.tasks.tgid.tolist())


def test_rss_of_each_process_is_the_sum_of_its_vmas(pair: Pair) -> None:
    """The counters that the kernel keeps equal what smaps adds up from the page tables, both rebuilt here."""
    snapshot, _ = pair
    rebuilt, unread = snapshot.rss
    charged = snapshot.mms.rss - rebuilt
    assert not unread.any()
    # One process is held inside execve(): the argument page of its new mm is charged to its old one as well.
    assert int((charged != 0).any(axis=1).sum()) <= 1
