"""The dataset in a folder: a Parquet file for each dump and table, written whole or not at all.

DIR/dataset.json says that it is one. DIR/TABLE/kernel=RELEASE/DUMP.parquet are the tables, DIR/inputs/*.parquet the
paths. DIR/.run is the batch's own: its lock, and files that are being written. The bytes of a file depend on nothing
but the dump, the code and the version of pyarrow.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from inspector.errors import TargetError, UsageError
from inspector.fleet.content import digest
from inspector.fleet.job import DumpTables
from inspector.fleet.schema import DUMPS, INPUTS, OF_A_DUMP, TABLES, VERSION, TableSchema
from inspector.new_file import new_file

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "folioscope.dataset"
"""Names what a folder and its files are; the value is the version of the schema."""

_ABOUT = "dataset.json"
_OWN = ".run"
_PRIVATE = 0o700
_LONGEST = 100
"""Characters of a kernel's name in the name of a folder."""

_UNKNOWN = "unknown"
_FILE = re.compile(r"[0-9a-f]{16}\.parquet")


def require_arrow() -> None:
    """See whether pyarrow is there.

    Raises:
        UsageError: It is not.
    """
    try:
        import pyarrow as pa  # noqa: F401, PLC0415  (an extra)
    except ImportError:
        what = "the dataset needs pyarrow, which is not installed"
        raise UsageError(what, "", "Run pip install 'folioscope[fleet]'") from None


