"""The bench measures what it names: the child and not its parent, places that are mapped, ratios that have grown."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.bench.cost import Cost, FailedError, measure
from tests.bench.growth import DOCS, LIMIT, QUESTIONS, Point, fit, page, plot, table
from tests.bench.peers import questions
from tests.bench.places import find_places
from tests.bench.replay import merged
from tests.bench.results import VARIABLE, commit, compare, compression_costs, dump_key, keep, latest_before, ratios
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


def test_modules_are_compiled_once_as_in_an_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    (tmp_path / "measured.py").write_text("pass\n")
    measure([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import measured"])
    assert list(tmp_path.glob("__pycache__/measured.*.pyc"))


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


def test_a_limit_ends_what_grows_over_it() -> None:
    grow = "x = bytearray(b'x') * (300 << 20)"
    cost, _ = measure(python(grow), limit=150 * MIB, codes=(-9, 1))
    assert cost.limited_by in ("cgroup", "ulimit -v")
    assert cost.status == (-9 if cost.limited_by == "cgroup" else 1)
    assert measure(python("pass"), limit=150 * MIB)[0].status == 0


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


def test_what_compression_costs_is_a_ratio_to_the_decompressor() -> None:
    rows = _rows(3.0)
    rows["check"] |= {"decompressor alone": {"cpu": 0.5, "mib": 9.0}}
    assert compression_costs(rows["check"]) is None
    rows["check"] |= {"folioscope, on ELF": {"cpu": 2.4}}
    found = ratios(rows)["check"]
    assert found["compression / decompressor alone"] == pytest.approx(1.2)
    assert found["CPU / decompressor alone"] == 6.0
    assert "CPU / folioscope, on ELF" not in found


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


def test_growth_is_fitted_over_pages_and_entries() -> None:
    sizes = ((4e5, 4e6), (3e6, 3e7), (1.6e7, 4e6), (6.7e7, 6.7e7), (2.7e8, 4e6))
    points = [(int(p), int(e), 0.5 + p * 2e-8 + e * 3e-7) for p, e in sizes]
    constant, a_page, an_entry = fit(points)
    assert constant == pytest.approx(0.5, rel=1e-3)
    assert a_page == pytest.approx(2e-8, rel=1e-3)
    assert an_entry == pytest.approx(3e-7, rel=1e-3)


def test_growth_says_what_was_killed_and_what_is_synthetic() -> None:
    cost = Cost(0, 1.0, 0.5, 1.2, 120.0, "cgroup")
    points = [
        Point("1 GB", True, 1 << 18, 1000, cost, dict.fromkeys(QUESTIONS, cost)),
        Point("1 TB", False, 1 << 28, 0, None, dict.fromkeys(QUESTIONS, None)),
    ]
    lines = table(points, 8 << 30)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| 1 GB | 262,144 | 1,000 | 1.5 s | 1.2 s | 120 MiB | 1.50 s, 120 MiB |")
    assert lines[3].startswith("| 1 TB (synthetic) | 268,435,456 |  | killed at 8 GiB |")
    assert "killed |" in lines[3]
    assert plot(points).count("<circle") == 2
    assert ElementTree.fromstring(plot(points)).tag.endswith("svg")
    assert "growth.svg" in page(points, 8 << 30, "cgroup")
    assert [Point.known(json.loads(json.dumps(asdict(point)))) for point in points] == points


def test_the_page_of_growth_is_made_of_what_was_measured() -> None:
    points = [Point.known(row) for row in json.loads((DOCS / "growth.json").read_text())]
    limited_by = next(point.check.limited_by for point in points if point.check)
    assert (DOCS / "growth.md").read_text() == page(points, LIMIT, limited_by)
    assert (DOCS / "growth.svg").read_text() == plot(points)
