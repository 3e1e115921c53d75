"""Fixtures that all tests share: the captured vmcores in the repository; and which tests are for `make test-all`."""

from __future__ import annotations

import os
import re
import signal
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from tests import examples, strict_where
from tests.fixtures import KERNELS, fixture_path
from tests.opening import parsed_once

SIZES = ((80, 24), (140, 45))
"""Terminals that the interface is tested on."""

examples.register()
strict_where.register()


@pytest.fixture(scope="session", autouse=True)
def quick_opening() -> Iterator[None]:
    """Symbols and types of each dump are parsed once a worker."""
    with parsed_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Tests that interrupt themselves do so where they were started with the signal ignored, as background jobs are."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_kept() -> None:
    """Nothing of the tests is kept in the user's cache directory, and nothing in there decides a test."""
    os.environ["FOLIOSCOPE_CACHE"] = "no"


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands that tests start compile the package once a worker, even where Python may not write beside it."""
    if sys.dont_write_bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.mktemp("compiled"))


def _present(kernel: str) -> str:
    """Path of the captured vmcore of a kernel; a missing one fails the test, it never skips it."""
    path = fixture_path(kernel)
    if not path.is_file():
        pytest.fail(f"the captured vmcore {path} is missing from the repository", pytrace=False)
    return str(path)


@pytest.fixture(scope="session")
def core() -> Callable[[str], str]:
    """``core("7.3")``: the path of that kernel's captured vmcore."""
    return _present


@pytest.fixture(params=KERNELS)
def any_core(request: pytest.FixtureRequest) -> str:
    """Each captured vmcore in turn."""
    return _present(request.param)


_NAMES = "|".join(map(re.escape, (*KERNELS, "80x24", "140x45")))
_DRAWN = re.compile(rf"(?<=[\[-])(fixture-)?({_NAMES})(?=[\]-])")
"""The part of a test's name that names the kernel or the size."""


def _kernel_of(value: object) -> str | None:
    """The captured kernel that a test's parameter is: ``"7.3"``, or ``("fixture", "7.3")``."""
    kernel = value[1] if isinstance(value, tuple) and len(value) == 2 and value[0] == "fixture" else value
    return kernel if isinstance(kernel, str) and kernel in KERNELS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `long` what a test does on all captured kernels but one, and at all sizes of the terminal but one.

    The one is drawn from the test's name and its other parameters: it stays the same from run to run, and each kernel
    gets its share. A test marked ``each_kernel`` is for all of them even in the quick suite: because it compares them,
    or has something to do on some kernels only. ``each_kernel(where=f)``: only where ``f(kernel, **parameters)``; the
    one is drawn from the others.
    """
    runs: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec") or item.get_closest_marker("guest"):
            continue
        params = item.callspec.params
        drawn = {name for name, value in params.items() if _kernel_of(value) or (name == "size" and value in SIZES)}
        each = item.get_closest_marker("each_kernel")
        kernel = next(filter(None, map(_kernel_of, params.values())), None)
        if each is not None and each.kwargs.get("where", lambda *_one, **_more: True)(kernel, **params):
            continue
        if drawn:
            runs[_DRAWN.sub("", item.nodeid)].append(item)
    for name, alike in runs.items():
        one = zlib.crc32(name.encode()) % len(alike)
        for item in alike[:one] + alike[one + 1 :]:
            item.add_marker("long")
