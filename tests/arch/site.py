"""The documentation as a site, with MkDocs: ``python -m tests.arch.site FOLDER``.

What links in Markdown lead to, they lead to in the site: the files lie in it as they lie in the repository. A link to a
file or a heading that is not there is an error, and so is a page that the navigation does not have. Nothing of it is
loaded from elsewhere.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.arch.docs import DOCS, GROUPS, ROOT

NAME = "Folioscope"

_HOW_TO = {"A crash dump": "docs/crash.md", "A host that runs": "docs/live.md", "Many vmcores": "docs/fleet.md"}
_REFERENCE = {
    "Commands": "docs/commands.md",
    "Rules": "docs/rules.md",
    "Dataset": "docs/dataset.md",
    "JSON": "docs/json.md",
    "Python": "docs/python.md",
    "In Python": "inspector/manual/python.md",
    "At drgn's prompt": "inspector/manual/drgn.md",
    "Terminal interface": "docs/tui.md",
    "Examples": "docs/examples.md",
    "Catalogue": "docs/catalogue.md",
    "Systems": "docs/systems.md",
    "Windows": "docs/windows.md",
    "Growth": "docs/growth.md",
}
_EXPLANATION = {
    "The model": "docs/model.md",
    "Findings": "inspector/manual/findings.md",
    "Schemes": "inspector/manual/schemes.md",
    "References": "inspector/manual/references.md",
    "Work in flight": "inspector/manual/windows.md",
    "Targets": "inspector/manual/targets.md",
}
_PROJECT = {
    "Changes": "CHANGELOG.md",
    "Architecture": "ARCHITECTURE.md",
    "Contributing": "CONTRIBUTING.md",
    "Tests": "tests/README.md",
    "All pages": "docs/README.md",
}
NAVIGATION: dict[str, str | dict[str, str]] = {
    "Home": "README.md",
    "Tutorial": "docs/tutorial.md",
    "How to": _HOW_TO,
    "Reference": _REFERENCE,
    "Explanation": _EXPLANATION,
    "Project": _PROJECT,
}
"""Titles and pages, in the order of the menu."""

_UNLISTED = (f"docs/{GROUPS}/", "docs/files.md", "inspector/manual/", "tests/")
"""Pages that others link to: the menu does not have them all."""

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_LOADS = re.compile(r"<(script|link|img|iframe)\b[^>]*(?:src|href)=[\"'](?:https?:)?//", re.IGNORECASE)


def anchor(text: str, _separator: str) -> str:
    """The anchor of a heading, as code hosts make it: links in Markdown work on both."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def linked(page: Path) -> Iterator[Path]:
    """Files of the repository that a page links to."""
    for link in _LINK.findall(page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", link):
            name = unquote(link.partition("#")[0])
            if name:
                yield (page.parent / name).resolve()


def pages() -> list[Path]:
    """Every page: those of the menu, those of docs/, and what these link to."""
    waiting = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    found: dict[Path, None] = {}
    while waiting:
        page = waiting.pop(0)
        if page not in found:
            found[page] = None
            waiting += [file for file in linked(page) if file.suffix == ".md" and file.is_relative_to(ROOT)]
    return list(found)


def stage(folder: Path) -> None:
    """Copy pages, and every file that one of them links to."""
    for page in pages():
        for file in (page, *linked(page)):
            if file.is_relative_to(ROOT) and file.is_file():
                place = folder / file.relative_to(ROOT)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
            elif file.is_dir():
                # A folder of sources: what is in it is said in its page, or by its name.
                index = folder / file.relative_to(ROOT) / "index.md"
                index.parent.mkdir(parents=True, exist_ok=True)
                if not (file / "README.md").exists():
                    names = "\n".join(f"* {path.name}" for path in sorted(file.iterdir()) if path.name[0] not in "._")
                    index.write_text(f"# {file.relative_to(ROOT)}\n\n{names}\n", "utf-8")


def _navigation() -> list[Any]:
    return [
        {title: [{name: page} for name, page in where.items()] if isinstance(where, dict) else where}
        for title, where in NAVIGATION.items()
    ]


class _Remarks(logging.Handler):
    """What MkDocs remarks."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


def make_site(out: Path) -> list[str]:
    """Build it.

    Returns:
        What is wrong with it: links that lead nowhere, pages without a place, what would be loaded from elsewhere.
    """
    remarks = _Remarks()
    log = logging.getLogger("mkdocs")
    log.addHandler(remarks)
    try:
        with tempfile.TemporaryDirectory() as folder:
            stage(Path(folder, "pages"))
            settings = Path(folder, "mkdocs.yml")
            settings.write_text(f"site_name: {NAME}\n", "utf-8")
            checks = {"not_found": "warn", "absolute_links": "warn", "anchors": "warn", "unrecognized_links": "warn"}
            config = load_config(
                config_file=str(settings),
                docs_dir=str(Path(folder, "pages")),
                site_dir=str(out),
                site_name=NAME,
                nav=_navigation(),
                use_directory_urls=False,
                theme={"name": "mkdocs", "color_mode": "auto", "highlightjs": False, "user_color_mode_toggle": True},
                markdown_extensions=["tables", "fenced_code", {"toc": {"slugify": anchor}}],
                validation={"links": checks, "nav": {"omitted_files": "info", "not_found": "warn"}},
                plugins=["search"],
            )
            build(config)
    finally:
        log.removeHandler(remarks)
    wrong = list(remarks.heard)
    listed = {
        page for where in NAVIGATION.values() for page in (where.values() if isinstance(where, dict) else [where])
    }
    wrong += [
        f"{page} is not in the menu"
        for page in (path.relative_to(ROOT).as_posix() for path in pages())
        if page not in listed and not page.startswith(_UNLISTED)
    ]
    for page in out.rglob("*.html"):
        wrong += [f"{page.relative_to(out)} loads {found[0]}" for found in _LOADS.finditer(page.read_text("utf-8"))]
    return wrong


if __name__ == "__main__":
    where = Path(sys.argv[1]).absolute()
    problems = make_site(where)
    for problem in problems:
        print(problem)
    print(f"{len(list(where.rglob('*.html')))} pages in {where}")
    sys.exit(1 if problems else 0)
