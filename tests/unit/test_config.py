"""What a kernel's configuration is known from, and what follows from it."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import numpy as np
import pytest

from inspector.layout.config import probe_config
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field, Struct
from inspector.memory import Memory
from inspector.model.scheme import Scheme
from inspector.rules import select_rules
from inspector.snapshot import Snapshot
from inspector.tables.locks import RwSemaphore
from inspector.tables.swap_devices import slots_per_cluster
from inspector.target.target import Target, open_core

THP = ("do_huge_pmd_anonymous_page", "do_huge_pmd_wp_page")


def without(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a target have none of some symbols."""
    known = Target.symbol
    monkeypatch.setattr(Target, "symbol", lambda self, name: None if name in names else known(self, name))


def test_debian_kernels_have_all_but_rt(any_core: str) -> None:
    layout = Layout.probe(open_core(any_core, types="btf"))
    off = {name for name, on in layout.config.options.items() if not on}
    assert off == ({"PREEMPT_RT"} if layout.struct("struct mm_struct").has("mm_id") else {"PREEMPT_RT", "MM_ID"})
    assert slots_per_cluster(layout) == 512


def test_kernel_without_thp(core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It deposits no tables and has small swap clusters, whatever its structs have members for."""
    without(THP, monkeypatch)
    s = Snapshot(open_core(core("6.12"), types="btf"))
    assert not s.layout.config.has("TRANSPARENT_HUGEPAGE")
    assert slots_per_cluster(s.layout) == 256
    assert len(s.deposits.rows) == 0
    for rule in select_rules(["deposit-list-damaged", "deposited-tables-mismatch"]):
        found = rule.run(s)
        assert (len(found), found.checked, found.unread.nr) == (0, 0, 0)


def test_mm_ids_are_used_with_their_option_alone(core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """struct folio has their members without CONFIG_MM_ID too, struct mm_struct has not."""
    find = Struct.find
    hidden = ("struct mm_struct", ("mm_id",))
    monkeypatch.setattr(Struct, "find", lambda self, *p: None if (self.name, p) == hidden else find(self, *p))
    evidence = Layout.probe(open_core(core("7.3"), types="btf")).scheme
    assert evidence.scheme is Scheme.LARGE
    assert "CONFIG_MM_ID is off (no mm_struct.mm_id)" in evidence.evidence


def test_own_configuration_decides(core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """CONFIG_IKCONFIG keeps it between two marks; a function that is there by another name proves nothing then."""
    target = open_core(core("7.3"), types="btf")
    packed = gzip.compress(b"CONFIG_MMU=y\nCONFIG_SWAP=y\n# CONFIG_KSM is not set\n")
    begin, end = 0xFFFFFFFF90000008, 0xFFFFFFFF90000008 + len(packed)
    places = {"kernel_config_data": begin, "kernel_config_data_end": end}
    known = Target.symbol
    monkeypatch.setattr(Target, "symbol", lambda self, name: places.get(name) or known(self, name))

    class Kept:
        def read(self, address: int, size: int, physical: bool = False) -> bytes:
            assert not physical
            stored = b"IKCFG_ST" + packed + b"IKCFG_ED"
            return stored[address - begin + 8 :][:size]

    config = probe_config(target, Memory(Kept()))
    assert (config.has("SWAP"), config.has("KSM"), config.has("MM_ID")) == (True, False, False)
    assert set(config.evidence.values()) == {"the kernel's own configuration"}


@pytest.mark.parametrize(
    ("word", "written", "read", "free"),
    [
        (0x80000000, False, False, True),
        (0x80000003, False, True, False),  # three readers
        (0x00000002, False, True, False),  # a writer waits for two readers
        (0x00000000, True, False, False),  # and for none any more
        (0x40000000, True, False, False),  # it has the lock
    ],
)
def test_semaphores_of_preempt_rt(word: int, written: bool, read: bool, free: bool) -> None:
    """include/linux/rwbase_rt.h: the word counts from READER_BIAS, which a writer takes away."""
    semaphore = RwSemaphore(Field(0, 4, signed=True), is_rt=True)
    words = np.array([word], np.uint32).view(np.int32)
    assert (semaphore.written(words)[0], semaphore.read(words)[0], semaphore.is_free(words)[0]) == (written, read, free)
