"""A batch: every vmcore in a process of its own, with limits, and what each says added to the dataset.

Whatever a vmcore does to its process is a row in ``dumps``. What is there already is not checked again, so that a batch
that was ended goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

import inspector
from inspector.errors import Exit
from inspector.fleet.content import identity_of_path
from inspector.fleet.dataset import Dataset, require_arrow
from inspector.fleet.dumps import failed_dump
from inspector.fleet.job import GO, DumpFailure, DumpResult, DumpTables, Known, Options, too_much_memory
from inspector.fleet.paths import NamedPath
from inspector.fleet.schema import DUMPS, INPUTS
from inspector.fleet.usage import memory_of
from inspector.records import dataclass
from inspector.text import clean

Again = Literal["none", "errors", "all"]

WORST_FIRST = (Exit.TARGET, Exit.FINDINGS, Exit.INCOMPLETE, Exit.CLEAN)
"""Exit codes of many targets: the first of these is that of all."""

_WATCHED_AFTER = 0.1
"""Seconds after which the memory of a process is read again."""

_MOST = 1 << 28
"""Bytes that a process may answer."""

_HEARD = 2000
"""Bytes of what it wrote to stderr last that are kept."""

_SHOWN = 200
"""Characters of the last line of that in the dataset."""

_LINE = 1 << 16


class BatchReport(msgspec.Struct, frozen=True):
    """The object that ``batch --format json`` prints."""

    schema: Literal["folioscope.batch/1"]
    out: str
    """The dataset."""
    paths: int
    """Files that were named, or found in folders and begin as dumps do."""
    checked: int
    """Dumps that were opened and checked now."""
    known: int
    """Paths of dumps that were in the dataset already."""
    errors: int
    """Paths of dumps that could not be checked, now or earlier."""
    left_out: int
    """Files found in folders that are no dumps."""
    left: int
    """Paths that are still to be seen to, because a signal came."""
    exit_codes: dict[str, int]
    """How many paths have which exit code."""
    seconds: float
    peak_bytes: int
    """Memory of the largest process."""
    exit_code: int
    """The worst of all paths in the order 3, 1, 4, 0; 128 and the number of a signal that came."""


@dataclasses.dataclass
class BatchProgress:
    """How far a batch is.

    Attributes:
        total: Paths.
        done: Paths that are through.
        checked: Those of them that were checked, not known already.
        left_out: Those of them that are no dumps.
        peak_bytes: Memory of the largest process so far.
        codes: How many paths have which exit code.
        started: When it began, as `time.monotonic` counts.
    """

    total: int
    done: int
    checked: int
    left_out: int
    peak_bytes: int
    codes: Counter[Exit]
    started: float

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes if it goes on like this; None where nothing was checked yet."""
        return self.seconds / self.done * (self.total - self.done) if self.checked else None


@dataclass(frozen=True)
class _State:
    """What the dataset holds of a dump."""

    state: str
    exit_code: Exit


Show = Callable[[BatchProgress], None]
Words = Sequence[str]
Answer = TypeVar("Answer", Known, DumpResult)


def this_worker() -> list[str]:
    """What starts the process that checks a vmcore.

    It is the code that runs here, whatever modules the current directory has (``-P``) and the user set up (``-s``).
    """
    home = str(Path(inspector.__file__).resolve().parent.parent)
    code = f"import sys; {home!r} in sys.path or sys.path.insert(0, {home!r})"
    code += f"; from inspector.fleet.worker import main; main({os.getpid()})"
    return [sys.executable, "-P", "-s", "-c", code]


def run_batch(  # noqa: PLR0913  (all but two are options)
    paths: Sequence[NamedPath],
    out: Path,
    options: Options,
    *,
    jobs: int,
    again: Again = "none",
    show: Show | None = None,
    worker: Words = (),
) -> BatchReport:
    """Check what is not in the dataset yet.

    Args:
        paths: What.
        out: Folder of the dataset; made where there is none.
        options: How.
        jobs: Processes at a time.
        again: Which dumps of the dataset are checked again.
        show: Called whenever a path is through.
        worker: What starts the process that checks; `this_worker` when empty.

    Raises:
        UsageError: The folder is something else, another batch writes to it, or pyarrow is missing.
        OSError: The dataset cannot be written.
    """
    require_arrow()
    dataset = Dataset(out)
    with dataset.locked():
        batch = _Batch(dataset, options, again, show, list(worker) or this_worker(), len(paths))
        signalled = asyncio.run(batch.run(paths, jobs))
    return batch.report(out, signalled)


