"""What is shown before a command was chosen: the first steps, and what can be done with a dump."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from inspector.errors import UsageError
from inspector.text import clean

_NEXT = (
    ("check", "FILE", "is what the kernel stored about its memory consistent?"),
    ("info", "-c FILE", "what kernel it is, and what is in the dump"),
    ("ps", "-c FILE", "the processes with their memory by kind"),
    ("folio", "-c FILE PLACE", "one folio: its counters, and who maps it"),
    ("explain", "-c FILE PLACE", "who holds its references; what the kernel would do"),
    ("tui", "-c FILE", "browse all of it"),
)


def first_steps() -> Iterator[str]:
    """What this is and where to begin, in ten lines."""
    yield "folioscope shows who maps which folio of a Linux kernel, and whether the counts"
    yield "that the kernel stored are right: in a crash dump, or in a kernel that runs."
    yield ""
    yield "  folioscope check VMCORE             rebuild the counts, name each that differs"
    yield "  folioscope tui -c VMCORE            browse it all (-k: the running kernel)"
    yield "  folioscope folio -c VMCORE PLACE    one folio by pfn or address: who maps it"
    yield "  folioscope VMCORE                   what else can be done with a dump"
    yield "  folioscope doctor                   what can be inspected on this machine"
    yield ""
    yield "All commands: folioscope --help. How to read what they show: folioscope manual."


def offers(path: str) -> Iterator[str]:
    """What can be done with a dump."""
    name = clean(shlex.quote(path))
    yield f"What can be done with {clean(path)}:"
    yield ""
    lines = [(f"folioscope {command} {words.replace('FILE', name)}", what) for command, words, what in _NEXT]
    width = max(len(line) for line, _ in lines)
    for line, what in lines:
        # In a narrow terminal the explanation of a long name goes below.
        if width < 40:
            yield f"  {line:{width}}  {what}"
        else:
            yield from (f"  {line}", f"      {what}")
    yield ""
    yield "A PLACE is a page frame number or an address. All commands: folioscope --help."


def is_path(word: str) -> bool:
    """Whether a word in the place of a command is a file, or meant as one."""
    return "/" in word or Path(word).is_file()


def offer_command(words: list[str]) -> click.Command:
    """A command that offers what can be done with a file.

    Raises:
        UsageError: It does not exist, or more words follow.
    """
    path, *more = words
    if not Path(path).exists():
        raise UsageError("there is no such file or command", path, "See folioscope --help")
    if more:
        todo = f"Try folioscope {more[0]} {'' if more[0] == 'check' else '-c '}{shlex.quote(path)}"
        raise UsageError("the command comes before the file", " ".join(words), todo)

    def offer() -> None:
        click.get_current_context().obj.output.lines(offers(path))

    return click.Command("file", callback=offer)
