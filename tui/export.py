"""Tables and reports written to files: values as they are, not as they are drawn."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from inspector.errors import TargetError
from inspector.hex_json import encode_json
from inspector.report.screen import Screen
from tui.views.rows import RowSource

TableFormat = Literal["csv", "json"]


def free_path(folder: Path, stem: str, suffix: str) -> Path:
    """A file that does not exist yet: ``stem.suffix``, ``stem-2.suffix`` ..."""
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", stem).strip("-.")[:80] or "export"
    path, n = folder / f"{safe}.{suffix}", 1
    while path.exists():
        n += 1
        path = folder / f"{safe}-{n}.{suffix}"
    return path


def write_table(rows: RowSource, path: Path, form: TableFormat) -> int:
    """Write all rows shown, in the order shown; never over a file that exists.

    Returns:
        How many rows.

    Raises:
        TargetError: The file cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8", newline="") as out:
            if form == "csv":
                writer = csv.writer(out, lineterminator="\n")
                writer.writerow([c.exported for c in rows.columns])
                writer.writerows(_values(rows))
            else:
                names = [c.exported or f"column {i}" for i, c in enumerate(rows.columns)]
                out.write("[")
                for i, row in enumerate(_values(rows)):
                    out.write(("," if i else "") + "\n" + json.dumps(dict(zip(names, row, strict=True))))
                out.write("\n]\n")
    except OSError as error:
        raise TargetError("the export cannot be written", str(path), error.strerror or "") from None
    return len(rows)


def _values(rows: RowSource) -> Iterator[list[Any]]:
    for i in range(len(rows)):
        yield rows.values(i)


def write_report(render: Callable[[Screen, Any], Iterable[str]], report: Any, path: Path, form: str) -> None:
    """Write a report as its command prints it.

    Args:
        render: Makes text of it.
        report: The report.
        path: The file.
        form: "txt" or "json".

    Raises:
        TargetError: The file cannot be written.
    """
    if form == "txt":
        write_text("\n".join(render(Screen(), report)) + "\n", path)
    else:
        write_text(encode_json(report).decode() + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a file; never over one that exists.

    Raises:
        TargetError: It cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise TargetError("the export cannot be written", str(path), error.strerror or "") from None
