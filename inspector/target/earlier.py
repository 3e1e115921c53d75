"""What earlier openings of a dump, or of another dump of the same kernel, worked out and kept in the disk cache.

Two things are kept apart. What follows from bytes of the kernel image (how its symbols' names and its BTF are decoded)
is kept under the hash of those bytes: all dumps of that kernel share it, and no dump can plant anything for another.
What is known about a dump (which of those it has, and the addresses of its symbols) is kept under the identity of its
file.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import numpy as np

import inspector
from inspector import disk_cache
from inspector.columns import U64, AnyArray
from inspector.disk_cache import DiskCache, Kept, code_name, user_cache_folder
from inspector.target import btf_parse, kallsyms
from inspector.target.btf_parse import Btf
from inspector.target.kallsyms import Kallsyms, NameIndex, index_names

_HEAD = 4096
_FRESH = 2
"""Seconds: a file written so recently may change once more within the same tick of the file system's clock."""


def open_cache() -> DiskCache | None:
    """The user's cache; None where there is none."""
    folder = user_cache_folder()
    if folder is None:
        return None
    return DiskCache(folder, code_name(inspector.__version__, sys.modules[__name__], disk_cache, btf_parse, kallsyms))


class Earlier:
    """What is known about one dump, and what this opening adds.

    Args:
        cache: Where it is kept.
        path: The dump.
    """

    def __init__(self, cache: DiskCache, path: str) -> None:
        self._cache = cache
        self._path = path
        self._identity = _identity(path)
        self._facts: dict[str, str] = {}
        self._addresses: U64 | None = None
        kept = cache.load(f"dump-{self._identity}") if self._identity else None
        self._is_kept = kept is not None
        self._is_new = False
        if kept is not None and "addresses" in kept.columns:
            self._facts, self._addresses = dict(kept.facts), kept.columns["addresses"]

    @property
    def is_known(self) -> bool:
        """Whether this very file was opened before, whole."""
        return self._is_kept

    def symbols(self) -> Kallsyms | None:
        """The symbol table that this dump was found to have."""
        kept = self._cache.load("names-" + self._facts["names"]) if "names" in self._facts else None
        if kept is None or self._addresses is None:
            return None
        table = _table(kept)
        if table is None or len(table) != len(self._addresses):
            return None
        table.addresses = self._addresses
        return table

    def types(self) -> Btf | None:
        """The BTF that this dump was found to have."""
        kept = self._cache.load("types-" + self._facts["types"]) if "types" in self._facts else None
        if kept is None or not {"blob", "starts"} <= kept.columns.keys():
            return None
        return Btf(kept.columns["blob"].data, kept.columns["starts"].view(np.int32))

    def index_names(self, blob: bytes, tokens: list[bytes], count: int) -> NameIndex:
        """What `kallsyms.index_names` gives, from the cache where a dump of the same kernel was opened before."""
        digest = _digest(blob, *tokens, str(count).encode())
        self._facts["names"], self._is_new = digest, True
        kept = self._cache.load(f"names-{digest}")
        table = None if kept is None else _table(kept)
        if table is not None:
            return table.index
        index = index_names(blob, tokens, count)
        columns: dict[str, AnyArray] = {
            "blob": np.frombuffer(blob, np.uint8),
            "starts": index.starts,
            "ends": index.ends,
            "hashes": index.hashes,
            "kinds": index.kinds,
        }
        facts = {"tokens": " ".join(t.hex() or "-" for t in tokens)}
        self._cache.save(f"names-{digest}", Kept(facts, columns))
        return index

    def parse_types(self, blob: bytes) -> Btf:
        """What `Btf` makes of a blob, from the cache where a dump of the same kernel was opened before.

        Raises:
            TargetError: As `Btf` does.
        """
        digest = _digest(blob)
        self._facts["types"], self._is_new = digest, True
        kept = self._cache.load(f"types-{digest}")
        if kept is not None and "starts" in kept.columns:
            return Btf(blob, kept.columns["starts"])
        made = Btf(blob)
        self._cache.save(f"types-{digest}", Kept({}, {"blob": np.frombuffer(blob, np.uint8), "starts": made.starts}))
        return made

    def keep(self, table: Kallsyms) -> None:
        """Keep what this opening found, where it found something new and the file is still the same one."""
        if self._is_new and self._identity and self._identity == _identity(self._path):
            self._cache.save(f"dump-{self._identity}", Kept(self._facts, {"addresses": table.addresses}))


def _identity(path: str) -> str:
    """Names the file by where it is, its size, when it was changed, and its header; empty when it may change."""
    try:
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(_HEAD)
    except OSError:
        return ""
    changed = max(found.st_mtime, found.st_ctime)
    if not stat.S_ISREG(found.st_mode) or not found.st_size or time.time() - changed < _FRESH:
        return ""
    if Path(path).resolve().is_relative_to("/proc"):
        # The running kernel, or that before a kdump: not a file, whatever it looks like.
        return ""
    # The time of the last change of the inode cannot be set back, whatever wrote to the file.
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _digest(" ".join(map(str, numbers)).encode(), head)


def _digest(*parts: bytes) -> str:
    import hashlib  # noqa: PLC0415  (OpenSSL)

    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _table(kept: Kept) -> Kallsyms | None:
    """The symbol table of a kernel image, without addresses; None when the file lacks something."""
    columns = kept.columns
    tokens = [b"" if t == "-" else bytes.fromhex(t) for t in kept.facts.get("tokens", "").split()]
    if len(tokens) != 256 or not {"blob", "starts", "ends", "hashes", "kinds"} <= columns.keys():
        return None
    index = NameIndex(columns["starts"], columns["ends"], columns["hashes"], columns["kinds"])
    return Kallsyms(columns["blob"].data, tokens, len(index.starts), index)
