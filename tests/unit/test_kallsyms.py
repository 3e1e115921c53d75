"""The kernel's symbol table: synthetic tables in every encoding, and the tables of real kernels against vmlinux."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import drgn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.errors import TargetError
from inspector.target import kallsyms
from inspector.target.kallsyms import Kallsyms
from inspector.target.offer import own_program
from tests.examples import examples

GUESTS = Path.home() / ".cache/folioscope/guests"
BASE = 0xFFFFFFFF81000000
AT = {
    "kallsyms_num_syms": BASE + 0x1000000,
    "kallsyms_names": BASE + 0x1000008,
    "kallsyms_token_table": BASE + 0x1400000,
    "kallsyms_token_index": BASE + 0x1401000,
    "kallsyms_offsets": BASE + 0x1402000,
    "kallsyms_relative_base": BASE + 0x1800000,
    "kallsyms_addresses": BASE + 0x1900000,
}
SYMBOLS = [
    ("A", "per_cpu_thing", 0x1A40),
    ("T", "_stext", BASE),
    ("t", "twice", BASE + 0x10),
    ("T", "twice", BASE + 0x20),
    ("t", "static_pair", BASE + 0x2C),
    ("t", "static_pair", BASE + 0x2E),
    ("t", "abc_cab", BASE + 0x30),
    ("t", "cab_abc", BASE + 0x40),
    ("T", "alias_one", BASE + 0x50),
    ("t", "alias_two", BASE + 0x50),
    ("D", "long_" + "x" * 300, BASE + 0x100),
    ("D", "init_uts_ns", BASE + 0x800000),
    ("B", "_end", BASE + 0x900000),
]
TOKENS = [bytes([i]) if i > 32 else b"\xff" for i in range(256)]
TOKENS[1:8] = [b"T_", b"ab", b"_c", b"Tinit", b"xx", b"tc", b"s_n"]


def encode(name: str) -> bytes:
    """Greedy longest-token encoding of a typed name."""
    out, at, raw = bytearray(), 0, name.encode()
    longest = sorted(range(256), key=lambda i: -len(TOKENS[i]))
    while at < len(raw):
        code = next(c for c in longest if raw.startswith(TOKENS[c], at))
        out.append(code)
        at += len(TOKENS[code])
    size = bytes([len(out)]) if len(out) < 0x80 else bytes([0x80 | (len(out) & 0x7F), len(out) >> 7])
    return size + bytes(out)


class Image:
    """Kernel memory that holds a symbol table, and the VMCOREINFO that tells where."""

    def __init__(self, encoding: str, symbols: list[tuple[str, str, int]] = SYMBOLS) -> None:
        names = b"".join(encode(kind + name) for kind, name, _ in symbols)
        starts = np.cumsum([0] + [len(t) + 1 for t in TOKENS[:-1]]).astype("<u2").tobytes()
        table = b"\0".join(TOKENS) + b"\0"
        self.parts = {
            "kallsyms_num_syms": struct.pack("<I", len(symbols)),
            "kallsyms_names": names,
            "kallsyms_token_table": table.ljust(0x1000, b"\0"),
            "kallsyms_token_index": starts,
        }
        addresses = [address for _, _, address in symbols]
        if encoding == "addresses":
            self.parts["kallsyms_addresses"] = struct.pack(f"<{len(addresses)}Q", *addresses)
        else:
            stored = [OFFSETS[encoding](i, address) & 0xFFFFFFFF for i, address in enumerate(addresses)]
            self.parts["kallsyms_offsets"] = struct.pack(f"<{len(stored)}I", *stored)
        if encoding in ("percpu", "unsigned"):
            self.parts["kallsyms_relative_base"] = struct.pack("<Q", BASE)
        self.info = {f"SYMBOL({n})": f"{AT[n]:x}" for n in self.parts}
        self.info |= {"SYMBOL(_stext)": f"{BASE:x}", "SYMBOL(init_uts_ns)": f"{BASE + 0x800000:x}", "PAGESIZE": "4096"}

    def read(self, address: int, size: int) -> bytes:
        name = max((n for n in self.parts if AT[n] <= address), key=AT.__getitem__, default="")
        if not name or address + size > AT[name] + 0x400000:
            raise TargetError("the symbol table cannot be read", f"{address:#x}")
        at = address - AT[name]
        return self.parts[name][at : at + size].ljust(size, b"\0")


OFFSETS: dict[str, Callable[[int, int], int]] = {
    "percpu": lambda _, a: a if a < 1 << 31 else BASE - 1 - a,
    "unsigned": lambda _, a: a - BASE,
    "place": lambda i, a: a - (AT["kallsyms_offsets"] + 4 * i),
}


@pytest.mark.parametrize("encoding", ["percpu", "unsigned", "place", "addresses"])
def test_every_encoding_gives_every_address(encoding: str) -> None:
    symbols = SYMBOLS if encoding in ("percpu", "addresses") else SYMBOLS[1:]
    image = Image(encoding, symbols)
    table = Kallsyms.read(image.read, image.info)
    assert [(table.kind(i), table.name(i), int(table.addresses[i])) for i in range(len(table))] == symbols


def test_lookups() -> None:
    image = Image("percpu")
    table = Kallsyms.read(image.read, image.info)
    assert table.address("twice") == BASE + 0x20, "the global one of two"
    assert table.address("abc_cab") == BASE + 0x30
    assert table.address("cab_abc") == BASE + 0x40, "an anagram is another name"
    assert table.address("per_cpu_thing") == 0x1A40
    assert table.address("nothing") is None
    assert table.address("static_pair") is None, "two static ones: no guess"
    assert table.all("static_pair") == [BASE + 0x2C, BASE + 0x2E]
    assert table.address("") is None
    assert table.locate("twice") == (BASE + 0x20, 0xC)
    assert table.label(BASE + 0x31) == "abc_cab+0x1"
    assert table.label(BASE + 0x50) == "alias_one", "the global one of two at one address"
    assert table.label(BASE - 1) is None
    assert table.label(0x1A40) is None, "a per-CPU offset is no address"
    assert table.label(BASE + (200 << 20)) is None
    assert table.label(-1) is None
    assert table.label(1 << 64) is None


def test_as_drgn_finder() -> None:
    image = Image("percpu")
    table = Kallsyms.read(image.read, image.info)
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.register_symbol_finder("kallsyms", table.finder, enable_index=0)
    assert prog.symbol("twice").address == BASE + 0x20
    assert prog.symbol(BASE + 0x25).name == "twice"
    assert prog.symbol("twice").binding == drgn.SymbolBinding.GLOBAL
    assert [s.address for s in prog.symbols("twice")] == [BASE + 0x20, BASE + 0x10]
    assert len(prog.symbols()) == len(SYMBOLS)
    with pytest.raises(LookupError):
        prog.symbol("nothing")


def test_without_addresses_it_says_what_to_give() -> None:
    with pytest.raises(TargetError, match="lacks the address of the symbol table.*-s"):
        Kallsyms.read(lambda *_: b"", {"OSRELEASE": "5.10"})


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("kallsyms_num_syms", b"\0\0\0\0"),
        ("kallsyms_num_syms", b"\xff\xff\xff\xff"),
        ("kallsyms_num_syms", struct.pack("<I", 1 << 23)),
        ("kallsyms_token_index", b"\xff" * 512),
        ("kallsyms_offsets", b"\x77" * 4 * len(SYMBOLS)),
    ],
)
def test_damage_is_told(part: str, content: bytes) -> None:
    image = Image("percpu")
    image.parts[part] = content
    with pytest.raises(TargetError):
        Kallsyms.read(image.read, image.info)


def test_vmcoreinfo_that_is_no_number() -> None:
    image = Image("percpu")
    with pytest.raises(TargetError, match="VMCOREINFO is damaged"):
        Kallsyms.read(image.read, image.info | {"SYMBOL(kallsyms_names)": "nonsense"})


@examples(200)
@given(st.binary(min_size=0, max_size=400), st.integers(1, 40), st.integers(0, 255))
def test_any_names_end_or_are_refused(blob: bytes, count: int, token: int) -> None:
    tokens = list(TOKENS)
    tokens[token] = b""
    try:
        table = Kallsyms(blob, tokens, count)
    except TargetError:
        return
    for i in range(len(table)):
        table.name(i)
        table.kind(i)


def marked_names(count: int, seed: int, *, align: int, seqs: bool) -> tuple[bytes, list[tuple[int, int]]]:
    """Names with ``kallsyms_markers`` behind them, as scripts/kallsyms.c writes them, and where each name is."""
    draw = random.Random(seed)
    blob, markers, places = bytearray(), [], []
    for i in range(count):
        if i % 256 == 0:
            markers.append(len(blob))
        size = draw.choice([1, 2, 5, 9, 127, 128, 300]) if draw.random() < 0.2 else draw.randrange(1, 20)
        blob += bytes([size]) if size < 0x80 else bytes([0x80 | (size & 0x7F), size >> 7])
        places.append((len(blob), len(blob) + size))
        blob += draw.randbytes(size)
    blob += bytes(-len(blob) % align) + struct.pack(f"<{len(markers)}I", *markers) + bytes(len(markers) % 2 * 4)
    return bytes(blob + (draw.randbytes(3 * count) + bytes(-3 * count % align) if seqs else b"")), places


@examples(100)
@given(st.integers(1, 1100), st.integers(0, 99), st.sampled_from([4, 8]), st.booleans())
def test_markers_give_every_name_its_place(count: int, seed: int, align: int, seqs: bool) -> None:
    blob, places = marked_names(count, seed, align=align, seqs=seqs)
    table = Kallsyms(blob, TOKENS, count)
    assert list(zip(table._starts.tolist(), table._ends.tolist(), strict=True)) == places
    assert kallsyms._bounds_by_markers(blob, count) is not None


@examples(100)
@given(st.integers(1, 1100), st.integers(0, 99), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3))
def test_damaged_markers_change_no_place(count: int, seed: int, damage: list[tuple[int, int]]) -> None:
    """With and without markers the names are the same, or both are refused."""
    raw = bytearray(marked_names(count, seed, align=8, seqs=False)[0])
    for at, value in damage:
        raw[at % len(raw)] = value
    results: list[Any] = []
    for walk in (kallsyms._bounds_by_markers, lambda _blob, _count: None):
        with patch.object(kallsyms, "_bounds_by_markers", walk):
            try:
                table = Kallsyms(bytes(raw), TOKENS, count)
                results.append((table._starts.tolist(), table._ends.tolist(), table._hashes.tolist()))
            except TargetError:
                results.append(None)
    assert results[0] == results[1]


def elf_symbols(path: Path) -> dict[str, set[int]]:
    """Names to values of ``.symtab``."""
    data = np.memmap(path, np.uint8, "r")
    header = struct.unpack_from("<HHIQQQIHHHHHH", data[16:64].tobytes())
    sections = [struct.unpack_from("<IIQQQQIIQQ", data[header[5] + 64 * i :][:64].tobytes()) for i in range(header[11])]
    symtab = next(s for s in sections if s[1] == 2)
    strings = data[sections[symtab[6]][4] :][: sections[symtab[6]][5]].tobytes()
    found: dict[str, set[int]] = {}
    for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", data[symtab[4] :][: symtab[5]].tobytes()):
        if section:
            found.setdefault(strings[name : strings.index(b"\0", name)].decode(), set()).add(value)
    return found


@pytest.mark.guest
@pytest.mark.parametrize("version", ["6.1", "6.12", "7.3"])
def test_real_table_is_the_one_of_vmlinux(version: str) -> None:
    guest = GUESTS / version
    if not (guest / "rest.elf").exists():
        pytest.skip("no guest")
    prog = own_program()
    prog.set_core_dump(guest / "rest.elf")
    info = dict(line.split("=", 1) for line in prog["VMCOREINFO"].string_().decode().splitlines())
    table = Kallsyms.read(prog.read, info)
    wanted = elf_symbols(guest / "vmlinux")
    shift = int(info["KERNELOFFSET"], 16)
    wrong = []
    for i in range(len(table)):
        address = int(table.addresses[i])
        if not wanted.get(table.name(i), set()) & {address, address - shift}:
            wrong.append((table.name(i), hex(address)))
    assert len(table) > 80_000
    assert wrong == []
    assert table.address("init_task") == next(iter(wanted["init_task"])) + shift


@pytest.mark.guest
@pytest.mark.parametrize("version", ["6.1", "6.12", "7.3"])
def test_real_table_is_the_one_drgn_reads(version: str) -> None:
    from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

    path = GUESTS / version / "rest.elf"
    if not path.exists():
        pytest.skip("no guest")
    prog = own_program()
    prog.set_core_dump(path)
    info = dict(line.split("=", 1) for line in prog["VMCOREINFO"].string_().decode().splitlines())
    table = Kallsyms.read(prog.read, info)
    prog.register_symbol_finder("drgn", load_vmlinux_kallsyms(prog), enable_index=0)
    theirs = sorted((s.name, s.address) for s in prog.symbols())
    assert sorted((table.name(i), int(table.addresses[i])) for i in range(len(table))) == theirs
