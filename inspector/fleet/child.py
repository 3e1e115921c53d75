"""The process that checks one vmcore, as those see it that started it: its limits, its answers, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

import inspector
from inspector.fleet.job import GO, DumpFailure, DumpResult, Known, Options, too_much_memory
from inspector.fleet.usage import memory_of
from inspector.text import clean

_WATCHED_AFTER = 0.1
"""Seconds after which the memory of a process is read again."""

_MOST = 1 << 28
"""Bytes that a process may answer."""

_HEARD = 2000
"""Bytes of what it wrote to stderr last that are kept."""

_SHOWN = 200
"""Characters of the last line of that in the dataset."""

_LINE = 1 << 16

Answer = TypeVar("Answer", Known, DumpResult)


def this_worker() -> list[str]:
    """What starts the process that checks a vmcore.

    It is the code that runs here, whatever modules the current directory has (``-P``) and the user set up (``-s``).
    """
    home = str(Path(inspector.__file__).resolve().parent.parent)
    code = f"import sys; {home!r} in sys.path or sys.path.insert(0, {home!r})"
    code += f"; from inspector.fleet.worker import main; main({os.getpid()})"
    return [sys.executable, "-P", "-s", "-c", code]


class _EndedError(Exception):
    """A process gives no result."""

    def __init__(self, failure: DumpFailure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class DumpProcess:
    """The process that checks one vmcore, in a session of its own: no signal of the terminal reaches it."""

    def __init__(self, words: Sequence[str], options: Options) -> None:
        self._words, self._options = words, options
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._heard = b""
        self._failure: DumpFailure | None = None
        self.peak = 0

    async def start(self, path: str) -> Known | DumpFailure:
        """Start it, and learn what the content of the file is."""
        return await self._within(self._start(path))

    async def go(self) -> DumpResult | DumpFailure:
        """Let it check."""
        result = await self._within(self._go())
        if isinstance(result, DumpResult):
            self.peak = max(self.peak, result.peak_bytes)
        return result

    async def _within(self, answer: Coroutine[None, None, Answer]) -> Answer | DumpFailure:
        """Its answer, or why there is none in the time that it has."""
        try:
            async with asyncio.timeout(self._options.timeout):
                return await answer
        except TimeoutError:
            return DumpFailure("timeout", f"it was not through after {self._options.timeout:g} s")
        except _EndedError as ended:
            return ended.failure

    async def _start(self, path: str) -> Known:
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *self._words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, limit=_LINE, cwd="/"
        )
        self._watching = asyncio.create_task(self._watch(process.pid))
        self._hearing = asyncio.create_task(self._hear())
        job = self._options.job(os.fsencode(path))
        await self._say(msgspec.json.encode(job) + b"\n")
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise _EndedError(DumpFailure("crashed", "it gave no answer that can be understood")) from None
        return await self._decoded(line, Known)

    async def _go(self) -> DumpResult:
        await self._say(GO)
        assert self._process is not None
        assert self._process.stdout is not None
        data = bytearray()
        while part := await self._process.stdout.read(_LINE):
            data += part
            if len(data) > _MOST:
                raise _EndedError(DumpFailure("crashed", f"it answered more than {_MOST >> 20} MiB"))
        return await self._decoded(bytes(data), DumpResult)

    async def _say(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # Where it has ended, its answer says so.
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(line)
            await self._process.stdin.drain()

    async def _decoded(self, data: bytes, kind: type[Answer]) -> Answer:
        if data.endswith(b"\n"):
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.json.decode(data, type=kind)
        assert self._process is not None
        assert self._hearing is not None
        code = await self._process.wait()
        await self._hearing
        raise _EndedError(self._failure or _why(code, self._heard, self._options.memory))

    async def _watch(self, pid: int) -> None:
        """End it when it takes more memory than it may."""
        while True:
            used = memory_of(pid)
            self.peak = max(self.peak, used)
            if used > self._options.memory:
                self._failure = too_much_memory(self._options.memory)
                self._kill()
                return
            await asyncio.sleep(_WATCHED_AFTER)

    async def _hear(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while part := await self._process.stderr.read(_LINE):
            self._heard = (self._heard + part)[-_HEARD:]

    def _kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            # Its session is a group too: workers of its own end with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """See that it is gone."""
        for task in (self._watching, self._hearing):
            if task is not None:
                task.cancel()
        if self._process is not None:
            self._kill()
            await self._process.wait()


def _why(code: int, heard: bytes, memory: int) -> DumpFailure:
    """Why a process ended without an answer."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return DumpFailure("crashed", f"the process that checked it was ended by {name}")
    lines = heard.decode("utf-8", "replace").strip().splitlines()
    last = f": {clean(lines[-1][-_SHOWN:])}" if lines else ""
    if "MemoryError" in last:
        return too_much_memory(memory)
    return DumpFailure("crashed", f"the process that checked it ended with exit code {code}{last}")
