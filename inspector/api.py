"""What `import inspector` opens: a kernel, its tables as NumPy, Arrow, pandas and Polars, its check, its accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.check.confirm import check_target
from inspector.columns import AnyArray, Column, UnknownColumn
from inspector.errors import UsageError
from inspector.findings import Report
from inspector.records import cached_property
from inspector.report.api import explain as account_for
from inspector.report.explain import Explanation
from inspector.snapshot import Snapshot
from inspector.target import target
from inspector.target.target import Target, Types
from inspector.text import clean_bytes

if TYPE_CHECKING:
    import drgn
    import pandas as pd
    import polars as pl
    import pyarrow as pa

TABLES: Mapping[str, str] = {
    "pages": "pages",
    "folios": "folios",
    "tasks": "tasks",
    "mms": "mms",
    "vmas": "vmas",
    "page_tables": "tables",
    "mappings": "mappings",
    "nonpresent": "nonpresent",
    "anon_vmas": "anon_rmap.anon_vmas",
    "anon_vma_chains": "anon_rmap.avcs",
    "address_spaces": "address_spaces",
    "i_mmap": "file_rmap.nodes",
    "open_files": "open_files",
    "swap_devices": "swap.devices",
    "swap_slots": "swap.slots",
    "hstates": "hugetlb.hstates",
    "hugetlb_folios": "hugetlb.folios",
    "ksm_nodes": "ksm.nodes",
    "ksm_items": "ksm.items",
    "split_queue": "split_links",
    "zones": "buddy.zones",
    "free_lists": "buddy.lists",
    "cpu_lists": "buddy.cpu_lists",
    "memcgs": "lru.memcgs",
    "lruvecs": "lru.lruvecs",
    "uffd_contexts": "uffd.contexts",
    "notifiers": "notifiers.subscriptions",
}
"""Names of tables that stay, and where each is in a snapshot; the docstring of its class says what its columns are."""

_OF_PAGES = ("flags", "mapcount_raw", "refcount", "mapping", "type_", "readable", "head_row")


class KernelTable:
    """One table: a row a thing, named columns of equal length.

    ``table["pfn"]`` is a column as a NumPy array; a column that this kernel has no member for is left out of
    `columns`. Rows are numbered from 0: columns that end in ``_idx`` and ``row`` name rows of other tables.

    Args:
        name: What it is called.
        table: Where the columns are attributes.
        pfns: Page frame numbers of the rows, where the table has no such column itself.
    """

    def __init__(self, name: str, table: Any, pfns: AnyArray | None = None) -> None:
        self.name = name
        self._table, self._pfns = table, pfns
        known = _OF_PAGES if pfns is not None else tuple(table.__dataclass_fields__)
        own = tuple(column for column in known if not isinstance(getattr(table, column), UnknownColumn))
        self.columns = own if pfns is None else ("pfn", *own)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self)} rows of {', '.join(self.columns)}>"

    def __getitem__(self, column: str) -> AnyArray:
        """A column.

        Raises:
            KeyError: There is none of that name.
        """
        if column not in self.columns:
            msg = f"{self.name} has no column {column!r}: it has {', '.join(self.columns)}"
            raise KeyError(msg)
        if self._pfns is not None and column == "pfn":
            return self._pfns
        found = getattr(self._table, column)
        return found[:] if isinstance(found, Column) else np.asarray(found)

    def numpy(self) -> dict[str, AnyArray]:
        """All columns as NumPy arrays: names as bytes, what has several values a row in two dimensions."""
        return {column: self[column] for column in self.columns}

    def arrow(self) -> pa.Table:
        """As an Arrow table: names as text, what has several values a row as lists of fixed length.

        Raises:
            UsageError: pyarrow is not installed.
        """
        arrow = _extra("pyarrow", "arrow")
        return arrow.table({column: _for_arrow(arrow, self[column]) for column in self.columns})

    def pandas(self) -> pd.DataFrame:
        """As a pandas data frame, made of the Arrow table.

        Raises:
            UsageError: pandas or pyarrow is not installed.
        """
        _extra("pandas", "pandas")
        return self.arrow().to_pandas()

    def polars(self) -> pl.DataFrame:
        """As a Polars data frame, made of the Arrow table.

        Raises:
            UsageError: Polars or pyarrow is not installed.
        """
        made: pl.DataFrame = _extra("polars", "polars").from_arrow(self.arrow())
        return made


def _extra(module: str, extra: str) -> Any:
    """A package that only some need.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(f"{module} is not installed", "", f"pip install 'folioscope[{extra}]'") from None


