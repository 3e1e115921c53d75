"""The dataset: read without folioscope, and by later versions of it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from inspector.errors import TargetError, UsageError
from inspector.fleet import dataset, schema
from inspector.fleet.dataset import Dataset, arrow_schema
from inspector.fleet.schema import DUMPS, EVIDENCE, FINDINGS, INPUTS, OF_A_DUMP, TABLES, SchemaColumn, columns_of
from tests.arch.docs import ROOT

VERSION_1 = Path(__file__).parent / "dataset-1"
"""Written when the schema was at its first version, by ``folioscope batch``: do not make it anew."""

PAGE = (ROOT / "inspector/manual/fleet.md").read_text("utf-8")
QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)

LEAKED = "53df0344430fc45b"


def ask(question: str, folder: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.sql(question.replace("'fleet/", f"'{folder}/")).fetchall()


def test_five_questions() -> None:
    faults, kernels, errors, folios, values = (ask(question, VERSION_1) for question in QUESTIONS)
    assert [(row[0], row[2]) for row in faults] == [(LEAKED, 2), ("34d047edf1a255ab", 1)]
    assert [row[1:] for row in kernels] == [(1, 0, 0, 0), (0, 2, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)]
    assert kernels[1][0] == "6.12.117+deb13-cloud-amd64"
    assert [(Path(row[0]).name, row[1]) for row in errors] == [("broken.kdump", "target")]
    assert {row[1] for row in folios} == set(range(2, 10))
    assert [row[1:] for row in values] == [("_mapcount", "1", "0")] * 2


def test_pandas_and_polars_read_it() -> None:
    """By themselves: a folder of partitions, `kernel` as a column of it."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for table in TABLES:
        folder, names = VERSION_1 / table.name, [column.name for column in table.columns if column.since == 1]
        rows = len(Dataset(VERSION_1).read(table))
        frame = pandas.read_parquet(folder)
        assert (len(frame), set(frame) - {"kernel"}) == (rows, set(names)), table.name
        lazy = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=table.by_kernel).collect()
        assert (lazy.height, set(lazy.columns) - {"kernel"}) == (rows, set(names)), table.name
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: list[Any] = []
    for example in code:
        exec(example.replace('"fleet/', f'"{VERSION_1}/').replace("print(", "said.append("), {"said": found})  # noqa: S102
    by_pandas, by_polars = found
    assert by_pandas.to_dict() == {"6.12.117+deb13-cloud-amd64": 1, "7.3.4+deb13-cloud-amd64": 1}
    assert dict(by_polars.iter_rows()) == by_pandas.to_dict()


def test_files_are_as_the_schema_says() -> None:
    for table in TABLES:
        files = sorted((VERSION_1 / table.name).rglob("*.parquet"))
        assert files
        for file in files:
            found = pq.read_schema(file)
            assert found.metadata[b"folioscope.dataset"] == b"1"
            first = [column for column in table.columns if column.since == 1]
            assert found.names == [column.name for column in first], table.name
            for column in first:
                stored = str(found.field(column.name).type).replace("[ms", "[s").replace("element:", "item:")
                assert stored == str(arrow_schema(table).field(column.name).type), column.name


