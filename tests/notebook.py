"""The notebook of docs/, executed: ``python -m tests.notebook`` writes what its cells print anew."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.arch.docs import DOCS, ROOT

_FORMAT: Any = nbformat
"""It has types in part."""

NOTEBOOK = DOCS / "notebook.ipynb"


def read(path: Path = NOTEBOOK) -> Any:
    """The notebook as it is."""
    return _FORMAT.read(path, as_version=4)


def executed(notebook: Any) -> Any:
    """The notebook with what its cells print now, in the root of the repository.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    made = copy.deepcopy(notebook)
    NotebookClient(made, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in made.cells:
        # When it was executed changes from time to time.
        cell.metadata.pop("execution", None)
    return made


def printed(notebook: Any) -> list[str]:
    """What each cell of code prints, as text."""
    return [
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def main() -> None:
    """Execute it and write it."""
    made = executed(read())
    made.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    _FORMAT.write(made, NOTEBOOK)


if __name__ == "__main__":
    main()
