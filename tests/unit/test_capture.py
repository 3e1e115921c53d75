"""A capture gives its source's answers, holds nothing of any process, and appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import drgn
import msgspec
import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.capture import capture as capture_module
from inspector.capture.capture import capture
from inspector.capture.kdump_writer import DumpHeader, PageSpool, write_kdump
from inspector.capture.packing import PageSource
from inspector.capture.private_pages import PRIVATE, CoveredPages, judge_pages
from inspector.capture.recorder import Recorder
from inspector.check.run import run_check
from inspector.cli import main
from inspector.columns import I64
from inspector.errors import Exit, TargetError, UsageError
from inspector.snapshot import Snapshot
from inspector.tables.stacks import thread_size
from inspector.tables.vmalloc import vmalloc_pfns
from inspector.target.corefile import DESCRIPTOR, examine_core
from inspector.target.target import Target, from_program, open_core
from inspector.walk.mappings import entry_pages
from inspector.walk.names import vma_names
from inspector.walk.smaps import shmem_swapped, vma_figures
from tests.fixtures import FOLDER, KERNELS, fixture_path
from tests.guests import dump_path, guests_folder
from tests.oracle.fixture_oracle import load_fixture_oracle

PAGE = 4096
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def opened(path: Path, types: Any = "btf") -> Target:
    return open_core(str(path), types=types)


def captured_pfns(path: Path) -> I64:
    """Read the second bitmap of a kdump-compressed file."""
    data = path.read_bytes()
    sub_blocks, bitmap_blocks = (int.from_bytes(data[at : at + 4], "little") for at in (432, 436))
    at = PAGE * (1 + sub_blocks + bitmap_blocks // 2)
    bits = np.frombuffer(data, np.uint8, PAGE * bitmap_blocks // 2, at)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little"))


def answers(s: Snapshot) -> dict[str, Any]:
    """All that is said of a target but how it was opened."""
    plain: dict[str, Any] = msgspec.to_builtins(run_check(s))
    for name in ("path", "kind", "types_from", "symbols_from"):
        plain["target"].pop(name)
    for finding in plain["findings"]:
        finding.pop("look")
    plain["identity"] = s.target.identity
    plain["names"] = vma_names(s.layout, s.mms, s.vmas, np.arange(len(s.vmas)))
    plain["rss"] = vma_figures(s).rss.tolist()
    return plain


@pytest.fixture(params=KERNELS)
def fixture(request: pytest.FixtureRequest) -> Path:
    return fixture_path(str(request.param))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy of a fixture that may be spoilt."""
    copy = tmp_path / "small.kdump"
    copy.write_bytes(fixture_path("6.1").read_bytes())
    return copy


def test_fixture_is_consistent_and_lacks_nothing(fixture: Path) -> None:
    report = run_check(Snapshot(opened(fixture)))
    assert report.exit_code == Exit.CLEAN
    assert report.coverage.complete
    assert not report.findings


def test_fixture_is_what_its_readme_says(fixture: Path) -> None:
    facts = json.loads((FOLDER / "facts.json").read_text())[fixture.name.removesuffix(".kdump")]
    readme = (FOLDER / "README.md").read_text()
    for name, file in facts["files"].items():
        digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
        assert digest == file["sha256"]
        assert digest in readme