def test_a_later_version_reads_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that has one column more, to which it adds dumps; and what it wrote is read by the first."""
    before = Dataset(VERSION_1).read(FINDINGS).to_pylist()
    assert len(before) == 3
    added = SchemaColumn("suspect", "string", "The function that did it.", since=schema.VERSION + 1)
    later = dataclasses.replace(FINDINGS, columns=(*FINDINGS.columns, added))
    monkeypatch.setattr(dataset, "VERSION", schema.VERSION + 1)
    monkeypatch.setattr(dataset, "OF_A_DUMP", tuple(later if table is FINDINGS else table for table in OF_A_DUMP))
    out = tmp_path / "out"
    shutil.copytree(VERSION_1, out)
    there = Dataset(out)
    assert there.read(later).to_pylist() == [row | {"suspect": None} for row in before]
    row = {"dump": "f" * 16, "number": 0, "rule": "some-rule", "suspect": "unmap_page"}
    dump = {"dump": "f" * 16, "state": "checked", "exit_code": 1, "release": "8.1"}
    with there.locked():
        there.put_dump("f" * 16, {"findings": columns_of(later, [row]), "dumps": columns_of(DUMPS, [dump])})
    assert [r["suspect"] for r in there.read(later).to_pylist()] == [None, None, None, "unmap_page"]
    monkeypatch.undo()
    assert len(Dataset(out).read(FINDINGS)) == 4
    assert "suspect" not in Dataset(out).read(FINDINGS).column_names
    question = "SELECT count(*), count(suspect) FROM read_parquet('fleet/findings/*/*.parquet', union_by_name = true)"
    assert ask(question, out) == [(4, 1)]


def test_columns_are_only_added() -> None:
    """What each version has is not changed any more."""
    lines = [f"{t.name}.{c.name} {c.type}" for t in TABLES for c in t.columns if c.since == 1]
    known = (Path(__file__).parent / "schema-1.txt").read_text().splitlines()
    assert lines == known
    assert all(list(t.columns) == sorted(t.columns, key=lambda c: c.since) for t in TABLES)
    assert {c.since for t in TABLES for c in t.columns} == set(range(1, schema.VERSION + 1))


def test_a_dump_may_say_anything(tmp_path: Path) -> None:
    row = {
        "dump": "0" * 16,
        "state": "checked",
        "exit_code": 0,
        "release": "../../../x/\udcff\x1b",
        "hostname": "\udcff",
        "memory_bytes": 1 << 64,
        "booted_at": 1 << 62,
        "crashed_at": -5,
        "notes": ["\udc80"],
    }
    there = Dataset(tmp_path / "out")
    with there.locked():
        there.put_dump("0" * 16, {"dumps": columns_of(DUMPS, [row])})
        there.put_input("/some/\udcff\n", "0" * 16)
    (found,) = there.read(DUMPS).to_pylist()
    assert (found["memory_bytes"], found["booted_at"], found["crashed_at"]) == (None, None, None)
    assert (found["hostname"], found["notes"]) == ("\\udcff", ["\\udc80"])
    assert there.read(INPUTS).to_pylist() == [{"path": "/some/\\xff\n", "dump": "0" * 16}]
    files = [file for file in (tmp_path / "out").rglob("*.parquet") if stat.S_ISREG(file.stat().st_mode)]
    assert len(files) == 2
    assert len(files[0].relative_to(tmp_path / "out").parts) <= 3
    for name in ("..", ".", "", None):
        assert dataset._folder_of(name) == "unknown"
    assert dataset._folder_of("a/" * 400).count("/") == 0


def test_damage(tmp_path: Path) -> None:
    shutil.copytree(VERSION_1, tmp_path / "out")
    file = next((tmp_path / "out/evidence").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TargetError, match="damaged"):
        Dataset(tmp_path / "out").read(EVIDENCE)
    for text in ("", "[]", json.dumps({"format": "x", "version": 1}), json.dumps({"format": dataset.FORMAT})):
        (tmp_path / "out/dataset.json").write_text(text)
        with pytest.raises(UsageError, match="no dataset"):
            Dataset(tmp_path / "out").require()


def test_unfinished_files_go(tmp_path: Path) -> None:
    shutil.copytree(VERSION_1, tmp_path / "out")
    whole = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    (tmp_path / "out/.run").mkdir()
    (tmp_path / "out/.run/7.abc.parquet").touch()
    folder = tmp_path / "out/findings/kernel=5.0"
    folder.mkdir()
    (folder / f"{'1' * 16}.parquet").write_bytes(next(iter(whole.values())))
    with Dataset(tmp_path / "out").locked():
        pass
    left = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    left.pop(tmp_path / "out/.run/lock")
    assert left == whole
