"""Dumps in several files, as ``makedumpfile --split`` writes them: opened as one, or refused in one line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.cli import main
from inspector.columns import AnyArray
from inspector.errors import Exit, TargetError
from inspector.snapshot import Snapshot
from inspector.target.corefile import DESCRIPTOR, PagesAt, examine_core, together
from inspector.target.target import open_core
from tests.elf import PAGE, pages_of

_SUB_HEADER = PAGE
_SPLIT, _START, _WIDE_START = 12, 16, 80
"""Places in struct kdump_sub_header."""


def split(path: str, folder: Path, borders: list[int], *, own_bits: bool = False) -> list[str]:
    """Write a dump as parts.

    Args:
        path: The dump.
        folder: Where.
        borders: Page frames at which the next part begins.
        own_bits: Whether the bitmap of a part has its own pages only, as with little memory; else those of all.
    """
    data, at, pfns = Path(path).read_bytes(), examine_core(path).pages, pages_of(path)
    assert at is not None
    rows = np.frombuffer(data, DESCRIPTOR, len(pfns), at.table)
    nr_pfns = struct.unpack_from("<Q", data, _SUB_HEADER + 96)[0]
    edges = [0, *borders, nr_pfns]
    out = []
    for number, (first, end) in enumerate(zip(edges, edges[1:], strict=False)):
        mine = (pfns >= first) & (pfns < end)
        out.append(str(folder / f"part{number}"))
        Path(out[-1]).write_bytes(_part(data, at, pfns if not own_bits else pfns[mine], rows[mine], first, end))
    return out


def _part(data: bytes, at: PagesAt, bits: AnyArray, rows: AnyArray, first: int, end: int) -> bytes:
    head = bytearray(data[: at.table])
    struct.pack_into("<i", head, _SUB_HEADER + _SPLIT, 1)
    struct.pack_into("<QQ", head, _SUB_HEADER + _START, first, end)
    struct.pack_into("<QQ", head, _SUB_HEADER + _WIDE_START, first, end)
    bitmap = np.zeros((at.table - at.bitmap) * 8, np.uint8)
    bitmap[bits] = 1
    head[at.bitmap :] = np.packbits(bitmap, bitorder="little").tobytes()
    table, stored = rows.copy(), b""
    for row in table:
        begin = int(row["offset"])
        row["offset"] = len(head) + table.nbytes + len(stored)
        stored += data[begin : begin + int(row["size"])]
    return bytes(head) + table.tobytes() + stored


@pytest.fixture(scope="module")
def parts(core: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One dump in four parts; the third holds nothing."""
    return split(core("6.12"), tmp_path_factory.mktemp("parts"), [0x3A5D, 0x13003, 0x13003])


@pytest.mark.parametrize("own_bits", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_same_report(own_bits: bool, order: tuple[int, ...], core: Callable[[str], str], tmp_path: Path) -> None:
    files = split(core("6.12"), tmp_path, [0x3A5D, 0x13003, 0x13003], own_bits=own_bits)
    target = open_core([files[i] for i in order], types="btf")
    assert (target.path, *target.more_parts) in {tuple(files), (files[0], files[1], files[3], files[2])}
    assert target.options == " ".join(f"-c {file}" for file in (target.path, *target.more_parts))
    one, other = run_check(Snapshot(target)), run_check(Snapshot(open_core(core("6.12"), types="btf")))
    assert one.summary == other.summary
    assert one.coverage == other.coverage
    assert one.findings == other.findings


def test_same_pages(parts: list[str], core: Callable[[str], str]) -> None:
    one, other = open_core(parts, types="btf").prog, open_core(core("6.12"), types="btf").prog
    pfns = pages_of(core("6.12"))
    for border in (0x3A5D, 0x13003, int(pfns[-1])):
        for pfn in pfns[(pfns >= border - 40) & (pfns < border + 40)].tolist():
            assert one.read(pfn * PAGE, PAGE, physical=True) == other.read(pfn * PAGE, PAGE, physical=True)
    for first, end in zip(pfns[:-1].tolist(), pfns[1:].tolist(), strict=True):
        if first < 0x3A5D <= end == first + 1:
            assert one.read(first * PAGE, 2 * PAGE, physical=True) == other.read(first * PAGE, 2 * PAGE, physical=True)


def test_one_part_alone(parts: list[str]) -> None:
    with pytest.raises(TargetError, match="this is one part of a split dump: .*part1"):
        open_core(parts[1], types="btf")


@pytest.mark.parametrize(("lost", "said"), [(0, "0x0 to 0x3a5c"), (1, "0x3a5d to 0x13002"), (3, "0x13003 to 0x27fff")])
def test_a_part_is_missing(lost: int, said: str, parts: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    words = [word for number, file in enumerate(parts) if number != lost for word in ("-c", file)]
    for command in ("check", "info", "ps"):
        assert main([command, *words]) == Exit.TARGET
        seen = capfd.readouterr()
        assert seen.out == ""
        (line,) = seen.err.splitlines()
        assert f"a part of the split dump is missing, with the page frames {said}" in line


def test_a_part_that_holds_nothing_may_be_missing(parts: list[str]) -> None:
    open_core([parts[0], parts[1], parts[3]], types="btf")


def test_a_part_is_truncated(parts: list[str], tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(Path(parts[1]).read_bytes()[:-1])
    with pytest.raises(TargetError, match=r"truncated \(1 page is missing\): .*short"):
        open_core([parts[0], str(short), *parts[2:]], types="btf")


def test_files_that_do_not_belong_together(parts: list[str], core: Callable[[str], str], tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.write_bytes(Path(parts[1]).read_bytes())
    with pytest.raises(TargetError, match="named twice"):
        open_core([*parts, str(again)], types="btf")
    with pytest.raises(TargetError, match="a whole dump"):
        open_core([*parts, core("6.12")], types="btf")
    others = split(core("7.3"), tmp_path, [0x8000])
    with pytest.raises(TargetError, match="parts of different dumps"):
        open_core([others[0], *parts[1:]], types="btf")
    mixed = [others[1], parts[3], core("6.1"), parts[0], "/nonexistent", others[0], parts[1], parts[2]]
    assert together(mixed) == [
        (others[1], others[0]),
        (parts[3], parts[0], parts[1], parts[2]),
        (core("6.1"),),
        ("/nonexistent",),
    ]


def test_check_of_parts_and_of_others(
    parts: list[str], core: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", parts[2], core("6.12"), parts[0], parts[3], parts[1], "-q"]) == Exit.CLEAN
    assert "2 targets: 2 consistent" in capfd.readouterr().out
    assert main(["ps", *(word for file in parts for word in ("-c", file))]) == Exit.CLEAN
    assert main(["ps", "-c", core("6.12")]) == Exit.CLEAN
    seen = capfd.readouterr().out.splitlines()
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
