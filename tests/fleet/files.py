"""Vmcores as files: captured ones with faults planted in the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inspector.target.corefile import examine_core
from tests.faults.every import CATALOGUE
from tests.faults.overlay import Patch, core_path, sound

_TEXT = 0xFFFF_FFFF_8000_0000
_FRAME = ((1 << 52) - 1) & ~0xFFF
_DESCRIPTOR = 24
_PAGE = 4096


def planted_file(kernel: str, fault: str, out: Path) -> Path:
    """A captured vmcore with a fault of the catalogue."""
    path = core_path("fixture", kernel)
    return edited_file(path, CATALOGUE[fault](sound(path)).patches, out)


def edited_file(path: str, patches: Sequence[Patch], out: Path) -> Path:
    """A kdump-compressed file with bytes of memory replaced: changed pages are put, as they are, at its end."""
    pages = examine_core(path).pages
    assert pages is not None
    prog = sound(path).target.prog
    changed: dict[int, bytearray] = {}
    for patch in patches:
        for skip, byte in enumerate(patch.data):
            address = patch.address + skip
            frame, at = divmod(address if patch.physical else _physical(path, address), _PAGE)
            if frame not in changed:
                changed[frame] = bytearray(prog.read(frame * _PAGE, _PAGE, physical=True))
            changed[frame][at] = byte
    data = bytearray(Path(path).read_bytes())
    bitmap = int.from_bytes(data[pages.bitmap : pages.table], "little")
    for frame, content in changed.items():
        row = (bitmap & ((1 << frame) - 1)).bit_count()
        at = pages.table + row * _DESCRIPTOR
        data[at : at + 16] = len(data).to_bytes(8, "little") + _PAGE.to_bytes(4, "little") + bytes(4)
        data += content
    out.write_bytes(data)
    return out


def _physical(path: str, address: int) -> int:
    """Where the kernel's page tables (of four levels) map an address."""
    target = sound(path).target
    info = target.vmcoreinfo
    table = int(info["SYMBOL(swapper_pg_dir)"], 16) - _TEXT + int(info["NUMBER(phys_base)"])
    for shift in (39, 30, 21, 12):
        at = table + 8 * (address >> shift & 511)
        entry = int.from_bytes(target.prog.read(at, 8, physical=True), "little")
        assert entry & 1, hex(address)
        table = entry & _FRAME
        if shift == 12 or entry >> 7 & 1:
            return (table & ~((1 << shift) - 1)) + (address & ((1 << shift) - 1))
    raise AssertionError(hex(address))
