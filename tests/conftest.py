"""Fixtures that all tests share: the captured vmcores in the repository."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
import pytest

from tests.fixtures import KERNELS, fixture_path

# How long one example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile("folioscope", deadline=None)
hypothesis.settings.load_profile("folioscope")


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
