"""Types from BTF: synthetic blobs of every kind and of every damage, and real kernels against their DWARF."""

from __future__ import annotations

import re
import struct
from functools import cache
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn import TypeKind
from drgn.helpers.linux.mm import PageCompound, compound_head, decode_page_flags, follow_page, for_each_vma, page_size
from drgn.helpers.linux.pid import find_task, for_each_task
from hypothesis import given
from hypothesis import strategies as st

from inspector.errors import TargetError
from inspector.target import btf_parse
from inspector.target.btf import BtfTypes, open_btf
from inspector.target.btf_parse import Btf, BtfKind
from inspector.target.btf_variables import TYPE_OF
from inspector.target.kallsyms import Kallsyms
from inspector.target.target import Target, Types, open_core
from tests.examples import examples

GUESTS = Path.home() / ".cache/folioscope/guests"
VERSIONS = ["6.1", "6.12", "7.3"]
K = BtfKind


class Blob:
    """Builds a blob record by record; ids count from 1."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.records: list[bytes] = []
        self.layout = b""

    def string(self, text: str) -> int:
        if not text:
            return 0
        raw = text.encode() + b"\0"
        at = self.strings.find(b"\0" + raw)
        if at < 0:
            self.strings += raw
            at = len(self.strings) - len(raw) - 1
        return at + 1

    def add(self, kind: int, name: str = "", word: int = 0, *extra: int, vlen: int = 0, flag: bool = False) -> int:
        info = kind << 24 | vlen | flag << 31
        words = [self.string(name), info, word, *(e & 0xFFFFFFFF for e in extra)]
        self.records.append(struct.pack(f"<{len(words)}I", *words))
        return len(self.records)

    def integer(self, name: str, size: int, encoding: int = 0, bits: int = 0, shift: int = 0) -> int:
        return self.add(K.INT, name, size, encoding << 24 | shift << 16 | (bits or 8 * size))

    def struct(
        self, name: str, size: int, *members: tuple[str, int, int], kind: int = K.STRUCT, flag: bool = False
    ) -> int:
        extra = [w for n, t, at in members for w in (self.string(n), t, at)]
        return self.add(kind, name, size, *extra, vlen=len(members), flag=flag)

    def enum(self, name: str, size: int, *values: tuple[str, int], flag: bool = False) -> int:
        wide = size == 8
        extra = [w for n, v in values for w in ([self.string(n), v, v >> 32] if wide else [self.string(n), v])]
        return self.add(K.ENUM64 if wide else K.ENUM, name, size, *extra, vlen=len(values), flag=flag)

    def bytes(self) -> bytes:
        types = b"".join(self.records)
        sizes = [0, len(types), len(types), len(self.strings)]
        if self.layout:
            sizes += [len(types) + len(self.strings), len(self.layout)]
        header = struct.pack("<HBBI", 0xEB9F, 1, 0, 8 + 4 * len(sizes)) + struct.pack(f"<{len(sizes)}I", *sizes)
        return header + types + self.strings + self.layout

    def program(self, **symbols: int) -> drgn.Program:
        prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        BtfTypes(prog, Btf(self.bytes()), lambda n: (symbols[n], 64) if n in symbols else None).register()
        return prog


@pytest.fixture
def blob() -> Blob:
    b = Blob()
    b.integer("int", 4, 1)
    b.integer("long unsigned int", 8)
    b.integer("char", 1, 1)
    b.integer("_Bool", 1, 4)
    b.integer("unsigned int", 4)
    return b


def test_base_types(blob: Blob) -> None:
    blob.add(K.FLOAT, "double", 8)
    prog = blob.program()
    assert (prog.type("unsigned long").size, prog.type("unsigned long").is_signed) == (8, False)
    assert prog.type("int").is_signed
    assert prog.type("char").kind == TypeKind.INT
    assert prog.type("_Bool").kind == TypeKind.BOOL
    assert prog.type("double").kind == TypeKind.FLOAT
    assert prog.type("void *").kind == TypeKind.POINTER
    assert str(prog.type("const volatile unsigned int *")) == "const volatile unsigned int *"


def test_derived_types(blob: Blob) -> None:
    pointer = blob.add(K.PTR, "", 1)
    const = blob.add(K.CONST, "", pointer)
    volatile = blob.add(K.VOLATILE, "", const)
    restrict = blob.add(K.RESTRICT, "", volatile)
    blob.add(K.TYPEDEF, "all_t", restrict)
    array = blob.add(K.ARRAY, "", 0, 2, 5, 7)
    blob.add(K.TYPEDEF, "seven_t", array)
    tag = blob.add(K.TYPE_TAG, "user", 1)
    blob.add(K.TYPEDEF, "user_ptr_t", blob.add(K.PTR, "", tag))
    blob.add(K.DECL_TAG, "note", 1, 0xFFFFFFFF)
    proto = blob.add(K.FUNC_PROTO, "", 1, blob.string("a"), 2, 0, 0, vlen=2)
    blob.add(K.TYPEDEF, "fn_t", proto)
    prog = blob.program()
    assert prog.type("all_t").type.type_name() == "int * const volatile restrict"
    assert prog.type("seven_t").type.type_name() == "unsigned long [7]"
    assert prog.type("user_ptr_t").type.type_name() == "int *"
    function = prog.type("fn_t").type
    assert function.is_variadic
    assert [(p.name, p.type.type_name()) for p in function.parameters] == [("a", "unsigned long")]


def test_members_bit_fields_and_anonymous(blob: Blob) -> None:
    inner = blob.struct("", 8, ("x", 2, 0), ("y", 1, 0), kind=K.UNION)
    blob.struct(
        "node", 32, ("next", 8, 0), ("low", 5, 3 << 24 | 64), ("high", 5, 29 << 24 | 67), ("", inner, 128), flag=True
    )
    blob.add(K.PTR, "", 7)
    prog = blob.program()
    node = prog.type("struct node")
    assert [(m.name, m.bit_offset, m.bit_field_size) for m in node.members] == [
        ("next", 0, None),
        ("low", 64, 3),
        ("high", 67, 29),
        (None, 128, None),
    ]
    assert node.member("next").type.type.tag == "node", "a struct may point to itself"
    assert node.member("y").bit_offset == 128
    assert drgn.offsetof(node, "x") == 16


def test_bit_fields_of_old_encoders(blob: Blob) -> None:
    narrow = blob.integer("unsigned int", 4, 0, bits=5, shift=3)
    blob.struct("old", 8, ("plain", 1, 0), ("field", narrow, 32))
    members = blob.program().type("struct old").members
    assert [(m.name, m.bit_offset, m.bit_field_size) for m in members] == [("plain", 0, None), ("field", 35, 5)]


def test_flexible_array_at_the_end_only(blob: Blob) -> None:
    none = blob.add(K.ARRAY, "", 0, 1, 5, 0)
    blob.struct("tail", 4, ("first", none, 0), ("count", 1, 0), ("last", none, 32))
    members = blob.program().type("struct tail").members
    assert [members[0].type.length, members[2].type.length] == [0, None]


def test_enums(blob: Blob) -> None:
    blob.enum("plain", 4, ("P0", 0), ("PMAX", 0xFFFFFFFF))
    blob.enum("with_sign", 4, ("SNEG", -1), ("SONE", 1), flag=True)
    blob.enum("wide", 8, ("WBIG", 1 << 63))
    blob.enum("small", 1, ("K0", 3))
    blob.enum("", 4, ("NAMELESS", 9))
    prog = blob.program()
    assert [e.value for e in prog.type("enum plain").enumerators] == [0, 0xFFFFFFFF]
    assert [e.value for e in prog.type("enum with_sign").enumerators] == [-1, 1]
    assert prog.type("enum wide").enumerators[0].value == 1 << 63
    assert prog.type("enum small").type.size == 1
    assert prog["SNEG"].value_() == -1
    assert prog.constant("WBIG").type_.tag == "wide"
    assert prog["NAMELESS"].value_() == 9
    with pytest.raises(LookupError):
        prog["NOWHERE"]


def test_enum_signs_of_old_encoders(blob: Blob) -> None:
    blob.enum("negative", 4, ("NEG", -2), ("ONE", 1))
    assert [e.value for e in blob.program().type("enum negative").enumerators] == [-2, 1]


def test_forward_declarations(blob: Blob) -> None:
    blob.add(K.TYPEDEF, "open_t", blob.add(K.FWD, "never_defined", 0))
    blob.add(K.TYPEDEF, "union_t", blob.add(K.FWD, "never_either", 0, flag=True))
    blob.add(K.TYPEDEF, "full_t", blob.add(K.FWD, "defined", 0))
    blob.struct("defined", 4, ("a", 1, 0))
    blob.enum("announced", 4)
    prog = blob.program()
    assert not prog.type("open_t").type.is_complete()
    assert prog.type("union_t").type.kind == TypeKind.UNION
    assert prog.type("full_t").type.size == 4
    assert prog.type("struct defined").is_complete()
    assert not prog.type("enum announced").is_complete()


def test_names(blob: Blob) -> None:
    blob.struct("my_page", 4, ("a", 1, 0))
    # A name may also be the end of a longer string: this record is called "page".
    at = blob.string("my_page") + 3
    blob.records.append(struct.pack("<3I", at, K.STRUCT << 24, 16))
    blob.struct("twin", 4)
    blob.struct("twin", 8)
    prog = blob.program()
    assert prog.type("struct page").size == 16
    assert prog.type("struct my_page").size == 4
    assert prog.type("struct twin").size == 4
    for absent in ("struct pag", "struct y_page", "union page", "page", "struct twin", "enum node"):
        with pytest.raises(LookupError):
            prog.type(absent, "file.c" if absent == "struct twin" else None)


def test_variables_and_functions(blob: Blob) -> None:
    blob.struct("task_struct", 64, ("pid", 1, 0))
    blob.struct("swap_info_struct", 8)
    var = blob.add(K.VAR, "per_cpu_var", 2, 1)
    blob.add(K.DATASEC, ".data..percpu", 8, var, 0, 8, vlen=1)
    blob.add(K.FUNC, "do_it", blob.add(K.FUNC_PROTO, "", 1), vlen=1)
    blob.add(K.FUNC, "zero_pfn", blob.add(K.FUNC_PROTO, "", 2), vlen=1)
    where = {
        n: 0xFFFF800000000000 + 64 * i
        for i, n in enumerate(("init_task", "swap_info", "do_it", "zero_pfn", "per_cpu_var"))
    }
    prog = blob.program(**where)
    assert prog["init_task"].type_.tag == "task_struct"
    assert prog["swap_info"].type_.type_name() == "struct swap_info_struct *[8]"
    assert prog["per_cpu_var"].address_ == where["per_cpu_var"]
    assert prog.function("do_it").type_.kind == TypeKind.FUNCTION
    assert prog["zero_pfn"].type_.kind == TypeKind.FUNCTION, "the function of 7.0, not the variable"
    for absent in ("init_mm", "init_pid_ns", "int", "nothing"):
        with pytest.raises(LookupError):
            prog[absent]


def test_unknown_kinds_are_stepped_over_when_the_blob_tells_their_size(blob: Blob) -> None:
    blob.add(21, "new", 0, 1, 2, 3, 4, 5, vlen=2)
    blob.struct("after", 4, ("a", 1, 0))
    with pytest.raises(TargetError, match="does not fit"):
        Btf(blob.bytes())
    blob.layout = b"".join(struct.pack("<BBH", 4 if kind == 21 else 0, 8, 0) for kind in range(22))
    prog = blob.program()
    assert prog.type("struct after").size == 4
    with pytest.raises(LookupError):
        prog.type("struct new")


def every_kind() -> Blob:
    b = Blob()
    b.integer("int", 4, 1)
    b.add(K.PTR, "", 4)
    b.add(K.ARRAY, "", 0, 1, 1, 3)
    b.struct("s", 24, ("p", 2, 0), ("a", 3, 64), ("", 5, 160), flag=True)
    b.struct("", 4, ("u", 1, 0), kind=K.UNION)
    b.enum("e", 4, ("E0", 0), ("E1", -1))
    b.add(K.FWD, "f", 0)
    b.add(K.TYPEDEF, "t", 4)
    b.add(K.CONST, "", 8)
    b.add(K.FUNC_PROTO, "", 0, 0, 2, vlen=1)
    b.add(K.FUNC, "fn", 10, vlen=1)
    b.add(K.VAR, "v", 4, 1)
    b.add(K.DATASEC, ".d", 8, 12, 0, 8, vlen=1)
    b.add(K.FLOAT, "double", 8)
    b.add(K.DECL_TAG, "d", 4, 0)
    b.add(K.TYPE_TAG, "g", 4)
    b.enum("w", 8, ("W0", 1))
    return b


def look_at_everything(data: bytes) -> None:
    """Make every type and every member's type; only TargetError may come of it."""
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    try:
        btf = Btf(data)
        types = BtfTypes(prog, btf, lambda _: (0xFFFF800000000000, 8))
        types.register()
    except TargetError:
        return
    for index in range(len(btf)):
        try:
            made = types.type(index)
            if made.kind in (TypeKind.STRUCT, TypeKind.UNION):
                for member in made.members or ():
                    _ = member.type, member.bit_field_size
                made.has_member("nothing")
            if made.kind == TypeKind.FUNCTION:
                _ = [p.type for p in made.parameters]
        except TargetError:
            continue
    for name in ("struct s", "enum e", "t *", "double", "union s", "struct f"):
        try:
            prog.type(name)
        except (TargetError, LookupError):
            continue
    for name in ("E1", "W0", "fn", "v", "init_task"):
        try:
            prog[name]
        except (TargetError, LookupError):
            continue


