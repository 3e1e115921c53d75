"""One name, one thing: a public class or type name exists once in inspector and tui."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_CAMEL = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")


def public_types(module: ast.Module) -> Iterator[str]:
    """Names of the classes and of the types given a name by assignment at the top of a module."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (x.id for x in node.targets if isinstance(x, ast.Name) and _CAMEL.fullmatch(x.id))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _CAMEL.fullmatch(node.target.id):
            yield node.target.id


def test_a_type_name_exists_once() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for folder in ("inspector", "tui"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in public_types(ast.parse(path.read_text("utf-8"))):
                if not name.startswith("_"):
                    found[name].append(path.relative_to(ROOT).as_posix())
    assert len(found) > 300
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert twice == {}
