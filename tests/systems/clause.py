"""What a line of docs/systems.md is made of, and the rules that its planted faults give."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from inspector.rules import all_rules
from tests.faults.matrix import MATRIX, parse
from tests.faults.overlay import KERNELS

TESTS = Path(__file__).resolve().parents[1]

Ask = Literal["show", "check", "bad"]
"""``show``: a command must show it. ``check``: it must hold. ``bad``: a state that must be found."""

WHY = ("partly", "not yet", "undecidable", "absent", "legal")
"""How a reason begins. ``partly``: all but what it names. ``not yet``: nothing shows or checks it. ``undecidable``: a
memory image does not hold what would decide it. ``absent``: no supported kernel keeps it. ``legal``: it arises without
a fault."""


@dataclass(frozen=True)
class Clause:
    """One line: what is asked, and what answers it.

    Attributes:
        ask: Whether it is to be shown, to be checked, or a bad state.
        text: What is asked, in a few words.
        commands: What shows it: a command, with its options.
        proofs: Faults of `tests.faults.every.CATALOGUE`, by name, or tests under tests/, as ``file.py::name``.
        reason: Why nothing answers it, or what is left; one of `WHY`, a colon, and the rest.
    """

    ask: Ask
    text: str
    commands: tuple[str, ...]
    proofs: tuple[str, ...]
    reason: str = ""

    @property
    def faults(self) -> list[str]:
        """Its proofs that are planted faults."""
        return [name for name in self.proofs if "::" not in name]

    @property
    def tests(self) -> list[str]:
        """Its proofs that are tests of their own."""
        return [name for name in self.proofs if "::" in name]

    @property
    def rules(self) -> list[str]:
        """Slugs of the rules that find its faults, as the detection matrix and the tests have them."""
        found = [rule for name in self.faults for kernel in KERNELS for rule in _found()[name, kernel]]
        found += [slug for name in self.tests for slug in slugs_of_test(name)]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class System:
    """A part of memory management.

    Attributes:
        id: ``S1`` to ``S29``.
        title: What it is about.
        clauses: What is shown of it, what is checked, what is bad.
    """

    id: str
    title: str
    clauses: tuple[Clause, ...]


def show(text: str, *commands: str, reason: str = "") -> Clause:
    """Something to be shown."""
    return Clause("show", text, commands, (), reason)


def check(text: str, *proofs: str, see: tuple[str, ...] = (), reason: str = "") -> Clause:
    """Something that must hold; ``see`` names commands that show it beside check."""
    return Clause("check", text, ("check", *see) if proofs else see, proofs, reason)


def bad(text: str, *proofs: str, see: tuple[str, ...] = (), reason: str = "") -> Clause:
    """A state that must be found."""
    return Clause("bad", text, ("check", *see) if proofs else see, proofs, reason)


@cache
def _found() -> dict[tuple[str, str], tuple[str, ...]]:
    """The rules of each cell of the detection matrix, by fault and kernel."""
    cells = parse(MATRIX.read_text("utf-8"))
    return {at: tuple(part.split()[0] for part in text.split(", ") if part != "-") for at, text in cells.items()}


def kernels_of(fault: str) -> list[str]:
    """The kernels whose dumps have a place for a fault."""
    return [kernel for kernel in KERNELS if _found()[fault, kernel]]


@cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def slugs_of_test(name: str) -> list[str]:
    """The rules that a test names, or that a plant of a dictionary by rule is for; KeyError or OSError without one."""
    path, _, wanted = name.partition("::")
    module = _module(TESTS / path)
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    nodes: list[ast.AST] = list(ast.walk(functions[wanted])) if wanted in functions else []
    for table in (node for node in ast.walk(module) if isinstance(node, ast.Dict)):
        for key, value in zip(table.keys, table.values, strict=True):
            if key is not None and any(isinstance(n, ast.Name) and n.id == wanted for n in ast.walk(value)):
                nodes.append(key)
    if not nodes:
        raise KeyError(name)
    slugs = {rule.slug for rule in all_rules()}
    words = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [word for word in words if word in slugs]
