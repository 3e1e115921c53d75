"""The command line: finds the command, imports only what it needs, and turns every outcome into an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from inspector.cli.diagnostics import BROKEN_PIPE, INTERRUPTED, BrokenOutput, report_error
from inspector.cli.output import silence
from inspector.cli.params import DoorGroup, Settings
from inspector.errors import Exit

COMMANDS = {
    "info": ("inspector.cli.info:info", "What was opened, how, and what kernel it is."),
    "check": ("inspector.cli.check:check", "Rebuild every mapping count and name what differs from the record."),
    "folio": ("inspector.cli.folio:folio", "One folio: every counter beside its rebuilt value, and who maps it."),
    "explain": (
        "inspector.cli.explain:explain",
        "One folio accounted for: formulas, holders of references, decisions.",
    ),
    "references": (
        "inspector.cli.explain:references",
        "Who holds the references of all folios, and what is left over.",
    ),
    "page": ("inspector.cli.folio:page", "Struct pages: one, several, or ranges."),
    "va": ("inspector.cli.va:va", "One address of a process: page-table entries, VMA, page, other mappers."),
    "ps": ("inspector.cli.processes:ps", "Address spaces with their memory by kind."),
    "vmas": ("inspector.cli.processes:vmas", "The VMAs of one process with their memory by kind."),
    "rmap": ("inspector.cli.reverse:rmap", "A folio's mappings by the kernel's own road, beside the page tables."),
    "anon-vma": ("inspector.cli.reverse:anon_vma", "The family of an anon_vma, who uses it, and its interval tree."),
    "file": ("inspector.cli.reverse:file", "Who maps which part of a file, and its page cache by order."),
    "uffd": ("inspector.cli.reverse:uffd", "userfaultfd's contexts and the memory that each watches."),
    "ksm": ("inspector.cli.reverse:ksm", "KSM's stable nodes, pages and totals."),
    "hugetlb": ("inspector.cli.reverse:hugetlb", "hugetlb's pools, folios and shared page tables."),
    "swap": ("inspector.cli.reverse:swap", "Swap devices, or one slot and who refers to it."),
    "windows": ("inspector.cli.windows:windows", "What a stopped kernel was in the middle of; one task's stack."),
    "rules": ("inspector.cli.rules:rules", "The rules that check applies, or the manual page of one."),
    "capture": ("inspector.cli.capture:capture", "Write a small vmcore of just what the inspector reads."),
    "tui": ("inspector.cli.tui:tui", "Browse it all in the terminal, or in a browser on this machine."),
    "manual": ("inspector.cli.manual:manual", "Pages about concepts: findings, schemes, targets."),
}
"""Where each command lives and what the list of commands says about it; nothing is imported to list them."""

EPILOG = """\b
Exit codes:
  0  consistent; what was asked for was shown
  1  findings: a counter or a structure is not what it must be
  2  the command line cannot be understood, or names something that does not exist
  3  the target cannot be opened or read
  4  nothing wrong found, but data is missing: not the same as consistent
"""


@click.group(cls=DoorGroup, commands_at=COMMANDS, epilog=EPILOG)
@click.version_option(package_name="folioscope", message="folioscope %(version)s")
def cli() -> None:
    """Tell from a vmcore or a live kernel who maps which folio, and whether the recorded counts are true.

    Without -c, -k or --qemu the running kernel is looked at. Nothing is ever written to a target. Options of the
    target may stand before or after the name of the command.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; `sys.argv` when None.

    Returns:
        The exit code, see `inspector.errors.Exit`.
    """
    settings = Settings()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with cli.make_context("folioscope", words, obj=settings) as context:
            code = cli.invoke(context)
        settings.output.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenOutput, BrokenPipeError):
        silence()
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  (a traceback never reaches a user)
        return report_error(error, settings)
    return int(code) if isinstance(code, int) else int(Exit.CLEAN)
