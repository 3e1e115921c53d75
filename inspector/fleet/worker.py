"""The process that checks one vmcore of a batch.

It is ended from outside when it takes too long or too much memory, and ends by itself when the batch is gone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import tempfile
from typing import IO, TYPE_CHECKING

import msgspec

from inspector.errors import known_error
from inspector.fleet.content import Content, content_of
from inspector.fleet.job import GO, DumpFailure, DumpResult, Job, Known, too_much_memory
from inspector.fleet.urls import content_of_url, fetch, is_url
from inspector.text import clean

if TYPE_CHECKING:
    from inspector.fleet.job import DumpTables
    from inspector.target.target import Target

_SET_DEATH_SIGNAL = 1
"""include/uapi/linux/prctl.h, PR_SET_PDEATHSIG."""

_ROOM = 1 << 30
"""Memory beyond the limit that may be asked for, not used."""


def main(parent: int) -> None:
    """Check what standard input says.

    Args:
        parent: The process that started this one.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        return
    # What libraries print does not get among the answers.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    # What it really uses is watched from outside; this is for what asks for very much at once.
    resource.setrlimit(resource.RLIMIT_DATA, (job.memory + _ROOM, job.memory + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = os.fsdecode(job.path)
    with _Source(path, job.fetch) as source:
        try:
            content = source.content()
        except Exception as error:  # noqa: BLE001  (whatever a file system or a server does is recorded)
            _send(out, Known("", 0, is_dump=True, failure=_failure(error, job, path)))
            return
        _send(out, Known(content.dump, content.size, content.is_dump))
        if sys.stdin.buffer.readline() == GO:
            _send(out, _result(job, source, content))


class _Source:
    """Where a vmcore is.

    Args:
        path: A path or a URL.
        most: Bytes at most that are fetched.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path, self._most = path, most
        self._copy: IO[bytes] | None = None

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_why: object) -> None:
        if self._copy is not None:
            self._copy.close()

    def content(self) -> Content:
        """What is known of it before it is opened."""
        found = content_of_url(self._path) if is_url(self._path) else None
        return found or content_of(self.file())

    def file(self) -> str:
        """A path to it; what a URL names is fetched."""
        if not is_url(self._path):
            return self._path
        if self._copy is None:
            # It has no name on the disk: it is gone when this process is, however that ends.
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115  (closed at the end)
            fetch(self._path, self._copy, self._most)
        return f"/proc/{os.getpid()}/fd/{self._copy.fileno()}"


def _send(out: IO[bytes], message: Known | DumpResult) -> None:
    out.write(msgspec.json.encode(message) + b"\n")
    out.flush()


def _result(job: Job, source: _Source, content: Content) -> DumpResult:
    opened: list[Target] = []
    path = ""
    try:
        path = source.file()
        tables = _check(job, path, content, opened)
    except Exception as error:  # noqa: BLE001  (whatever a dump does is recorded)
        tables = _failed(content, _failure(error, job, path), opened)
    return DumpResult(tables, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


def _check(job: Job, path: str, content: Content, opened: list[Target]) -> DumpTables:
    import gc  # noqa: PLC0415
    import logging  # noqa: PLC0415

    from inspector.fleet.gather import gather  # noqa: PLC0415  (drgn and NumPy: not to learn what a file is)
    from inspector.scratch import use_at_most  # noqa: PLC0415
    from inspector.target.target import open_core  # noqa: PLC0415
    from inspector.workers import use_workers  # noqa: PLC0415

    gc.disable()
    logging.getLogger("drgn").setLevel(logging.CRITICAL + 1)
    use_at_most(job.memory)
    use_workers(job.workers)
    target = open_core(path, job.symbols, types=job.types, cache=job.cache)
    opened.append(target)
    return gather(target, content)


def _failed(content: Content, failure: DumpFailure, opened: list[Target]) -> DumpTables:
    """A dump that was not checked: what is known of it."""
    from inspector.fleet.dumps import failed_dump  # noqa: PLC0415

    known = {}
    if opened:
        from inspector.fleet.gather import known_of  # noqa: PLC0415

        known = known_of(opened[0], content)
    return failed_dump(content.dump, content.size, failure, known)


def _failure(error: Exception, job: Job, path: str) -> DumpFailure:
    if isinstance(error, MemoryError):
        return too_much_memory(job.memory)
    known = known_error(error)
    # The path is in another table: the same content has more than one.
    where = f": {known.where}" if known.where and known.where not in {path, os.fsdecode(job.path)} else ""
    return DumpFailure("target", clean(known.what + where))