def test_whole_blob_of_every_kind() -> None:
    prog = every_kind().program(v=0xFFFF800000000000)
    assert prog["v"].type_.tag == "s"
    assert prog.type("struct s").member("u").bit_offset == 160


def test_truncated_anywhere() -> None:
    data = every_kind().bytes()
    for end in range(len(data)):
        with pytest.raises(TargetError, match="damaged"):
            Btf(data[:end])


@examples(400)
@given(st.data())
def test_damaged_anywhere(data: st.DataObject) -> None:
    raw = bytearray(every_kind().bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) // 4 - 1)) * 4
        word = data.draw(
            st.one_of(st.integers(0, 30), st.integers(0, 0xFFFFFFFF), st.integers(0, 20).map(lambda k: k << 24 | 1))
        )
        raw[at : at + 4] = struct.pack("<I", word)
    look_at_everything(bytes(raw))


def one_by_one(words: list[int]) -> list[int] | None:
    """Where each record begins, found from record to record; None where one breaks the format."""
    starts, at = [], 0
    while at < len(words) - 1:
        kind, vlen = words[at + 1] >> 24 & 0x7F, words[at + 1] & 0xFFFFFF
        if not 0 < kind <= max(BtfKind):
            return None
        starts.append(at)
        at += 3 + btf_parse._FIXED.get(BtfKind(kind), 0) + btf_parse._PER_ELEMENT.get(BtfKind(kind), 0) * vlen
    return starts if at == len(words) else None


