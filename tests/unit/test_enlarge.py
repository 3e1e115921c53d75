"""The enlarger's dumps are consistent, and its writers put pages where they belong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import drgn
import numpy as np
import pytest

from inspector.capture.capture import header_of
from inspector.capture.kdump_writer import DumpHeader
from inspector.check.run import run_check
from inspector.lib import xarray
from inspector.snapshot import Snapshot
from inspector.target.corefile import examine_core
from inspector.target.target import open_core
from inspector.walk.cache_view import cache_of
from tests.bench.compression import COMPRESSIONS, compression_named
from tests.bench.convert import converted, pieces_of
from tests.bench.cost import measure
from tests.bench.decompress import StoredPages, physical_pages, unpack
from tests.bench.enlarge import enlarge, parse_size
from tests.bench.writers import PAGE, ElfWriter, KdumpWriter, Writer
from tests.faults.overlay import Patch, findings
from tests.fixtures import fixture_path

GIB_PAGES = 1 << 18
EVERY_KERNEL = [
    pytest.param("6.1", marks=pytest.mark.long),
    pytest.param("6.12", marks=pytest.mark.long),
    "7.3",
]


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
def test_a_check_of_an_enlarged_dump_finds_nothing(kernel: str, tmp_path: Path) -> None:
    core = fixture_path(kernel)
    small, out = Snapshot(open_core(str(core), types="btf")), tmp_path / "out.elf"
    enlarge(core, out, 6 << 30)
    s = Snapshot(open_core(str(out), types="btf"))
    report = run_check(s)
    assert report.findings == []
    assert s.missing.complete, s.missing.counts
    assert len(s.pages) == 6 * GIB_PAGES
    added = np.flatnonzero(s.pages.memmap.pfns_of_rows(np.arange(len(s.pages))) >= 1 << 20)
    assert len(added) == 6 * GIB_PAGES - len(small.pages)
    # All but the added memory map is free, and no page of it was written twice.
    free = int(s.buddy.zones.free_pages.sum()) - int(small.buddy.zones.free_pages.sum())
    assert free > 0.98 * len(added)
    assert len(s.mappings) == len(small.mappings)
    assert out.stat().st_size < core.stat().st_size * 20


@pytest.mark.parametrize(
    ("kernel", "members"),
    [
        pytest.param("6.1", 4, marks=pytest.mark.long),
        pytest.param("6.12", 1, marks=pytest.mark.long),
        pytest.param("7.3", 1, marks=pytest.mark.long),
        ("7.3", 6),
    ],
)
def test_added_processes_are_consistent(kernel: str, members: int, tmp_path: Path) -> None:
    core, pages = fixture_path(kernel), 4096
    small, out = Snapshot(open_core(str(core), types="btf")), tmp_path / "out.kdump"
    enlarge(core, out, 5 << 30, "zlib", used=pages * PAGE, members=members)
    s = Snapshot(open_core(str(out), types="btf"))
    report = run_check(s)
    assert report.findings == []
    assert s.missing.complete, s.missing.counts
    assert len(s.mms) == len(small.mms) + members
    assert report.summary["leaf_entries"] == int(small.mappings.nr.sum()) + pages * members
    new = s.mms.addr[~np.isin(s.mms.addr, small.mms.addr)]
    mine = s.mms.addr[s.mappings.mm_idx] == new[-1]
    # Nearly every entry is a run of its own, and the rmap walk from a page finds every member.
    assert 0.95 * pages < mine.sum() <= pages
    pfn = int(s.mappings.pfn[mine][100])
    words = ["-c", str(out), "--types", "btf", "--format", "json", "rmap", f"{pfn:#x}"]
    _, text = measure([sys.executable, "-m", "inspector", *words])
    assert sum(row["pages"] for row in json.loads(text)["mappings"]) == members


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
@pytest.mark.parametrize("pages", [1, 64, 65, 70_000])
def test_added_page_cache_is_consistent(
    kernel: str, pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = fixture_path(kernel)
    small, out = Snapshot(open_core(str(core), types="btf")), tmp_path / "out.elf"
    enlarge(core, out, 5 << 30, cached=pages * PAGE)
    monkeypatch.setattr(xarray, "_KEPT", 1000)
    s = Snapshot(open_core(str(out), types="btf"))
    assert run_check(s).findings == []
    assert s.missing.complete, s.missing.counts
    assert s.files.nr_entries == small.files.nr_entries + pages
    view = cache_of(s, int(np.argmax(s.files.address_spaces.nrpages)))
    assert pages < 1000 or view.index.tolist() == list(range(pages))


def test_a_wrong_entry_among_added_page_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, index = tmp_path / "out.elf", 41_234
    enlarge(fixture_path("7.3"), out, 5 << 30, cached=70_000 * PAGE)
    monkeypatch.setattr(xarray, "_KEPT", 1000)
    s = Snapshot(open_core(str(out), types="btf"))
    space = int(np.argmax(s.files.address_spaces.nrpages))
    folio = int(cache_of(s, space).pfn[index])
    place = s.layout.struct("struct page").field("__folio_index", "index").offset
    (found,) = findings(str(out), Patch(s.layout.memmap.page_addr(folio) + place, (7).to_bytes(8, "little")))
    assert (found.rule, found.subject.pfn) == ("cache-entry-mismatch", folio)
    assert found.evidence.also == ["cached-folio-missing"]
    assert f"index {index:#x}" in (found.subject.name or "")


def test_a_wrong_count_among_added_processes_is_found(tmp_path: Path) -> None:
    out = tmp_path / "out.elf"
    enlarge(fixture_path("7.3"), out, 5 << 30, used=512 * PAGE, members=2)
    s = Snapshot(open_core(str(out), types="btf"))
    pfn = int(s.mappings.pfn[s.mappings.pfn > 1 << 20][0])
    count = s.layout.struct("struct page").field("_mapcount.counter").offset
    found = findings(str(out), Patch(s.layout.memmap.page_addr(pfn) + count, b"\2\0\0\0"))
    assert [(f.rule, f.subject.pfn) for f in found] == [("mapcount-too-high", pfn)]


@pytest.fixture(scope="module")
def header() -> DumpHeader:
    core = str(fixture_path("7.3"))
    return header_of(open_core(core, types="btf"), examine_core(core).vmcoreinfo)


def _read_back(path: Path, pfns: list[int]) -> list[int]:
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64) if path.suffix == ".kdump" else None)
    prog.set_core_dump(str(path))
    found = [prog.read(pfn * PAGE, PAGE, physical=True) for pfn in pfns]
    assert all(page == page[:8] * (PAGE // 8) for page in found)
    return [int.from_bytes(page[:8], "little") for page in found]


def _fill(writer: Writer) -> None:
    """Each of the pages 100 to 139 holds its number and so do two others; 140 is zero, a hole follows."""
    pages = np.repeat(np.arange(100, 141, dtype=np.uint64), PAGE // 8).reshape(-1, PAGE // 8)
    pages[-1] = 0
    with writer:
        first = writer.store(pages)
        writer.place(100, first, 41)
        writer.place(np.arange(1000, 1040), first + np.arange(40), 1)
        writer.place(5000, first + 10, 20)


def test_an_elf_file_shares_content(tmp_path: Path, header: DumpHeader) -> None:
    path = tmp_path / "dump.elf"
    _fill(ElfWriter(path, header))
    assert _read_back(path, [100, 139, 140, 1000, 1039, 5000, 5019]) == [100, 139, 0, 100, 139, 110, 129]
    with pytest.raises(drgn.FaultError):
        _read_back(path, [141])


@pytest.mark.parametrize("compression", ["none", *COMPRESSIONS])
def test_a_compressed_file_shares_content(compression: str, tmp_path: Path, header: DumpHeader) -> None:
    path = tmp_path / "dump.kdump"
    _fill(KdumpWriter(path, header, compression_named(compression), 6000, 200))
    assert _read_back(path, [100, 139, 140, 1000, 1039, 5000, 5019]) == [100, 139, 0, 100, 139, 110, 129]
    with pytest.raises(drgn.FaultError):
        _read_back(path, [141])


def test_more_segments_than_a_header_counts(tmp_path: Path, header: DumpHeader) -> None:
    path = tmp_path / "dump.elf"
    with ElfWriter(path, header) as writer:
        first = writer.store(np.repeat(np.arange(2, dtype=np.uint64), PAGE // 8))
        pfns = np.arange(100_000)
        writer.place(pfns, first + pfns % 2, 1)
    assert _read_back(path, [0, 1, 65_535, 99_998, 99_999]) == [0, 1, 1, 0, 1]
    assert examine_core(str(path)).missing_bytes == 0


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_compression_gives_back_what_it_took(name: str) -> None:
    compression, rng = compression_named(name), np.random.default_rng(1)
    for page in (bytes(PAGE), bytes(range(256)) * 16, rng.bytes(PAGE)):
        packed = compression.compress(page)
        assert compression.decompress(packed, PAGE) == page
    assert len(compression.compress(bytes(PAGE))) < PAGE // 10


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_a_converted_dump_holds_the_same(compression: str, tmp_path: Path) -> None:
    core = tmp_path / "copy.kdump"
    core.symlink_to(fixture_path("7.3"))
    out = converted(core, compression)
    assert out == tmp_path / f"copy.{compression}.kdump"
    layout = Snapshot(open_core(str(core), types="btf")).layout
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.set_core_dump(str(out))
    pieces = pieces_of(layout)
    assert sum(end - start for start, end in pieces) > 1000
    for start, end in pieces[:40]:
        mine = layout.memory.read(start * PAGE, (end - start) * PAGE, physical=True)
        assert prog.read(start * PAGE, (end - start) * PAGE, physical=True) == mine
    # The decompressor alone gives as many bytes as there are pages, and made once the dump is not made again.
    pfns = np.concatenate([np.arange(start, end) for start, end in pieces])
    assert unpack(StoredPages(out).of(np.append(pfns, 1 << 40))) == len(pfns) * PAGE
    before = out.stat().st_mtime_ns
    assert converted(core, compression).stat().st_mtime_ns == before


def test_pages_read_by_virtual_address_are_found() -> None:
    s = Snapshot(open_core(str(fixture_path("7.3")), types="btf"))
    memmap, base = s.layout.memmap, s.layout.memory.direct_map_base
    reads = np.array([(memmap.page_addr(0), 3, 0), (base + 5 * PAGE, 2, 0), (6 * PAGE, 2, 1)], np.uint64)
    pfns = physical_pages(s.layout, reads)
    of_map = np.setdiff1d(pfns, [5, 6, 7])
    assert len(pfns) == 6
    raw = s.layout.memory.read(int(of_map[0]) * PAGE, 3 * PAGE, physical=True)
    assert raw == s.layout.memory.read(memmap.page_addr(0), 3 * PAGE)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("1T", "64g", "512M", "4096")] == [1 << 40, 64 << 30, 512 << 20, 4096]
