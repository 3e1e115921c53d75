"""A headless Chromium, driven over its debugging port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from aiohttp.test_utils import unused_port

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Its program; None where there is none."""


class Browser:
    """A headless Chromium.

    Args:
        home: A folder for its profile.
        size: Of the window, in pixels.
    """

    def __init__(self, home: Path, size: str = "1200,700") -> None:
        self._home, self._size = home, size
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def __aenter__(self) -> Browser:
        port = unused_port()
        self._process = await asyncio.create_subprocess_exec(
            str(BROWSER),
            *("--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={self._size}"),
            *(f"--user-data-dir={self._home / 'profile'}", f"--remote-debugging-port={port}", "about:blank"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._client = ClientSession()
        for _ in range(100):
            with contextlib.suppress(OSError, StopIteration):
                pages = await (await self._client.get(f"http://127.0.0.1:{port}/json")).json()
                url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
                break
            await asyncio.sleep(0.2)
        self._tab = await self._client.ws_connect(url, max_msg_size=0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.close()
        self._process.terminate()
        await self._process.wait()

    async def ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        await self._tab.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._tab.receive_json()
            if message.get("id") == number:
                return message["result"]
            self.events.append(message)

    async def until(self, condition: str) -> Any:
        for _ in range(150):
            answer = await self.ask("Runtime.evaluate", expression=condition)
            if answer["result"].get("value"):
                return answer["result"]["value"]
            await asyncio.sleep(0.2)
        raise AssertionError(condition)

    def asked(self) -> list[str]:
        """Every URL that was asked for since `Network.enable`, in whatever way."""
        return [
            url
            for event in self.events
            for url in (event["params"].get("request", {}).get("url"), event["params"].get("url"))
            if event["method"].startswith("Network.") and url
        ]

    async def picture(self, file: Path) -> None:
        """What it shows, whole, as a PNG."""
        shot = await self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
