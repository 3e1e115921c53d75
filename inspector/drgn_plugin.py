"""The plugin for drgn: commands at its prompt, and types and symbols where a kernel has no debug information.

drgn loads it by the entry point ``drgn.plugins`` of the package, at each of its starts, so that it imports nothing but
what drgn has at hand anyway. ``DRGN_DISABLE_PLUGINS=folioscope`` in the environment leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drgn import Platform, PlatformFlags, Program, ProgramFlags
from drgn.commands import DEFAULT_COMMAND_NAMESPACE, ParsedCommand, parse_shell_command

COMMANDS = {
    "folio": "folio",
    "rmap": "rmap",
    "explain": "explain",
    "mmcheck": "check",
    "mthp": "mthp",
    "what": "what",
}
"""By what each is called at drgn's prompt: the command of the command line that it is."""


class PromptCommand:
    """A command of the command line, on the program that drgn has open (`drgn.commands.Command`).

    Args:
        name: What it is called at the prompt.
        command: What it is called on the command line.
    """

    def __init__(self, name: str, command: str) -> None:
        self._called, self._command = f"%{name}", command

    def description(self) -> str:
        """One line."""
        from inspector.cli.at_prompt import description  # noqa: PLC0415  (click, when one is used)

        return description(self._command)

    def format_usage(self) -> str:
        """How it is typed."""
        from inspector.cli.at_prompt import usage  # noqa: PLC0415

        return usage(self._called, self._command)

    def format_help(self, *, indent: str = "") -> str:
        """What ``--help`` prints."""
        from inspector.cli.at_prompt import help_text  # noqa: PLC0415

        return "\n".join(indent + line if line else "" for line in help_text(self._called, self._command).splitlines())

    def enabled(self, prog: Program) -> bool:
        """Whether a program is one of a kernel."""
        return bool(prog.flags & ProgramFlags.IS_LINUX_KERNEL)

    def parse(self, source: str, /) -> ParsedCommand[Sequence[str]]:
        """Words, redirections and a pipe, as a shell has them."""
        return parse_shell_command(source)

    def run(self, prog: Program, name: str, args: Sequence[str], /, **_kwargs: Any) -> None:
        """Run it."""
        from inspector.cli.at_prompt import run  # noqa: PLC0415

        run(prog, self._called, self._command, args)


for _name, _command in COMMANDS.items():
    DEFAULT_COMMAND_NAMESPACE.register(_name, PromptCommand(_name, _command))


def _is_known(platform: Platform | None) -> bool:
    """Whether kernels of its kind have been tried: 64 bits, low byte first."""
    wanted = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    return platform is not None and platform.flags & wanted == wanted


def drgn_prog_set(prog: Program) -> None:
    """Called by drgn for each program that it opens: where it is a kernel, offer types and symbols."""
    if prog.flags & ProgramFlags.IS_LINUX_KERNEL and _is_known(prog.platform):
        from inspector.target.offer import Offer, is_new  # noqa: PLC0415  (for kernels alone)

        # drgn calls it twice where the environment names the plugin that is installed.
        if is_new(prog):
            Offer(prog).register()
