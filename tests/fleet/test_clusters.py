"""Clusters over a dataset: what they are of, which dumps are chosen, what is new; as text, JSON and a page."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from inspector.errors import UsageError
from inspector.fleet.cluster_page import cluster_page
from inspector.fleet.clusters import Cluster, FleetReport, build_fleet_report, since_when
from inspector.fleet.dataset import Dataset
from inspector.fleet.schema import DUMPS, FINDINGS, columns_of
from tests.browser import BROWSER, Browser
from tests.cli.conftest import run  # noqa: F401  (a fixture)
from tests.fleet.test_dataset import LEAKED, VERSION_1

DAY = 86_400
START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


class Fleet:
    """A dataset made up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nr = 0

    def add(self, release: str = "6.1.0", day: int | None = 0, *faults: str, **changed: Any) -> str:
        """A dump with some faults, each a rule."""
        self._nr += 1
        dump = f"{self._nr:016x}"
        row = {
            "dump": dump,
            "state": "checked",
            "exit_code": 1 if faults else 0,
            "release": release,
            "crashed_at": None if day is None else START + day * DAY,
            "nr_cpus": 4,
            "memory_bytes": 3 << 30,
            "architecture": "x86_64",
            **changed,
        }
        found = [
            {
                "dump": dump,
                "number": number,
                "fingerprint": f"{sum(fault.encode()):016x}",
                "signature": f"{fault}; page",
                "rule": fault,
                "title": f"It is {fault}",
                "severity": "info" if fault.startswith("i-") else "warn" if fault.startswith("w-") else "fail",
                "look": f"page {number:#x}",
            }
            for number, fault in enumerate(faults)
        ]
        there = Dataset(self.folder)
        with there.locked():
            there.put_dump(dump, {"findings": columns_of(FINDINGS, found), "dumps": columns_of(DUMPS, [row])})
            there.put_input(f"/crash/{self._nr} of it/vmcore", dump)
        return dump

    def report(self, **how: Any) -> FleetReport:
        return build_fleet_report(self.folder, **how)

    def clusters(self, **how: Any) -> dict[str, Cluster]:
        return {cluster.rule: cluster for cluster in self.report(**how).clusters}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


def test_what_the_batch_found() -> None:
    report = build_fleet_report(VERSION_1)
    first, second = report.clusters
    assert (first.fingerprint, first.rule, first.dumps, first.checked) == (LEAKED, "mapcount-too-high", 2, 4)
    assert (second.rule, second.dumps, second.verdict) == ("exclusive-page-mapcount-high", 1, "COW break")
    assert [(k.of, k.dumps, k.checked) for k in first.kernels] == [
        ("6.12.117+deb13-cloud-amd64", 1, 2),
        ("7.3.4+deb13-cloud-amd64", 1, 1),
    ]
    assert [(h.of, h.dumps) for h in first.hardware] == [("x86_64, 2 CPUs, up to 1 GiB", 2)]
    assert first.exemplar.command.startswith("folioscope -c /")
    assert "7.3-leaked.kdump folio 0x" in first.exemplar.command
    assert "one folio_remove_rmap_pte() is missing: a PTE was cleared without it" in first.exemplar.looks_like
    assert [(e.error, e.text, e.dumps) for e in report.errors] == [("target", "the dump is damaged", 1)]
    assert (report.outcomes.dumps, report.outcomes.errors, report.exit_code) == (5, 1, 0)


def test_first_and_last_and_the_exemplar(fleet: Fleet) -> None:
    fleet.add("6.1.0", 9, "leak", "leak")
    last = fleet.add("6.9.0", 30, "w-odd", "leak")
    fleet.add("6.12.0", None, "leak", "i-remark")
    fleet.add("6.12.0", 31)
    report = fleet.report()
    assert [c.rule for c in report.clusters] == ["leak", "w-odd"]
    (leak, _) = report.clusters
    assert (leak.dumps, leak.findings, leak.checked) == (3, 4, 4)
    assert (leak.first_seen, leak.last_seen) == ("2026-01-10T00:00:00Z", "2026-01-31T00:00:00Z")
    assert leak.exemplar.dump == last
    assert leak.exemplar.command == "folioscope -c '/crash/2 of it/vmcore' page 0x1"
    assert [k.kernel for k in report.kernels] == ["6.1.0", "6.9.0", "6.12.0"]
    assert [d.day for d in report.days] == ["2026-01-10", "2026-01-31", "2026-02-01"]


def test_some_dumps(fleet: Fleet) -> None:
    fleet.add("6.1.0-5-amd64", 1, "old")
    fleet.add("6.12.0", 20, "leak")
    fleet.add("6.12.0", None, "leak")
    assert set(fleet.clusters(since="2026-01-10")) == {"leak"}
    assert fleet.report(since="2026-01-10").undated == 1
    assert set(fleet.clusters(since="2026-01-22T00:00")) == set()
    # 6.1 is not 6.12.
    assert set(fleet.clusters(kernel="6.1")) == {"old"}
    assert set(fleet.clusters(kernel="6.1*")) == {"old", "leak"}
    assert set(fleet.clusters(kernel="*-amd64")) == {"old"}
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert since_when("30d", now) == datetime(2026, 1, 30, tzinfo=UTC)
    assert since_when("12 h", now).hour == 12
    with pytest.raises(UsageError, match="no time"):
        since_when("yesterday")
    with pytest.raises(UsageError, match="no time"):
        since_when("2026-13-01")