@examples(1000)
@given(
    st.integers(0, 40),
    st.lists(
        st.tuples(st.integers(0), st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 25).map(lambda k: k << 24)))
    ),
)
def test_records_are_where_one_leads_to_the_next(cut: int, damage: list[tuple[int, int]]) -> None:
    words = btf_parse._sections(every_kind().bytes())[0]
    words = words[: len(words) - cut].copy()
    for at, value in damage:
        words[at % len(words)] = value
    try:
        starts: list[int] | None = btf_parse._walk(words, b"").tolist()
    except TargetError:
        starts = None
    assert starts == one_by_one(words.tolist())


def test_cycles(blob: Blob) -> None:
    blob.add(K.PTR, "", 6)
    blob.add(K.TYPEDEF, "round_t", 8)
    blob.add(K.CONST, "", 7)
    blob.struct("own", 8, ("", 9, 0))
    blob.struct("ping", 8, ("", 11, 0))
    blob.struct("", 8, ("", 10, 0))
    first = len(blob.records)
    for i in range(2000):
        blob.struct(f"deep{i}", 8, ("", first + i + 2, 0))
    blob.struct("end", 8, ("a", 1, 0))
    prog = blob.program()
    for name in ("round_t", "struct own", "struct ping", "struct deep0"):
        with pytest.raises(TargetError, match="damaged"):
            prog.type(name)
    assert prog.type("struct deep1990").has_member("a")


