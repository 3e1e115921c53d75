"""The interface in a browser: on the loopback address only, and only for pages that came from there."""

from __future__ import annotations

import socket

import pytest
from aiohttp.test_utils import TestClient, TestServer, unused_port

from inspector.cli import main
from tui.web import HOST, LoopbackServer

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
    app = await LoopbackServer("true", host=HOST, port=port)._make_app()
    headers = {"Origin": origin.format(port=port)} if origin else {}
    async with TestClient(TestServer(app, host=HOST, port=port)) as client:
        answer = await client.get("/", headers=headers)
        assert answer.status == ORIGINS[origin]


async def test_a_name_that_was_made_to_lead_here_is_refused() -> None:
    port = unused_port()
    app = await LoopbackServer("true", host=HOST, port=port)._make_app()
    async with TestClient(TestServer(app, host=HOST, port=port)) as client:
        assert (await client.get("/ws", headers={"Host": f"evil.example:{port}"})).status == 403


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
