"""The compressions of kdump-compressed dumps: each page by itself, as makedumpfile does it."""

from __future__ import annotations

import ctypes
import ctypes.util
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_LZO_WORK = 16384 * ctypes.sizeof(ctypes.c_void_p)
"""LZO1X_1_MEM_COMPRESS (lzo1x.h)."""


@dataclass(frozen=True)
class Compression:
    """One way to store a page.

    Attributes:
        name: As users call it.
        flag: DUMP_DH_COMPRESSED_* of makedumpfile's diskdump_mod.h.
        compress: One page to what is stored; as large as the page or larger where it does not pay.
        decompress: What is stored, and the size of a page, to the page.
    """

    name: str
    flag: int
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def compression_named(name: str) -> Compression:
    """A compression; "none" stores pages as they are.

    Raises:
        SystemExit: Its library is not on this machine.
    """
    return _MAKERS[name]()


@lru_cache(maxsize=8)
def _library(name: str) -> ctypes.CDLL:
    """A shared library of the machine, or the one in drgn's package that libkdumpfile there uses."""
    spec = find_spec("drgn")
    assert spec is not None
    assert spec.origin is not None
    near = sorted((Path(spec.origin).parent.parent / "drgn.libs").glob(f"lib{name}*.so*"))
    found = str(near[0]) if near else ctypes.util.find_library(name)
    if found is None:
        raise SystemExit(f"the library lib{name} is not on this machine")
    return ctypes.CDLL(found)


def _none() -> Compression:
    return Compression("none", 0, lambda page: page, lambda data, _size: data)


def _zlib() -> Compression:
    return Compression("zlib", 1, lambda page: zlib.compress(page, 1), lambda data, _size: zlib.decompress(data))


def _lzo() -> Compression:
    library, work = _library("lzo2"), ctypes.create_string_buffer(_LZO_WORK)
    out, length = ctypes.create_string_buffer(1 << 17), ctypes.c_size_t()

    def compress(page: bytes) -> bytes:
        library.lzo1x_1_compress(page, ctypes.c_size_t(len(page)), out, ctypes.byref(length), work)
        return ctypes.string_at(out, length.value)

    def decompress(data: bytes, size: int) -> bytes:
        length.value = size
        if library.lzo1x_decompress_safe(data, ctypes.c_size_t(len(data)), out, ctypes.byref(length), None):
            raise ValueError("not LZO")
        return ctypes.string_at(out, length.value)

    return Compression("lzo", 2, compress, decompress)


def _snappy() -> Compression:
    library = _library("snappy")
    out, length = ctypes.create_string_buffer(1 << 17), ctypes.c_size_t()

    def compress(page: bytes) -> bytes:
        length.value = len(out)
        library.snappy_compress(page, ctypes.c_size_t(len(page)), out, ctypes.byref(length))
        return ctypes.string_at(out, length.value)

    def decompress(data: bytes, _size: int) -> bytes:
        length.value = len(out)
        if library.snappy_uncompress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(length)):
            raise ValueError("not snappy")
        return ctypes.string_at(out, length.value)

    return Compression("snappy", 4, compress, decompress)


def _zstd() -> Compression:
    library, out = _library("zstd"), ctypes.create_string_buffer(1 << 17)
    library.ZSTD_compress.restype = library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    room = ctypes.c_size_t(len(out))

    def compress(page: bytes) -> bytes:
        length = library.ZSTD_compress(out, room, page, ctypes.c_size_t(len(page)), 1)
        return ctypes.string_at(out, length)

    def decompress(data: bytes, _size: int) -> bytes:
        length = library.ZSTD_decompress(out, room, data, ctypes.c_size_t(len(data)))
        if library.ZSTD_isError(length):
            raise ValueError("not zstd")
        return ctypes.string_at(out, length)

    return Compression("zstd", 0x20, compress, decompress)


_MAKERS = {"none": _none, "zlib": _zlib, "lzo": _lzo, "snappy": _snappy, "zstd": _zstd}
COMPRESSIONS = ("zlib", "lzo", "snappy", "zstd")
"""Those that make a dump smaller."""
