"""The words of the project: what the glossary of CONTRIBUTING.md replaces appears nowhere in the code or the pages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arch.docs import DOCS, ROOT

INSTEAD = {
    "road": r"roads?",
    "census": r"census(es)?",
    "sort": r"(a|an|one|of|every|each|what|which|another|same|this|some|any|no|two|its|other|right|wrong) sorts?"
    r"|\w+_sorts?|sorts? of|sorts?(?= =|: )",
    "stands": r"stands?|standing|stood",
    "told": r"tells?|telling|told",
    "lent": r"lends?|lent",
    "nobody": r"(no|some|any|every)body|whoever",
    "looked at": r"look(s|ed|ing)? at",
    "books": r"books",
    "truth": r"truths?",
    "admits": r"admit(s|ted)?",
    "accuses": r"accus(es?|ed|ing|ations?)",
    "blames": r"blam(es?|ed|ing)|guilty",
    "speaks": r"speaks?|speaking|spoken",
    "said": r"said",
    "held against": r"h(e|o)ld against|held \w+ against",
    "suspicion": r"suspicions?",
    "that is none": r"(that|which|it) (is|are) none",
    "Silent when": r"(?m:^ +)(True|Then|Silent when|Look further):",
}
"""A word of the glossary's left column, and how it is found in text; letters around it make it another word."""

ALLOWED = (
    r"\.tell\(",  # of a file
    r"action_sort",  # of Textual: the action of a key
    r'was="[^"]*"',  # a rule's former name
)
"""Where such a word is the kernel's, Python's or NumPy's own."""

_FORBIDDEN = {word: re.compile(rf"(?<![A-Za-z])({found})(?![a-z])", re.IGNORECASE) for word, found in INSTEAD.items()}
_ALLOWED = re.compile("|".join(ALLOWED))


def _texts() -> Iterator[Path]:
    for package in ("inspector", "tui"):
        yield from sorted(path for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".md", ".tcss"))
    yield from (ROOT / name for name in ("README.md", "ARCHITECTURE.md"))
    yield from (DOCS / name for name in ("README.md", "tui.md"))


def offences(text: str) -> list[str]:
    """Line number and word of each word to avoid."""
    out = []
    for number, line in enumerate(_ALLOWED.sub("", text).splitlines(), 1):
        out += [f"{number}: {found[0].strip()}" for seek in _FORBIDDEN.values() for found in seek.finditer(line)]
    return out


def test_words_to_avoid_are_avoided() -> None:
    wrong = {}
    for path in _texts():
        name = path.relative_to(ROOT).as_posix()
        found = offences(path.read_text("utf-8"))
        if found:
            wrong[name] = found
    assert not wrong, "python -m tests.arch.test_words PATH lists the lines"


def test_slugs_end_in_one_of_eight_suffixes() -> None:
    from inspector.rules import all_rules

    sentence = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("ends in one of eight suffixes (")[2]
    suffixes = tuple(re.findall(r"`(-[a-z]+)`", sentence.partition(")")[0]))
    assert len(suffixes) == 8
    assert [rule.slug for rule in all_rules() if not rule.slug.endswith(suffixes)] == []


def test_glossary_lists_every_word() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert [word for word in INSTEAD if f"| {word}" not in text and f", {word}" not in text] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("the kernel's own road to it", ["1: road"]),
        ("    told_by: int", ["1: told"]),
        ("words = sorted(rows)  # sorts by address", []),
        ("pages of one sort", ["1: one sort"]),
        ("a standard; outstanding; broadcast; foretold", []),
        ("    Then:  it crashes.", ["1: Then:"]),
        ("where = handle.tell()", []),
    ],
)
def test_words_are_found_as_words(line: str, found: list[str]) -> None:
    assert offences(line) == found


if __name__ == "__main__":
    for path in _texts():
        name = path.relative_to(ROOT).as_posix()
        if any(name.startswith(wanted) for wanted in sys.argv[1:] or [""]):
            lines = path.read_text("utf-8").splitlines()
            for offence in offences("\n".join(lines)):
                number = int(offence.partition(":")[0])
                print(f"{name}:{offence}: {lines[number - 1].strip()}")
