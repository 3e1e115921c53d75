"""The pages under docs/ and the transcripts in README.md, made from the code: ``python -m tests.arch.docs``."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from tests.arch import man

if TYPE_CHECKING:
    from inspector.report.rules import RuleInfo

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
MADE_BY = "<!-- Made by `make docs`; edit the code instead. -->\n"

WRITTEN = ("tui.md", "examples.md", "growth.md", "tutorial.md", "crash.md", "live.md", "fleet.md", "model.md")
"""Pages under docs/ that are written by hand, beside its index."""

GROUPS = "rules"
"""The folder under docs/ with a page for each group of rules."""


def pages() -> dict[str, str]:
    """Every page under docs/ that is made whole, by its path from there."""
    made = {
        "rules.md": rules_page(),
        "catalogue.md": catalogue_page(),
        "systems.md": systems_page(),
        "windows.md": windows_page(),
        "files.md": files_page(),
        "commands.md": commands_page(),
        "json.md": json_page(),
        "dataset.md": dataset_page(),
        "python.md": python_page(),
    }
    made |= {f"{GROUPS}/{group}.md": group_page(group, rules) for group, rules in _groups()}
    return {name: f"{MADE_BY}{text.rstrip()}\n" for name, text in made.items()}


# Rules


def _groups() -> list[tuple[str, list[RuleInfo]]]:
    from inspector.report.rules import build_rules
    from inspector.rules import all_rules

    listed = sorted(build_rules(all_rules()).rules, key=lambda r: (r.group, r.rule))
    return [(group, list(rules)) for group, rules in itertools.groupby(listed, key=lambda r: r.group)]


def rules_page() -> str:
    """All rules by group: title, severity, kernels, former name; each linked to its manual page."""
    groups = _groups()
    lines = [
        "# Rules",
        "",
        f"The {sum(len(rules) for _, rules in groups)} rules that `folioscope check` applies, in {len(groups)} groups. "
        "`check -r NAME` takes the name of a rule or of a group.",
        "A rule's former name selects it as well. What must hold, and which rules decide it: "
        "[catalogue](catalogue.md).",
        "The manual pages behind the links are those of `folioscope rules RULE`;",
        "how to read a finding: [findings](../inspector/manual/findings.md).",
    ]
    for group, rules in groups:
        lines += ["", f"## {group}", "", "| rule | finding | severity | kernels | former name |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for rule in rules:
            former = f"`{rule.was}`" if rule.was else ""
            link = _rule_link(rule.rule, group)
            lines.append(f"| {link} | {_cell(rule.title)} | {rule.severity} | {rule.kernels} | {former} |")
    return "\n".join(lines)


def group_page(group: str, rules: list[RuleInfo]) -> str:
    """The manual pages of a group's rules."""
    from inspector.report.rules import rule_sections

    lines = [f"# Rules of {group}", "", f"[All rules](../{GROUPS}.md)"]
    for rule in rules:
        facts = [f"severity {rule.severity}, {rule.exactness}", f"kernels: {rule.kernels}"]
        facts += [f"formerly `{rule.was}`"] * bool(rule.was)
        head = " ".join(rule.page.partition("\n\n")[0].split())
        lines += ["", f"## {rule.rule}", "", _prose(head), "", f"*{'; '.join(facts)}*"]
        for name, (first, *others) in rule_sections(rule.page):
            lines += ["", _prose(first, f"**{name}**: ")]
            lines += [line for text in others for line in ("", _prose(text))]
        if rule.catalogue:
            lines += ["", "**Decides**, in the [catalogue](../catalogue.md):", ""]
            lines += [f"* {line.id}: {code_marked(line.title)}" for line in rule.catalogue]
    return "\n".join(lines)