@pytest.mark.parametrize(
    ("symbols", "what"),
    [
        ({}, "has no type information"),
        ({"__start_BTF": 1 << 63, "__stop_BTF": 1 << 63}, "damaged"),
        ({"__start_BTF": 1 << 63, "__stop_BTF": (1 << 63) + (1 << 40)}, "damaged"),
        ({"__start_BTF": 1 << 63, "__stop_BTF": (1 << 63) + 4096}, "not in the dump"),
    ],
)
def test_blob_that_cannot_be_had(symbols: dict[str, int], what: str) -> None:
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    with pytest.raises(TargetError, match=what):
        open_btf(prog, lambda n: (symbols[n], 0) if n in symbols else None)


# Real kernels.


def helper_loop(prog: drgn.Program, rounds: int) -> int:
    """Ask drgn's own helpers for every page of one process, for tasks by pid and for the flags of pages."""
    asked = 0
    for _ in range(rounds):
        mm = find_task(prog, 1).mm
        for vma in for_each_vma(mm):
            try:
                page = follow_page(mm, vma.vm_start)
                asked += bool(PageCompound(page)) + int(page_size(compound_head(page)) > 0)
                decode_page_flags(page)
            except drgn.FaultError:
                continue
        asked += sum(1 for _ in zip(for_each_task(prog), range(20), strict=False))
    return asked


