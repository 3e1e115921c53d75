"""The dumps that faults are planted in: the captured ones, and with ``-m race`` those just built."""

from __future__ import annotations

import pytest

from tests.faults.overlay import KERNELS, core_path

FRESH = (pytest.mark.guest, pytest.mark.race)
"""Of dumps of guests just built: no two builds offer the same places to plant in, or are in the same states."""


@pytest.fixture(
    params=[
        *(pytest.param(("fixture", k), id=f"fixture-{k}") for k in KERNELS),
        *(pytest.param(("rest", k), id=f"guest-{k}", marks=FRESH) for k in KERNELS),
    ]
)
def path(request: pytest.FixtureRequest) -> str:
    """Path of a sound dump at rest."""
    return core_path(*request.param)


@pytest.fixture(params=[pytest.param(k, marks=FRESH) for k in KERNELS])
def busy(request: pytest.FixtureRequest) -> str:
    """Path of a dump of a busy kernel."""
    return core_path("busy", request.param)
