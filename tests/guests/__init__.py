"""Build and load guests: vmcores of real kernels that hold every mapping state on purpose."""

from __future__ import annotations

from .cache import dump_path, guests_folder, read_manifest
from .errors import GuestError
from .oracle import Oracle, OracleProcess, OracleVma

__all__ = [
    "GuestError",
    "Oracle",
    "OracleProcess",
    "OracleVma",
    "dump_path",
    "guests_folder",
    "load_oracle",
    "read_manifest",
]


def load_oracle(kernel: str) -> Oracle:
    """Return what the kernel itself said before its dump at rest was made."""
    return Oracle(guests_folder() / kernel / "oracle")