class Dataset:
    """A folder with a dataset.

    Args:
        folder: It.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder where there is none, and keep other batches out of it.

        Raises:
            UsageError: It is something else, or another batch writes to it.
            OSError: It cannot be written.
        """
        self.folder.mkdir(_PRIVATE, parents=True, exist_ok=True)
        if any(there.name != _OWN for there in self.folder.iterdir()):
            self.require()
        own = self.folder / _OWN
        own.mkdir(_PRIVATE, exist_ok=True)
        lock = os.open(own / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    "another batch writes to this folder", str(self.folder), "Wait for it, or give another with --out"
                ) from None
            self._remove_unfinished()
            if not (self.folder / _ABOUT).exists():
                about = json.dumps({"format": FORMAT, "version": VERSION}) + "\n"
                self._put(self.folder / _ABOUT, about.encode())
            yield
        finally:
            os.close(lock)

    def require(self) -> None:
        """See whether it is a dataset that this code can read.

        Raises:
            UsageError: It is not.
        """
        try:
            about = json.loads((self.folder / _ABOUT).read_bytes())
            version = about["version"] if about["format"] == FORMAT else None
        except FileNotFoundError:
            version = None
        except (ValueError, LookupError, TypeError):
            version = None
        if not isinstance(version, int):
            raise UsageError(
                "this is no dataset of folioscope batch", str(self.folder), "Name its folder, or an empty one for batch"
            )
        if version > VERSION:
            raise UsageError(
                f"the dataset is of version {version}, this folioscope knows {VERSION}", str(self.folder), "Update it"
            )

    def _remove_unfinished(self) -> None:
        """Take away what a batch left that was killed: temporary files, and tables of dumps that are not whole."""
        for file in (self.folder / _OWN).iterdir():
            if file.name != "lock":
                file.unlink()
        whole = {(file.parent.name, file.name) for file in self._files(DUMPS)}
        for table in OF_A_DUMP:
            for file in list(self._files(table)):
                if (file.parent.name, file.name) not in whole:
                    file.unlink()

    def put_dump(self, dump: str, tables: DumpTables) -> None:
        """Write what is known of a dump in place of what was; the row in ``dumps`` last.

        Raises:
            OSError: It cannot be written.
        """
        self.remove_dump(dump)
        kernel = _folder_of(tables[DUMPS.name].get("release", [None])[0])
        for table in OF_A_DUMP:
            if table.name in tables:
                folder = self.folder / table.name / f"kernel={kernel}"
                self._put_table(table, folder / f"{dump}.parquet", tables[table.name])

    def remove_dump(self, dump: str) -> None:
        """Take a dump away, its row in ``dumps`` first."""
        for table in reversed(OF_A_DUMP):
            for file in (self.folder / table.name).glob(f"kernel=*/{dump}.parquet"):
                file.unlink()

    def put_input(self, path: str, dump: str) -> None:
        """Write which dump a path is."""
        # What a file system calls a file need not be UTF-8.
        shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        file = self.folder / INPUTS.name / f"{digest(path)}.parquet"
        self._put_table(INPUTS, file, {"path": [shown], "dump": [dump]})

    def _put_table(self, table: TableSchema, path: Path, columns: dict[str, list[Any]]) -> None:
        import pyarrow as pa  # noqa: PLC0415  (an extra)
        import pyarrow.parquet as pq  # noqa: PLC0415

        for folder in (self.folder / table.name, path.parent):
            folder.mkdir(_PRIVATE, exist_ok=True)
        schema = arrow_schema(table)
        data = pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
        with self._replacing(path) as file:
            pq.write_table(data, pa.PythonFile(file, mode="w"), compression="zstd", compression_level=3)

    def _put(self, path: Path, data: bytes) -> None:
        with self._replacing(path) as file:
            file.write(data)

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[Any]:
        """A file that gets its name when it is whole and on the disk."""
        with new_file(path, self.folder / _OWN, is_private=True) as (file, _):
            yield file
            file.flush()
            os.fsync(file.fileno())

    # -- reading ------------------------------------------------------------------------------------------------------

    def _files(self, table: TableSchema) -> Iterator[Path]:
        pattern = "kernel=*/*.parquet" if table.by_kernel else "*.parquet"
        return (file for file in (self.folder / table.name).glob(pattern) if _FILE.fullmatch(file.name))

    def read(self, table: TableSchema, names: tuple[str, ...] = (), *, dump: str | None = None) -> pa.Table:
        """A table, of whatever version its files are; rows by dump, or by path.

        Args:
            table: As it is to be: columns that files lack are null, others are left out.
            names: Columns; all when empty.
            dump: Of this dump alone.

        Raises:
            TargetError: A file is damaged.
        """
        import pyarrow as pa  # noqa: PLC0415  (an extra)
        import pyarrow.parquet as pq  # noqa: PLC0415

        schema = arrow_schema(table)
        wanted = [schema.field(name) for name in names or schema.names]
        parts = []
        files = self._files(table) if dump is None else (self.folder / table.name).glob(f"kernel=*/{dump}.parquet")
        for path in sorted(files, key=lambda file: file.name):
            try:
                # One file at a time, not as a dataset: kernel= in its folder is no column of it.
                with pq.ParquetFile(path) as file:
                    there = set(file.schema_arrow.names)
                    part = file.read(columns=[f.name for f in wanted if f.name in there])
                columns = [
                    part[f.name].cast(f.type) if f.name in there else pa.nulls(len(part), f.type) for f in wanted
                ]
            except (pa.ArrowException, OSError) as error:
                reason = (str(error).splitlines() or [""])[0]
                raise TargetError(f"a file of the dataset is damaged ({reason})", str(path), "") from error
            parts.append(pa.table(columns, schema=pa.schema(wanted)))
        return pa.concat_tables(parts) if parts else pa.schema(wanted).empty_table()


def arrow_schema(table: TableSchema) -> pa.Schema:
    """Of a table's files."""
    import pyarrow as pa  # noqa: PLC0415  (an extra)

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "uint64": pa.uint64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "time": pa.timestamp("s", tz="UTC"),
    }
    fields = [pa.field(column.name, types[column.type]) for column in table.columns]
    return pa.schema(fields, metadata={FORMAT: str(VERSION)})


def _folder_of(release: str | None) -> str:
    """A kernel's name as a folder has it: what a dump says is not trusted."""
    name = quote(release or "", safe="")[:_LONGEST]
    return name if name.strip(".") else _UNKNOWN


__all__ = ["FORMAT", "TABLES", "Dataset", "arrow_schema", "require_arrow"]