def test_helpers_of_drgn_search_once(any_core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a helper asks for in a loop is searched for in BTF and kallsyms once, present or not."""
    searched: list[str] = []

    def counted(owner: type, method: str) -> None:
        search = getattr(owner, method)

        def record(self: Any, name: str) -> Any:
            searched.append(name)
            return search(self, name)

        monkeypatch.setattr(owner, method, record)

    for owner, method in ((Btf, "find"), (Btf, "find_enumerator"), (Kallsyms, "locate")):
        counted(owner, method)
    prog = open_core(any_core, types="btf").prog
    assert helper_loop(prog, 1) > 20
    first = len(searched)
    assert first > 10
    helper_loop(prog, 3)
    assert searched[first:] == []


STRUCTS = [
    "page",
    "folio",
    "mm_struct",
    "vm_area_struct",
    "task_struct",
    "anon_vma",
    "anon_vma_chain",
    "address_space",
    "inode",
    "file",
    "dentry",
    "maple_node",
    "maple_tree",
    "xarray",
    "xa_node",
    "kmem_cache",
    "slab",
    "zone",
    "pglist_data",
    "swap_info_struct",
    "hstate",
    "swap_cluster_info",
    "mem_cgroup",
    "obj_cgroup",
    "mem_section",
    "mem_section_usage",
    "lruvec",
    "lru_gen_folio",
    "lru_gen_struct",
    "deferred_split",
    "list_lru",
    "list_lru_node",
    "rb_node",
    "rb_root_cached",
    "list_head",
    "percpu_counter",
    "mm_rss_stat",
    "ptdesc",
    "resv_map",
    "file_region",
    "ksm_rmap_item",
    "ksm_stable_node",
    "ksm_mm_slot",
    "ksm_scan",
    "rmap_item",
    "stable_node",
    "hugetlb_vma_lock",
    "super_block",
    "file_system_type",
    "signal_struct",
    "cred",
    "rw_semaphore",
    "printk_info",
    "timekeeper",
    "mmu_gather",
    "folio_batch",
    "pagevec",
    "cpu_fbatches",
    "vm_event_state",
    "per_cpu_pages",
    "per_cpu_zonestat",
    "per_cpu_nodestat",
    "free_area",
    "rq",
    "mempolicy",
    "user_struct",
    "cgroup_subsys_state",
    "mmu_notifier_subscriptions",
    "vm_operations_struct",
    "migration_target_control",
    "shmem_inode_info",
    "zram",
    "bio",
    "perf_event",
    "module",
    "uts_namespace",
    "swap_table",
    "tlb_state",
    "dev_pagemap",
    "userfaultfd_ctx",
]


@cache
def opened(version: str, types: Types) -> Target:
    guest = GUESTS / version
    if not (guest / "rest.elf").exists():
        pytest.skip("no guest")
    symbols = [str(guest / "vmlinux")] if types == "dwarf" else []
    return open_core(str(guest / "rest.elf"), symbols, types=types)


def flat(name: str) -> str:
    """A type's name with the dimensions of an array multiplied out: BTF has them so."""

    def product(match: re.Match[str]) -> str:
        total = 1
        for size in re.findall(r"\d+", match.group(0)):
            total *= int(size)
        return f"[{total}]"

    return re.sub(r"(\[\d+\])+", product, name)


def shape(made: drgn.Type) -> list[Any]:
    """Every member, those of nameless structs and unions included: name, place, width, type."""
    rows: list[Any] = []
    for member in made.members or ():
        inner = member.type
        name = flat(inner.type_name()) if member.name else ""
        # BTF cannot tell [0] from [].
        rows.append((member.name, member.bit_offset, member.bit_field_size, inner.kind.name, name.replace("[0]", "[]")))
        if inner.kind in (TypeKind.STRUCT, TypeKind.UNION) and inner.tag is None:
            rows.append(shape(inner))
    return rows


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_structs_are_those_of_dwarf(version: str) -> None:
    btf, dwarf = opened(version, "btf").prog, opened(version, "dwarf").prog
    compared = 0
    for name in STRUCTS:
        try:
            wanted = dwarf.type(f"struct {name}")
        except LookupError:
            continue
        if not wanted.is_complete():
            continue
        try:
            made = btf.type(f"struct {name}")
        except LookupError:
            assert name == "zram", f"struct {name} is of a module"
            continue
        assert made.size == wanted.size, name
        assert shape(made) == shape(wanted), name
        compared += 1
    assert compared >= 50


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name",
    [
        "enum pageflags",
        "enum zone_type",
        "enum node_stat_item",
        "enum vm_event_item",
        "enum pid_type",
        "enum maple_type",
    ]
    + ["gfp_t", "pgtable_t", "atomic_t", "atomic_long_t", "pte_t", "pgd_t", "spinlock_t", "vm_flags_t", "nodemask_t"]
    + ["unsigned long", "char", "_Bool", "bool", "u8", "unsigned char", "long long", "size_t", "union swap_header"],
)
def test_other_types_are_those_of_dwarf(version: str, name: str) -> None:
    made, wanted = opened(version, "btf").prog.type(name), opened(version, "dwarf").prog.type(name)
    assert (made.kind, made.type_name()) == (wanted.kind, wanted.type_name())
    assert drgn.sizeof(made) == drgn.sizeof(wanted)
    if made.kind == TypeKind.ENUM:
        assert [tuple(e) for e in made.enumerators] == [tuple(e) for e in wanted.enumerators]
    if made.kind == TypeKind.TYPEDEF:
        assert made.type.type_name() == wanted.type.type_name()
    if made.kind == TypeKind.INT:
        assert made.is_signed == wanted.is_signed


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_variables_are_those_of_dwarf(version: str) -> None:
    btf, dwarf = opened(version, "btf").prog, opened(version, "dwarf").prog
    compared = 0
    for name in [*TYPE_OF, "runqueues", "vm_event_states", "cpu_tlbstate"]:
        try:
            wanted = dwarf.variable(name)
        except LookupError:
            with pytest.raises(LookupError):
                btf.variable(name)
            continue
        made = btf.variable(name)
        assert made.address_ == wanted.address_, name
        ours, theirs = (re.sub(r"\[\d+\]", "[]", o.type_.type_name()) for o in (made, wanted))
        assert ours.replace("pg_data_t", "struct pglist_data") == theirs.replace("pg_data_t", "struct pglist_data"), (
            name
        )
        if made.type_.kind == TypeKind.ARRAY:
            assert made.type_.length >= wanted.type_.length, name
        compared += 1
    assert compared >= 60


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_constants_are_those_of_dwarf(version: str) -> None:
    btf, dwarf = opened(version, "btf").prog, opened(version, "dwarf").prog
    for name in (
        "PG_head",
        "PG_locked",
        "NR_FILE_MAPPED",
        "MIGRATE_MOVABLE",
        "ZONE_NORMAL",
        "LRU_UNEVICTABLE",
        "MM_ANONPAGES",
    ):
        assert btf.constant(name).value_() == dwarf.constant(name).value_()
    for name in ("schedule", "try_to_unmap"):
        assert btf.function(name).address_ == dwarf.function(name).address_


