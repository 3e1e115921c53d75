"""The numbering of swap types, against the numbers that each kernel's include/linux/swap.h gives out."""

from __future__ import annotations

from itertools import product

import pytest

from inspector.arch.base import Kind
from inspector.arch.swapentry import MARKER_GUARD, MARKER_POISONED, MARKER_UFFD_WP, NR_TYPES, SwapTypes, solve

MIGRATION = [Kind.MIGRATION_READ, Kind.MIGRATION_READ_EXCLUSIVE, Kind.MIGRATION_WRITE]
PRIVATE = [Kind.DEVICE_WRITE, Kind.DEVICE_READ]


def numbers_above(types: SwapTypes) -> list[Kind]:
    return [Kind(int(k)) for k in types.kinds[types.max_swapfiles :]]


@pytest.mark.parametrize(
    ("max_swapfiles", "exclusive", "swapin_error", "above"),
    [
        # 6.12 and 7.x cloud kernels: without device memory, and with one exclusive number.
        (27, 2, False, [Kind.HWPOISON, *MIGRATION, Kind.MARKER]),
        (24, 1, False, [Kind.HWPOISON, *MIGRATION, *PRIVATE, Kind.DEVICE_EXCLUSIVE, Kind.MARKER]),
        # 6.12 with device memory, 6.1 with everything, without markers, with neither.
        (23, 2, False, [Kind.HWPOISON, *MIGRATION, *PRIVATE, *[Kind.DEVICE_EXCLUSIVE] * 2, Kind.MARKER]),
        (
            22,
            2,
            True,
            [Kind.HWPOISON, *MIGRATION, *PRIVATE, *[Kind.DEVICE_EXCLUSIVE] * 2, Kind.MARKER, Kind.SWAPIN_ERROR],
        ),
        (23, 2, True, [Kind.HWPOISON, *MIGRATION, *PRIVATE, *[Kind.DEVICE_EXCLUSIVE] * 2, Kind.SWAPIN_ERROR]),
        (26, 2, True, [Kind.HWPOISON, *MIGRATION, Kind.MARKER, Kind.SWAPIN_ERROR]),
        (27, 2, True, [Kind.HWPOISON, *MIGRATION, Kind.SWAPIN_ERROR]),
    ],
)
def test_debian_and_other_kernels(max_swapfiles: int, exclusive: int, swapin_error: bool, above: list[Kind]) -> None:
    device = 2 + exclusive if Kind.DEVICE_READ in above else 0
    types = solve(hwpoison=True, migration=True, device=device, marker=Kind.MARKER in above, swapin_error=swapin_error)
    assert types.max_swapfiles == max_swapfiles
    assert numbers_above(types) == above
    assert types.kinds[:max_swapfiles].tolist() == [Kind.SWAP] * max_swapfiles
    assert len(types.kinds) == NR_TYPES


def test_every_configuration_leaves_the_rest_to_devices() -> None:
    for failure, migration, exclusive, device, swapin_error in product((0, 1), (0, 1), (1, 2), (0, 1), (0, 1)):
        for marker in (0, 1) if swapin_error else (1,):
            taken = failure + 3 * migration + device * (2 + exclusive) + marker + swapin_error
            types = solve(
                hwpoison=bool(failure),
                migration=bool(migration),
                device=device * (2 + exclusive),
                marker=bool(marker),
                swapin_error=bool(swapin_error),
            )
            assert types.max_swapfiles == 32 - taken
            assert (types.device, types.marker) == (device * (2 + exclusive), marker)


def test_a_sum_other_than_32_is_refused() -> None:
    with pytest.raises(ValueError, match="add up to 31, not 32"):
        SwapTypes(26, 1, 3, 0, 1, 0)
    with pytest.raises(ValueError, match="add up to 33, not 32"):
        SwapTypes(28, 1, 3, 0, 1, 0)


@pytest.mark.parametrize(("name", "value"), [("hwpoison", 2), ("migration", 1), ("device", 2), ("marker", -1)])
def test_numbers_that_no_kernel_gives_are_refused(name: str, value: int) -> None:
    numbers = {"max_swapfiles": 27, "hwpoison": 1, "migration": 3, "device": 0, "marker": 1, "swapin_error": 0}
    numbers["max_swapfiles"] += numbers[name] - value
    numbers[name] = value
    with pytest.raises(ValueError, match=f"{name} takes {value} swap types"):
        SwapTypes(**numbers)


def test_solve_leaves_the_rest_to_swap_devices() -> None:
    assert solve(hwpoison=True, migration=True, device=3, marker=True, swapin_error=False) == SwapTypes(
        24, 1, 3, 3, 1, 0
    )
    assert solve(hwpoison=False, migration=False, device=0, marker=True, swapin_error=True).max_swapfiles == 30


def test_marker_bits() -> None:
    assert (MARKER_UFFD_WP, MARKER_POISONED, MARKER_GUARD) == (1, 2, 4)