class _Batch:
    def __init__(  # noqa: PLR0913, PLR0917  (what a batch is made of)
        self, dataset: Dataset, options: Options, again: Again, show: Show | None, worker: list[str], total: int
    ) -> None:
        self.dataset, self.options, self.worker = dataset, options, worker
        self.show = show or (lambda _progress: None)
        self.progress = BatchProgress(total, 0, 0, 0, 0, Counter(), time.monotonic())
        dumps = dataset.read(DUMPS, ("dump", "state", "exit_code")).to_pylist()
        self.dumps = {row["dump"]: _State(row["state"], Exit(row["exit_code"])) for row in dumps}
        self.inputs = {row["path"]: row["dump"] for row in dataset.read(INPUTS).to_pylist()}
        self.again = {
            dump
            for dump, state in self.dumps.items()
            if again == "all" or (again != "none" and state.state != "checked")
        }
        """Dumps that are not taken as known until they were checked once more."""
        self.underway: dict[str, asyncio.Future[None]] = {}
        """By content: two paths may have the same."""

    async def run(self, paths: Iterable[NamedPath], jobs: int) -> int | None:
        """Check them all.

        Returns:
            The signal that came, None when all are through.
        """
        came: list[int] = []
        mine = asyncio.current_task()
        assert mine is not None
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            # What cleans up behind the first is not interrupted by a second.
            if not came:
                mine.cancel()
            came.append(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)
        waiting = iter(list(paths))
        tasks = [asyncio.create_task(self._take(waiting)) for _ in range(jobs)]
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            if not came:
                raise
        finally:
            for task in tasks:
                if not task.cancelling():
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return came[0] if came else None

    async def _take(self, waiting: Iterable[NamedPath]) -> None:
        for named in waiting:
            code = await self._path(named)
            self.progress.done += 1
            if code is None:
                self.progress.left_out += 1
            else:
                self.progress.codes[code] += 1
            self.show(self.progress)

    async def _path(self, named: NamedPath) -> Exit | None:
        """See to one path.

        Returns:
            Its exit code; None where it is no dump.
        """
        path, no_content = named.path, identity_of_path(named.path)
        if no_content in self.dumps and no_content not in self.again:
            # It could not be read, perhaps not in all the time that it has: it is not tried at every start.
            return self._known(path, no_content)
        child = _Child(self.worker, self.options)
        try:
            content = await self._within(child.start(path))
            failure = content if isinstance(content, DumpFailure) else content.failure
            if isinstance(content, DumpFailure) or failure is not None:
                assert failure is not None
                return self._keep(path, no_content, failed_dump(no_content, None, failure))
            if named.found and not content.is_dump:
                return None
            return await self._content(path, content, child)
        finally:
            self.progress.peak_bytes = max(self.progress.peak_bytes, child.peak)
            await child.end()

    async def _content(self, path: str, content: Known, child: _Child) -> Exit:
        dump = content.dump
        while dump in self.underway:
            await asyncio.shield(self.underway[dump])
        if dump in self.dumps and dump not in self.again:
            return self._known(path, dump)
        self.underway[dump] = asyncio.get_running_loop().create_future()
        try:
            result = await self._within(child.go())
            if isinstance(result, DumpFailure):
                return self._keep(path, dump, failed_dump(dump, content.size, result))
            child.peak = max(child.peak, result.peak_bytes)
            return self._keep(path, dump, result.tables)
        finally:
            self.underway.pop(dump).set_result(None)

    async def _within(self, answer: Coroutine[None, None, Answer]) -> Answer | DumpFailure:
        """The answer of a process, or why there is none in the time that it has."""
        try:
            async with asyncio.timeout(self.options.timeout):
                return await answer
        except TimeoutError:
            return DumpFailure("timeout", f"it was not through after {self.options.timeout:g} s")
        except _EndedError as ended:
            return ended.failure

    def _known(self, path: str, dump: str) -> Exit:
        self._keep_input(path, dump)
        return self.dumps[dump].exit_code

    def _keep(self, path: str, dump: str, tables: DumpTables) -> Exit:
        self.dataset.put_dump(dump, tables)
        row = tables[DUMPS.name]
        state = _State(str(row["state"][0]), Exit(row["exit_code"][0]))
        self.dumps[dump] = state
        self.again.discard(dump)
        self.progress.checked += 1
        self._keep_input(path, dump)
        return state.exit_code

    def _keep_input(self, path: str, dump: str) -> None:
        before = identity_of_path(path)
        if dump != before and before in self.dumps:
            # It can be read by now.
            self.dataset.remove_dump(before)
            del self.dumps[before]
        if self.inputs.get(path) != dump:
            self.dataset.put_input(path, dump)
            self.inputs[path] = dump

    def report(self, out: Path, signalled: int | None) -> BatchReport:
        """What was done until all was, or a signal came."""
        p = self.progress
        paths = p.done - p.left_out
        code = next((code for code in WORST_FIRST if p.codes[code]), Exit.CLEAN)
        return BatchReport(
            schema="folioscope.batch/1",
            out=str(out),
            paths=paths,
            checked=p.checked,
            known=paths - p.checked,
            errors=p.codes[Exit.TARGET],
            left_out=p.left_out,
            exit_codes={str(int(code)): p.codes[code] for code in WORST_FIRST if p.codes[code]},
            seconds=round(p.seconds, 1),
            peak_bytes=p.peak_bytes,
            exit_code=int(code) if signalled is None else 128 + signalled,
            left=p.total - p.done,
        )


class _EndedError(Exception):
    """A process gives no result."""

    def __init__(self, failure: DumpFailure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class _Child:
    """The process that checks one vmcore, in a session of its own: no signal of the terminal reaches it."""

    def __init__(self, words: Words, options: Options) -> None:
        self._words, self._options = words, options
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._heard = b""
        self._failure: DumpFailure | None = None
        self.peak = 0

    async def start(self, path: str) -> Known:
        """Start it, and learn what the content of the file is."""
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

    async def go(self) -> DumpResult:
        """Let it check."""
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
