"""Shell completion: what a shell asks for with ``_FOLIOSCOPE_COMPLETE`` in the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

ASKED = "_FOLIOSCOPE_COMPLETE"
"""bash_source, zsh_source or fish_source prints what a shell has to run; the same with _complete answers it."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def files(_context: click.Context, _parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """The shell completes names of files."""
    return [CompletionItem(word, type="file")]


def rules(_context: click.Context, _parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Names of rules and of their groups."""
    from inspector.rules import all_rules  # noqa: PLC0415  (NumPy)

    known = all_rules()
    return _beginning(word, [*(rule.slug for rule in known), *sorted({rule.group for rule in known})])


def one_of(words: Iterable[str]) -> Completer:
    """Some words."""
    return lambda _context, _parameter, word: _beginning(word, words)


def _beginning(word: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(one) for one in words if one.startswith(word)]


def complete(command: click.Command, instruction: str) -> int:
    """Answer the shell.

    Returns:
        The exit code.
    """
    from click.shell_completion import shell_complete  # noqa: PLC0415

    return shell_complete(command, {}, "folioscope", ASKED, instruction)


def asked() -> str:
    """What the shell asks for; "" where it does not."""
    return os.environ.get(ASKED, "")
