"""What a machine can inspect, told from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.report import doctor
from inspector.report.doctor import Ability, build_doctor_report, render_doctor
from inspector.report.screen import Screen


def machine(root: Path, files: dict[str, str]) -> dict[str, Ability]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {a.name: a for a in build_doctor_report(root, "6.12.1").abilities}


def test_a_machine_with_nothing_says_how_to_get_each_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    found = machine(tmp_path, {})
    report = build_doctor_report(tmp_path, "6.12.1")
    assert not report.live
    assert {a.state for a in found.values() if not a.todo} <= {"yes"}
    assert all(a.todo for a in found.values() if a.state != "yes")
    assert found["memory of the running kernel"].state == "no"
    text = "\n".join(render_doctor(Screen(width=100), report))
    assert "Linux 6.12.1: the running kernel cannot be inspected" in text
    assert "CONFIG_PROC_KCORE" in text


def test_lockdown_for_confidentiality_is_named(tmp_path: Path) -> None:
    lockdown = "sys/kernel/security/lockdown"
    assert machine(tmp_path / "a", {lockdown: "none integrity [confidentiality]\n"})["lockdown"].state == "no"
    assert machine(tmp_path / "b", {lockdown: "none [integrity] confidentiality\n"})["lockdown"].state == "yes"


def test_debug_information_is_found_where_distributions_put_it(tmp_path: Path) -> None:
    found = machine(tmp_path, {"usr/lib/debug/boot/vmlinux-6.12.1": ""})["debug information (DWARF)"]
    assert (found.state, found.found) == ("yes", "/usr/lib/debug/boot/vmlinux-6.12.1")


def test_a_core_file_that_may_not_be_opened_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_refusal", lambda _path: "permission denied")
    found = machine(tmp_path, {"proc/kcore": "", "proc/kallsyms": "", "sys/kernel/btf/vmlinux": ""})
    assert (found["memory of the running kernel"].state, found["types in the kernel (BTF)"].state) == ("no", "yes")
    assert "Run as root" in found["memory of the running kernel"].todo
    assert found["symbols in the kernel (kallsyms)"].state == "optional"
