"""The kernel's own thpmaps, run in a live guest, says of each VMA what `mthp --vmas` says."""

from __future__ import annotations

import pytest

from tests.guests.kernels import kernel_named
from tests.guests.thpmaps import compare_thpmaps, names_of, parse

SAID = """\
       PID             START              END PROT   OFFSET   DEV    INODE OBJECT
0000000042: 0000000000400000-0000000000600000 rw-p 00000000 00:00 00000000 [stack]
anon-thp-pmd-aligned-2048kB:        2048 kB (100%)
anon-thp-pte-partial:                  4 kB
0000000042: 00007f0000000000-00007f0000001000 ---p 00000000 00:00 00000000 [stack]
"""


def test_what_it_prints_is_read() -> None:
    assert parse(SAID) == {
        (42, 0x400000): {"anon-thp-pmd-aligned-2048kB": 2 << 20, "anon-thp-pte-partial": 4 << 10},
        (42, 0x7F0000000000): None,
    }
    assert len(set(names_of((4,)))) == len(names_of((4,))) == 2 * (2 + 2 * 8 + 2)


@pytest.mark.guest
@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_each_vma_is_what_thpmaps_says(kernel: str) -> None:
    for each in compare_thpmaps(kernel_named(kernel)):
        assert each.differences == []
        assert each.vmas > 1000
        assert each.with_large > 30
        assert each.not_zero > 60
