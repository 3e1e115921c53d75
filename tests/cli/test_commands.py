"""Every command on every captured kernel: text for people, objects that fit their own schema, exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import click
import jsonschema
import pytest

from inspector.cli import COMMANDS
from inspector.hex_json import EXACT
from tests.cli.conftest import Run

COMMAND_LINES = {
    "info": (),
    "check": (),
    "folio": ("0x1000",),
    "explain": ("0x1000",),
    "references": (),
    "page": ("0x1000-0x10ff",),
    "va": ("1", "0x400000"),
    "what": ("0x1000",),
    "ps": (),
    "vmas": ("1",),
    "rules": (),
    "rmap": ("0x5800",),
    "ksm": (),
    "hugetlb": (),
    "swap": (),
    "memory": (),
    "memcg": (),
    "mthp": ("--vmas", "--memcgs"),
    "uffd": (),
    "notifiers": (),
    "windows": (),
    "cpus": (),
    "cache": (),
    "scripts": (),
    "doctor": (),
}

NEED_AN_ADDRESS = {"anon-vma", "compare", "file"}
"""Commands whose argument is found in the dump first, or is another dump, in tests of their own."""

VERSIONS = {
    "rmap": 3,
    "folio": 3,
    "explain": 3,
    "doctor": 1,
    "cache": 1,
    "what": 1,
    "scripts": 1,
    "memory": 1,
    "memcg": 1,
    "mthp": 1,
    "cpus": 1,
    "notifiers": 1,
}
"""Of the JSON objects that are not at their second."""


def schema_of(run: Run, command: str) -> Any:
    result = run(command, "--schema")
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_output_fits_its_schema(command: str, run: Run, any_core: str) -> None:
    result = run("-c", any_core, command, *COMMAND_LINES[command], "--format", "json")
    assert (result.code, result.err) == (0, "")
    assert result.object["schema"] == f"folioscope.{command}/{VERSIONS.get(command, 2)}"
    jsonschema.Draft202012Validator(schema_of(run, command)).validate(result.object)
    for name, value in members(result.object):
        assert not isinstance(value, int) or abs(value) <= EXACT, name
        assert name not in ADDRESSES or value is None or re.fullmatch("0x[0-9a-f]+", str(value)), name


ADDRESSES = {"mm", "vma", "va", "address", "entry", "mapping", "virtual", "physical", "flags_word", "vm_flags", "via"}


def members(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All members of an object, at any depth, that are no objects themselves."""
    if isinstance(value, dict):
        for member, inner in value.items():
            yield from members(inner, member)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner, name)
    else:
        yield name, value


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_text(command: str, run: Run, any_core: str) -> None:
    result = run(command, *COMMAND_LINES[command], "-c", any_core)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\n")
    assert all(line.isprintable() and line == line.rstrip() for line in result.out.splitlines())


def test_every_command_is_run() -> None:
    assert set(COMMANDS) == {
        *COMMAND_LINES,
        *NEED_AN_ADDRESS,
        *("batch", "capture", "guard", "help", "manual", "report", "tui", "watch"),
    }


def test_schema_refuses_what_is_not_a_report(run: Run) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": "folioscope.check/2"}, schema_of(run, "check"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("help", "manual", "tui")])
def test_help_and_schema(command: str, run: Run) -> None:
    result = run(command, "--help")
    assert (result.code, result.err) == (0, "")
    for word in ("--core", "--kernel", "--qemu", "--symbols", "--types", "--format", "--quiet", "--schema"):
        assert word in result.out
    jsonschema.Draft202012Validator.check_schema(schema_of(run, command))


