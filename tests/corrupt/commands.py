"""Every command asked about a damaged dump, as a user would; whatever it is not made for comes out as it was raised."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest.mock import patch

import click
import numpy as np

from inspector import cli
from inspector.cli.params import Settings
from inspector.errors import FolioscopeError
from inspector.snapshot import Snapshot
from inspector.target.target import Target
from tests.faults.overlay import Patch, opened, plant


class Commands:
    """Makes command lines about things of one dump.

    Args:
        s: The sound dump.
    """

    def __init__(self, s: Snapshot) -> None:
        pfns = s.pages.memmap.pfns_of_rows(np.flatnonzero(s.counts.page_mappings > 0))
        self._pfns = np.concatenate([pfns, s.folios.pfn]).tolist()
        self._pids = s.mms.pid[s.mms.pid >= 0].tolist()
        self._anon_vmas = s.anon_rmap.anon_vmas.addr.tolist()
        self._spaces = s.file_rmap.address_spaces.addr.tolist()
        m = s.mappings
        rows = np.flatnonzero(s.mms.pid[m.mm_idx] >= 0)
        self._places = list(zip(s.mms.pid[m.mm_idx[rows]].tolist(), m.va[rows].tolist(), strict=True))

    def some(self, rng: np.random.Generator) -> list[str]:
        """A command line."""

        def pick(things: list[int]) -> str:
            return hex(things[int(rng.integers(len(things)))])

        pid, va = self._places[int(rng.integers(len(self._places)))]
        lines = (
            ["info"],
            ["folio", pick(self._pfns)],
            ["explain", pick(self._pfns)],
            ["page", pick(self._pfns)],
            ["rmap", pick(self._pfns)],
            ["va", str(pid), hex(va)],
            ["ps"],
            ["vmas", str(self._pids[int(rng.integers(len(self._pids)))])],
            ["anon-vma", pick(self._anon_vmas)],
            ["file", pick(self._spaces)],
            ["ksm"],
            ["hugetlb"],
            ["swap"],
            ["cpus"],
            ["file"],
        )
        words = lines[int(rng.integers(len(lines)))]
        return [*words, "--format", "json"] if rng.integers(2) else words


@contextmanager
def _damaged(patches: tuple[Patch, ...]) -> Iterator[None]:
    """Have the command line open damaged dumps, and keep no exception from its caller but those it is made for."""

    def open_damaged(core: str, symbols: object = (), *, types: object = "auto", cache: bool = False) -> Target:
        target = opened(core)
        for edit in patches:
            plant(target, edit)
        return target

    def told(error: Exception, _settings: Settings) -> int:
        if isinstance(error, (FolioscopeError, click.ClickException)):
            return 3
        raise error

    with patch("inspector.cli.opening.open_core", open_damaged), patch("inspector.cli.report_error", told):
        yield


def run_command(path: str, patches: tuple[Patch, ...], words: list[str]) -> int:
    """Run one command on a damaged dump; its exit code."""
    with _damaged(patches), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return cli.main(["-c", path, *words])