@pytest.mark.long
def test_capture_of_a_capture_is_the_same(fixture: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    report = capture(opened(fixture), first)
    assert report.same_answers
    assert report.proof == "reads"
    assert not report.left_out
    assert not report.notes
    assert captured_pfns(first).tolist() == captured_pfns(fixture).tolist(), "run make fixtures"
    assert report.nr_pages == len(captured_pfns(first))
    assert answers(Snapshot(opened(first))) == answers(Snapshot(opened(fixture)))
    capture(opened(first), second, nr_workers=1)
    assert first.read_bytes() == second.read_bytes()


def test_no_page_of_a_user_is_inside(fixture: Path) -> None:
    """By the kernel's own word, /proc/kpageflags and kpagecount, and by the page tables."""
    oracle, s = load_fixture_oracle(fixture.name.removesuffix(".kdump")), Snapshot(opened(fixture))
    pfns = captured_pfns(fixture)
    flags = oracle.kpageflags[pfns]
    # KPF_RESERVED: the kernel image, the vDSO is in it. KPF_SLAB: 6.12 takes a slab's own words for mapping bits.
    kept = pfns[flags & np.uint64(1 << 32 | 1 << 7) == 0]
    names = {5: "LRU", 10: "BUDDY", 11: "MMAP", 12: "ANON", 13: "SWAPCACHE", 17: "HUGE", 22: "THP"}
    for bit, name in names.items():
        found = kept[(oracle.kpageflags[kept] >> np.uint64(bit)) & np.uint64(1) == 1]
        assert not len(found), f"KPF_{name}: {found[:8]}"
    assert not (oracle.kpagecount[kept] > 0).any()
    rows = s.pages.memmap.rows(kept)
    assert not (s.counts.page_mappings[rows] > 0).any()
    assert not s.pages.is_anon(s.pages.head_row[rows].astype(np.int64)).any()
    assert len(kept) > 1000


def test_every_page_of_a_user_is_judged_private(fixture: Path) -> None:
    oracle, s = load_fixture_oracle(fixture.name.removesuffix(".kdump")), Snapshot(opened(fixture))
    flags = oracle.kpageflags
    users = np.uint64(1 << 5 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 17)  # LRU to SWAPCACHE, HUGE
    pfns = np.flatnonzero((flags & users != 0) & (flags & np.uint64(1 << 32 | 1 << 7) == 0))
    assert len(pfns) > 20_000
    assert judge_pages(s, pfns).all()
    reserved = np.flatnonzero(flags >> np.uint64(32) & np.uint64(1))
    assert not judge_pages(s, reserved).any()
    assert judge_pages(s, np.array([1 << 40])).tolist() == [PRIVATE.index("unknown") + 1]


def test_pages_that_entries_cover_are_known(fixture: Path) -> None:
    s = Snapshot(opened(fixture))
    m, mapped = s.mappings, s.collected(CoveredPages)
    expected = np.zeros(s.layout.memmap.max_pfn, np.bool_)
    for first, nr in zip(m.pfn.tolist(), (m.nr * entry_pages(s.layout, m.level)).tolist(), strict=True):
        expected[first : first + nr] = True
    assert expected.any()
    assert np.array_equal(mapped.mapped, expected)
    assert not mapped.of(np.array([1 << 40])).any()


def test_kinds_account_for_every_page(fixture: Path) -> None:
    facts = json.loads((FOLDER / "facts.json").read_text())[fixture.name.removesuffix(".kdump")]
    assert sum(facts["pages"].values()) == len(captured_pfns(fixture))
    assert facts["files"][fixture.name]["bytes"] < 8 << 20
    assert all(count > 0 for count in facts["pages"].values())


def run_drgn(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("drgn")), "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


WALK = """
from drgn.helpers.linux.mm import for_each_vma
from drgn.helpers.linux.pid import find_task, for_each_task
tasks = list(for_each_task(prog))
print(len(tasks), find_task(prog, 1).comm.string_().decode(), len(list(for_each_vma(find_task(prog, 1).mm))))
"""


def test_plain_drgn_walks_a_fixture(fixture: Path, tmp_path: Path) -> None:
    script = tmp_path / "walk.py"
    script.write_text("from inspector.target.target import from_program\nfrom_program(prog)\n" + WALK)
    s = Snapshot(opened(fixture))
    keeper = int(np.flatnonzero(s.mms.pid == 1)[0])
    vmas = int((s.vmas.mm_idx == keeper).sum())
    assert run_drgn("-c", str(fixture), str(script)).split() == [str(len(s.tasks)), "keeper", str(vmas)]


def test_every_page_has_its_address_for_drgn(fixture: Path) -> None:
    """libkdumpfile translates addresses of the direct map by the kernel's page tables."""
    target = opened(fixture)
    base = Snapshot(target).layout.memory.direct_map_base
    for pfn in captured_pfns(fixture).tolist():
        assert target.prog.read(base + pfn * PAGE, 64) == target.prog.read(pfn * PAGE, 64, True)


@pytest.mark.parametrize("script", ["check.py", "mapcounts.py", "folio.py"])
def test_scripts_run_under_drgn(script: str, fixture: Path) -> None:
    s = Snapshot(opened(fixture))
    folio = int(np.flatnonzero(s.folios.is_anon & (s.counts.entire > 0))[0])
    arguments = [hex(int(s.folios.pfn[folio]))] if script == "folio.py" else []
    said = run_drgn("-c", str(fixture), str(SCRIPTS / script), *arguments)
    wanted = {"check.py": "consistent", "mapcounts.py": "anon         9", "folio.py": f"folio {arguments}"}[script]
    assert wanted.replace("['", "").replace("']", "") in said
    assert len((SCRIPTS / script).read_text().splitlines()) < 40


@pytest.mark.parametrize("part", [0.0001, 0.002, 0.01, 0.5, 0.999])
def test_truncated_capture_is_one_clear_error(part: float, small: Path) -> None:
    os.truncate(small, int(small.stat().st_size * part))
    with pytest.raises(TargetError, match=r"the dump is truncated|not a vmcore|known format"):
        opened(small)


def test_existing_file_is_kept_unless_forced(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        capture(opened(small), out)
    assert out.read_text() == "precious"
    assert capture(opened(small), out, is_forced=True).bytes == out.stat().st_size


def test_source_is_never_written(small: Path, tmp_path: Path) -> None:
    before = small.read_bytes()
    (tmp_path / "link").symlink_to(small)
    for out in (small, tmp_path / "link"):
        with pytest.raises(UsageError, match="into itself"):
            capture(opened(small), out, is_forced=True)
    with pytest.raises(UsageError, match="directory"):
        capture(opened(small), tmp_path, is_forced=True)
    with pytest.raises(UsageError, match="no regular file"):
        capture(opened(small), "/dev/null", is_forced=True)
    assert small.read_bytes() == before


def test_nothing_is_left_of_a_capture_that_fails(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(capture_module, "write_kdump", full)
    with pytest.raises(TargetError, match=r"cannot be written \(No space left on device\).*Free some space"):
        capture(opened(small), tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(PageSpool, "add", full)
    with pytest.raises(TargetError, match="No space left"):
        capture(opened(small), tmp_path / "out")
    with pytest.raises(TargetError, match="No such file or directory"):
        capture(opened(small), tmp_path / "nowhere" / "out")
    assert [path.name for path in tmp_path.iterdir()] == [small.name]


def test_disk_that_fills_up_for_real(small: Path, tmp_path: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    program = limit + "from inspector.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "-c", str(small), "capture", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == Exit.TARGET
    assert done.stderr.startswith("folioscope: error: the capture cannot be written (File too large)")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


class Changed:
    """The pages of a recording but for one bit of one of them."""

    def __init__(self, source: PageSource, pfn: int, at: int, bit: int) -> None:
        self.source, self.pfn, self.at, self.bit = source, pfn, at, bit

    def pages(self, pfns: Sequence[int]) -> list[bytes]:
        out = self.source.pages(pfns)
        for i, pfn in enumerate(pfns):
            if pfn == self.pfn:
                page = bytearray(out[i])
                page[self.at] ^= self.bit
                out[i] = bytes(page)
        return out


@pytest.mark.parametrize("place", ["page table", "memory map", "unused"])
def test_one_changed_bit_is_noticed(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that answers one read otherwise is not taken on trust: it is checked, and the reports compared."""
    fixture = fixture_path("7.3")
    s = Snapshot(opened(fixture))
    folio = int(np.flatnonzero(s.folios.is_anon & (s.counts.entire > 0))[0])
    struct_page = s.layout.memmap.page_addr(int(s.folios.pfn[folio]))
    pfn, at = {
        "page table": (int(s.tables.pfn[np.flatnonzero(s.tables.level == Level.PTE)[0]]), 0),
        "memory map": (int(vmalloc_pfns(s.layout, np.array([struct_page], np.uint64))[0]), struct_page % PAGE + 0x30),
        "unused": (int(captured_pfns(fixture)[0]), PAGE - 1),
    }[place]

    def write(file: Any, header: DumpHeader, source: PageSource, *rest: Any) -> None:
        write_kdump(file, header, Changed(source, pfn, at, 2), *rest)

    monkeypatch.setattr(capture_module, "write_kdump", write)
    report = capture(opened(fixture), tmp_path / "out")
    assert report.proof == "report"
    assert report.same_answers == (place == "unused")


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_page_stored_in_the_place_of_another_is_noticed(
    is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where pages share a place: what is compared once stands for all of them."""

    def write(file: Any, header: DumpHeader, source: PageSource, pfns: I64, *rest: Any) -> None:
        write_kdump(file, header, source, pfns, *rest)
        end = file.seek(0, os.SEEK_END)
        file.flush()
        at = examine_core(file.name).pages
        assert at is not None
        table = np.fromfile(file.name, DESCRIPTOR, len(pfns), offset=at.table)
        _, place, nr = np.unique(table["offset"], return_inverse=True, return_counts=True)
        one = int(np.flatnonzero(nr[place] > 1)[-1]) if is_shared else int(np.flatnonzero(nr[place] == 1)[-1])
        table[one] = table[int(np.flatnonzero(nr[place] == 1)[0])]
        file.seek(at.table)
        file.write(table.tobytes())
        file.seek(end)

    monkeypatch.setattr(capture_module, "write_kdump", write)
    assert capture(opened(fixture_path("7.3")), tmp_path / "out").proof == "report"


def test_facts_that_a_capture_leaves_out_read_nothing(fixture: Path) -> None:
    """What they are made of was read by the check before."""
    s = Snapshot(opened(fixture))
    seen: set[int] = set()
    s.layout.memory.on_read = lambda at, size, _: seen.update(range(at // PAGE, (at + size - 1) // PAGE + 1))
    run_check(s)
    before = set(seen)
    for name in capture_module._MADE_OF_TABLES:  # noqa: SLF001  (what is left out is nowhere else)
        getattr(s, name)
    assert seen == before


def test_what_listings_of_vmas_read_is_read_without_all_mappings(fixture: Path) -> None:
    """These are as large as all page tables; that pages of shmem are in swap is in its page cache."""
    s = Snapshot(opened(fixture))
    run_check(s)
    vars(s).pop("mappings", None)
    seen: set[int] = set()
    s.layout.memory.on_read = lambda at, size, _: seen.update(range(at // PAGE, (at + size - 1) // PAGE + 1))
    capture_module._read_vmas(s)  # noqa: SLF001  (a stage of every capture)
    assert seen
    assert "mappings" not in vars(s)
    before = set(seen)
    s = Snapshot(opened(fixture))
    assert len(s.vmas)
    assert s.mappings.nr.any()
    s.layout.memory.on_read = lambda at, size, _: seen.update(range(at // PAGE, (at + size - 1) // PAGE + 1))
    shmem_swapped(s)
    assert seen == before


def test_only_known_tables_are_made_of_kernel_stacks(fixture: Path) -> None:
    """A capture has the live parts of stacks only: what is made of them is compared when it is opened again."""
    s = Snapshot(opened(fixture))
    own = s.tasks.stack[s.tasks.stack != 0]
    readers: set[str] = set()
    now = ""

    def note(address: int, size: int, physical: bool) -> None:
        low, high = own < np.uint64(address + size), own + np.uint64(thread_size(s.layout)) > np.uint64(address)
        if not physical and (low & high).any():
            readers.add(now)

    s.layout.memory.on_read = note
    properties = [n for n in dir(Snapshot) if isinstance(getattr(Snapshot, n), (property, cached_property))]
    for now in ("stacks", "gathers", *properties):
        with suppress(AttributeError):
            getattr(s, now)
    # In flight and lost tables: the words of `stack_words`, which are compared as well.
    assert {"stacks"} <= readers <= {"stacks", "gathers", "in_flight", "lost_tables"}


def overlaid(source: drgn.Program, words: dict[int, bytes]) -> Target:
    """The same kernel with some of its physical memory replaced."""
    prog = drgn.Program(source.platform)

    def read(address: int, count: int, _offset: int, _physical: bool) -> bytes:
        for at, content in words.items():
            if at <= address < at + len(content) and len(content) >= PAGE:
                return content[address - at :][:count]
        data = bytearray(source.read(address, count, True))
        for at, content in words.items():
            if address <= at < address + count:
                data[at - address : at - address + len(content)] = content
        return bytes(data[:count])

    prog.add_memory_segment(0, 1 << 52, read, True)
    prog.set_linux_kernel_custom(source["VMCOREINFO"].string_(), False)
    return from_program(prog, types="btf")


def test_user_page_that_damage_leads_to_is_left_out(fixture: Path, tmp_path: Path) -> None:
    """A PMD entry points to an anonymous page: it is read as a page table, and must not get into the capture."""
    source = opened(fixture)
    s = Snapshot(source)
    tables = s.tables
    child = int(np.flatnonzero((tables.level == Level.PTE) & tables.first)[0])
    at = (int(tables.pfn[tables.parent[child]]) << 12) + 8 * int(tables.slot[child])
    anon = np.flatnonzero(s.pages.is_anon(np.arange(len(s.pages))) & (s.folio_of_page < 0) & (s.pages.refcount > 0))
    pfn = int(s.pages.memmap.pfns_of_rows(anon[:1])[0])
    secret = b"the user's own".ljust(PAGE, b"\0")
    damaged = overlaid(source.prog, {at: (pfn << 12 | 0x67).to_bytes(8, "little"), pfn << 12: secret})
    out = tmp_path / "out"
    report = capture(damaged, out)
    assert report.left_out == {"anonymous": 1}
    assert not report.same_answers
    assert report.proof == "report"
    assert pfn not in captured_pfns(out)
    with pytest.raises(drgn.FaultError):
        opened(out).prog.read(pfn << 12, PAGE, True)


class Changing:
    """A live kernel: each read gives other bytes; page 2 ends half-way, page 3 is not there."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, address: int, count: int, _physical: bool) -> bytes:
        self.reads += 1
        end = address + count
        if end > 2 * PAGE + 2048:
            raise drgn.FaultError("nothing there", address)
        return bytes([self.reads]) * count


@pytest.fixture
def spool(tmp_path: Path) -> PageSpool:
    return PageSpool(tmp_path, PAGE)


def test_live_page_keeps_what_was_seen_first(spool: PageSpool) -> None:
    recorder = Recorder(Changing(), spool, PAGE, is_live=True)
    first = recorder.read(100, 8, 0, True)
    assert recorder.read(100, 8, 0, True) == first == spool.page(0)[100:108]
    across = recorder.read(PAGE - 4, 8, 0, True)
    assert across[:4] == first[:4]
    assert across[4:] != first[:4]
    assert recorder.read(0, 2 * PAGE, 0, True) == spool.page(0) + spool.page(1)


def test_page_that_can_be_read_in_part_is_kept_in_part(spool: PageSpool) -> None:
    recorder = Recorder(Changing(), spool, PAGE, is_live=False)
    recorder.read(2 * PAGE, 16, 0, True)
    assert all(recorder.page(2)[:2048])
    assert not any(recorder.page(2)[2048:])
    with pytest.raises(drgn.FaultError):
        recorder.read(2 * PAGE, PAGE, 0, True)
    with pytest.raises(drgn.FaultError):
        recorder.read(3 * PAGE, 8, 0, True)
    assert 3 not in recorder
    assert recorder.pfns().tolist() == [2]


def test_written_pages_read_back(spool: PageSpool, tmp_path: Path) -> None:
    """Zero, compressible and incompressible pages, far apart, beside memory that is not in the file."""
    info = opened(fixture_path("7.3")).prog["VMCOREINFO"].string_()
    noise = np.random.default_rng(1).integers(0, 256, PAGE, np.uint8).tobytes()
    pages = {3: bytes(PAGE), 70_001: noise, 70_002: noise, 1_000_000: b"folio" * 819 + b"!"}
    for pfn, content in reversed(pages.items()):
        spool.add(pfn, content)
    header = DumpHeader("x86_64", "7.3", "#1", PAGE, 0, 0, info)
    out = tmp_path / "out"
    with out.open("wb") as file:
        write_kdump(file, header, spool, np.array(sorted(pages)), [(0, 5), (9, 1 << 20)])
    prog = drgn.Program()
    prog.set_core_dump(str(out))
    for pfn, content in pages.items():
        assert prog.read(pfn * PAGE, PAGE, True) == content
    with pytest.raises(drgn.FaultError):
        prog.read(4 * PAGE, 8, True)
    assert out.stat().st_size < 4 * (1 << 20) / 8
    assert out.read_bytes().count(noise) == 1, "equal pages are stored once"


@pytest.mark.long
def test_command_tells_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = str(fixture_path("7.3")), str(tmp_path / "out")
    assert main(["-c", source, "capture", out]) == Exit.CLEAN
    said = capsys.readouterr().out
    assert all(word in said for word in ("MiB", "memory map", "kallsyms", "the same report as its source"))
    assert main(["-c", source, "capture", out]) == Exit.USAGE
    assert "the file exists already" in capsys.readouterr().err
    assert main(["-c", source, "--format", "json", "capture", "--force", "--compression", "1", out]) == Exit.CLEAN
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "folioscope.capture/1"
    assert report["bytes"] == Path(out).stat().st_size


@pytest.mark.guest
@pytest.mark.parametrize("kind", ["rest", "busy"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_guest_and_its_capture_say_the_same(kernel: str, kind: str, tmp_path: Path) -> None:
    guest, out = dump_path(kernel, kind), tmp_path / "out"
    report = capture(opened(guest), out)
    print(f"{kernel} {kind}: {report.nr_pages} pages, {report.bytes} bytes, left out {report.left_out}")
    assert report.same_answers
    assert not report.left_out
    assert answers(Snapshot(opened(out))) == answers(Snapshot(opened(guest)))


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_drgn_with_dwarf_walks_a_capture(kernel: str, tmp_path: Path) -> None:
    vmlinux, out, script = guests_folder() / kernel / "vmlinux", tmp_path / "out", tmp_path / "walk.py"
    script.write_text(WALK)
    capture(open_core(str(dump_path(kernel)), [str(vmlinux)]), out)
    said = [run_drgn("-c", str(core), "-s", str(vmlinux), str(script)) for core in (out, dump_path(kernel))]
    assert said[0] == said[1]