def _for_arrow(arrow: Any, column: AnyArray) -> Any:
    if column.dtype.kind == "S":
        return arrow.array([clean_bytes(value) for value in column.tolist()], arrow.string())
    if column.ndim > 1:
        flat = arrow.array(np.ascontiguousarray(column).reshape(-1))
        return arrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
    return arrow.array(np.ascontiguousarray(column))


class KernelTables(Mapping[str, KernelTable]):
    """The tables of a kernel by name, ``tables.folios`` or ``tables["folios"]``; each is read when first asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._known: dict[str, KernelTable] = {}

    def __getitem__(self, name: str) -> KernelTable:
        if name not in TABLES:
            msg = f"there is no table {name!r}: there are {', '.join(TABLES)}"
            raise KeyError(msg)
        if name not in self._known:
            found = attrgetter(TABLES[name])(self._snapshot)
            pfns = found.memmap.pfns_of_rows(np.arange(len(found))) if name == "pages" else None
            self._known[name] = KernelTable(name, found, pfns)
        return self._known[name]

    def __getattr__(self, name: str) -> KernelTable:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(TABLES)

    def __len__(self) -> int:
        return len(TABLES)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]


class Kernel(Target):
    """An opened kernel: what it is (`Target`), its tables, its check, and the accounts of its folios."""

    @cached_property
    def snapshot(self) -> Snapshot:
        """All that is read of it, each table once. Of a kernel that runs on, `look_again` gives a new one."""
        return Snapshot(self)

    @cached_property
    def tables(self) -> KernelTables:
        """The tables of `snapshot`."""
        return KernelTables(self.snapshot)

    def check(self, rules: Sequence[str] = ()) -> Report:
        """Apply rules, or groups of them; all where none is named. `inspector.as_text` makes text of the report.

        Of a kernel that runs on, what is found is read again in further looks, and only what stays is reported.
        """
        return check_target(self.snapshot, rules)

    def explain(self, page: int | str, *, operations: Sequence[str] = (), check: bool = True) -> Explanation:
        """Account for the folio that a page belongs to, as `inspector.explain` does.

        Raises:
            UsageError: The number leads to no page, or an operation cannot be understood.
        """
        return account_for(self.snapshot, page, operations=operations, check=check)

    def look_again(self) -> Kernel:
        """The same kernel, nothing read of it yet."""
        return _kernel(self)


def _kernel(opened: Target) -> Kernel:
    return Kernel(**{name: getattr(opened, name) for name in Target.__dataclass_fields__})


def open_core(
    path: str | Sequence[str], symbols: Sequence[str] = (), *, types: Types = "auto", cache: bool = False
) -> Kernel:
    """Open a vmcore, of one file or of several parts.

    Args:
        path: The dump: an ELF core or a kdump-compressed file; or its parts.
        symbols: A vmlinux and modules with DWARF; they must be those of the dump.
        types: Where types are to come from: "auto" takes DWARF that is given or found on this machine, else the BTF
            inside the dump.
        cache: Whether what is found out about symbols and types is kept for the next time.

    Raises:
        TargetError: The dump cannot be opened, or types or symbols cannot be had.
    """
    return _kernel(target.open_core(path, symbols, types=types, cache=cache))


def open_live(symbols: Sequence[str] = (), *, types: Types = "auto") -> Kernel:
    """Open the running kernel through ``/proc/kcore``.

    Raises:
        TargetError: It is not there or may not be read, or types or symbols cannot be had.
    """
    return _kernel(target.open_live(symbols, types=types))


def open_qemu(address: str, symbols: Sequence[str] = (), *, types: Types = "auto") -> Kernel:
    """Open the kernel of a running QEMU guest by its QMP socket, a path or host:port.

    Raises:
        TargetError: There is no QMP at that address, or types or symbols cannot be had.
    """
    return _kernel(target.open_qemu(address, symbols, types=types))


def from_program(
    prog: drgn.Program | None = None, symbols: Sequence[str] = (), *, types: Types = "auto", vmcoreinfo: bytes = b""
) -> Kernel:
    """Use a program that is already open, such as that of a script run by drgn; types it lacks are added to it.

    Raises:
        TargetError: There is none, it is of no kernel, or types or symbols cannot be had.
    """
    return _kernel(target.from_program(prog, symbols, types=types, vmcoreinfo=vmcoreinfo))
