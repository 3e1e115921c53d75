"""A batch: every vmcore in a process of its own, with limits, and what each says added to the dataset.

Whatever a vmcore does to its process is a row in ``dumps``. What is there already is not checked again, so that a batch
that was ended goes on where it was.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from inspector.errors import Exit
from inspector.fleet.child import DumpProcess, this_worker
from inspector.fleet.content import identity_of_path
from inspector.fleet.dataset import Dataset, require_arrow
from inspector.fleet.dumps import failed_dump
from inspector.fleet.job import DumpFailure, DumpResult, DumpTables, Known, Options
from inspector.fleet.paths import NamedPath
from inspector.fleet.schema import DUMPS, INPUTS
from inspector.records import dataclass

Again = Literal["none", "errors", "all"]

WORST_FIRST = (Exit.TARGET, Exit.FINDINGS, Exit.INCOMPLETE, Exit.CLEAN)
"""Exit codes of many targets: the first of these is that of all."""


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


class Visit(Protocol):
    """One vmcore in a process of its own, here (`DumpProcess`) or elsewhere."""

    peak: int
    """Bytes of memory that it took at most, as far as it is known."""

    async def start(self, path: str) -> Known | DumpFailure:
        """Learn what the content of the file is."""

    async def go(self) -> DumpResult | DumpFailure:
        """Have it checked."""

    async def end(self) -> None:
        """See that no process is left."""


class CheckPlace(Protocol):
    """Where vmcores are checked; it is entered before anything else is asked of it."""

    @property
    def jobs(self) -> int:
        """How many at a time."""

    def visit(self) -> Visit:
        """What sees to one."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_why: object) -> None: ...


@dataclass(frozen=True)
class Here:
    """This machine.

    Attributes:
        jobs: Processes at a time.
        options: How each is checked.
        worker: What starts a process; `this_worker` when empty.
    """

    jobs: int
    options: Options
    worker: Sequence[str] = ()

    def visit(self) -> Visit:
        """What sees to one."""
        return DumpProcess(self.worker or this_worker(), self.options)

    async def __aenter__(self) -> object:
        return self

    async def __aexit__(self, *_why: object) -> None:
        pass


def run_batch(
    paths: Sequence[NamedPath], out: Path, place: CheckPlace, *, again: Again = "none", show: Show | None = None
) -> BatchReport:
    """Check what is not in the dataset yet.

    Args:
        paths: What.
        out: Folder of the dataset; made where there is none.
        place: Where.
        again: Which dumps of the dataset are checked again.
        show: Called whenever a path is through.

    Raises:
        UsageError: The folder is something else, another batch writes to it, or pyarrow is missing.
        TargetError: There is no such place, or it went away.
        OSError: The dataset cannot be written.
    """
    require_arrow()
    dataset = Dataset(out)
    with dataset.locked():
        batch = _Batch(dataset, again, show, len(paths))
        signalled = asyncio.run(batch.run(paths, place))
    return batch.report(out, signalled)


class _Batch:
    def __init__(self, dataset: Dataset, again: Again, show: Show | None, total: int) -> None:
        self.dataset = dataset
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

    async def run(self, paths: Iterable[NamedPath], place: CheckPlace) -> int | None:
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
        try:
            async with place:
                await self._all(paths, place)
        except asyncio.CancelledError:
            if not came:
                raise
        return came[0] if came else None

    async def _all(self, paths: Iterable[NamedPath], place: CheckPlace) -> None:
        waiting = iter(list(paths))
        tasks = [asyncio.create_task(self._take(waiting, place)) for _ in range(place.jobs)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                if not task.cancelling():
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, waiting: Iterable[NamedPath], place: CheckPlace) -> None:
        for named in waiting:
            code = await self._path(named, place)
            self.progress.done += 1
            if code is None:
                self.progress.left_out += 1
            else:
                self.progress.codes[code] += 1
            self.show(self.progress)

    async def _path(self, named: NamedPath, place: CheckPlace) -> Exit | None:
        """See to one path.

        Returns:
            Its exit code; None where it is no dump.
        """
        path, no_content = named.path, identity_of_path(named.path)
        if no_content in self.dumps and no_content not in self.again:
            # It could not be read, perhaps not in all the time that it has: it is not tried at every start.
            return self._known(path, no_content)
        visit = place.visit()
        try:
            content = await visit.start(path)
            failure = content if isinstance(content, DumpFailure) else content.failure
            if isinstance(content, DumpFailure) or failure is not None:
                assert failure is not None
                return self._keep(path, no_content, failed_dump(no_content, None, failure))
            if named.found and not content.is_dump:
                return None
            return await self._content(path, content, visit)
        finally:
            self.progress.peak_bytes = max(self.progress.peak_bytes, visit.peak)
            await visit.end()

    async def _content(self, path: str, content: Known, visit: Visit) -> Exit:
        dump = content.dump
        while dump in self.underway:
            await asyncio.shield(self.underway[dump])
        if dump in self.dumps and dump not in self.again:
            return self._known(path, dump)
        self.underway[dump] = asyncio.get_running_loop().create_future()
        try:
            result = await visit.go()
            if isinstance(result, DumpFailure):
                return self._keep(path, dump, failed_dump(dump, content.size, result))
            return self._keep(path, dump, result.tables)
        finally:
            self.underway.pop(dump).set_result(None)

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
