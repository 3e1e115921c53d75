"""The command that shows the manual's pages."""

from __future__ import annotations

from importlib.resources import files

import click

from inspector.cli.completion import one_of
from inspector.cli.params import InspectorCommand, Settings
from inspector.errors import UsageError

PAGES = {
    "findings": "Reading a finding: severity, evidence, verdict.",
    "references": "Who holds the references of a folio, and how that is found out.",
    "schemes": "How kernels count mappings, and how the scheme is recognized.",
    "windows": "What a stopped kernel was in the middle of, and what that explains.",
    "targets": "Dumps, live kernels, guests; types and symbols.",
    "drgn": "At drgn's prompt: commands, types without debug information, scripts.",
    "python": "In Python: opening, findings, tables as NumPy, Arrow, pandas, Polars.",
    "fleet": "Many vmcores: batches, their dataset, fingerprints.",
    "json": "Output for programs, exit codes.",
}


@click.command(cls=InspectorCommand)
@click.argument("topic", required=False, metavar="[TOPIC]", shell_complete=one_of(PAGES))
@click.pass_obj
def manual(settings: Settings, topic: str | None) -> None:
    """Show a page of the manual, or the list of pages."""
    output = settings.output
    if topic is None:
        output.lines(f"{name:12}{line}" for name, line in PAGES.items())
        return
    if topic not in PAGES:
        raise UsageError("there is no such page", topic, f"There are {', '.join(PAGES)}")
    text = files("inspector").joinpath("manual", f"{topic}.md").read_text("utf-8")
    screen = output.screen
    if screen.width is None:
        output.lines(text.splitlines())
        return
    from rich.console import Console  # noqa: PLC0415  (for terminals only)
    from rich.markdown import Markdown  # noqa: PLC0415

    console = Console(width=min(screen.width, 120), no_color=not screen.color, force_terminal=True)
    with console.capture() as capture:
        console.print(Markdown(text))
    output.paged(capture.get().splitlines())
