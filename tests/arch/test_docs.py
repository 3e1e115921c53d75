"""README.md and docs/ agree with the code, and their links lead somewhere."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from pathlib import Path

import pytest

import inspector
from inspector.errors import Exit
from tests.arch import man
from tests.arch.docs import DOCS, README, ROOT, TRANSCRIBED, first_sentence, pages, with_transcripts
from tests.arch.docs import WRITTEN as HAND_WRITTEN

WRITTEN = [README, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
FOLDERS = (DOCS, ROOT / "inspector/manual", ROOT / "tests")
LINKED = [*WRITTEN, *(path for folder in FOLDERS for path in sorted(folder.rglob("*.md")))]
AGAIN = "make it anew with: make docs"


@pytest.mark.long
@pytest.mark.parametrize("page", TRANSCRIBED, ids=lambda path: path.stem)
def test_transcripts_are_current(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.count("$ folioscope") >= 2
    assert text == with_transcripts(text), AGAIN


def test_made_pages_are_current() -> None:
    made = pages()
    assert sorted(made) == sorted(
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if path.relative_to(DOCS).as_posix() not in ("README.md", *HAND_WRITTEN)
    )
    stale = [name for name, text in made.items() if (DOCS / name).read_text("utf-8") != text]
    assert not stale, AGAIN


def test_manual_pages_are_current() -> None:
    made = man.man_pages()
    assert {path.name: path.read_text("utf-8") for path in man.MAN.iterdir()} == made, AGAIN


def test_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 10_000


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    dead = [link for link in _links(page.read_text("utf-8")) if not _resolves(page, link)]
    assert not dead


def _links(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def _resolves(page: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    name, _, anchor = link.partition("#")
    path = page.parent / name if name else page
    if not path.exists():
        return False
    return not anchor or anchor in _anchors(path.read_text("utf-8"))


def _anchors(text: str) -> set[str]:
    """Anchors of headings as GitHub names them."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links every page of docs/ but those of single groups of rules, and every page of the manual."""
    linked = {(DOCS / link).resolve() for link in _links((DOCS / "README.md").read_text("utf-8"))}
    there = {path for folder in (DOCS, ROOT / "inspector/manual") for path in folder.glob("*.md")}
    assert there - {DOCS / "README.md", ROOT / "inspector/manual/json.md"} <= linked


def test_every_module_says_what_it_is_for() -> None:
    for package in ("inspector", "tui"):
        for path in (ROOT / package).rglob("*.py"):
            assert first_sentence(path).endswith("."), path


def test_every_exit_code_is_documented() -> None:
    table = re.findall(r"^\| (\d+) \| ", README.read_text("utf-8"), re.MULTILINE)
    assert {int(code) for code in table} == {*map(int, Exit), 130, 141}


def test_every_command_is_shown() -> None:
    from inspector.cli import COMMANDS

    readme = README.read_text("utf-8")
    assert [x for x in COMMANDS if f"`{x}" not in readme and f"folioscope {x}" not in readme] == []


def test_every_rule_and_former_name_is_listed() -> None:
    from inspector.rules import all_rules

    table = (DOCS / "rules.md").read_text("utf-8")
    names = [name for rule in all_rules() for name in (rule.slug, rule.was) if name]
    assert [name for name in names if f"`{name}`" not in table] == []


EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.sub(r"\W+", "-", text[:40]).strip("-"))
def test_examples_of_contributing_use_what_exists(example: str) -> None:
    """Every name that an example neither defines nor takes as an argument is one of the project or of its libraries."""
    tree = ast.parse(textwrap.dedent(example))
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    defined |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    defined |= {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    own = set(re.findall(r"^(?:class|def) (\w+)", "\n".join(EXAMPLES), re.MULTILINE))
    code = "\n".join(
        p.read_text("utf-8") for folder in ("inspector", "tests/faults") for p in (ROOT / folder).rglob("*.py")
    )
    unknown = used - defined - own - set(dir(builtins)) - {"np", "msgspec", "click"}
    assert [
        name
        for name in unknown
        if not re.search(rf"\bimport\b.*\b{name}\b|^(def|class) {name}\b|^    {name},$", code, re.M)
    ] == []


def test_readme_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(
        r"(?:^    .*\n)+", README.read_text("utf-8").partition("all that a script needs")[2], re.MULTILINE
    )
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"inspector": inspector}
    exec(textwrap.dedent(code[0]), names)
    assert "folio 0x18400, order 9" in capsys.readouterr().out
    assert names["anonymous"] > 0  # type: ignore[operator]


def test_example_of_the_manual_is_that_of_the_readme() -> None:
    manual = (ROOT / "inspector/manual/findings.md").read_text("utf-8")
    block = re.search(r"(?:^    .+\n)+", manual, re.MULTILINE)
    assert block is not None
    lines = [line for line in textwrap.dedent(block[0]).splitlines() if "look:" not in line]
    assert len(lines) > 5
    assert [line for line in lines if line not in README.read_text("utf-8").splitlines()] == []


def test_manual_names_every_holder_of_references() -> None:
    from inspector.walk.references import TERMS

    manual = (ROOT / "inspector/manual/references.md").read_text("utf-8")
    assert [label for _, _, label in TERMS if label not in manual] == []
