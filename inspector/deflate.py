"""The format of zlib by the quicker of two libraries: ISA-L's where it is installed, which it is on x86-64 and arm64.

A capture spends most of its time in compression, a check of a dump that is compressed so a good part of it in the
opposite. Each reads what the other writes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from isal import isal_zlib as quick
except ImportError:  # no wheel for this machine
    quick = None  # type: ignore[assignment]

LEVEL = 2
"""Of `deflated`: in a third of the time of zlib's own 3, to a twenty-fifth as small."""

_QUICKEST_OF_ZLIB = 4
"""The first level of zlib that comes out smaller than all of ISA-L's."""

DAMAGED: tuple[type[Exception], ...] = (zlib.error,)
"""What `inflated` raises where what is stored is damaged."""

if quick is not None:
    # Declared as an instance in its stub.
    DAMAGED += (cast("type[Exception]", quick.error),)

inflated: Callable[..., bytes] = zlib.decompress if quick is None else quick.decompress
"""The opposite of `deflated`, called as `zlib.decompress` is."""


def deflated(data: bytes, level: int) -> bytes:
    """What is stored of some bytes.

    Args:
        data: The bytes.
        level: 1 (quick) to 9 (small).
    """
    return zlib.compress(data, level) if quick is None or level >= _QUICKEST_OF_ZLIB else quick.compress(data, level)