def test_help_tells_commands_and_exit_codes(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert all(f"  {name} " in result.out for name in COMMANDS)
    assert "4  nothing wrong found, but data is missing" in result.out


def test_options_before_and_after_the_command_are_the_same(run: Run, core: Callable[[str], str]) -> None:
    path = core("6.12")
    before = run("-c", path, "--types", "btf", "--format", "json", "info")
    after = run("info", "-c", path, "--types", "btf", "--format", "json")
    assert before == after
    assert before.object["target"]["types_from"] == "BTF"


def test_info(run: Run, any_core: str) -> None:
    found = run("-c", any_core, "info", "--format", "json").object
    assert found["target"]["kind"] == "kdump"
    assert found["target"]["path"] == any_core
    assert found["identity"]["architecture"] == "x86_64"
    assert found["identity"]["release"] in found["target"]["release"]
    assert found["memory_map"]["struct_pages"] == found["memory_map"]["struct_pages_read"] > 100_000
    assert [level["level"] for level in found["page_tables"]] == ["PGD", "PUD", "PMD", "PTE"]
    text = run("-c", any_core, "info").out
    assert found["identity"]["release"] in text
    assert f"scheme    {found['scheme']}: " in text


def processes(run: Run, path: str) -> dict[str, Any]:
    found = run("ps", "-c", path, "--format", "json").object["processes"]
    return {p["comm"]: p for p in found if p["comm"]}


def test_ps_sums(run: Run, any_core: str) -> None:
    for p in processes(run, any_core).values():
        assert p["rss_kb"] == p["anon_kb"] + p["file_kb"] + p["shmem_kb"]
        assert p["tasks"] >= 1
    shared = processes(run, any_core)["shared-mm"]
    assert shared["other_pids"]


def test_vmas_agree_with_ps(run: Run, any_core: str) -> None:
    p = processes(run, any_core)["thp-pmd"]
    found = run("vmas", str(p["pid"]), "-c", any_core, "--format", "json").object
    assert found["comm"] == "thp-pmd"
    assert len(found["vmas"]) == p["vmas"]
    assert sum(v["rss_kb"] for v in found["vmas"]) == p["rss_kb"]
    assert sum(v["anon_pmd_kb"] for v in found["vmas"]) == p["pmd_mapped_kb"] > 0
    assert {"[stack]", "[heap]", "[vdso]"} <= {v["name"] for v in found["vmas"]}
    by_mm = run("vmas", p["mm"], "-c", any_core, "--format", "json").object
    assert by_mm == found


def test_va_and_folio_of_a_huge_page(run: Run, any_core: str) -> None:
    pid = str(processes(run, any_core)["thp-pmd"]["pid"])
    vmas = run("vmas", pid, "-c", any_core, "--format", "json").object["vmas"]
    vma = next(v for v in vmas if v["anon_pmd_kb"])
    address = (int(vma["start"], 16) + (2 << 20) - 1) // (2 << 20) * (2 << 20)
    found = run("va", pid, hex(address + 0x5123), "-c", any_core, "--format", "json").object
    assert [e["level"] for e in found["entries"]] == ["PGD", "PUD", "PMD"]
    assert found["ends"] == "leaf"
    assert found["vma"]["address"] == vma["vma"]
    assert found["pfn"] == found["entries"][-1]["pfn"] + 5
    assert (found["page"]["kind"], found["page"]["order"]) == ("anon", 9)
    assert str(found["mappings"][0]["pid"]) == pid
    folio = run("folio", hex(found["pfn"]), "-c", any_core, "--format", "json").object
    assert (folio["kind"], folio["pages"], folio["entire_mappings"], folio["exit_code"]) == ("anon", 512, 1, 0)
    assert {c["verdict"] for c in folio["counters"]} <= {"ok", ""}
    assert folio["mappings"][0]["level"] == "PMD"
    quick = run("folio", hex(found["pfn"]), "--no-mappings", "-c", any_core, "--format", "json").object
    assert quick["head"] == folio["head"]
    assert [c["stored"] for c in quick["counters"]] == [c["stored"] for c in folio["counters"]]
    assert (quick["mappings_walked"], quick["mappings"]) == (False, [])


def test_va_ends(run: Run, core: Callable[[str], str]) -> None:
    path = core("7.3")
    nothing = run("va", "1", "0x10000", "-c", path)
    assert nothing.code == 0
    assert "no VMA contains this address" in nothing.out
    assert nothing.out.splitlines()[-1].endswith("empty")


def test_one_page_in_every_spelling(run: Run, any_core: str) -> None:
    first = run("page", "0x1234", "-c", any_core, "--format", "json").object
    place = first["places"][0]
    assert (place["taken_for"], place["pfn"]) == ("pfn", 0x1234)
    spellings = {
        "4660": "pfn",
        "pfn:0x1234": "pfn",
        place["page"]: "page",
        place["page"].removeprefix("0x"): "page",
        hex(int(place["page"], 16) + 8): "page",
        place["virtual"]: "virt",
        hex(int(place["virtual"], 16) + 0x10): "virt",
        place["physical"]: "phys",
    }
    for word, form in spellings.items():
        found = run("page", word, "-c", any_core, "--format", "json").object
        assert (found["places"][0]["taken_for"], found["pages"]) == (form, first["pages"]), word
    forced = run("page", "0x1234", "--as", "phys", "-c", any_core, "--format", "json").object
    assert (forced["places"][0]["pfn"], forced["places"][0]["offset"]) == (1, 0x234)
    ambiguous = run("page", "0x1000", "-c", any_core)
    assert "0x1000 taken for a page frame number" in ambiguous.out
    assert "--as phys it would be pfn 0x1" in " ".join(ambiguous.out.split())


def test_page_ranges(run: Run, any_core: str) -> None:
    found = run("page", "0x1000-0x11ff", "-c", any_core, "--format", "json").object["pages"]
    assert sum(p["pages"] for p in found) == 0x200
    at = 0x1000
    for row in found:
        assert row["pfn"] == at
        at += row["pages"]
    same = run("page", "0x1000+0x200", "-c", any_core, "--format", "json").object["pages"]
    assert same == found


def test_page_inside_a_folio_agrees_with_the_whole_table(run: Run, any_core: str) -> None:
    """The window that ``page`` reads must not change what the page is."""
    whole = run("page", "0+0x8000", "-c", any_core, "--format", "json").object["pages"]
    for row in [r for r in whole if r["order"]][::97] + whole[::211]:
        alone = run("page", str(row["pfn"]), "-c", any_core, "--format", "json").object["pages"][0]
        assert {**alone, "pages": 0} == {**row, "pages": 0}


def test_rules(run: Run) -> None:
    listed = run("rules", "--format", "json").object["rules"]
    assert len(listed) >= 25
    for slug in ("mapcount-too-low", listed[-1]["rule"]):
        page = run("rules", slug)
        assert (page.code, page.err) == (0, "")
        for heading in ("  Invariant", "  Why", "  Consequence", "  Exceptions", "  See also"):
            assert f"\n{heading}\n" in page.out
    kernels = {r["rule"]: r["kernels"] for r in listed}
    assert kernels["large-mapcount-mismatch"] == "6.10+"
    assert kernels["mm-id-slot-unexpected"] == "6.15+"
    assert kernels["mapcount-too-low"] == "all with page counts"
    assert kernels["tail-head-invalid"] == "all"


def test_rules_show_only_what_the_catalogue_explains(run: Run) -> None:
    listed = run("rules", "--format", "json").object["rules"]
    lines = run("rules", "--catalogue", "--format", "json").object["lines"]
    titles = {line["id"]: line["title"] for line in lines}
    assert all(titles[x["id"]] == x["title"] for rule in listed for x in rule["catalogue"])
    assert {(x["id"], rule["rule"]) for rule in listed for x in rule["catalogue"]} == {
        (line["id"], slug) for line in lines for slug in line["rules"]
    }
    page = " ".join(run("rules", "mapcount-too-low").out.split())
    assert f"I1: {titles['I1']}" in page


def test_a_former_name_leads_to_the_rule(run: Run) -> None:
    renamed = [rule for rule in run("rules", "--format", "json").object["rules"] if rule["was"]]
    assert renamed
    for rule in renamed[:3]:
        by_old = run("rules", rule["was"])
        assert by_old == run("rules", rule["rule"])
        assert f"  was        {rule['was']}, which still selects it" in by_old.out


def test_manual(run: Run) -> None:
    topics = [line.split()[0] for line in run("manual").out.splitlines()]
    assert topics == ["findings", "references", "schemes", "windows", "targets", "drgn", "python", "fleet", "json"]
    for topic in topics:
        result = run("manual", topic)
        assert result.code == 0
        assert result.out.startswith("# ")


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("folioscope ")


def test_as_offers_every_form_of_a_number() -> None:
    from inspector.cli.commands.page import page
    from inspector.places.words import FORMS

    choices = next(option.type for option in page.params if option.name == "form")
    assert isinstance(choices, click.Choice)
    assert tuple(choices.choices) == FORMS
