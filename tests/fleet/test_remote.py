"""A batch elsewhere: on a Dask cluster whose workers end, and over vmcores that are fetched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inspector.errors import Exit, TargetError, UsageError
from inspector.fleet import content, urls
from inspector.fleet.batch import Here, run_batch
from inspector.fleet.content import content_of
from inspector.fleet.paths import expand
from inspector.fleet.remote import DaskCluster
from inspector.fleet.schema import DUMPS, INPUTS
from inspector.fleet.urls import content_of_url, expand_url, is_url
from inspector.workers import bystanders
from tests.faults.every import UNLIKE
from tests.fixtures import fixture_path
from tests.fleet.files import planted_file
from tests.fleet.many import compare, contents, local_cluster, make_fleet, nr_done, run_on_cluster, run_whole
from tests.fleet.test_batch import alive, batch, options, rows

pytest.importorskip("distributed")


@pytest.fixture(scope="module", autouse=True)
def loops() -> Iterator[None]:
    """The loops of Dask and fsspec go on in this process, idle: they shall not keep later tests from forking."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        bystanders.add(thread)


def until_gone(seconds: float) -> bool:
    """Whether no process of a batch is left in so many seconds."""
    deadline = time.monotonic() + seconds
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive()


@pytest.mark.long
def test_a_cluster_gives_the_same(tmp_path: Path) -> None:
    """What it says of sound, planted and bad vmcores is what one machine says; workers that are left clean up."""
    (tmp_path / "cores").mkdir()
    for fault in UNLIKE[:2]:
        planted_file("6.1", fault, tmp_path / f"cores/{fault}.kdump")
    (tmp_path / "cores/empty").touch()
    shutil.copy(fixture_path("6.1"), tmp_path / "cores/sound")
    words = expand([str(tmp_path / "cores"), str(tmp_path / "gone"), (tmp_path / "cores/sound").as_uri()])
    here = run_batch(words, tmp_path / "here", Here(2, options()))
    with local_cluster(tmp_path, 1) as cluster:
        there = run_batch(words, tmp_path / "there", DaskCluster(cluster.address, options()))
        assert (there.paths, there.checked, there.exit_codes) == (here.paths, here.checked, here.exit_codes)
        assert there.peak_bytes > 50 << 20
        assert contents(tmp_path / "there") == contents(tmp_path / "here")
        assert run_batch(words, tmp_path / "there", DaskCluster(cluster.address, options())).checked == 0
        for number in (signal.SIGINT, signal.SIGKILL):
            left = batch(tmp_path / "left", *(named.path for named in words), "--scheduler", cluster.address)
            while not alive() and left.poll() is None:
                time.sleep(0.01)
            left.send_signal(number)
            left.communicate()
            assert left.returncode == (130 if number == signal.SIGINT else -number)
            assert until_gone(20)
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        with pytest.raises(TargetError, match="no Dask scheduler"):
            run_batch(words, tmp_path / "there", DaskCluster(cluster.address, options()))


@pytest.mark.whole
@pytest.mark.timeout(900)
def test_a_worker_killed_in_the_middle(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "cores", 52)
    run_whole(fleet, tmp_path / "at once")
    said = run_on_cluster(fleet, tmp_path / "cluster", tmp_path)
    assert (said["paths"], said["errors"], said["left_out"]) == (52, 9, 1)
    assert compare(fleet, tmp_path / "cluster") == []
    assert contents(tmp_path / "cluster") == contents(tmp_path / "at once")
    assert until_gone(20)


@pytest.mark.long
def test_a_scheduler_that_goes_away(tmp_path: Path) -> None:
    """One line, and the same command goes on."""
    for nth in range(6):
        (tmp_path / f"core-{nth}").write_bytes(fixture_path("6.1").read_bytes() + bytes([nth]))
    with local_cluster(tmp_path, 1) as cluster:
        left = batch(tmp_path / "out", str(tmp_path / "core-*"), "--scheduler", cluster.address)
        while not nr_done(tmp_path / "out") and left.poll() is None:
            time.sleep(0.01)
        cluster.scheduler.kill()
        said, errors = left.communicate(timeout=120)
    assert left.returncode == Exit.TARGET, said
    assert errors == (
        f"folioscope: error: the Dask cluster is gone: {cluster.address}. The same command goes on where it was.\n"
    )
    assert until_gone(20)
    assert batch(tmp_path / "out", str(tmp_path / "core-*")).wait() == Exit.CLEAN
    assert nr_done(tmp_path / "out") == 6