def test_against_another_kernel(fleet: Fleet) -> None:
    for nth in range(40):
        fleet.add("6.1", nth, "gone", *["rarer"] * (nth < 30), *["oftener"] * (nth < 2), *["steady"] * (nth < 10))
    for nth in range(20):
        fleet.add(
            "6.12",
            nth,
            *["new"] * (nth < 1),
            *["rarer"] * (nth < 2),
            *["oftener"] * (nth < 12),
            *["steady"] * (nth < 6),
        )
    found = fleet.clusters(kernel="6.12", compare="6.1")
    assert {name: c.change for name, c in found.items()} == {
        "gone": "gone",
        "rarer": "fewer",
        "oftener": "more",
        "steady": "same",
        "new": "new",
    }
    assert (found["gone"].dumps, found["gone"].checked, found["gone"].dumps_before, found["gone"].checked_before) == (
        *(0, 20),
        *(40, 40),
    )
    assert fleet.report(kernel="6.12", compare="6.1").exit_code == 1
    assert fleet.report(kernel="6.12", compare="6.12").exit_code == 0
    assert {c.change for c in fleet.report(compare=str(VERSION_1)).clusters} == {"new", "gone"}
    assert fleet.report(kernel="7", compare="6.1").outcomes.dumps == 0


class Reader(HTMLParser):
    """Sees that tags are closed in order and that nothing is loaded or run."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        assert not names & {"src", "href", "xlink:href", "style", "action"}, (tag, attrs)
        assert not any(name.startswith("on") for name in names)
        assert tag not in ("script", "link", "img", "iframe", "object", "base", "form")
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "line"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(page: str) -> str:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert "url(" not in page
    assert "@import" not in page
    return reader.text


def test_page(fleet: Fleet) -> None:
    hostile = "</title><script>alert(1)</script>\x1b[31m"
    fleet.add(hostile, 0, "leak", hostname=hostile)
    for nth in range(200):
        fleet.add(f"6.{nth}.0", nth * 3, "leak", f"fault-{nth}")
    fleet.add("7", 0, state="failed", exit_code=3, error="target", error_text=hostile)
    text = read_page(cluster_page(fleet.report(compare=str(VERSION_1))))
    assert "Faults of 202 vmcores" in text
    assert "\\x1b[31m" in text
    assert "\x1b" not in text
    assert "folioscope -c '/crash/" in text
    read_page(cluster_page(fleet.report(kernel="none")))


def test_command(run: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    result = run("report", VERSION_1, "--html", page)
    assert (result.code, result.err) == (0, "")
    assert "mapcount-too-high" in result.out
    assert "in           2 of 4 checked dumps, 2 findings" in result.out
    assert page.stat().st_mode & 0o777 == 0o600
    assert "mapcount-too-high" in read_page(page.read_text())
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    said = run("report", VERSION_1, "--release", "7.3", "--compare", "6.12", "--format", "json").object
    assert [c["change"] for c in said["clusters"]] == ["same", "gone"]
    jsonschema.Draft202012Validator(json.loads(run("report", "--schema").out)).validate(said)
    assert run("report", tmp_path).code == 2
    assert run("report", VERSION_1, "--html", tmp_path / "no/page").code == 3


LOOKS = [
    "document.documentElement.scrollWidth <= innerWidth",
    "[...document.querySelectorAll('rect')].every(r => r.getBoundingClientRect().width > 0)",
    "document.querySelectorAll('rect').length > 5",
]
"""What must be so of a page that is shown: nothing is wider than the window, and bars are there."""


@pytest.mark.long
@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
async def test_a_browser_shows_it(fleet: Fleet, tmp_path: Path) -> None:
    """At two widths, dark and light; nothing is asked for but the page. Pictures are left in the test's folder."""
    for nth in range(30):
        fleet.add(f"6.{nth % 4}.0-9-{'long' * 12}", nth * 3, *["leak"] * (nth % 3), *["w-odd"] * (nth % 5 == 0))
    fleet.add("7", 0, state="failed", exit_code=3, error="target", error_text="the dump is damaged")
    backgrounds = set()
    for name, report in (
        ("many", fleet.report()),
        ("few", build_fleet_report(VERSION_1)),
        ("none", fleet.report(kernel="x")),
    ):
        page = tmp_path / f"{name}.html"
        page.write_text(cluster_page(report))
        async with Browser(tmp_path) as browser:
            await browser.ask("Network.enable")
            await browser.ask("Page.navigate", url=page.as_uri())
            await browser.until("document.readyState === 'complete'")
            for width, scheme in itertools.product((420, 1200), ("light", "dark")):
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                await browser.ask("Emulation.setDeviceMetricsOverride", **size)
                scheme_asked = {"name": "prefers-color-scheme", "value": scheme}
                await browser.ask("Emulation.setEmulatedMedia", features=[scheme_asked])
                for look in LOOKS[: 3 if name != "none" else 1]:
                    assert await browser.until(look), (name, width, scheme, look)
                backgrounds.add(await browser.until("getComputedStyle(document.body).backgroundColor"))
                await browser.picture(tmp_path / f"{name}-{width}-{scheme}.png")
        assert [url for url in browser.asked() if url != "about:blank"] == [page.as_uri()]
    assert len(backgrounds) == 2
