"""The command line: finds the command, imports only what it needs, and turns every outcome into an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import click

from inspector.cli.completion import asked, complete
from inspector.cli.diagnostics import BROKEN_PIPE, INTERRUPTED, BrokenOutput, report_error
from inspector.cli.output import silence
from inspector.cli.params import InspectorGroup, Settings
from inspector.cli.start import first_steps, offers
from inspector.errors import Exit

COMMANDS = {
    "info": "What was opened, how, and what kernel it is.",
    "check": "Rebuild every mapping count and report each stored count that differs.",
    "folio": "One folio: every counter beside its rebuilt value, and who maps it.",
    "explain": "One folio accounted for: formulas, holders of references, decisions.",
    "compare": "Two dumps of one boot, folio by folio: before, after, and what led there.",
    "references": "Who holds the references of all folios, and what is left over.",
    "page": "Struct pages: one, several, or ranges.",
    "va": "One address of a process: page-table entries, VMA, page, other mappers.",
    "what": "What a number can be: a page, a symbol, an object, a user address.",
    "ps": "Address spaces with their memory by kind.",
    "vmas": "The VMAs of one process with their memory by kind.",
    "rmap": "A folio's mappings by the kernel's rmap walk, beside the page tables.",
    "anon-vma": "The family of an anon_vma, who uses it, and its interval tree.",
    "file": "Who maps which part of a file, and its page cache by order.",
    "memory": "Every page accounted for, beside the counters of zones and hugetlb.",
    "memcg": "Memory cgroups: what they count beside what is charged to them.",
    "mthp": "Large folios by kind and order: mapped whole, in part, not at all.",
    "uffd": "userfaultfd's contexts and the memory that each watches.",
    "notifiers": "MMU notifiers: drivers called back when page tables change.",
    "ksm": "KSM's stable nodes, pages and totals.",
    "hugetlb": "hugetlb's pools, folios and shared page tables.",
    "swap": "Swap devices, or one slot and who refers to it.",
    "cpus": "What each CPU was doing, and on what memory.",
    "windows": "What a stopped kernel was in the middle of; one task's stack.",
    "rules": "The rules that check applies, or the manual page of one.",
    "watch": "Check a kernel that runs on again and again; show what is new and gone.",
    "batch": "Check many vmcores, each in a process of its own; keep a dataset.",
    "report": "Cluster what a batch found: which faults, since when, on which kernels.",
    "guard": "Check a QEMU guest again and again, stopped for each check.",
    "doctor": "What this machine can inspect, and how to get what is missing.",
    "capture": "Write a small vmcore of just what the inspector reads.",
    "tui": "Browse it all in the terminal, or in a browser on this machine.",
    "cache": "What is kept of dumps between starts, and where; --clear removes it.",
    "scripts": "Short drgn scripts, each a lesson: list, show or copy them.",
    "manual": "Pages about concepts: findings, schemes, targets.",
    "help": "The help of a command.",
}
"""Each command with its line in the list of commands; the file of each is `inspector.cli.commands`' of its name."""

EPILOG = """\b
Exit codes:
  0  consistent; what was asked for was shown
  1  findings: a counter or a structure is not what it must be
  2  the command line is wrong, or names something that does not exist
  3  the target cannot be opened or read
  4  nothing wrong found, but data is missing: not the same as consistent
"""


@click.group(cls=InspectorGroup, lines=COMMANDS, epilog=EPILOG, invoke_without_command=True)
@click.version_option(package_name="folioscope", message="folioscope %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Show from a vmcore or a live kernel who maps which folio, and whether the stored counts are correct.

    Without -c, -k or --qemu the dump that FOLIOSCOPE_CORE names is inspected, or else the running kernel. Nothing is
    ever written to a target. Options of the target may be given before or after the name of the command.
    """
    settings: Settings = context.obj
    if context.invoked_subcommand is None:
        shown = [line for core in settings.cores for line in offers(core)] or first_steps()
        settings.output.lines(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; `sys.argv` when None.

    Returns:
        The exit code, see `inspector.errors.Exit`.
    """
    _occupy_standard_files()
    if arguments is None and asked():
        return complete(cli, asked())
    # NumPy's linear algebra is not used here: no threads for it, which cost as much as opening a dump.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What is imported stays, and so do a dump's tables: to look for garbage in them takes a twentieth of a check.
    gc.disable()
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    finally:
        gc.enable()


def _occupy_standard_files() -> None:
    """Where standard input, output or error is closed, no file that is opened later takes its place."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004
        pass
    os.close(file)


def _run(words: list[str]) -> int:
    settings = Settings()
    try:
        return _run_command(settings, words)
    finally:
        settings.resume()


def _run_command(settings: Settings, words: list[str]) -> int:
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
