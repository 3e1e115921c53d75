"""The parts of the README that are made from the code; ``python -m tests.arch.readme_map`` writes them anew."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def first_sentence(path: Path) -> str:
    """Of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n", 1)[0].split())


def file_map() -> str:
    """Every module of the inspector with what it is for."""
    return _modules("inspector")


def tui_map() -> str:
    """Every module of the terminal interface with what it is for."""
    return _modules("tui")


def _modules(package: str) -> str:
    lines = ["| module | what it says |", "| --- | --- |"]
    for path in sorted((ROOT / package).rglob("*.py"), key=_order):
        name = path.relative_to(ROOT / package).as_posix()
        lines.append(f"| `{name}` | {first_sentence(path)} |")
    return "\n".join(lines)


def _order(path: Path) -> tuple[int, str, bool, str]:
    relative = Path(*path.relative_to(ROOT).parts[1:])
    folder = "" if len(relative.parts) == 1 else relative.parts[0]
    return len(relative.parts), folder, path.name != "__init__.py", path.name


def rule_index() -> str:
    """Every rule with its title, by group."""
    from inspector.report.rules import build_rules
    from inspector.rules import all_rules

    lines = ["| rule | found | kernels |", "| --- | --- | --- |"]
    listed = sorted(build_rules(all_rules()).rules, key=lambda r: (r.group, r.rule))
    lines += [f"| `{rule.rule}` | {rule.title} | {rule.kernels} |" for rule in listed]
    return "\n".join(lines)


PARTS = {"files": file_map, "tui-files": tui_map, "rules": rule_index}

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


def written(readme: str) -> str:
    """The README with its made parts made anew: file map, rule index, transcripts."""
    for name, make in PARTS.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = readme.partition(opening)
        _, found, tail = rest.partition(closing)
        if not found:
            msg = f"README.md has no place for {name}"
            raise ValueError(msg)
        readme = f"{head}{opening}{make()}\n{closing}{tail}"

    def run(block: re.Match[str]) -> str:
        words, comment = block[1], block[2] or ""
        return f"```\n$ folioscope {words}{comment}\n{transcript(words, planted=bool(comment))}```"

    return _TRANSCRIPT.sub(run, readme)


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
