"""Every reference of every folio of user memory has a holder that is found, but for work that was under way."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.folio.numbers import one_folio
from inspector.folio.suspects import suspects
from inspector.snapshot import Snapshot
from inspector.tables.node_stats import node_stats
from inspector.target.target import open_core
from inspector.walk.references import PIN_BIAS
from tests.fixtures import KERNELS, fixture_path
from tests.guests import dump_path

AT_REST = [
    *(pytest.param("fixture", k, id=f"fixture-{k}") for k in KERNELS),
    *(pytest.param("rest", k, id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
]
BUSY = [pytest.param(k, id=k, marks=pytest.mark.guest) for k in KERNELS]


def opened(kind: str, kernel: str) -> Snapshot:
    path = fixture_path(kernel) if kind == "fixture" else dump_path(kernel, kind)
    return Snapshot(open_core(str(path), types="btf"))


@pytest.mark.parametrize(("kind", "kernel"), AT_REST)
def test_at_rest_all_but_two_references_are_explained(
    kind: str, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    s = opened(kind, kernel)
    t = s.reference_terms
    exact, inferred = t.remainder == 0, (t.terms["owner"] + t.terms["isolated"]) > 0
    with capsys.disabled():
        print(
            f"\n  {kind} {kernel}: {int(exact.sum()):,} of {len(t):,} folios are explained to the last reference, "
            f"{int((exact & ~inferred).sum()):,} of them by holders found; "
            f"{int(t.refcount.sum()):,} references, {int(np.abs(t.remainder).sum())} left over"
        )
    assert len(t) > 5000
    assert (t.remainder >= 0).all()
    # What is left are pages that somebody sleeps on: one is being copied by execve(), one written to a core.
    left = t.rows[~exact]
    assert len(left) <= 2
    for row in left.tolist():
        f = one_folio(s, int(s.pages.memmap.pfns_of_rows(np.array([row]))[0]))
        assert any(word in suspects(s, f, 1)[0] for word in ("dump_user_range()", "copy_strings()"))


@pytest.mark.parametrize(("kind", "kernel"), AT_REST)
def test_pins_are_those_that_the_kernel_counts(kind: str, kernel: str) -> None:
    s = opened(kind, kernel)
    t = s.reference_terms
    large = s.folio_of_page[t.rows] >= 0
    ours = int(np.where(large, t.terms["pins"], t.terms["pins"] // PIN_BIAS).sum())
    stats = node_stats(s.layout)
    assert ours == stats["NR_FOLL_PIN_ACQUIRED"] - stats["NR_FOLL_PIN_RELEASED"] > 0
    # All of them are buffers of io_uring here, and each of these is found.
    assert ours == len(s.ring_buffers)


@pytest.mark.parametrize("kernel", BUSY)
def test_under_load_no_folio_has_fewer_references_than_holders(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    t = opened("busy", kernel).reference_terms
    with capsys.disabled():
        print(f"\n  busy {kernel}: {int((t.remainder == 0).sum()):,} of {len(t):,} folios are explained")
    # A batch or a gather that is being emptied drops its references before it forgets its pages.
    emptying = (t.terms["batch"] + t.terms["gather"]) > 0
    assert (t.remainder[~emptying] >= 0).all()
    assert (t.remainder == 0).mean() > 0.9


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_waits_in_batches_and_pipes_is_found(kernel: str) -> None:
    s = opened("fixture", kernel)
    t = s.reference_terms
    assert len(s.batches) > 0
    assert not s.missing.counts
    # Folios that wait to be put on an LRU list are on none, and have the reference of their batch.
    waiting = t.rows[t.terms["batch"] > 0]
    assert len(waiting) > 0
    assert not s.layout.flags.test(s.pages.flags[waiting], "lru").any()
    # Four pages and a THP in the pipe of one process.
    anon = s.pages.is_anon(t.rows) & (t.terms["pipe"] > 0)
    assert int(anon.sum()) == 5
    assert int(t.terms["pipe"][anon].sum()) == 6
