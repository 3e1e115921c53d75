"""The interface served to a browser of the user who started it; no one else and no other web page can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

HOST = "127.0.0.1"
"""The only address that is listened on: what is shown is the memory of a kernel."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NOTHING_FROM_ELSEWHERE = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "img-src 'self' data:; connect-src 'self' {socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may load for the page: of this server, and nothing of any other machine."""

_KEPT = 4096
"""Bytes of what the process wrote to stderr last that are shown when it ends."""


class LoopbackServer(Server):
    """Answers those who know the random word in its URL, and no page but its own.

    Every user of this machine may connect to the loopback address: the word is what only the user who started the
    server has seen. Any web page may ask the browser for a WebSocket on that address, and a foreign name may be made
    to resolve to it: the browser sends both in the headers ``Origin`` and ``Host``.

    Args:
        command: The program and its arguments; no shell takes part.
        port: On the loopback address.
    """

    def __init__(self, command: Sequence[str], port: int) -> None:
        super().__init__(command[0], host=HOST, port=port, title="folioscope", templates_path=Path(__file__).parent)
        self.words = tuple(command)
        self.token = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """What the user opens."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._only_ours])
        app.add_subapp(f"/{self.token}", await super()._make_app())
        return app

    @web.middleware
    async def _only_ours(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        ours = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        origin = request.headers.get("Origin")
        if request.host not in ours or (origin is not None and origin.removeprefix("http://") not in ours):
            raise web.HTTPForbidden(text="folioscope answers pages of this machine only")
        word = request.path.split("/")[1]
        if not secrets.compare_digest(word.encode(), self.token.encode()):
            raise web.HTTPForbidden(text="folioscope answers at the whole URL that it printed, and nowhere else")
        answer = await handler(request)
        if not answer.prepared:
            socket = " ".join(f"ws://{name}" for name in sorted(ours))
            answer.headers["Content-Security-Policy"] = _NOTHING_FROM_ELSEWHERE.format(socket=socket)
            answer.headers["Referrer-Policy"] = "no-referrer"
            answer.headers["Cache-Control"] = "no-store"
        return answer

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run the interface for one tab of the browser, until either is closed."""
        websocket = web.WebSocketResponse(heartbeat=15)
        await websocket.prepare(request)
        child = Child(self.words, websocket, self)
        await child.start(*(to_int(request.query.get(name, ""), usual) for name, usual in _SIZE.items()))
        try:
            await self._process_messages(websocket, child)
        finally:
            await child.stop()
        return websocket

    async def on_startup(self, app: web.Application) -> None:
        """Say where it is."""
        self.console.print(f"folioscope: serving on {self.url}", highlight=False, soft_wrap=True)
        self.console.print(
            "The URL is for you alone: who has it sees all. Ctrl+C ends it", highlight=False, soft_wrap=True
        )


_SIZE = {"width": 80, "height": 24}


class Child(AppService):
    """The process behind one tab. The page is given the reason when it ends.

    Args:
        words: The program and its arguments.
        websocket: Of the tab.
        server: For downloads.
    """

    def __init__(self, words: Sequence[str], websocket: web.WebSocketResponse, server: LoopbackServer) -> None:
        super().__init__(
            words[0],
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=self._wait_for_the_end,
            download_manager=server.download_manager,
        )
        self._words = tuple(words)
        self._websocket = websocket
        self._errors: _Overheard | None = None

    async def _wait_for_the_end(self) -> None:
        """The interface has left its screen; what it has to say about that comes after."""

    async def _open_app_process(self, width: int = 80, height: int = 24) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        environment = self._build_environment(width, height)
        process = await asyncio.create_subprocess_exec(
            *self._words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        assert process.stderr is not None
        self._errors = _Overheard(process.stderr)
        process.stderr = self._errors  # type: ignore[assignment]  # what AppService asks of it is read()
        self._process, self._stdin = process, process.stdin
        return process

    async def run(self) -> None:
        """Pass on what the process draws; then say why it ended, and close the tab's connection."""
        # AppService cancels its reader of stderr; one that had not begun yet throws that back.
        with contextlib.suppress(asyncio.CancelledError):
            await super().run()
        assert self._process is not None
        assert self._errors is not None
        why = ended(await self._process.wait(), await self._errors.rest())
        with contextlib.suppress(ConnectionError, RuntimeError):  # the tab may be closed already
            await self._websocket.send_str(json.dumps(["ended", why]))
            await self._websocket.close()


class _Overheard:
    """A stream whose last bytes are kept while they are read."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._last = b""

    async def read(self, size: int) -> bytes:
        data = await self._stream.read(size)
        self._last = (self._last + data)[-_KEPT:]
        return data

    async def rest(self) -> str:
        """All that is left, and what came before it."""
        while await self.read(_KEPT):
            pass
        return self._last.decode("utf-8", "replace").strip()


def ended(code: int, heard: str) -> str:
    """Why a process ended, for its user.

    Args:
        code: Its exit code; a signal's number, negated, where one ended it.
        heard: What it wrote to stderr.
    """
    if code == 0 and not heard:
        return "You left folioscope."
    if code < 0:
        name = _signal_name(-code)
        killed = " (the kernel does this when memory runs out)" if -code == signal.SIGKILL else ""
        return f"folioscope was ended by {name}{killed}.\n{heard}".strip()
    return heard or f"folioscope ended with exit code {code} and gave no reason."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def serve(command: Sequence[str], port: int) -> None:
    """Serve until interrupted.

    Args:
        command: What starts the interface: the program and its arguments.
        port: On the loopback address.

    Raises:
        OSError: The port is taken.
    """
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)  # a log of requests would hold the URL's word
    LoopbackServer(command, port).serve()