@pytest.mark.guest
@pytest.mark.parametrize("version", VERSIONS)
def test_helpers_work_without_dwarf(version: str) -> None:
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.fs import for_each_file, for_each_mount
    from drgn.helpers.linux.mm import for_each_page, for_each_vma
    from drgn.helpers.linux.mmzone import for_each_online_pgdat
    from drgn.helpers.linux.percpu import per_cpu
    from drgn.helpers.linux.pid import find_task, for_each_task
    from drgn.helpers.linux.slab import for_each_slab_cache
    from drgn.helpers.linux.timekeeping import ktime_get_seconds

    def seen(prog: drgn.Program) -> dict[str, Any]:
        tasks = list(for_each_task(prog))
        pages = [page.value_() for page, _ in zip(for_each_page(prog), range(1000), strict=False)]
        facts: dict[str, Any] = {
            "tasks": [(t.value_(), t.pid.value_(), t.comm.string_()) for t in tasks],
            "vmas": [(v.vm_start.value_(), v.vm_end.value_()) for t in tasks if t.mm for v in for_each_vma(t.mm)],
            "files": sum(1 for t in tasks for _ in for_each_file(t)),
            "init": find_task(prog, 1).value_(),
            "pages": pages,
            "vmemmap": prog["vmemmap"].value_(),
            "slabs": sorted(c.name.string_() for c in for_each_slab_cache(prog)),
            "nodes": [n.value_() for n in for_each_online_pgdat(prog)],
            "rqs": [per_cpu(prog["runqueues"], cpu).curr.value_() for cpu in for_each_online_cpu(prog)],
            "mounts": sum(1 for _ in for_each_mount(prog)),
            "shift": prog["PAGE_SHIFT"].value_(),
            "ram": prog["_totalram_pages"].counter.value_(),
        }
        if version != "6.1" and version != "6.12":
            facts["seconds"] = ktime_get_seconds(prog).value_()
        return facts

    assert seen(opened(version, "btf").prog) == seen(opened(version, "dwarf").prog)
