"""The command that lists the rules, shows their manual pages and the catalogue behind them; it opens no target."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Settings
from inspector.errors import UsageError


@click.command(
    cls=DoorCommand,
    schemas=("inspector.report.rules:RulesReport", "inspector.report.catalogue:CatalogueReport"),
)
@click.argument("rule", required=False, metavar="[RULE]")
@click.option("--catalogue", is_flag=True, help="Show all that must hold, and which rules decide it.")
@click.pass_obj
def rules(settings: Settings, rule: str | None, *, catalogue: bool) -> None:
    """List the rules that check applies, or show the manual page of one. No target is opened."""
    from inspector.report.rules import build_rules, render_rule, render_rules  # noqa: PLC0415  (NumPy)
    from inspector.rules import all_rules, find_rule  # noqa: PLC0415

    if catalogue:
        if rule is not None:
            raise UsageError("--catalogue shows all lines", rule, "Give a rule or --catalogue, not both")
        _show_catalogue(settings)
        return
    report = build_rules(all_rules() if rule is None else [find_rule(rule)])
    screen = settings.output.screen
    if settings.format == "json":
        settings.output.json(report)
    elif rule is None:
        settings.output.lines(render_rules(screen, report))
    else:
        settings.output.lines(render_rule(screen, report.rules[0]))


def _show_catalogue(settings: Settings) -> None:
    from inspector.report.catalogue import build_catalogue, render_catalogue  # noqa: PLC0415  (NumPy)
    from inspector.rules.catalogue import catalogue  # noqa: PLC0415

    report = build_catalogue(catalogue())
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_catalogue(settings.output.screen, report))