class _Ranges(SimpleHTTPRequestHandler):
    """Serves files, and pieces of them."""

    ranges = True

    def log_message(self, *_words: Any) -> None:
        pass

    def end_headers(self) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def do_GET(self) -> None:  # noqa: N802
        asked = self.headers.get("Range", "")
        file = Path(self.translate_path(self.path))
        if not self.ranges or not asked.startswith("bytes=") or not file.is_file():
            super().do_GET()
            return
        size = file.stat().st_size
        first, last = asked.removeprefix("bytes=").split("-")
        end = min(int(last or size - 1), size - 1)
        piece = file.read_bytes()[int(first) : end + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(piece)))
        self.send_header("Content-Range", f"bytes {first}-{end}/{size}")
        self.end_headers()
        self.wfile.write(piece)


@contextlib.contextmanager
def served(folder: Path, *, ranges: bool) -> Iterator[str]:
    """A web server with the files of a folder."""
    kind = type("Served", (_Ranges,), {"ranges": ranges})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: kind(*words, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_a_url_is() -> None:
    assert is_url("s3://crashes/2026/vmcore")
    assert is_url("HTTPS://x/vmcore")
    assert not is_url("/var/crash/s3://x")
    assert not is_url("C:/x")


def test_urls_are_expanded(tmp_path: Path) -> None:
    for name in ("b", "a", "below/c"):
        tmp_path.joinpath(name).parent.mkdir(exist_ok=True)
        tmp_path.joinpath(name).touch()
    home = tmp_path.as_uri()
    assert [named.path for named in expand([f"{home}/"])] == [f"{home}/a", f"{home}/b", f"{home}/below/c"]
    assert [named.found for named in expand([f"{home}/"])] == [True] * 3
    assert [named.path for named in expand([f"{home}/*"])] == [f"{home}/a", f"{home}/b", f"{home}/below/c"]
    assert list(expand_url(f"{home}/gone")) == [(f"{home}/gone", False)]
    with pytest.raises(UsageError, match="chains"):
        list(expand_url("simplecache::file:///x/*"))
    with pytest.raises(UsageError, match="cannot be read"):
        list(expand_url("nonsense://x/*"))


def test_a_sample_of_what_is_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same identity as that of the file; no more is read than the sample."""
    for module in (content, urls):
        monkeypatch.setattr(module, "SAMPLED", 1 << 20)
    file = tmp_path / "core"
    file.write_bytes(b"KDUMP   " + os.urandom(5 << 20))
    assert content_of_url(file.as_uri()) == content_of(str(file))
    with served(tmp_path, ranges=True) as home:
        assert content_of_url(f"{home}/core") == content_of(str(file))
    with served(tmp_path, ranges=False) as home:
        assert content_of_url(f"{home}/core") is None
    file.write_bytes(b"KDUMP   ")
    assert content_of_url(file.as_uri()) is None
    with pytest.raises(TargetError, match="cannot be fetched"):
        content_of_url((tmp_path / "gone").as_uri())


def test_vmcores_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, and nothing is left of them."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    (tmp_path / "cores").mkdir()
    planted_file("6.1", UNLIKE[0], tmp_path / "cores/planted")
    (tmp_path / "cores/long").write_bytes(fixture_path("6.1").read_bytes() + bytes(4 << 20))
    with served(tmp_path / "cores", ranges=False) as home:
        words = [f"{home}/planted", f"{home}/gone", f"{home}/long", "nonsense://x/y"]
        report = run_batch(expand(words), tmp_path / "out", Here(2, options(fetch=6 << 20)))
        assert report.exit_codes == {"3": 3, "1": 1}
        assert run_batch(expand(words), tmp_path / "out", Here(2, options())).checked == 0
    dumps = {row["dump"]: row for row in rows(tmp_path / "out", DUMPS)}
    of = {row["path"]: dumps[row["dump"]] for row in rows(tmp_path / "out", INPUTS)}
    assert of[words[0]]["dump"] == content_of(str(tmp_path / "cores/planted")).dump
    assert (of[words[0]]["exit_code"], of[words[0]]["error"]) == (1, None)
    assert of[words[1]]["error_text"].startswith("it cannot be fetched (")
    assert of[words[2]]["error_text"] == "it is longer than the 6 MiB that are fetched at most"
    assert of[words[3]]["error_text"].startswith("this kind of URL cannot be read (")
    assert list(scratch.iterdir()) == []
