"""Fixtures that all tests share: the captured vmcores in the repository; and which tests are for `make test-all`."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests.fixtures import KERNELS, fixture_path
from tests.opening import parsed_once

# How long one example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.register_profile("deep", deadline=None)
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def quick_opening() -> Iterator[None]:
    """Symbols and types of each dump are parsed once a worker."""
    with parsed_once():
        yield


def _kernel_of(item: pytest.Item) -> str | None:
    """The kernel whose captured vmcore a test is run on, from its parameters."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    for value in params.values():
        kernel = value[1] if isinstance(value, tuple) and value[0] == "fixture" else value
        if kernel in KERNELS:
            return str(kernel)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `long` what a test marked `one_kernel` does on all kernels but one.

    The kernel is drawn from the test's name and its other parameters, so that it stays the same from run to run and
    each kernel gets its share. ``one_kernel(lacks=f)``: ``f(kernel, **parameters)`` says where a test has nothing to
    do; it is not drawn, and stays in the quick suite, since it costs nothing.
    """
    runs: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        mark, kernel = item.get_closest_marker("one_kernel"), _kernel_of(item)
        if mark is None or kernel is None:
            continue
        assert isinstance(item, pytest.Function)
        lacks = mark.kwargs.get("lacks")
        if lacks is None or not lacks(kernel, **item.callspec.params):
            others = item.callspec.id.replace(f"fixture-{kernel}", "").replace(kernel, "")
            runs[f"{item.parent.nodeid if item.parent else ''}::{item.originalname}[{others}]"][kernel] = item
    for name, of_kernel in runs.items():
        drawn = sorted(of_kernel)[zlib.crc32(name.encode()) % len(of_kernel)]
        for kernel, item in of_kernel.items():
            if kernel != drawn:
                item.add_marker("long")


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
