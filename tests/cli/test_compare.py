"""compare: two captures of one boot, the later one a fixture after what an operation does."""

from __future__ import annotations

import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.errors import UsageError
from inspector.folio.compared import compare_folio, same_boot
from inspector.folio.look import look_at
from inspector.model.path import MAX_STEPS
from inspector.report.compare import build_comparison, render_comparison
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.cli.conftest import Run
from tests.cli.test_commands import schema_of
from tests.faults.overlay import KERNELS, core_path, entry_xor, flags_xor, page_word, planted, put, sound
from tests.folio.kinds import KINDS
from tests.guests.live import running_guest
from tests.guests.qmp import Qmp


def entry_of(s: Snapshot, pfn: int) -> int:
    """Row of an entry that maps a small page: of a run, and not the first one that maps it."""
    m = s.mappings
    return int(np.flatnonzero((m.pfn <= pfn) & (pfn < m.pfn + m.nr.astype(np.int64)) & (m.level == Level.PTE))[1])


@pytest.mark.each_kernel
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_process_that_unmapped_a_page(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = KINDS["shared anon"](s)
    m, row = s.mappings, entry_of(s, pfn)
    patches = (
        entry_xor(s, row, 1, pfn - int(m.pfn[row])),
        put(s, page_word(s, pfn, "_mapcount"), int(s.pages.mapcount_raw[s.pages.memmap.row(pfn)]) - 1, 4),
        put(s, page_word(s, pfn, "_refcount"), int(s.pages.refcount[s.pages.memmap.row(pfn)]) - 1, 4),
    )
    after = planted(path, *patches)
    found = compare_folio(look_at(s, pfn), look_at(after, pfn), pfn)
    back = compare_folio(look_at(after, pfn), look_at(s, pfn), pfn)
    listed = build_comparison(s, after, (), 5)
    pid = int(s.mms.pid[m.mm_idx[row]])
    assert found.same == "same folio"
    assert [x.partition("(")[2][: len(f"pid {pid} ")] for x in found.steps] == [f"pid {pid} "]
    assert {c.what for c in found.changes} >= {"mapped at", "_refcount", "_mapcount"}
    assert {c.what for c in found.kept} >= {"mapping", "index"}
    assert len(back.steps) == 1
    assert (listed.differing, [x.pfn for x in listed.folios]) == (1, [pfn])
    assert f"folio {pfn:#x}: same folio" in "\n".join(render_comparison(Screen(), listed))


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_no_operation_does(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = KINDS["anon"](s)
    after = planted(path, put(s, page_word(s, pfn, "_mapcount"), 7, 4))
    found = compare_folio(look_at(s, pfn), look_at(after, pfn), pfn)
    assert (found.same, found.steps) == ("same folio", [])
    assert found.note.startswith("no sequence of at most ")


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_that_stopped_being_exclusive(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = KINDS["anon"](s)
    after = planted(path, flags_xor(s, pfn, "anon_exclusive"))
    found = compare_folio(look_at(s, pfn), look_at(after, pfn), pfn)
    assert len(found.steps) == 1
    assert ("share" in found.steps[0]) or ("reuse" in found.steps[0])


@pytest.mark.guest
def test_every_folio_that_two_dumps_of_a_racing_guest_share_is_led_over(tmp_path: Path) -> None:
    with running_guest("7.3", is_busy=True) as socket, Qmp(socket) as qmp:
        for name in ("before", "after"):
            time.sleep(0.3)
            qmp.stop()
            qmp.dump(tmp_path / name)
            qmp.resume()
    before, after = (Snapshot(open_core(str(tmp_path / name))) for name in ("before", "after"))
    report = build_comparison(before, after, (), 60)
    shared = [x for x in report.folios if x.same == "same folio"]
    assert len(shared) >= 20
    # Each step changes the mappings of one process: where more processes came and went, none is found.
    left = [x for x in shared if not x.steps]
    assert all(sum(c.what.startswith(("PTEs of", "huge entries of")) for c in x.changes) > MAX_STEPS for x in left)
    assert len(left) < len(shared) // 4


def test_captures_of_two_kernels() -> None:
    a, b = (sound(core_path("fixture", kernel)) for kernel in ("6.12", "7.3"))
    assert same_boot(a, a) == ""
    assert "build id" in same_boot(a, b) or "release" in same_boot(a, b)
    with pytest.raises(UsageError, match="no two captures of one boot"):
        build_comparison(a, b, (), 5)


def test_the_command_line(run: Run, any_core: str) -> None:
    pfn = hex(KINDS["thp by pmd"](sound(any_core)))
    text = run("-c", any_core, "compare", any_core, pfn)
    assert (text.code, text.err) == (0, "")
    assert text.out.strip().startswith(f"folio {pfn}: unchanged\n")
    found = run("-c", any_core, "compare", any_core, "--format", "json").object
    jsonschema.validate(found, schema_of(run, "compare"))
    assert found["differing"] == 0
