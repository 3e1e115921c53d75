"""Random damage to swap devices, inodes, address_spaces and xarray nodes: everything still answers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from inspector.rules import select_rules
from inspector.snapshot import Snapshot
from inspector.walk.cache_view import cache_by_order, cache_of
from inspector.walk.swap_view import slot_users, swap_devices
from tests.faults.overlay import KERNELS, Patch, core_path, planted, put, sound, word

GROUPS = ("swap", "swap-cache", "page-cache", "nonpresent")


def _words(s: Snapshot) -> list[int]:
    """Addresses of the words of all these things."""
    devices, spaces = s.swap.devices, s.files.address_spaces
    own = np.flatnonzero(spaces.is_inode)
    things = [(devices.addr, "struct swap_info_struct"), (spaces.addr[own], "struct address_space")]
    things += [(spaces.host[own], "struct inode"), (devices.cluster_info, "struct swap_cluster_info")]
    nodes = spaces.head[own]
    things.append((nodes[nodes & np.uint64(3) == 2] - np.uint64(2), "struct xa_node"))
    found = [int(at) + 8 * i for addr, name in things for at in addr for i in range(s.layout.struct(name).size // 8)]
    return found + [s.layout.symbol("swap_info"), s.layout.symbol("shmem_swaplist"), s.layout.symbol("node_data")]


def _damage(s: Snapshot, chance: random.Random, words: list[int], nr: int) -> list[Patch]:
    patches = []
    for address in chance.sample(words, nr):
        data = s.layout.memory.read(address, 8)
        if data is not None:
            kinds = [chance.getrandbits(64), word(s, address) ^ 1 << chance.randrange(64), 0, (1 << 64) - 1]
            patches.append(put(s, address, chance.choice([*kinds, chance.choice(words) | chance.randrange(4)])))
    return patches


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_damage_is_survived(kernel: str, seed: int) -> None:
    path = core_path("fixture", kernel)
    whole = sound(path)
    chance = random.Random(seed)
    damaged = planted(path, *_damage(whole, chance, _words(whole), chance.choice((1, 6, 40))))
    for rule in select_rules(GROUPS):
        found = rule.run(damaged)
        for row in found.rows[:3]:
            assert rule.about.describe(damaged, int(row)).kind
    assert len(swap_devices(damaged)) <= 32
    if len(damaged.swap.slots):
        slot_users(damaged, 0)
    if len(damaged.files.address_spaces):
        cache_by_order(cache_of(damaged, 0))
