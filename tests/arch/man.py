"""Manual pages for man(1), made from the help of the commands: ``man/*.1``, which an install puts under share/man."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

MAN = Path(__file__).resolve().parents[2] / "man"
SECTION = "1"


def man_pages() -> dict[str, str]:
    """Every page by the name of its file."""
    from inspector.cli import COMMANDS, cli

    made = {}
    with click.Context(cli, info_name="folioscope") as above:
        made[f"folioscope.{SECTION}"] = _page("folioscope", _first_line(cli.help or ""), cli, above, list(COMMANDS))
        for name, line in COMMANDS.items():
            command = cli.get_command(above, name)
            assert command is not None
            with click.Context(command, above, info_name=name) as context:
                made[f"folioscope-{name}.{SECTION}"] = _page(f"folioscope-{name}", line, command, context, [])
    return made


def _page(name: str, line: str, command: click.Command, context: click.Context, others: list[str]) -> str:
    from inspector.cli.examples import EXAMPLES

    out = [f'.TH "{name.upper()}" {SECTION} "" "folioscope" "User Commands"']
    out += [".SH NAME", f"{_escaped(name)} \\- {_escaped(line.rstrip('.'))}"]
    usage = command.get_usage(context).removeprefix("Usage: ")
    out += [".SH SYNOPSIS", f".B {_escaped(' '.join(usage.split()))}"]
    out += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    out += [".SH OPTIONS"]
    for parameter in command.get_params(context):
        record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(context)
        if record is not None:
            out += [".TP", f".B {_escaped(record[0])}", _escaped(record[1])]
    if command.epilog:
        out += [".SH NOTES", *_paragraphs(command.epilog)]
    if EXAMPLES.get(command.name or ""):
        out += [".SH EXAMPLES"]
        for words in EXAMPLES[command.name or ""]:
            out += [".PP", ".nf", f"folioscope {_escaped(words)}", ".fi"]
    if not others:
        out += [".SH EXIT STATUS", "0 consistent, or shown; 1 findings; 2 wrong command line; 3 the target cannot be"]
        out += ["opened or read; 4 nothing wrong found, but data is missing."]
    out += [".SH SEE ALSO"]
    beside = [f"folioscope-{other}" for other in others] or ["folioscope"]
    out.append(", ".join(f"\\fB{_escaped(other)}\\fR({SECTION})" for other in beside))
    return "\n".join(out) + "\n"


def _first_line(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split())


def _paragraphs(text: str) -> list[str]:
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        as_is = paragraph.startswith("\b")
        lines = [line.strip() for line in paragraph.lstrip("\b\n").splitlines()]
        out += [".PP", ".nf", *map(_escaped, lines), ".fi"] if as_is else [".PP", _escaped(" ".join(lines))]
    return out


def _escaped(text: Any) -> str:
    made = str(text).replace("\\", "\\\\").replace("-", "\\-")
    return f"\\&{made}" if made[:1] in (".", "'") else made


def write() -> None:
    """Write those that differ, and remove those of commands that are no more."""
    MAN.mkdir(exist_ok=True)
    made = man_pages()
    for path in MAN.glob("*"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = MAN / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
