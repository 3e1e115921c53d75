"""Structs of which a dump has some pages and not others: the members asked for may be there all the same."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from inspector.columns import I64, U64
from inspector.layout.offsets import Field
from inspector.memory import HOLE, Memory, Raw


def gather_members(memory: Memory, addresses: U64, size: int, members: Iterable[Field]) -> Raw:
    """Read structs, also those that the dump has only in part.

    Args:
        memory: To read.
        addresses: uint64[n].
        size: Bytes of one struct.
        members: A row is valid if these could be read: bytes of others are zero where they could not.
    """
    raw = memory.gather(addresses, size)
    lost = np.flatnonzero(~raw.valid)
    if not len(lost):
        return raw
    known = np.zeros((len(lost), size), np.bool_)
    begin, page = addresses[lost], np.uint64(HOLE)
    for step in range((size - 1) // HOLE + 2):
        # Each struct is cut where pages begin, every one at places of its own.
        first = np.maximum((begin // page + np.uint64(step)) * page, begin)
        last = np.minimum((begin // page + np.uint64(step + 1)) * page, begin + np.uint64(size))
        for length in np.unique(last[last > first] - first[last > first]).tolist():
            rows = np.flatnonzero((last > first) & (last - first == np.uint64(length)))
            part = memory.gather(first[rows], length)
            at: I64 = (first[rows] - begin[rows]).astype(np.int64)[:, None] + np.arange(length)[None, :]
            raw.bytes[lost[rows][:, None], at] = part.bytes
            known[rows[:, None], at] = part.valid[:, None]
    whole = np.ones(len(lost), np.bool_)
    for field in members:
        whole &= known[:, field.offset : field.offset + field.size].all(axis=1)
    raw.valid[lost] = whole
    return raw
