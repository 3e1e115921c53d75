"""The bench measures what it names: the child and not its parent, places that are mapped, ratios that have grown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.bench.cost import FailedError, measure
from tests.bench.peers import questions
from tests.bench.places import find_places
from tests.bench.replay import merged
from tests.bench.results import VARIABLE, commit, compare, dump_key, keep, latest_before, ratios
from tests.fixtures import fixture_path

MIB = 1 << 20
CORE = str(fixture_path("7.3"))


def python(code: str) -> list[str]:
    """A process without anything of ours."""
    return [sys.executable, "-I", "-S", "-c", code]


def test_the_peak_is_the_childs_and_not_ours() -> None:
    ballast = np.ones(300 * MIB, np.uint8)
    small, _ = measure(python("pass"))
    large, _ = measure(python("x = bytearray(b'x') * (150 << 20)"))
    assert ballast.all()
    assert small.peak_mib < 60
    assert 150 < large.peak_mib < 210


def test_memory_that_workers_hold_counts_once() -> None:
    code = "import os, time; x = bytearray(b'x') * (100 << 20); {}\nif os.fork() == 0: {}; os._exit(0)\nos.wait()"
    shared, _ = measure(python(code.format("pass", "time.sleep(0.6)")))
    own, _ = measure(python(code.format("pass", "y = bytearray(b'x') * (100 << 20); time.sleep(0.6)")))
    assert 100 < shared.peak_mib < 160
    assert 200 < own.peak_mib < 270


def test_cpu_time_is_that_of_children_too() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    alone, _ = measure(python(burn))
    below, _ = measure(python(f"import os\nif os.fork() == 0:\n    exec({burn!r}); os._exit(0)\nos.wait()"))
    idle, _ = measure(python("import time; time.sleep(0.3)"))
    assert 0.3 <= alone.cpu < 0.6
    assert 0.3 <= below.cpu < 0.6
    assert idle.cpu < 0.2
    assert idle.wall >= 0.3


def test_a_command_that_fails_is_no_figure() -> None:
    with pytest.raises(FailedError, match="ended with 3"):
        measure(python("raise SystemExit(3)"))
    assert measure(python("raise SystemExit(3)"), codes=(3,))[0].status == 3
    assert measure(python("print(input())"), words="heard\n")[1] == "heard\n"


def test_all_sampled_addresses_are_mapped() -> None:
    places, s = find_places(CORE), Snapshot(open_core(CORE, types="btf"))
    m = s.mappings
    mine = np.flatnonzero(s.mms.addr[m.mm_idx] == places.mm)
    found = dict[int, int]()
    for row in mine.tolist():
        for i in range(int(m.nr[row])):
            found[int(m.va[row]) + i * 4096] = int(m.pfn[row]) + i
    assert len(places.addresses) == len(places.pfns) > 10
    assert [found.get(va) for va in places.addresses] == places.pfns
    assert found[places.va] == places.pfn
    row = s.pages.memmap.row(places.pfn)
    assert s.pages.is_anon(np.array([row]))[0]
    assert int(s.folio_of_page[row]) == -1
    assert s.mms.pid[s.mms.addr == places.mm][0] == places.pid


def test_an_answer_that_shows_nothing_is_none() -> None:
    asked = questions(json.loads(json.dumps(find_places(CORE).__dict__)), Path("out"))
    assert not asked["va"].is_answer("VIRTUAL  PHYSICAL\n400000   (not accessible)")
    assert not asked["vmas"].is_answer(" \n")
    assert asked["vmas"].is_answer("0x400000 0x401000 0x71")


def test_each_page_is_read_once() -> None:
    reads = np.array(
        [(0x5010, 8, 1), (0x4FFF, 2, 1), (0x5000, 0x3000, 1), (0x9000, 0x1000, 1), (0x5000, 8, 0), (0x8000, 1, 1)],
        np.uint64,
    )
    assert merged(reads).tolist() == [[0x5000, 1, 0], [0x4000, 6, 1]]
    assert merged(np.empty((0, 3), np.uint64)).tolist() == []


def test_the_floor_reads_what_the_question_read(tmp_path: Path) -> None:
    reads = tmp_path / "reads.npy"
    words = ["record", str(reads), "-c", CORE, "--types", "btf", "-q", "page", "0x1000"]
    measure([sys.executable, "-m", "tests.bench.replay", *words], codes=(0, 4))
    _, text = measure([sys.executable, "-m", "tests.bench.replay", "read", CORE, str(reads)])
    pages = np.load(reads)[:, 1].sum()
    assert int(text) == pages * 4096 > 0


def _rows(cpu: float, peak: float = 100.0) -> dict[str, dict[str, dict[str, float]]]:
    return {"check": {"folioscope": {"cpu": cpu, "peak_mib": peak}, "recipe": {"cpu": 2.0, "wall": 9.0}}}


def test_ratios_are_of_cpu_time() -> None:
    assert ratios(_rows(3.0)) == {"check": {"CPU / recipe": 1.5, "peak MiB": 100.0}}
    assert ratios({"new": {"folioscope": {"cpu": 1.0, "peak_mib": 5.0}}}) == {"new": {"peak MiB": 5.0}}


@pytest.mark.parametrize(("cpu", "peak", "worse"), [(3.27, 109, 0), (3.31, 100, 1), (1.0, 112, 1), (9.0, 900, 2)])
def test_what_has_grown_by_a_tenth_is_shown(cpu: float, peak: float, worse: int) -> None:
    changes = compare(_rows(3.0), _rows(cpu, peak))
    assert len(changes) == 2
    assert sum(change.is_worse for change in changes) == worse


def test_results_are_compared_with_those_of_another_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    core = Path(CORE)
    path = keep(core, _rows(1.0), {})
    assert path.stem == commit()
    assert latest_before(core) is None
    older = json.loads(path.read_text()) | {"commit": "older", "date": "2020-01-01"}
    newer = older | {"commit": "newer", "date": "2021-01-01"}
    for result in (newer, older):
        (tmp_path / dump_key(core) / f"{result['commit']}.json").write_text(json.dumps(result))
    found = latest_before(core)
    assert found is not None
    assert found["commit"] == "newer"
