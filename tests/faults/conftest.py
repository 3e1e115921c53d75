"""The dumps that faults are planted in: the captured ones, and with ``-m guest`` those just built."""

from __future__ import annotations

import pytest

from tests.faults.overlay import KERNELS, core_path


@pytest.fixture(
    params=[
        *(pytest.param(("fixture", k), id=f"fixture-{k}") for k in KERNELS),
        *(pytest.param(("rest", k), id=f"guest-{k}", marks=pytest.mark.guest) for k in KERNELS),
    ]
)
def path(request: pytest.FixtureRequest) -> str:
    """Path of a sound dump at rest."""
    return core_path(*request.param)


@pytest.fixture(params=[pytest.param(k, marks=pytest.mark.guest) for k in KERNELS])
def busy(request: pytest.FixtureRequest) -> str:
    """Path of a dump of a busy kernel."""
    return core_path("busy", request.param)
