"""A check gives the same report however many processes look through pages and entries, and however small the pieces."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from inspector import scratch, snapshot, workers
from inspector.capture import capture as capture_module
from inspector.capture.packing import Ahead, Packer
from inspector.capture.proof import VirtualReads, Written, same_reads
from inspector.check import run
from inspector.check.aside import RulesAside
from inspector.check.run import run_check
from inspector.errors import TargetError
from inspector.loops import is_compiled
from inspector.rules import page_pieces
from inspector.snapshot import Snapshot
from inspector.tables import pages
from inspector.target.target import TargetKind, open_core
from inspector.walk import batches, counts, linear, pagetable
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, planted, sound
from tests.faults.plants import MissingError
from tests.rules.broken import broken, with_holes

DUMPS: dict[str, Callable[[str], Snapshot]] = {
    "compressed": lambda kernel: Snapshot(open_core(core_path("fixture", kernel), types="btf")),
    "broken": broken,
    "with-holes": with_holes,
}

PIECES: dict[str, tuple[tuple[ModuleType, str, int], ...]] = {
    "usual": (),
    "smallest": (
        (pages, "CHUNK", 1 << 12),
        (pagetable, "_BATCH", 3),
        (linear, "_PIECE", 1000),
        (page_pieces, "_AT_ONCE", 500),
    ),
}


@pytest.fixture(autouse=True)
def _all_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small as the dumps are, all that can be is done by workers, and of a walk nothing is kept."""
    for module in (pages, pagetable, linear, page_pieces):
        monkeypatch.setattr(module, "_WORTH_SHARING", 2)
    monkeypatch.setattr(pages, "_WORTH_UNPACKING", 2)
    monkeypatch.setattr(batches, "WORTH_SHARING", 2)
    monkeypatch.setattr(batches, "RUNS_KEPT", 0)
    monkeypatch.setattr(workers.Share, "some_left", lambda _: True)
    workers.use_workers(1)
    yield
    workers.use_workers(None)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each worker that is started."""
    fork, started = os.fork, []

    def counted() -> int:
        pid = fork()
        started.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", counted)
    return started


def report(s: Snapshot, nr_workers: int) -> bytes:
    workers.use_workers(nr_workers)
    return msgspec.json.encode(run_check(s))


@lru_cache(maxsize=1)
def alone(dump: str, kernel: str) -> bytes:
    return report(DUMPS[dump](kernel), 1)


def cases() -> Iterator[Any]:
    for case in product(DUMPS, KERNELS, (2, 3), PIECES):
        often = case[1:] == ("7.3", 2, "smallest") and case[0] != "broken"
        # What is broken in so many places is judged again and again: minutes each.
        seldom = case[0] == "broken" and case[1:] not in (("6.12", 2, "smallest"), ("6.1", 3, "smallest"))
        seldom |= case[2:] in ((2, "usual"), (3, "smallest")) and case[0] != "broken"
        yield pytest.param(*case, marks=() if often else pytest.mark.whole if seldom else pytest.mark.long)


@pytest.mark.parametrize(("dump", "kernel", "nr_workers", "size"), cases())
def test_the_report_is_that_of_one_process(
    dump: str, kernel: str, nr_workers: int, size: str, monkeypatch: pytest.MonkeyPatch, forks: list[int]
) -> None:
    expected = alone(dump, kernel)
    assert not forks
    for module, name, value in PIECES[size]:
        monkeypatch.setattr(module, name, value)
    assert report(DUMPS[dump](kernel), nr_workers) == expected
    if size == "smallest":
        # Sweep, first walk, twice the index of folios, second walk, twice rules about pages; this process has a share.
        assert len(forks) >= (7 if is_compiled() else 6) * (nr_workers - 1)
    assert report(DUMPS[dump](kernel), 1) == expected


def faults() -> Iterator[Any]:
    """Each fault on each kernel: few in the quick tests, every eighteenth in `make test-all`, the others apart."""
    for at, name in enumerate(CATALOGUE):
        for kernel_at, kernel in enumerate(KERNELS):
            often = (at + 6 * kernel_at) % 18 == 0
            marks = () if at % 50 == 0 else pytest.mark.long if often else pytest.mark.whole
            yield pytest.param(kernel, name, marks=marks)


@pytest.mark.parametrize(("kernel", "name"), faults())
def test_a_fault_is_found_alike(kernel: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = core_path("fixture", kernel)
    try:
        fault = CATALOGUE[name](sound(path))
    except MissingError:
        pytest.skip("this kernel cannot have it")
    expected = report(planted(path, *fault.patches), 1)
    monkeypatch.setattr(pagetable, "_BATCH", 16)
    monkeypatch.setattr(page_pieces, "_AT_ONCE", 5000)
    assert report(planted(path, *fault.patches), 2) == expected


def test_entries_outside_of_vmas_are_counted_alike() -> None:
    def without_vmas() -> Snapshot:
        s = planted(core_path("fixture", "7.3"))
        s.vmas.end[:] = s.vmas.start
        return s

    workers.use_workers(1)
    one = without_vmas().counts
    workers.use_workers(2)
    other = without_vmas().counts
    for name in ("page_mappings", "entire", "pair_folio", "pair_mm", "pair_count", "nr_mms", "codes"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    assert not (one.codes & counts.LINKED).any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_columns_in_files_make_no_difference(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = alone("compressed", kernel)
    monkeypatch.setattr(scratch, "_LONG", 1)
    monkeypatch.setattr(scratch, "_HUGE", 1)
    for memory in (0, None):
        scratch.use_at_most(memory)
        try:
            assert report(DUMPS["compressed"](kernel), 2) == expected
        finally:
            scratch.use_at_most(None)


def test_words_of_struct_pages_are_numbered_as_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CHUNK", 1 << 12)
    workers.use_workers(1)
    one = planted(core_path("fixture", "6.12"))
    assert one.pages.words.nr.sum() == len(one.pages)
    for nr_workers in (2, 5):
        workers.use_workers(nr_workers)
        other = planted(core_path("fixture", "6.12"))
        assert other.pages.number.tolist() == one.pages.number.tolist()
        assert other.pages.compound.tolist() == one.pages.compound.tolist()
        assert other.pages.words.nr.tolist() == one.pages.words.nr.tolist()
        assert other.folios.row.tolist() == one.folios.row.tolist()


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_built_by_workers_only(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built: set[str] = set()

    def spied(*args: Any) -> Iterator[Any]:
        for result in workers.share_out(*args):
            built.update(result[0])
            yield result

    monkeypatch.setattr(snapshot, "share_out", spied)
    monkeypatch.setattr(page_pieces, "_AT_ONCE", 20_000)
    report(broken(kernel), 2)
    # What the first pages do not need is right as well, but built once more.
    assert built <= {"files", "page_cache"}


@pytest.mark.parametrize("stage", ["pages", "entries", "again", "aside"])
def test_a_worker_that_dies_is_one_clear_error(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name = {
        "pages": (pages._Found, "read"),
        "entries": (counts.Counter, "take"),
        "again": (batches.Kinds, "of"),
        "aside": (run, "violations_of"),
    }[stage]
    real, test = getattr(module, name), os.getpid()

    def die(*args: Any) -> Any:
        if os.getpid() != test:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    s = planted(core_path("fixture", "7.3"))
    assert s.vmas
    vars(s).pop("_sweep")
    monkeypatch.setattr(pages, "CHUNK", 1 << 12)
    monkeypatch.setattr(module, name, die)
    if stage == "again":
        # So that it takes a piece before the other has taken all.
        monkeypatch.setattr(RulesAside, "do", lambda *_: [])
    with pytest.raises(TargetError, match=r"^a worker process was killed by SIGKILL\. Give it more memory, or"):
        report(s, 2)


@pytest.mark.parametrize(("kind", "is_paused"), [("live", False), ("qemu", False), ("qemu", True)])
def test_a_kernel_or_guest_is_read_by_one_process(kind: TargetKind, is_paused: bool, forks: list[int]) -> None:
    workers.use_workers(2)
    target = open_core(core_path("fixture", "7.3"), types="btf")
    assert Snapshot(replace(target, kind=kind, is_paused=is_paused)).counts.nr_entries
    assert not forks


def test_a_capture_is_the_same_whatever_was_compressed_beside_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_module, "_nr_pfns", lambda _target: 1 << 20)
    ahead: list[int] = []
    whole = Packer.ahead

    def some(packer: Packer) -> Ahead:
        found = whole(packer)
        ahead.append(len(found.pfns))
        return found

    monkeypatch.setattr(Packer, "ahead", some)
    for nr_workers in (1, 2, 3):
        target = open_core(core_path("fixture", "7.3"), types="btf")
        captured = capture_module.capture(target, tmp_path / str(nr_workers), nr_workers=nr_workers)
        assert (captured.same_answers, captured.proof) == (True, "reads")
    assert ahead[0] == 0
    assert max(ahead) > 0
    written = [path.read_bytes() for path in tmp_path.iterdir()]
    assert written == written[:1] * 3


def test_a_stopped_guest_is_captured_by_one_process(tmp_path: Path, forks: list[int]) -> None:
    """All of it is read through one connection."""
    workers.use_workers(3)
    target = replace(open_core(core_path("fixture", "7.3"), types="btf"), kind="qemu", is_paused=True)
    assert capture_module.capture(target, tmp_path / "out").same_answers
    assert not forks


def test_a_capture_is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: list[int]) -> None:
    """What workers read is in it, and what they read by virtual address is compared like that."""
    compared: list[list[int]] = []

    def noted(recorder: Any, s: Snapshot, again: Written, pfns: Any, virtual: VirtualReads, nr: int) -> bool:
        compared.append(virtual.pages(s).tolist())
        return same_reads(recorder, s, again, pfns, virtual, nr)

    monkeypatch.setattr(capture_module, "same_reads", noted)
    for nr_workers, nr_pfns in ((1, 1 << 20), (3, 1 << 20), (3, 0)):
        workers.use_workers(nr_workers)
        # The fixtures do not hold max_pfn, without which there is no room in which workers note what they read.
        monkeypatch.setattr(capture_module, "_nr_pfns", lambda _target, nr=nr_pfns: nr)
        out, started = tmp_path / f"{nr_workers}-{nr_pfns}", len(forks)
        captured = capture_module.capture(open_core(core_path("fixture", "7.3"), types="btf"), out, nr_workers=1)
        assert (captured.same_answers, captured.proof) == (True, "reads")
        assert (len(forks) >= started + 6) == (nr_workers > 1 and nr_pfns > 0)
    written = [path.read_bytes() for path in tmp_path.iterdir()]
    assert written == written[:1] * 3
    assert compared == compared[:1] * 3


def test_workers_note_what_they_read_by_virtual_address() -> None:
    s = sound(core_path("fixture", "7.3"))
    reads, before = VirtualReads(s), len(VirtualReads(s).pages(s))

    def note(number: int) -> None:
        reads.note((0xFFFF_C900 << 32) + number * 4096 + 100, 4096, False)

    list(workers.work_on(range(0, 40, 4), note, 3))
    found = reads.pages(s)
    assert len(found) == before + 20
    assert np.isin(np.uint64(0xFFFF_C900 << 32), found)
