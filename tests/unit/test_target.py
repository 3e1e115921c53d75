"""Opening a target: what is refused and how it is said, and what an opened one tells."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import drgn
import pytest

import inspector.target.identity
import inspector.target.qmp
import inspector.target.target
from inspector.errors import TargetError
from inspector.target.corefile import examine_core, examine_symbols
from inspector.target.kallsyms import Kallsyms
from inspector.target.target import Target, open_core, open_live, open_qemu
from tests import opening

GUESTS = Path.home() / ".cache/folioscope/guests"
VERSIONS = ["6.1", "6.12", "7.3"]
INFO = b"OSRELEASE=6.99\nBUILD-ID=aabb\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff81000000\n"
INFO += b"SYMBOL(swapper_pg_dir)=ffffffff82000000\nNUMBER(pgtable_l5_enabled)=0\nNUMBER(phys_base)=0\nKERNELOFFSET=0\n"


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    pad = b"\0" * (-len(content) % 4)
    name = (owner + b"\0").ljust((len(owner) + 4) & ~3, b"\0")
    return struct.pack("<III", len(owner) + 1, len(content), kind) + name + content + pad


def elf(
    notes: bytes = b"",
    kind: int = 4,
    machine: int = 62,
    *,
    bits: int = 2,
    order: int = 1,
    memory: bytes = b"",
    promised: int = 0,
) -> bytes:
    """An ELF file with one note segment and one of memory at physical 0."""
    notes_at = 64 + 2 * 56
    memory_at = notes_at + len(notes)
    head = b"\x7fELF" + bytes([bits, order, 1]) + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    size = promised or len(memory)
    head += struct.pack("<IIQQQQQQ", 4, 0, notes_at, 0, 0, len(notes), len(notes), 0)
    head += struct.pack("<IIQQQQQQ", 1, 7, memory_at, 0, 0, size, size, 0)
    return head + notes + memory


def kdump(pages: dict[int, bytes], *, machine: bytes = b"x86_64", split: int = 0, info: bytes = INFO) -> bytes:
    """A kdump-compressed file with uncompressed pages."""
    block = 4096
    bitmap = bytearray(block)
    for pfn in pages:
        bitmap[pfn // 8] |= 1 << pfn % 8
    uts = b"".join(x.ljust(65, b"\0") for x in (b"Linux", b"host", b"6.99", b"#1", machine, b""))
    head = struct.pack("<8si390s6xqqIiiIIIIIIi", b"KDUMP   ", 6, uts, 0, 0, 0, block, 1, 2, 1024, 0, 0, 0, 0, 1)
    vmcoreinfo = note(b"VMCOREINFO", 0, info)
    at = block + 104
    sub = struct.pack("<Qii11Q", 0, 0, split, 0, 0, at + 24, len(info), at, len(vmcoreinfo), 0, 0, 0, 0, 1024)
    data_at = 4 * block + 24 * len(pages)
    descriptors = b"".join(struct.pack("<QIIQ", data_at + i * block, block, 0, 0) for i in range(len(pages)))
    front = head.ljust(block, b"\0") + (sub + vmcoreinfo).ljust(block, b"\0") + bytes(bitmap) * 2
    return front + descriptors + b"".join(pages[pfn] for pfn in sorted(pages))


VMCOREINFO = note(b"VMCOREINFO", 0, INFO)
GOOD_KDUMP = kdump({0: b"a" * 4096, 5: b"b" * 4096})

REFUSED: list[tuple[str, bytes, str]] = [
    ("empty", b"", r"the dump is empty"),
    ("text", b"Oops: 0000 [#1]\n" * 9, r"text file, not a vmcore"),
    ("zeros", bytes(9000), r"begins with zeros"),
    ("noise", b"\x01\x02\x03\x04" * 99, r"no dump of a known format"),
    ("flattened", b"makedumpfile\0\0\0\0" + struct.pack(">QQ", 1, 1) + bytes(4064), r"makedumpfile -R vmcore <"),
    ("gzip", b"\x1f\x8b\x08\0" * 9, r"packed with gzip. *Unpack|packed with gzip.*Unpack it first"),
    ("zstd", b"\x28\xb5\x2f\xfd" * 9, r"packed with zstd"),
    ("diskdump", b"DISKDUMP" + bytes(900), r"old diskdump format"),
    ("windows", b"PAGEDU64" + bytes(900), r"crash dump of Windows"),
    ("vmlinux", elf(kind=2), r"a program or vmlinux, not a vmcore.*-s"),
    ("module", elf(kind=1), r"kernel module or object file, not a vmcore"),
    ("arm64", elf(VMCOREINFO, machine=183), r"not supported \(arm64\).*x86-64 only"),
    ("riscv", elf(VMCOREINFO, machine=243), r"not supported \(RISC-V\)"),
    ("elf32", elf(VMCOREINFO, bits=1), r"not supported \(32-bit\)"),
    ("big-endian", elf(VMCOREINFO, order=2), r"not supported \(big-endian\)"),
    ("process", elf(note(b"CORE", 6, bytes(16))), r"core dump of a process"),
    ("no-info", elf(note(b"CORE", 1, bytes(16))), r"no VMCOREINFO"),
    (
        "qemu-no-info",
        elf(note(b"CORE", 1, b"") + note(b"QEMU", 0, bytes(8))),
        r"QEMU did not get it.*-device vmcoreinfo",
    ),
    ("header", elf(VMCOREINFO)[:50], r"truncated.*not even its header"),
    ("phdrs", elf(VMCOREINFO)[:100], r"truncated.*program headers"),
    ("notes", elf(VMCOREINFO)[:200], r"truncated.*notes"),
    ("notes-garbage", elf(b"\xff" * 400), r"no VMCOREINFO"),
    ("no-kallsyms", elf(VMCOREINFO, memory=bytes(8192)), r"lacks the address of the symbol table.*-s"),
    ("kdump-header", GOOD_KDUMP[:300], r"truncated.*not even its header"),
    ("kdump-headers", GOOD_KDUMP[:9000], r"truncated.*headers are not complete"),
    ("kdump-descriptors", GOOD_KDUMP[: 4 * 4096 + 30], r"truncated \(2 pages"),
    ("kdump-data", GOOD_KDUMP[:-1], r"truncated \(1 page is"),
    ("kdump-arm", kdump({0: bytes(4096)}, machine=b"aarch64"), r"not supported \(arm64\)"),
    ("kdump-split", kdump({0: bytes(4096)}, split=1), r"part of a split dump.*--reassemble"),
    ("kdump-blocks", GOOD_KDUMP[:428] + bytes(4) + GOOD_KDUMP[432:], r"damaged.*header makes no sense"),
    ("kdump-no-kallsyms", GOOD_KDUMP, r"lacks the address of the symbol table"),
    ("kdump-machineless", kdump({0: bytes(4096)}, machine=b""), r"lacks the address of the symbol table"),
]


@pytest.mark.parametrize(("name", "content", "said"), REFUSED, ids=[r[0] for r in REFUSED])
def test_refused_dumps(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TargetError, match=said) as caught:
        open_core(str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.what
    assert caught.value.todo


def test_paths_that_are_no_dump(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "none", "no such dump"),
        (tmp_path, "is a directory"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(TargetError, match=said):
            open_core(str(path))
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.write_bytes(GOOD_KDUMP)
        locked.chmod(0)
        with pytest.raises(TargetError, match="may not be read"):
            open_core(str(locked))


@pytest.mark.parametrize("data", [elf(VMCOREINFO, memory=bytes(64)), GOOD_KDUMP], ids=["elf", "kdump"])
def test_truncated_anywhere(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cut"
    for end in range(0, len(data), 7 if len(data) < 2000 else 97):
        path.write_bytes(data[:end])
        with pytest.raises(TargetError):
            open_core(str(path))


def test_missing_tail_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "tail"
    path.write_bytes(elf(VMCOREINFO, memory=bytes(100), promised=5000))
    with pytest.raises(TargetError, match="lacks the address of the symbol table"):
        open_core(str(path))
    core = examine_core(str(path))
    assert (core.format, core.missing_bytes, core.vmcoreinfo) == ("core", 4900, INFO)


SYMBOLS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "symbols file is empty"),
    ("text", b"abc", "no ELF file"),
    ("core", elf(VMCOREINFO), "is a core dump"),
    ("cut", elf(kind=2)[:30], "truncated"),
    ("no-sections", elf(kind=2), "truncated"),
]


@pytest.mark.parametrize(("name", "content", "said"), SYMBOLS, ids=[s[0] for s in SYMBOLS])
def test_refused_symbols(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TargetError, match=said):
        examine_symbols(str(path))


def test_live_without_kcore(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspector.target.target, "_KCORE", str(tmp_path / "kcore"))
    with pytest.raises(TargetError, match="CONFIG_PROC_KCORE"):
        open_live()
    (tmp_path / "kcore").write_bytes(b"no kernel")
    with pytest.raises(TargetError):
        open_live()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TargetError, match="Run as root"):
        open_live()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], str]]:
    """Serves one connection on a Unix socket: greets, then says nothing more."""
    monkeypatch.setattr(inspector.target.qmp, "PATIENCE", 0.3)
    done = threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(10)

    def start(greeting: bytes) -> str:
        path = str(tmp_path / "qmp")
        listener.bind(path)
        listener.listen(1)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)
                done.wait(10)

        threading.Thread(target=answer, daemon=True).start()
        return path

    yield start
    done.set()
    listener.close()


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"", "does not answer"),
        (b"SSH-2.0-OpenSSH\r\n", "is no QMP server"),
        (b'{"QMP": {"version": {}}}\r\n', r"guest cannot be opened \(it does not answer\)"),
    ],
)
def test_sockets_that_are_no_guest(serve: Callable[[bytes], str], greeting: bytes, said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        open_qemu(serve(greeting))
    assert "\n" not in str(caught.value)


def test_addresses_that_are_no_socket(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    for address, said in (
        (str(tmp_path / "none"), "no such QMP socket"),
        (str(plain), "cannot be used"),
        ("127.0.0.1:1", "cannot be used"),
        ("x" * 300, "cannot be used"),
        ("localhost:99999", "cannot be used"),
    ):
        with pytest.raises(TargetError, match=said):
            open_qemu(address)


# Real kernels.


def guest(version: str, name: str = "rest.elf") -> str:
    path = GUESTS / version / name
    if not path.exists():
        pytest.skip("no guest")
    return str(path)


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_open_without_anything(version: str) -> None:
    target = open_core(guest(version))
    assert (target.kind, target.types_from, target.symbols_from) == ("core", "BTF", "kallsyms in the dump")
    assert target.vmcoreinfo["OSRELEASE"].startswith(version)
    assert not target.is_live
    assert target.missing_bytes == 0
    assert any("no DWARF" in n for n in target.notes)
    address = target.symbol("init_task")
    assert address is not None
    assert target.symbol_name(address) == "init_task"
    assert target.symbol_name(address + 8) == "init_task+0x8"
    assert target.symbol("no_such_symbol") is None
    assert target.prog.symbol("init_task").address == address
    assert target.prog["init_task"].comm.string_() == b"swapper/0"
    assert target.prog.type("struct page").size == 64
    for address in (0, 8, 4096, 1 << 46):
        with pytest.raises(drgn.FaultError):
            target.prog.read(address, 8)


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_open_with_vmlinux(version: str) -> None:
    target = open_core(guest(version), [guest(version, "vmlinux")])
    assert target.types_from == "DWARF"
    assert target.notes == [f"Types are from the DWARF of {guest(version, 'vmlinux')}."]
    assert target.prog["init_task"].comm.string_() == b"swapper/0"
    for address in (0, 8, 1 << 46):
        with pytest.raises(drgn.FaultError):
            target.prog.read(address, 8)


@pytest.mark.guest
def test_types_by_choice(tmp_path: Path) -> None:
    core, vmlinux = guest("6.12"), guest("6.12", "vmlinux")
    target = open_core(core, [vmlinux], types="btf")
    assert target.types_from == "BTF"
    assert any("was not used" in n for n in target.notes)
    with pytest.raises(TargetError, match="no DWARF debug information.*-s"):
        open_core(core, types="dwarf")


@pytest.mark.guest
def test_wrong_symbols(tmp_path: Path) -> None:
    core, other = guest("6.12"), guest("7.3", "vmlinux")
    with pytest.raises(TargetError, match=r"of another kernel.*6\.12.*build id") as caught:
        open_core(core, [other])
    assert caught.value.where == other
    with pytest.raises(TargetError, match="of another kernel"):
        open_core(core, [guest("6.12", "vmlinux"), other])
    source = tmp_path / "m.c"
    source.write_text("int folioscope_module;\n")
    module = tmp_path / "m.ko"
    try:
        subprocess.run(["cc", "-c", "-g", "-o", str(module), str(source)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler")
    with pytest.raises(TargetError, match="no module loaded in this kernel"):
        open_core(core, [str(module)])


@pytest.mark.guest
def test_match_by_release_where_there_is_no_build_id() -> None:
    from inspector.target.corefile import SymbolsFile

    info = {"OSRELEASE": open_core(guest("6.12")).vmcoreinfo["OSRELEASE"]}
    inspector.target.target._require_match(guest("6.12", "vmlinux"), SymbolsFile(False, ""), info)
    with pytest.raises(TargetError, match="of another kernel"):
        inspector.target.target._require_match(guest("7.3", "vmlinux"), SymbolsFile(False, ""), info)


@pytest.mark.guest
def test_symbols_of_vmlinux_where_kallsyms_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = open_core(guest("6.12"))

    def refuse(*_: object) -> None:
        raise TargetError("the symbol table is damaged")

    monkeypatch.setattr(Kallsyms, "read", refuse)
    monkeypatch.setattr(inspector.target.target, "_symbol_table", opening.parse_symbols)
    target = open_core(guest("6.12"), [guest("6.12", "vmlinux")])
    assert target.symbols_from.startswith("ELF symbol table of ")
    assert any("kallsyms was not used: the symbol table is damaged" in n for n in target.notes)
    address = wanted.symbol("slab_caches")
    assert address is not None
    assert target.symbol("slab_caches") == address
    assert target.symbol("no_such_symbol") is None
    assert target.symbol_name(address) == "slab_caches"
    assert target.symbol_name(address + 1) == "slab_caches+0x1"
    assert target.symbol_name(1 << 70) is None
    with pytest.raises(TargetError, match="damaged"):
        open_core(guest("6.12"))


def facts(target: Target) -> dict[str, object]:
    identity = target.identity
    return {name: getattr(identity, name) for name in identity.__dataclass_fields__ if name != "got_from"}


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_identity(version: str) -> None:
    target = open_core(guest(version))
    identity = target.identity
    assert identity is target.identity
    assert identity.release == target.vmcoreinfo["OSRELEASE"]
    assert (identity.version or "").startswith("#1 SMP")
    assert identity.architecture == "x86_64"
    assert identity.page_size == 4096
    assert identity.paging_levels in (4, 5)
    assert identity.build_id == target.vmcoreinfo["BUILD-ID"]
    assert 256 << 20 < (identity.memory_bytes or 0) < 8 << 30
    assert 1 <= (identity.nr_cpus or 0) <= 16
    assert identity.panic_message == ""
    assert 1 < (identity.uptime or 0) < 100_000
    assert (identity.stopped_at or 0) > 1_700_000_000
    assert set(identity.got_from) == set(facts(target))
    assert facts(open_core(guest(version), [guest(version, "vmlinux")])) == facts(target)


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_last_words_are_read_from_the_log(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector.target.identity, "_PANIC", b"Linux version ")
    target = open_core(guest(version))
    message = target.identity.panic_message or ""
    assert message.startswith(target.vmcoreinfo["OSRELEASE"] + " (")
    assert message.endswith(target.identity.version or "?")


@pytest.mark.guest
def test_identity_of_a_kernel_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_core(guest("6.12"))
    target.vmcoreinfo.clear()
    monkeypatch.setattr(Kallsyms, "address", lambda *_: None)
    assert set(facts(target).values()) == {None}


@pytest.mark.guest
def test_truncated_dump_opens_and_says_so(tmp_path: Path) -> None:
    """Of a dump without its end the rest is still readable, if the kernel image is in it."""
    whole = guest("6.12")
    size = Path(whole).stat().st_size
    cut = tmp_path / "cut.elf"
    with Path(whole).open("rb") as source, cut.open("wb") as sink:
        while size - sink.tell() > 32 << 20:
            sink.write(source.read(4 << 20))
        written = sink.tell()
    try:
        target = open_core(str(cut))
    except TargetError as error:
        pytest.skip(f"the kernel image lay at the end: {error}")
    assert size - written - 4096 < target.missing_bytes <= size - written
    assert any("truncated" in n for n in target.notes)
    with cut.open("rb+") as file:
        file.truncate(1 << 20)
    with pytest.raises(TargetError, match="truncated and lacks the kernel's own data.*Copy it again"):
        open_core(str(cut))


@pytest.mark.guest
def test_kdump_is_opened(tmp_path: Path) -> None:
    """The same kernel, rewritten as a kdump-compressed file, is the same kernel."""
    elf_target = open_core(guest("6.12"))
    info = examine_core(guest("6.12")).vmcoreinfo
    path = tmp_path / "k.kdump"
    _to_kdump(guest("6.12"), info, path)
    target = open_core(str(path))
    assert (target.kind, target.types_from) == ("kdump", "BTF")
    assert facts(target) == facts(elf_target)
    assert target.prog["vmemmap"].value_() == elf_target.prog["vmemmap"].value_()
    with pytest.raises(drgn.FaultError):
        target.prog.read(8, 8)
    with pytest.raises(drgn.FaultError):
        target.prog.read(1 << 50, 8, True)


def _to_kdump(core: str, info: bytes, path: Path) -> None:
    """Every page that is not zero, uncompressed; zero pages share one, as makedumpfile has them."""
    data = Path(core).read_bytes()
    phoff, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    block, zero = 4096, bytes(4096)
    pages: list[tuple[int, int]] = []
    for i in range(count):
        kind, _, at, _, physical, size, _, _ = struct.unpack_from("<IIQQQQQQ", data, phoff + 56 * i)
        if kind == 1 and physical < 1 << 31:
            pages += [((physical + o) // block, at + o) for o in range(0, size - size % block, block)]
    pages.sort()
    frames = pages[-1][0] + 1
    blocks = -(-frames // (8 * block))
    bitmap = bytearray(blocks * block)
    for pfn, _ in pages:
        bitmap[pfn // 8] |= 1 << pfn % 8
    small = kdump({}, machine=b"", info=info)
    front = bytearray(small[: 2 * block])
    struct.pack_into("<II", front, 436, 2 * blocks, frames)
    struct.pack_into("<Q", front, block + 96, frames)
    data_at = len(front) + 2 * len(bitmap) + 24 * len(pages)
    descriptors, written = bytearray(), 1
    for _, at in pages:
        is_zero = data[at : at + block] == zero
        descriptors += struct.pack("<QIIQ", data_at + (0 if is_zero else written * block), block, 0, 0)
        written += not is_zero
    with path.open("wb") as file:
        file.write(front + bitmap + bitmap + descriptors + zero)
        for _, at in pages:
            if data[at : at + block] != zero:
                file.write(data[at : at + block])
