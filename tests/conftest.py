"""Fixtures that all tests share: the captured vmcores in the repository; and which tests are for `make test-all`."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from tests import examples
from tests.fixtures import KERNELS, fixture_path
from tests.opening import parsed_once

examples.register()


@pytest.fixture(scope="session", autouse=True)
def quick_opening() -> Iterator[None]:
    """Symbols and types of each dump are parsed once a worker."""
    with parsed_once():
        yield


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


def _kernel_of(item: pytest.Item) -> str | None:
    """The kernel that one of a test's parameters is: ``"7.3"``, or ``("fixture", "7.3")``."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    for value in params.values():
        kernel = value[1] if isinstance(value, tuple) and len(value) == 2 and value[0] == "fixture" else value
        if isinstance(kernel, str) and kernel in KERNELS:
            return kernel
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `long` what a test does on all captured kernels but one.

    The one is drawn from the test's name and its other parameters: it stays the same from run to run, and each kernel
    gets its share. A test marked ``each_kernel`` is for all of them even in the quick suite: because it compares them,
    or has something to do on some kernels only. ``each_kernel(where=f)``: only where ``f(kernel, **parameters)``; the
    one is drawn from the others.
    """
    runs: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        kernel, each = _kernel_of(item), item.get_closest_marker("each_kernel")
        if kernel is None or item.get_closest_marker("guest"):
            continue
        assert isinstance(item, pytest.Function)
        if each is not None and each.kwargs.get("where", lambda *_one, **_more: True)(kernel, **item.callspec.params):
            continue
        others = item.callspec.id.replace(f"fixture-{kernel}", "").replace(kernel, "")
        runs[f"{item.nodeid.split('[', 1)[0]}[{others}]"][kernel] = item
    for name, of_kernel in runs.items():
        drawn = sorted(of_kernel)[zlib.crc32(name.encode()) % len(of_kernel)]
        for kernel, item in of_kernel.items():
            if kernel != drawn:
                item.add_marker("long")
