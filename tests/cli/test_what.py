"""`what`: a number looked up as everything that it can be, on every kernel."""

from __future__ import annotations

import numpy as np

from tests.cli.conftest import Run
from tests.faults.overlay import sound


def test_each_kind_of_number(run: Run, any_core: str) -> None:
    s = sound(any_core)

    def kinds(number: object) -> dict[str, tuple[str, str]]:
        result = run("what", str(number), "-c", any_core, "--format", "json")
        assert result.code == 0
        return {m["kind"]: (m["what"], m["see"]) for m in result.object["meanings"]}

    large = int(np.flatnonzero(s.folios.is_anon & (s.folios.order == 9))[0])
    pfn = int(s.folios.pfn[large])
    for number, kind in (
        (hex(pfn), "page frame"),
        (hex(pfn << 12), "physical address"),
        (hex(s.layout.memmap.page_addr(pfn)), "struct page"),
        (hex(s.layout.memory.direct_map_base + (pfn << 12)), "direct map"),
    ):
        what, see = kinds(number)[kind]
        assert what.startswith(f"pfn {pfn:#x}: anon, of the folio {pfn:#x} of order 9, ")
        assert see == f"folio {pfn:#x}"
    assert kinds(hex(s.layout.memmap.page_addr(pfn) + 8))["struct page"][0].startswith(f"+0x8 in pfn {pfn:#x}")

    mm = int(np.flatnonzero(s.mms.pid == 1)[0])
    assert kinds(1)["process"] == ("1 keeper", "vmas 1")
    assert kinds(hex(int(s.mms.addr[mm]) + 16))["mm"][0].startswith("+0x10 in mm pid 1 keeper")
    vma = int(np.flatnonzero(s.vmas.mm_idx == mm)[0])
    assert kinds(hex(int(s.vmas.addr[vma])))["vma"][0].startswith("vma pid 1 keeper")
    start = int(s.vmas.start[vma])
    assert "user address" in kinds(hex(start))
    rmap = s.anon_rmap
    assert kinds(hex(int(rmap.anon_vmas.addr[0])))["anon_vma"][1].startswith("anon-vma 0x")
    assert "anon_vma_chain" in kinds(hex(int(rmap.avcs.addr[0])))
    assert "address_space" in kinds(hex(int(s.file_rmap.address_spaces.addr[0])))
    assert "task" in kinds(hex(int(s.tasks.addr[0])))

    init_mm = s.target.symbol("init_mm")
    assert init_mm is not None
    assert kinds("init_mm")["symbol"][0] == kinds(hex(init_mm))["symbol"][0] == "init_mm"
    assert kinds(hex(init_mm + 8))["symbol"][0] == "init_mm+0x8"


def test_what_is_nothing(run: Run, any_core: str) -> None:
    assert run("what", "0xfffffffffffff000", "-c", any_core).out.startswith(
        "0xfffffffffffff000 is nothing that is known"
    )
    assert run("what", "nonsense", "-c", any_core).code == 2
    for number in ("0", str((1 << 64) - 1), str(1 << 64), str(1 << 70), "-1"):
        result = run("what", "-c", any_core, "--", number)
        assert "Traceback" not in result.err
        assert "internal" not in result.err
        assert result.code in (0, 2), number
