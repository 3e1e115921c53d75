"""The oracles that are kept beside the fixtures: packed by `make fixtures`, unpacked for the tests of one run."""

from __future__ import annotations

import atexit
import io
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath

from tests.fixtures import packed_oracle_path
from tests.guests.errors import GuestError
from tests.guests.oracle import Oracle


def pack_oracle(folder: Path, target: Path) -> None:
    """Pack an unpacked record; the same record gives the same bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise GuestError("the oracle", f"nothing recorded in {folder}")
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in files:
            content = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))


@cache
def load_fixture_oracle(kernel: str) -> Oracle:
    """What the kernel of a fixture itself said before it was captured."""
    packed = packed_oracle_path(kernel)
    if not packed.is_file():
        raise GuestError("the oracle", f"no {packed.name}; run make fixtures")
    folder = Path(tempfile.mkdtemp(prefix="folioscope-oracle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(packed, "r:xz") as archive:
        for member in archive:
            name, source = PurePosixPath(member.name), archive.extractfile(member)
            if source is None or name.is_absolute() or ".." in name.parts:
                raise GuestError("the oracle", f"{packed.name} holds a strange name: {member.name!r}")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read())
    return Oracle(folder)
