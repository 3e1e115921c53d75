"""Memory made of a few pieces; everything else faults, as holes in a dump do."""

from __future__ import annotations

import struct

import drgn

from inspector.memory import Memory


class FakeReader:
    """Reads what was put; counts the reads."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self.reads = 0

    def put(self, address: int, data: bytes) -> None:
        self.bytes.update({address + i: b for i, b in enumerate(data)})

    def words(self, address: int, *values: int) -> None:
        self.put(address, struct.pack(f"<{len(values)}Q", *(v & ((1 << 64) - 1) for v in values)))

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        self.reads += 1
        try:
            return bytes(self.bytes[address + i] for i in range(size))
        except KeyError:
            raise drgn.FaultError("hole", address) from None

    def memory(self) -> Memory:
        return Memory(self)
