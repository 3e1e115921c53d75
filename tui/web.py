"""The interface served to a browser on this machine; no other machine and no other web page can reach it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"
"""The only address that is listened on: what is shown is the memory of a kernel."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LoopbackServer(Server):
    """Refuses what a browser sends on behalf of other pages.

    Any web page may ask the browser for a WebSocket on the loopback address, and a foreign name may be made to resolve
    to it. The browser sends both in the headers ``Origin`` and ``Host``.
    """

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._only_ours)
        return app

    @web.middleware
    async def _only_ours(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        ours = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        origin = request.headers.get("Origin")
        if request.host not in ours or (origin is not None and origin.removeprefix("http://") not in ours):
            raise web.HTTPForbidden(text="folioscope answers pages of this machine only")
        return await handler(request)

    async def on_startup(self, app: web.Application) -> None:
        """Say where it is."""
        self.console.print(f"folioscope: serving on {self.public_url}, Ctrl+C ends it", highlight=False)


def serve(command: str, port: int) -> None:
    """Serve until interrupted.

    Args:
        command: Shell command that starts the interface.
        port: On the loopback address.

    Raises:
        OSError: The port is taken.
    """
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    LoopbackServer(command, host=HOST, port=port, title="folioscope").serve()
