"""A batch on a Dask cluster: the same process for each vmcore, with the same limits, below one of its workers.

A task is one vmcore, twice: what its content is, and, where that is not in the dataset, the check. Its answer is the
same wherever it is done; when a worker ends in the middle Dask gives the task to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import msgspec

import inspector
from inspector.errors import TargetError, UsageError
from inspector.fleet.child import DumpProcess, this_worker
from inspector.fleet.job import DumpFailure, DumpResult, Known, Options
from inspector.fleet.usage import memory_for_each

if TYPE_CHECKING:
    from inspector.fleet.batch import Visit

_ANSWERS = 10
"""Seconds in which a scheduler must answer."""

_FEWEST = 8
"""Tasks that are given to a cluster at least: it may get more workers than it has."""

_ASKED_AFTER = 1.0
"""Seconds after which a worker asks again whether its answer is still wanted."""

_UNWANTED = ("cancelled", "released", "forgotten", "resumed")
"""States of a task of a worker (distributed.worker_state_machine) whose answer goes nowhere."""


class Reply(msgspec.Struct, frozen=True):
    """What a worker says of one vmcore."""

    known: Known | None
    """Its content, where nothing more was asked."""
    result: DumpResult | None
    failure: DumpFailure | None
    peak_bytes: int


class DaskCluster:
    """A Dask cluster that is there.

    Args:
        address: Of its scheduler.
        options: How each vmcore is checked. Memory of 0: what a worker's machine has, shared among its threads.
        jobs: Vmcores at a time; as many as it has threads, and some that wait, when None.
    """

    def __init__(self, address: str, options: Options, jobs: int | None = None) -> None:
        self._address, self._options = address, options
        self._wanted, self.jobs = jobs, jobs or _FEWEST
        self._client: Any = None

    async def __aenter__(self) -> DaskCluster:
        """Connect.

        Raises:
            UsageError: Dask is not installed.
            TargetError: No scheduler answers.
        """
        try:
            import distributed  # noqa: PLC0415  (an extra)
        except ImportError:
            raise UsageError("Dask is not installed", "", "Run pip install 'folioscope[fleet]'") from None
        # A cluster that goes away is reported in one line.
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] == "distributed":
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            connect: Any = distributed.Client
            self._client = await connect(self._address, asynchronous=True, timeout=_ANSWERS, set_as_default=False)
            threads = sum((await self._client.nthreads()).values())
        except (OSError, ValueError, TimeoutError) as error:
            raise TargetError("no Dask scheduler answers there", self._address, "") from error
        self.jobs = self._wanted or max(2 * threads, _FEWEST)
        return self

    async def __aexit__(self, *_why: object) -> None:
        """Disconnect: what is still underway is no longer wanted."""
        if self._client is not None:
            with contextlib.suppress(OSError, TimeoutError):
                await self._client.close()

    def visit(self) -> Visit:
        """What sees to one."""
        return _Remote(self._client, self._options, self._address)


class _Remote:
    """One vmcore somewhere in the cluster."""

    def __init__(self, client: Any, options: Options, address: str) -> None:
        self._client, self._options, self._address = client, options, address
        self._path = ""
        self._future: Any = None
        self.peak = 0

    async def start(self, path: str) -> Known | DumpFailure:
        """Learn what the content of the file is."""
        self._path = path
        reply = await self._ask(check=False)
        return reply.known or reply.failure or _nothing()

    async def go(self) -> DumpResult | DumpFailure:
        """Have it checked."""
        reply = await self._ask(check=True)
        return reply.result or reply.failure or _nothing()

    async def _ask(self, *, check: bool) -> Reply:
        """Have it done by a worker.

        Raises:
            TargetError: The cluster is gone, or its workers have another version of this code.
        """
        from distributed import KilledWorker  # noqa: PLC0415  (an extra)
        from distributed.client import FutureCancelledError  # noqa: PLC0415

        options = msgspec.json.encode(self._options)
        words = (inspector.__version__, options, self._path, check)
        # Where the same path is given twice each is a task of its own.
        self._future = self._client.submit(visit_here, *words, pure=False)
        try:
            answer = await self._future
        except KilledWorker:
            failure = DumpFailure("crashed", "the workers of the cluster that checked it ended, one after another")
            return Reply(None, None, failure, 0)
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is not None and mine.cancelling():
                raise
            raise self._gone() from None
        except (OSError, FutureCancelledError) as error:
            raise self._gone() from error
        reply = msgspec.json.decode(answer, type=Reply)
        self.peak = max(self.peak, reply.peak_bytes)
        return reply

    def _gone(self) -> TargetError:
        return TargetError("the Dask cluster is gone", self._address, "The same command goes on where it was")

    async def end(self) -> None:
        """Say that no answer is wanted any more."""
        if self._future is not None:
            self._future.release()


def _nothing() -> DumpFailure:
    return DumpFailure("crashed", "the worker gave no answer")


def visit_here(version: str, options: bytes, path: str, check: bool) -> bytes:  # noqa: FBT001  (sent as it is)
    """What a worker does: a `Reply`, as JSON.

    Raises:
        TargetError: This is another version of the code than that which asks.
    """
    if version != inspector.__version__:
        what = f"a worker of the cluster has folioscope {inspector.__version__}, not {version}"
        raise TargetError(what, "", "Install the same everywhere")
    reply = asyncio.run(_visit(msgspec.json.decode(options, type=Options), path, check=check, still=_Still()))
    return msgspec.json.encode(reply)


class _Still:
    """Whether the answer of the task that runs here is still wanted."""

    def __init__(self) -> None:
        from distributed import get_worker  # noqa: PLC0415  (an extra)

        self._worker: Any = get_worker()
        self._key: Any = self._worker.get_current_task()

    @property
    def threads(self) -> int:
        """Tasks at a time of this worker."""
        return max(int(self._worker.state.nthreads), 1)

    def __bool__(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state not in _UNWANTED


async def _visit(options: Options, path: str, *, check: bool, still: _Still) -> Reply:
    if not options.memory:
        options = msgspec.structs.replace(options, memory=memory_for_each(still.threads))
    child = DumpProcess(this_worker(), options)
    doing = asyncio.create_task(_answers(child, path, check=check))
    try:
        while not doing.done():
            await asyncio.wait([doing], timeout=_ASKED_AFTER)
            if not still:
                doing.cancel()
        known, result, failure = doing.result()
    except asyncio.CancelledError:
        known, result, failure = None, None, _nothing()
    finally:
        await child.end()
    return Reply(known, result, failure, child.peak)


async def _answers(
    child: DumpProcess, path: str, *, check: bool
) -> tuple[Known | None, DumpResult | None, DumpFailure | None]:
    known = await child.start(path)
    failure = known if isinstance(known, DumpFailure) else known.failure
    if failure is not None or isinstance(known, DumpFailure):
        return None, None, failure
    if not check:
        return known, None, None
    result = await child.go()
    return (None, None, result) if isinstance(result, DumpFailure) else (None, result, None)
