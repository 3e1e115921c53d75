"""The interface in a browser: on the loopback address only, and only for pages that came from there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer, unused_port

from inspector.cli import main
from inspector.cli.commands.tui import _this_program
from tests.browser import BROWSER, Browser
from tests.fixtures import fixture_path
from tui.web import HOST, LoopbackServer, ended

ORIGINS = {
    None: 200,
    "http://127.0.0.1:{port}": 200,
    "http://localhost:{port}": 200,
    "http://evil.example": 403,
    "http://127.0.0.1:1": 403,
    "null": 403,
}


@pytest.mark.parametrize("origin", ORIGINS)
async def test_other_pages_are_refused(origin: str | None) -> None:
    port = unused_port()
    server = LoopbackServer(["true"], port)
    app = await server._make_app()
    headers = {"Origin": origin.format(port=port)} if origin else {}
    async with TestClient(TestServer(app, host=HOST, port=port)) as client:
        answer = await client.get(f"/{server.token}/", headers=headers)
        assert answer.status == ORIGINS[origin]


async def test_a_name_that_was_made_to_lead_here_is_refused() -> None:
    port = unused_port()
    server = LoopbackServer(["true"], port)
    app = await server._make_app()
    async with TestClient(TestServer(app, host=HOST, port=port)) as client:
        assert (await client.get(f"/{server.token}/ws", headers={"Host": f"evil.example:{port}"})).status == 403


def test_it_listens_on_the_loopback_address_alone() -> None:
    assert HOST == "127.0.0.1"


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        code = main(["tui", "--web", "--port", str(port), "-c", "anything"])
    assert code == 2
    assert capsys.readouterr().err == (
        f"folioscope: error: the port cannot be used (address already in use): {port}. Give another with --port.\n"
    )


async def test_who_does_not_know_the_url_is_refused() -> None:
    port = unused_port()
    server = LoopbackServer(["true"], port)
    async with TestClient(TestServer(await server._make_app(), host=HOST, port=port)) as client:
        for path in ("/", "/ws", "/static/css/xterm.css", "/download/x", f"/{server.token[:-1]}/", "/ä/"):
            assert (await client.get(path)).status == 403, path
        assert (await client.get(f"/{server.token}/static/css/xterm.css")).status == 200
    assert LoopbackServer(["true"], port).token != server.token


async def test_the_page_asks_no_other_machine_for_anything() -> None:
    port = unused_port()
    server = LoopbackServer(["true"], port)
    async with TestClient(TestServer(await server._make_app(), host=HOST, port=port)) as client:
        answer = await client.get(f"/{server.token}/")
        page = await answer.text()
        for url in re.findall(r"""(?:https?|wss?):[^\s"')]+""", page):
            assert re.match(rf"(http|ws)://{HOST}:{port}/{server.token}/", url), url
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"


async def _reason(*words: str) -> str:
    port = unused_port()
    server = LoopbackServer(words, port)
    client = TestClient(TestServer(await server._make_app(), host=HOST, port=port))
    async with client, client.ws_connect(f"/{server.token}/ws") as tab:
        said = [json.loads(m.data) async for m in tab if m.type == WSMsgType.TEXT]
    assert said[-1][0] == "ended"
    return str(said[-1][1])


async def test_the_page_is_given_the_reason_when_the_process_ends(tmp_path: Path) -> None:
    core = tmp_path / "no core"
    core.write_text("nothing")
    program = _this_program()
    assert "folioscope: error:" in await _reason(*program, "tui", "-c", str(core))
    assert "SIGKILL" in await _reason("/bin/sh", "-c", "kill -9 $$")
    assert await _reason("false") == "folioscope ended with exit code 1 and gave no reason."
    assert ended(0, "") == "You left folioscope."
    assert "signal 200" in ended(-200, "")


def test_files_in_the_current_directory_are_not_executed(tmp_path: Path) -> None:
    for name in ("click", "rich", "numpy", "drgn", "textual", "inspector"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the current directory was executed')")
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [*_this_program(), "--version"], cwd=tmp_path, env=alone, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("folioscope "), done.stderr
    (tmp_path / "inspector.py").unlink()
    home = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "inspector", "--version"],
        cwd=tmp_path,
        env=alone | {"PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("folioscope "), done.stderr


def _as_another_user(ask: Callable[[], bytes]) -> bytes:
    """What a function gives that runs as the user nobody, in a process of its own."""
    come, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = b""
        try:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            answer = ask()
        except BaseException as error:  # noqa: BLE001  (this process must not become a second pytest)
            answer = f"failed: {error!r}".encode()
        finally:
            os.write(go, answer)
            os._exit(0)
    os.close(go)
    with os.fdopen(come, "rb") as told:
        answer = told.read()
    os.waitpid(pid, 0)
    return answer


_NOBODY = 65534


def _ask_server(port: int, path: str) -> bytes:
    """The status line of an answer."""
    with socket.socket() as talk:
        # As bytes: the codec for names is in a file that the other user may not read.
        talk.connect((HOST.encode(), port))
        talk.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        return talk.makefile("rb").readline()


def _seen_of(word: str) -> bytes:
    """Where a user finds a word in what /proc shows of processes."""
    found = []
    for file in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        with contextlib.suppress(OSError):
            found += [str(file)] if word.encode() in file.read_bytes() else []
    return " ".join(found).encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a second user")
def test_a_second_user_of_this_machine_is_refused() -> None:
    port = unused_port()
    words = [*_this_program(), "tui", "--web", "--port", str(port), "-c", str(fixture_path("7.3"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = next(found[1] for line in server.stdout if (found := re.search(r"http://[^/]+(/\S+/)", line)))
            token = url.strip("/")
            for path in ("/", "/ws", f"{url[:-2]}/ws", "/static/css/xterm.css"):
                assert b" 403 " in _as_another_user(partial(_ask_server, port, path)), path
            assert _as_another_user(lambda: _seen_of(token)) == b""
            assert b" 200 " in _ask_server(port, url)
        finally:
            server.terminate()


@pytest.mark.long
@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
async def test_a_browser_shows_it_and_asks_this_server_alone(tmp_path: Path) -> None:
    """The network log of a real browser: the interface is drawn, and nothing is asked of anything else."""
    core = str(fixture_path("7.3"))
    port = unused_port()
    server = LoopbackServer([*_this_program(), "tui", "-c", core], port)
    async with TestServer(await server._make_app(), host=HOST, port=port), Browser(tmp_path) as browser:
        await browser.ask("Network.enable")
        await browser.ask("Page.navigate", url=server.url)
        await browser.until("document.body.classList.contains('-first-byte')")
        await asyncio.sleep(5)
        picture = await browser.ask("Page.captureScreenshot")
        (tmp_path / "page.png").write_bytes(base64.b64decode(picture["data"]))
        asked = browser.asked()
    assert any(url.startswith("ws://") for url in asked)
    assert any(url.endswith(".ttf") for url in asked)
    assert not [url for url in asked if not re.match(rf"((http|ws)://{HOST}:{port}/{server.token}/|data:)", url)]
