"""The same fault elsewhere has the same fingerprint, another fault another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inspector.check.fingerprint import fingerprint, signature
from inspector.findings import Diagnosis, Evidence, Finding, Mapping, Subject
from tests.faults import plants
from tests.faults.every import CATALOGUE, UNLIKE
from tests.faults.overlay import KERNELS, Patch, add, core_path, findings, sound
from tests.faults.plants import mapcount_at, pmd_mapped, small_anon
from tests.fixtures import NUMA_KERNELS, numa_fixture_path


def places() -> list[str]:
    """Dumps of several kernels and of several boots of the same."""
    return [*(core_path("fixture", k) for k in KERNELS), *(str(numa_fixture_path(k)) for k in NUMA_KERNELS)]


def prints(path: str, *patches: Patch) -> set[str]:
    return {f.fingerprint for f in findings(path, *patches)}


def test_at_other_folios_of_other_processes_on_other_boots() -> None:
    by_fault: dict[str, set[str]] = {"raised": set(), "by two": set(), "entire": set()}
    subjects: dict[str, set[Any]] = {name: set() for name in by_fault}
    for path in places():
        s = sound(path)
        rows = small_anon(s, 1)
        entire = pmd_mapped(s, anon=True)
        entire = entire[s.folio_totals[entire] == 1]
        # The last of 6.1 is one that a pin holds: there the same count too many may be a lost mapping.
        some = {int(rows[0]), int(rows[len(rows) // 4]), int(rows[len(rows) // 2])}
        made = [("raised", add(s, mapcount_at(s, row), 1, 4)) for row in some]
        made.append(("by two", add(s, mapcount_at(s, int(rows[3])), 2, 4)))
        for folio in entire[:2].tolist():
            head = s.layout.memmap.page_addr(int(s.folios.pfn[folio]))
            field = plants.head_field(
                s, "_entire_mapcount.counter", "_entire_mapcount", tail=("compound_mapcount.counter",)
            )
            made.append(("entire", add(s, head + field.offset, 1, 4)))
        for name, patch in made:
            for finding in findings(path, patch):
                by_fault[name].add(finding.fingerprint)
                subjects[name].add((path, finding.subject.pfn, finding.subject.pid))
    assert {name: len(found) for name, found in by_fault.items()} == dict.fromkeys(by_fault, 1)
    assert len(set().union(*by_fault.values())) == len(by_fault)
    assert all(len(found) > 3 for found in subjects.values())


@pytest.mark.each_kernel
@pytest.mark.parametrize("kernel", KERNELS)
def test_of_different_faults(kernel: str) -> None:
    path = core_path("fixture", kernel)
    found = {name: prints(path, *CATALOGUE[name](sound(path)).patches) for name in UNLIKE}
    assert all(len(one) == 1 for one in found.values()), found
    assert len(set().union(*found.values())) == len(UNLIKE)


def finding(**changed: Any) -> Finding:
    usual: dict[str, Any] = {
        "rule": "mapcount-too-high",
        "severity": "fail",
        "exactness": "exact",
        "subject": Subject("page", pfn=0x1234, page=0xFFFFF00000048D00, order=0),
        "title": "",
        "observed": {"_mapcount": 1},
        "expected": {"_mapcount": 0},
        "evidence": Evidence({"mappings": 1}, [mapping()], 1),
        "look": "folioscope -c a folio 0x1234",
    }
    return Finding(**(usual | changed))


def mapping(mm: int = 0xFFFF888000001000, pid: int = 7) -> Mapping:
    return Mapping(mm, 0x7F0000000000, "PTE", 0x1234, 0x8000000001234067, pid, "sh")


SAME: list[dict[str, Any]] = [
    {"subject": Subject("page", pfn=0x99, page=0xFFFFF00000000D00, order=0)},
    {"look": "folioscope -c b folio 0x99", "title": "other words", "count": 3, "severity": "warn"},
    {"observed": {"_mapcount": 8}, "expected": {"_mapcount": 7}},
    {"evidence": Evidence({"mappings": 8, "memcg_data": 1 << 60}, [mapping(0xFFFF888000009000, 99)], 1)},
]
OTHER: list[dict[str, Any]] = [
    {"rule": "mapcount-too-low"},
    {"exactness": "transient"},
    {"subject": Subject("folio", pfn=0x1234, order=0)},
    {"subject": Subject("page", pfn=0x1234, order=4)},
    {"observed": {"_mapcount": -1}},
    {"observed": {"_mapcount": 5}},
    {"observed": {"_mapcount": True}},
    {"evidence": Evidence({}, [], 0)},
    {"evidence": Evidence({}, [mapping(), mapping()], 2)},
    {"evidence": Evidence({}, [mapping(), mapping(mm=0xFFFF888000002000)], 2)},
    {"evidence": Evidence({}, [msgspec.structs.replace(mapping(), level="PMD")], 1)},
    {"evidence": Evidence({"kind": "slab"}, [mapping()], 1)},
    {"diagnosis": Diagnosis("leaked count", [])},
    {"diagnosis": Diagnosis("leaked mapping", [])},
]


@pytest.mark.parametrize("changed", SAME)
def test_does_not_say_where(changed: dict[str, Any]) -> None:
    assert fingerprint(finding(**changed)) == fingerprint(finding())


def test_says_what() -> None:
    made = [fingerprint(finding()), *(fingerprint(finding(**changed)) for changed in OTHER)]
    assert len(set(made)) == len(made)
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in made)


def test_is_the_same_in_every_version() -> None:
    """Datasets hold it: a change that makes others of the same findings needs another `VERSION`."""
    assert signature(finding()) == "mapcount-too-high; page of order 0; _mapcount +1; mapped once by PTE"
    assert fingerprint(finding()) == "f9e6ba1d1bda7143"


WORDS = [
    ({"mapping": 0xFFFF888000001000}, {"mapping": 0xFFFF888000001040}, "mapping fewer"),
    ({"mapping": 0xFFFF888000001000}, {"mapping": 0xFFFF888010001000}, "mapping with one bit flipped"),
    ({"mapping": 0}, {"mapping": 0xFFFF888010001000}, "mapping cleared"),
    ({"mapping": 0xFFFF888010001000}, {"mapping": 0}, "mapping set"),
    ({"mapping": 0xFFFF888010001000}, {"mapping": 0xFFFF888022001000}, "mapping another"),
    ({"pgoff": 34305792061}, {"pgoff": 34305792058}, "pgoff more"),
    ({"compound_mapcount": 1}, {"compound_mapcount": 0}, "_entire_mapcount +1"),
    ({"pages": 0}, {"pages": 505}, "pages none left"),
    ({"in_tree": False, "vma": 1}, {"in_tree": True, "vma": 1}, "in_tree no for yes"),
    ({"rss": "MM_SWAPENTS of pid 157 (sh)"}, {"rss": "its own"}, "rss MM_SWAPENTS of pid N for its own"),
    ({"_refcount": -2}, {"at_least": 0}, "_refcount is negative"),
    ({"word": "slab_cache", "stored": 7}, {"stored": "a cache"}, "stored positive for a cache; word is slab_cache"),
]


@pytest.mark.parametrize(("observed", "expected", "shape"), WORDS)
def test_shapes(observed: dict[str, Any], expected: dict[str, Any], shape: str) -> None:
    made = finding(observed=observed, expected=expected, evidence=Evidence())
    assert signature(made) == f"mapcount-too-high; page of order 0; {shape}"
