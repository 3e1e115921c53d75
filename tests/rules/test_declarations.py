"""A rule is known in one place: its declaration. Nothing else lists slugs, groups or kinds of subjects."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from inspector import subjects
from inspector.cli import main
from inspector.layout.flags import PAGE_TYPES
from inspector.rules import Rule, all_rules, find_rule, select_rules
from inspector.rules.registry import Phase, in_order
from inspector.snapshot import Snapshot
from inspector.subjects import SubjectKind

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "inspector" / "rules"
SUFFIXES = {"mismatch", "low", "high", "damaged", "missing", "unexpected", "invalid", "unreachable"}
SECTIONS = ["Invariant", "Why", "Consequence", "Exceptions", "See also"]
DECORATORS = {"rule", "page_rule", "entry_rule", "nonpresent_rule"}


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the inspector and the TUI."""
    paths = [path for room in ("inspector", "tui") for path in sorted((ROOT / room).rglob("*.py"))]
    return {path: ast.parse(path.read_text()) for path in paths}


def prose(tree: ast.Module) -> set[int]:
    """Strings that stand alone: docstrings of modules, classes, functions and attributes."""
    return {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}


def declarations(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in DECORATORS:
                    yield call


def declared(tree: ast.Module) -> set[int]:
    """The strings of declarations that may be slugs: the rule's own, those in ``after`` and the one in ``was``."""
    out: set[int] = set()
    for call in declarations(tree):
        out.add(id(call.args[0]))
        for keyword in call.keywords:
            if keyword.arg in ("after", "was"):
                out |= {id(node) for node in ast.walk(keyword.value)}
    return out


def strings(tree: ast.Module, but: AbstractSet[int] = frozenset()) -> Iterator[tuple[int, str]]:
    """Line and value of string literals that are no docstrings and none of the nodes ``but``."""
    left_out = prose(tree) | but
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


def lists_of_strings(tree: ast.Module) -> Iterator[tuple[int, list[str]]]:
    """Line and strings of every list, tuple, set and dict that is written down with at least two strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            parts = node.keys if isinstance(node, ast.Dict) else node.elts
            words = [x.value for x in parts if isinstance(x, ast.Constant) and isinstance(x.value, str)]
            if len(words) > 1 and len(words) == len(parts):
                yield node.lineno, words


def where(path: Path, line: int, what: object) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def kinds() -> set[str]:
    return {kind.name for kind in vars(subjects).values() if isinstance(kind, SubjectKind)}


def test_every_rule_is_declared_by_a_decorator() -> None:
    slugs = [call.args[0] for tree in modules().values() for call in declarations(tree)]
    assert sorted(ast.literal_eval(x) for x in slugs) == sorted(r.slug for r in all_rules())


def test_no_slug_is_written_outside_of_declarations() -> None:
    known = sorted({name for r in all_rules() for name in (r.slug, r.was) if name}, key=len, reverse=True)
    slug = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, known))})(?![\w-])")
    found = []
    for path, tree in modules().items():
        for line, text in strings(tree, but=declared(tree)):
            found += [where(path, line, name) for name in slug.findall(text)]
    assert found == []


def test_no_group_is_listed_outside_of_declarations() -> None:
    """Groups share short words with commands, kinds of memory and page types; what is joined by a hyphen is a group."""
    groups = {r.group for r in all_rules()}
    unmistakable = {name for name in groups if "-" in name}
    found = []
    for path, tree in modules().items():
        if RULES in path.parents:
            continue
        found += [where(path, line, text) for line, text in strings(tree) if text in unmistakable]
        found += [
            where(path, line, words)
            for line, words in lists_of_strings(tree)
            if set(words) <= groups and not set(words) <= set(PAGE_TYPES)
        ]
        found += [where(path, line, names) for line, names in compared(tree, "group") if names & groups]
    assert found == []


def compared(tree: ast.Module, attribute: str) -> Iterator[tuple[int, set[str]]]:
    """Line and strings of each comparison of a variable or attribute of some name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            named = {x.attr for x in sides if isinstance(x, ast.Attribute)} | {
                x.id for x in sides if isinstance(x, ast.Name)
            }
            words = {x.value for side in sides for x in ast.walk(side) if isinstance(x, ast.Constant) and x.value != ""}
            if attribute in named and words:
                yield node.lineno, {x for x in words if isinstance(x, str)}


def test_kinds_of_subjects_are_declared_in_one_module() -> None:
    found = []
    for path, tree in modules().items():
        if path.name == "subjects.py":
            continue
        found += [
            where(path, node.lineno, "SubjectKind()")
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SubjectKind"
        ]
        found += [where(path, line, names) for line, names in compared(tree, "kind") if names & kinds()]
        if RULES not in path.parents:
            # What rules observe has names that kinds have too.
            found += [where(path, line, words) for line, words in lists_of_strings(tree) if set(words) <= kinds()]
    assert found == []


def test_slugs_end_in_one_of_eight_words() -> None:
    assert len(SUFFIXES) <= 8
    assert {r.slug.rsplit("-", 1)[-1] for r in all_rules()} <= SUFFIXES


def test_a_renamed_slug_selects_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    renamed = [r for r in all_rules() if r.was]
    assert len({r.was for r in renamed}) == len(renamed) > 0
    assert not {r.was for r in renamed} & {r.slug for r in all_rules()}
    assert not {r.was for r in renamed} & {r.group for r in all_rules()}
    for r in renamed:
        assert find_rule(r.was) is r
        assert select_rules([r.was]) == [r]
        assert main(["rules", r.was]) == 0
        assert r.slug in capsys.readouterr().out


def made_up(slug: str, phase: Phase, *after: str) -> Rule:
    return replace(all_rules()[0], slug=slug, phase=phase, after=after)


def test_order_is_by_phase_then_by_after_then_by_slug() -> None:
    rules = [
        made_up("a", Phase.TOTALS),
        made_up("b", Phase.WORDS, "d"),
        made_up("c", Phase.WORDS),
        made_up("d", Phase.WORDS),
        made_up("e", Phase.SUMS, "b"),
    ]
    assert [r.slug for r in in_order(rules)] == ["c", "d", "b", "e", "a"]
    assert in_order(reversed(rules)) == in_order(rules)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([made_up("a", Phase.WORDS, "b"), made_up("b", Phase.WORDS, "a")], "a, b"),
        (
            [made_up("a", Phase.SUMS, "b"), made_up("b", Phase.SUMS, "c"), made_up("c", Phase.SUMS, "a")],
            "wait for one another: a, b, c",
        ),
        ([made_up("a", Phase.WORDS, "a")], "wait for one another: a"),
        ([made_up("a", Phase.WORDS, "b"), made_up("b", Phase.SUMS)], "of a later phase"),
        ([made_up("a", Phase.WORDS, "no-such-rule")], "no-such-rule, which is no rule"),
    ],
)
def test_impossible_orders_are_refused(rules: list[Rule], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        in_order(rules)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.slug)
def test_every_page_has_a_title_and_five_sections(rule: Rule) -> None:
    title, blank, *rest = rule.page.split("\n")
    assert title.endswith(".")
    assert len(title) <= 100
    # One sentence: no full stop, colon or semicolon ends another one before it.
    assert not re.search(r"[.!?;] [A-Z]", title)
    assert blank == ""
    assert [m[1] for line in rest if (m := re.match(r"([A-Z][a-z]+(?: [a-z]+)?): ", line))] == SECTIONS
    assert all(line.startswith((*(f"{x}: " for x in SECTIONS), "    ")) for line in rest)


def test_every_kind_of_missing_thing_has_the_table_that_counts_it() -> None:
    counted = {
        call.args[0].value
        for tree in modules().values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "add"
        and ast.unparse(call.func.value).endswith("missing")
        and isinstance(call.args[0], ast.Constant)
    }
    assert counted == set(Snapshot._READ_BY)
    assert all(hasattr(Snapshot, table) for table in Snapshot._READ_BY.values())
