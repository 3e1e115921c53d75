"""The scripts for drgn that are installed with the package: their list, their text, and copies of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from inspector.errors import TargetError, UsageError
from inspector.new_file import new_file
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.text import clean, counted

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
"""In the repository a link to its top-level folder; a build follows it, so that the wheel has the files there."""


class Script(msgspec.Struct, frozen=True):
    """One script."""

    name: str
    """What ``folioscope scripts`` calls it: its file's name without ``.py``."""
    line: str
    """What it shows."""
    path: str
    """Where it is; drgn can run it there."""


class ScriptsReport(msgspec.Struct, frozen=True):
    """The object that ``scripts --format json`` prints."""

    schema: Literal["folioscope.scripts/1"]
    scripts: list[Script]
    copied: list[str]
    """Files that were written, with --copy."""


def build_scripts(names: Sequence[str] = ()) -> ScriptsReport:
    """Describe some scripts, or all.

    Raises:
        UsageError: There is no script of such a name.
    """
    known = {path.stem: path for path in sorted(SCRIPTS.glob("*.py"))}
    wanted = [name.removesuffix(".py") for name in names] or list(known)
    for name in wanted:
        if name not in known:
            raise UsageError("there is no such script", name, f"There are {', '.join(known)}")
    scripts = [Script(name, _first_line(known[name]), str(known[name])) for name in wanted]
    return ScriptsReport("folioscope.scripts/1", scripts, [])


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def copy_scripts(report: ScriptsReport, folder: Path, *, is_forced: bool = False) -> ScriptsReport:
    """Copy scripts into a folder, which is made where it is not there; all of them or none.

    Args:
        report: Which.
        folder: Where to.
        is_forced: Whether files that are there and differ are replaced.

    Raises:
        UsageError: Files of their names are there, and differ.
        TargetError: They cannot be written.
    """
    texts = {folder / f"{script.name}.py": Path(script.path).read_bytes() for script in report.scripts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = {path: text for path, text in texts.items() if not path.is_file() or path.read_bytes() != text}
        in_the_way = [path.name for path in new if path.exists() or path.is_symlink()]
        if in_the_way and not is_forced:
            what = f"{counted(len(in_the_way), 'file')} there would be replaced ({', '.join(in_the_way)})"
            raise UsageError(what, str(folder), "Name another folder, or add --force")
        for path, text in new.items():
            with new_file(path) as (file, _):
                file.write(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TargetError(f"the scripts cannot be written ({reason})", str(error.filename or folder)) from None
    return msgspec.structs.replace(report, copied=[str(path) for path in new])


_COLUMNS = (TableColumn("script"), TableColumn("what it shows"))


def render_scripts(screen: Screen, report: ScriptsReport) -> Iterator[str]:
    """The list for people."""
    yield from render_table(screen, _COLUMNS, [(script.name, script.line) for script in report.scripts])
    yield ""
    yield f"Run one where it is: drgn -c VMCORE {clean(str(SCRIPTS))}/NAME.py"


def render_copies(_screen: Screen, report: ScriptsReport) -> Iterator[str]:
    """The files that were written."""
    yield from (clean(path) for path in report.copied)
    if not report.copied:
        yield "All of them are there already, unchanged."


def render_script(_screen: Screen, report: ScriptsReport) -> Iterator[str]:
    """The text of each."""
    for script in report.scripts:
        yield from Path(script.path).read_text("utf-8").splitlines()
