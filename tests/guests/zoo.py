"""The zoo: a guest that holds every legal state that looks like damage; at rest, and while racers run through it."""

from __future__ import annotations

from pathlib import Path

from .build import AWAIT, Prepared, prepare_guest
from .cache import BUSY, REST
from .extra import Extra
from .kernels import Kernel
from .packages import Unpacked
from .qemu import Guest

# Of the other guests' files the zoo takes the racers, too, and what opens a userfaultfd.
ZOO = Extra("zoo", shared=("uffd.c", "race_file.c"))
ZOO_RACES = "zoo-races"


def prepare(kernel: Kernel, unpacked: Unpacked, kind: str, folder: Path) -> Prepared:
    """Make what a guest of any kind that races is booted from, the zoo's included."""
    if kind in (ZOO.kind, ZOO_RACES):
        return ZOO.prepare(kernel, unpacked, folder, kind)
    return prepare_guest(kernel, unpacked, kind, folder)


def await_kind(guest: Guest, kind: str) -> None:
    """Wait until such a guest is in the state that it was booted for."""
    AWAIT[REST if kind == ZOO.kind else BUSY if kind == ZOO_RACES else kind](guest)