def windows_page() -> str:
    """Every window, and the gaps between the kernel's stores that the windows of VMAs and mms are made of."""
    from inspector.windows.catalogue import WINDOWS
    from inspector.windows.gaps import GAPS, SOURCES

    lines = [
        "# Windows",
        "",
        "Stretches of kernel code in which counters, page tables and lists legally differ: "
        "[what they explain](../inspector/manual/windows.md). A task whose stack has one of the functions is in the "
        "window.",
        "",
        "| window | what is going on | what may differ | of |",
        "| --- | --- | --- | --- |",
    ]
    for window in WINDOWS:
        differs = ", ".join(effect.value for effect in window.effects)
        lines.append(f"| {window.id} | {_cell(window.title)} | {differs} | {window.scope.value} |")
    lines += [
        "",
        "## Gaps",
        "",
        f"The {len(GAPS)} gaps that the windows of work on VMAs and mms are made of: a function of the kernel, the "
        "last store before it and the first behind it.",
        "",
        "| window | function | kernels | after | before | what may differ | in |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for gap in GAPS:
        files = ", ".join(dict.fromkeys(file for file in SOURCES[gap.function] if file))
        differs = ", ".join(sorted(effect.value for effect in gap.differs))
        cells = (gap.window, f"`{gap.function}` ({files})", gap.kernels.replace(" ", ", "), gap.after, gap.before)
        lines.append(f"| {' | '.join(map(_cell, cells))} | {differs} | {gap.whose.value} |")
    return "\n".join(lines)


def catalogue_page() -> str:
    """What must hold, line by line, with the rules that decide it."""
    from inspector.report.catalogue import build_catalogue
    from inspector.rules import all_rules
    from inspector.rules.catalogue import catalogue

    group_of = {rule.slug: rule.group for rule in all_rules()}
    lines = [
        "# Catalogue",
        "",
        "What must hold in a kernel's memory, and the [rules](rules.md) that decide it; `folioscope rules --catalogue` "
        "prints the same.",
        "A line is decided, decided in part, not decided yet (later), or cannot be decided from a memory image.",
    ]
    for family, found in itertools.groupby(build_catalogue(catalogue()).lines, key=lambda line: line.family):
        lines += ["", f"## {family}", "", "| id | what must hold | state | rules | remarks |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for line in found:
            rules = ", ".join(_rule_link(slug, group_of[slug]) for slug in line.rules)
            lines.append(f"| {line.id} | {_cell(line.title)} | {line.state} | {rules} | {_cell(line.reason)} |")
    return "\n".join(lines)


def systems_page() -> str:
    """What is to be shown, checked and found of each system, with commands, rules and the faults that prove them."""
    from inspector.rules import all_rules
    from tests.faults.overlay import KERNELS
    from tests.systems.clause import kernels_of
    from tests.systems.table import SYSTEMS

    group_of = {rule.slug: rule.group for rule in all_rules()}
    clauses = [clause for system in SYSTEMS for clause in system.clauses]
    states = [clause.reason.partition(":")[0] for clause in clauses]
    counts = ", ".join(f"{states.count(word)} {said}" for word, said in _STATES)
    lines = [
        "# Systems",
        "",
        f"Memory management in {len(SYSTEMS)} parts: what a command must show of each (show), what must hold (check), "
        "which states must be found (bad);",
        "the [commands](commands.md) that show it, the [rules](rules.md) that decide it, and the planted faults",
        "([matrix](../tests/faults/MATRIX.md)) or tests that prove these rules.",
        "",
        f"Of {len(clauses)} lines {counts}.",
    ]
    for system in SYSTEMS:
        lines += ["", f"## {system.id}: {system.title}", ""]
        lines += ["| asked | what | commands | rules | proved by | remarks |", "| --- | --- | --- | --- | --- | --- |"]
        for clause in system.clauses:
            commands = ", ".join(
                f"[`{line}`](commands.md#{line.partition(' ')[0]})" for line in dict.fromkeys(clause.commands)
            )
            rules = ", ".join(_rule_link(slug, group_of[slug]) for slug in clause.rules)
            proofs = []
            for name in clause.faults:
                kernels = kernels_of(name)
                proofs.append(f"`{name}`" + (f" ({', '.join(kernels)})" if len(kernels) < len(KERNELS) else ""))
            proofs += [f"[`{name.partition('::')[2]}`](../tests/{name.partition('::')[0]})" for name in clause.tests]
            cells = (clause.ask, _cell(clause.text), commands, rules, ", ".join(proofs), _cell(clause.reason))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_STATES = (
    ("", "are answered whole"),
    ("partly", "in part"),
    ("legal", "are no fault"),
    ("undecidable", "cannot be decided from a memory image"),
    ("absent", "are of other architectures"),
    ("not yet", "are not answered yet"),
)
"""How the reasons of clauses begin, in words."""


def _rule_link(slug: str, group: str) -> str:
    return f"[`{slug}`]({GROUPS}/{group}.md#{slug})"


def _prose(text: str, before: str = "") -> str:
    return textwrap.fill(before + code_marked(text), 120, break_long_words=False, break_on_hyphens=False)


def code_marked(text: str) -> str:
    """A docstring's prose as Markdown: words of C that are not in backticks yet are put there."""
    parts = text.replace("``", "`").split("`")
    parts[::2] = [re.sub(r"\S+", _marked_word, part) for part in parts[::2]]
    return "`".join(parts)


def _marked_word(word: re.Match[str]) -> str:
    found = re.fullmatch(r"([(\"']*)(.*?)((?:'s)?[.,;:\"']*|(?<!\()\)[.,;:]*)", word[0])
    if found is None or len(found[2]) < 2 or not re.search(r"[_*<|]|->|\(\)", found[2]):
        return word[0]
    return f"{found[1]}`{found[2]}`{found[3]}"


def _cell(text: str) -> str:
    return code_marked(text).replace("|", "\\|")


# Files


def first_sentence(path: Path) -> str:
    """Of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n", 1)[0].split())


def files_page() -> str:
    """Every module of both packages with what it is for, package by package."""
    lines = [
        "# Files",
        "",
        "Every module with the first sentence of its docstring. What each package owns and may import is in "
        "[ARCHITECTURE.md](../ARCHITECTURE.md).",
    ]
    for package in ("inspector", "tui"):
        for folder in sorted({path.parent for path in (ROOT / package).rglob("*.py")}):
            name = folder.relative_to(ROOT).as_posix()
            lines += ["", f"## {name}", "", first_sentence(folder / "__init__.py"), ""]
            modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
            if modules:
                lines += ["| module | contents |", "| --- | --- |"]
            for path in modules:
                link = f"[`{path.name}`](../{name}/{path.name})"
                lines.append(f"| {link} | {_cell(first_sentence(path))} |")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


# Commands


def commands_page() -> str:
    """The help of every command; the options that all share once."""
    from inspector.cli import COMMANDS, cli

    shared = ""
    lines: list[str] = []
    for name in COMMANDS:
        with click.Context(cli, info_name="folioscope") as above:
            command = cli.get_command(above, name)
            assert command is not None
            with click.Context(command, above, info_name=name, terminal_width=100) as context:
                text = command.get_help(context)
        shared, own = _without_shared(text)
        lines += ["", f"## {name}", "", "```", own, "```"]
    head = [
        "# Commands",
        "",
        "What `folioscope COMMAND --help` prints. Every command also takes these options:",
        "",
        "```",
        shared,
        "```",
    ]
    return "\n".join(head + lines)


def _without_shared(text: str) -> tuple[str, str]:
    """The section of shared options, and the help without it."""
    head, title, rest = text.partition("Target and output:\n")
    shared, _, tail = rest.partition("\n\n")
    return (title + shared).rstrip(), f"{head}{tail}".rstrip()


def json_page() -> str:
    """The manual's page about JSON, and the objects that each command prints with their members."""
    from inspector.cli import COMMANDS, cli

    lines = [
        (ROOT / "inspector/manual/json.md").read_text("utf-8").rstrip(),
        "",
        "## Objects",
        "",
        "Members that may be missing are in brackets. `folioscope COMMAND --schema` prints the types.",
        "",
        "| command | schema | members |",
        "| --- | --- | --- |",
    ]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        for schema, members in _objects(getattr(command, "schemas", ())):
            lines.append(f"| `{name}` | `{schema}` | {', '.join(members)} |")
    return "\n".join(lines)


def _objects(classes: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The schema name and the members of each kind of object."""
    from inspector.findings import SCHEMA
    from inspector.report.schema import json_schema

    for name in classes:
        whole: dict[str, Any] = json.loads(json_schema([name]))
        found: dict[str, Any] = whole["$defs"][name.partition(":")[2]]
        properties, required = found["properties"], set(found.get("required", ()))
        schema = properties["schema"].get("enum", [SCHEMA])[0]
        yield schema, [f"`{m}`" if m in required else f"[`{m}`]" for m in properties]


def dataset_page() -> str:
    """The manual's page about many vmcores, and the tables of the dataset with their columns."""
    from inspector.fleet.schema import TABLES, VERSION

    lines = [
        (ROOT / "inspector/manual/fleet.md").read_text("utf-8").rstrip(),
        "",
        "## Tables",
        "",
        f"Of version {VERSION}.",
    ]
    for table in TABLES:
        where = "kernel=RELEASE/" if table.by_kernel else ""
        lines += ["", f"### {table.name}", "", f"{table.means} `DIR/{table.name}/{where}*.parquet`", ""]
        lines += ["| column | type | what it is | since |", "| --- | --- | --- | --- |"]
        lines += [f"| `{c.name}` | {c.type} | {_cell(c.means)} | {c.since} |" for c in table.columns]
    return "\n".join(lines)


def python_page() -> str:
    """The public names of the package with what each is, and the scripts that use them."""
    import inspector
    from inspector.check.confirm import check_target

    title, _, text = (inspector.__doc__ or "").strip().partition("\n\n")
    lines = ["# Python", "", title, "", text, "", "| name | what it is |", "| --- | --- |"]
    for name in inspector.__all__:
        found = getattr(inspector, name)
        if isinstance(found, ModuleType):  # the package that can be called
            found = check_target
        sentence = " ".join((found.__doc__ or "").split("\n\n")[0].split())
        lines.append(f"| [`{name}`](../{found.__module__.replace('.', '/')}.py) | {_cell(sentence)} |")
    lines += ["", "Scripts for drgn's prompt:", "", "| script | what it shows |", "| --- | --- |"]
    for path in sorted((ROOT / "scripts").glob("*.py")):
        lines.append(f"| [`{path.name}`](../scripts/{path.name}) | {_cell(first_sentence(path))} |")
    return "\n".join(lines)


# Transcripts

_TRANSCRIPT = re.compile(r"^```\n\$ folioscope ([^#\n]+)(#[^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def transcript(words: str, *, planted: bool) -> str:
    """What a command prints in the root of the repository; with ``planted`` one counter is changed beforehand."""
    arguments = shlex.split(words)
    core = next(word for word in arguments if word.endswith(".kdump"))
    code = (
        "import sys, inspector.cli.opening as o\n"
        "from inspector.cli import main\nfrom tests.cli.planting import raised_mapcount\n"
        f"o.open_core = raised_mapcount({core!r}) if {planted} else o.open_core\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout


def with_transcripts(page: str) -> str:
    """A page with its transcripts made anew: each block that begins with ``$ folioscope``.

    A comment behind the command means that one counter is changed beforehand.
    """

    def run(block: re.Match[str]) -> str:
        words, comment = block[1], block[2] or ""
        return f"```\n$ folioscope {words}{comment}\n{transcript(words, planted=bool(comment))}```"

    return _TRANSCRIPT.sub(run, page)


TRANSCRIBED = (README, DOCS / "examples.md", DOCS / "tutorial.md")
"""Pages written by hand whose transcripts are made."""


def write() -> None:
    """Write everything anew; pages of groups that are gone are removed."""
    made = pages()
    for path in (DOCS / GROUPS).glob("*.md"):
        if path.relative_to(DOCS).as_posix() not in made:
            path.unlink()
    for name, text in made.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    for page in TRANSCRIBED:
        page.write_text(with_transcripts(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    write()
    man.write()
