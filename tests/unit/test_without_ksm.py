"""Kernels built without KSM or hugetlb: the tables are empty and the rules have nothing to say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inspector.report.hugetlb import build_hugetlb_report, render_hugetlb
from inspector.report.ksm import build_ksm_report, render_ksm
from inspector.report.screen import Screen
from inspector.rules import select_rules
from inspector.snapshot import Snapshot
from inspector.target.target import Target, open_core

GONE = ("root_stable_tree", "rmap_item_cache", "ksm_thread_mutex", "hstates", "hugetlb_max_hstate", "hugetlb_lock")


def test_kernel_without_ksm_and_hugetlb(core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    known = Target.symbol
    monkeypatch.setattr(Target, "symbol", lambda self, name: None if name in GONE else known(self, name))
    s = Snapshot(open_core(core("7.3"), types="btf"))
    assert len(s.ksm.nodes) == len(s.ksm.items) == len(s.ksm.slots) == len(s.hugetlb.hstates) == 0
    for rule in select_rules(["ksm", "hugetlb"]):
        assert len(rule.run(s)) == 0
    assert list(render_ksm(Screen(), build_ksm_report(s))) == ["this kernel has no KSM"]
    assert len(list(render_hugetlb(Screen(), build_hugetlb_report(s)))) == 1
