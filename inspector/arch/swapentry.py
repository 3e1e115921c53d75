"""Which swap type number means what: the top of the range is shared out by the kernel's configuration."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind
from inspector.columns import U8
from inspector.records import cached_property, dataclass

NR_TYPES = 32
"""1 << MAX_SWAPFILES_SHIFT (include/linux/swap.h)."""

MARKER_UFFD_WP = 1
MARKER_POISONED = 2
MARKER_GUARD = 4
"""Bits of a marker's offset (include/linux/swapops.h, pte_marker)."""

_NR_MIGRATION = 3
_NR_PRIVATE = 2
"""SWP_DEVICE_WRITE and SWP_DEVICE_READ; one or two numbers for device-exclusive entries follow them."""

_LEGAL = {
    "hwpoison": (0, 1),
    "migration": (0, _NR_MIGRATION),
    "device": (0, _NR_PRIVATE + 1, _NR_PRIVATE + 2),
    "marker": (0, 1),
    "swapin_error": (0, 1),
}


@dataclass(frozen=True)
class SwapTypes:
    """The numbers above MAX_SWAPFILES, in the order that include/linux/swap.h hands them out.

    Attributes:
        max_swapfiles: Types below it are swap devices.
        hwpoison: Numbers taken by CONFIG_MEMORY_FAILURE: 0 or 1.
        migration: Numbers taken by CONFIG_MIGRATION: 0 or 3.
        device: Numbers taken by CONFIG_DEVICE_PRIVATE: 0, 4, or 3 on kernels with one device-exclusive kind.
        marker: Numbers taken by PTE markers: 0 or 1.
        swapin_error: Numbers taken by failed swap-ins (6.1): 0 or 1.

    Raises:
        ValueError: The numbers do not add up to 32, or a feature takes a number that no kernel gives it.
    """

    max_swapfiles: int
    hwpoison: int
    migration: int
    device: int
    marker: int
    swapin_error: int

    def __post_init__(self) -> None:
        for name, legal in _LEGAL.items():
            if getattr(self, name) not in legal:
                msg = f"{name} takes {getattr(self, name)} swap types, but only {legal} are known: {self}"
                raise ValueError(msg)
        total = self.max_swapfiles + self.hwpoison + self.migration + self.device + self.marker + self.swapin_error
        if self.max_swapfiles < 0 or total != NR_TYPES:
            msg = f"swap types are ambiguous: they add up to {total}, not {NR_TYPES}: {self}"
            raise ValueError(msg)

    @cached_property
    def kinds(self) -> U8:
        """uint8[32]; the `Kind` of each type number."""
        exclusive = [Kind.DEVICE_EXCLUSIVE] * (self.device - _NR_PRIVATE)
        names = [Kind.SWAP] * self.max_swapfiles
        names += [Kind.HWPOISON] * self.hwpoison
        names += [Kind.MIGRATION_READ, Kind.MIGRATION_READ_EXCLUSIVE, Kind.MIGRATION_WRITE][: self.migration]
        names += [Kind.DEVICE_WRITE, Kind.DEVICE_READ, *exclusive] if self.device else []
        names += [Kind.MARKER] * self.marker
        names += [Kind.SWAPIN_ERROR] * self.swapin_error
        return np.array(names, np.uint8)


def solve(*, hwpoison: bool, migration: bool, device: int, marker: bool, swapin_error: bool) -> SwapTypes:
    """The types of a kernel whose features are all known; MAX_SWAPFILES is what they leave of 32.

    Args:
        hwpoison: Whether CONFIG_MEMORY_FAILURE is set.
        migration: Whether CONFIG_MIGRATION is set.
        device: Numbers taken by CONFIG_DEVICE_PRIVATE: 0, 3 or 4.
        marker: Whether PTE markers have a number.
        swapin_error: Whether failed swap-ins have one.

    Raises:
        ValueError: No kernel gives device memory that many numbers.
    """
    taken = (int(hwpoison), _NR_MIGRATION if migration else 0, device, int(marker), int(swapin_error))
    return SwapTypes(NR_TYPES - sum(taken), *taken)
