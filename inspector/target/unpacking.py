"""How pages of kdump-compressed dumps are unpacked: zlib by `inspector.deflate`, others by libraries drgn comes with.

libkdumpfile, by which drgn reads such dumps, needs the same libraries: a wheel of drgn brings them along, elsewhere
they are the system's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

Unpack = Callable[[bytes], bytes]
"""From what is stored to the page; raises ValueError where it is damaged."""

ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20
"""DUMP_DH_COMPRESSED_* of makedumpfile's diskdump_mod.h: how a page is stored; 0 is for as it is."""

_SONAMES = {"lzo2": "liblzo2.so.2", "snappy": "libsnappy.so.1", "zstd": "libzstd.so.1"}


def unpack_by(flag: int, size: int) -> Unpack | None:
    """What unpacks pages of ``size`` bytes that are stored so; None where nothing on this machine does.

    It may use memory of its own: no two threads must call it at the same time.
    """
    if not flag:
        return bytes
    maker = {ZLIB: _zlib, LZO: _lzo, SNAPPY: _snappy, ZSTD: _zstd}.get(flag)
    return maker(size) if maker is not None else None


@lru_cache(maxsize=8)
def compression_library(name: str) -> ctypes.CDLL | None:
    """``lzo2``, ``snappy`` or ``zstd``: the one in drgn's package that libkdumpfile there uses, or the system's."""
    import ctypes  # noqa: PLC0415  (for dumps that are compressed so only)

    spec = find_spec("drgn")
    near: list[Path] = []
    if spec is not None and spec.origin is not None:
        near = sorted((Path(spec.origin).parent.parent / "drgn.libs").glob(f"lib{name}-*.so*"))
    for path in (*map(str, near), _SONAMES[name]):
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


def _zlib(size: int) -> Unpack:
    from inspector.deflate import DAMAGED, inflated  # noqa: PLC0415  (for dumps that are compressed so only)

    def unpack(data: bytes) -> bytes:
        try:
            return inflated(data, bufsize=size)
        except DAMAGED as error:
            raise ValueError(str(error)) from None

    return unpack


def _lzo(size: int) -> Unpack | None:
    library = compression_library("lzo2")
    if library is None:
        return None
    import ctypes  # noqa: PLC0415

    out, length, call = ctypes.create_string_buffer(size), ctypes.c_size_t(), library.lzo1x_decompress_safe
    call.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    where = ctypes.byref(length)

    def unpack(data: bytes) -> bytes:
        length.value = size
        if call(data, len(data), out, where, None):
            raise ValueError("not LZO")
        return ctypes.string_at(out, length.value)

    return unpack


def _snappy(size: int) -> Unpack | None:
    library = compression_library("snappy")
    if library is None:
        return None
    import ctypes  # noqa: PLC0415

    out, length, call = ctypes.create_string_buffer(size), ctypes.c_size_t(), library.snappy_uncompress
    call.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
    where = ctypes.byref(length)

    def unpack(data: bytes) -> bytes:
        length.value = size
        if call(data, len(data), out, where):
            raise ValueError("not snappy")
        return ctypes.string_at(out, length.value)

    return unpack


def _zstd(size: int) -> Unpack | None:
    library = compression_library("zstd")
    if library is None:
        return None
    import ctypes  # noqa: PLC0415

    out, call = ctypes.create_string_buffer(size), library.ZSTD_decompress
    call.restype = ctypes.c_size_t
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

    def unpack(data: bytes) -> bytes:
        # An error is a number above every length.
        length = call(out, size, data, len(data))
        if length > size:
            raise ValueError("not zstd")
        return ctypes.string_at(out, length)

    return unpack
