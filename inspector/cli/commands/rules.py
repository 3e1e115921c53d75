"""The command that lists the rules, shows their manual pages and the catalogue behind them; it opens no target."""

from __future__ import annotations

import click

from inspector.cli import completion
from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report
from inspector.errors import UsageError


@click.command(
    cls=InspectorCommand,
    schemas=("inspector.report.rules:RulesReport", "inspector.report.catalogue:CatalogueReport"),
)
@click.argument("rule", required=False, metavar="[RULE]", shell_complete=completion.rules)
@click.option("--catalogue", is_flag=True, help="Show all that must hold, and which rules decide it.")
@click.pass_obj
def rules(settings: Settings, rule: str | None, *, catalogue: bool) -> None:
    """List the rules that check applies, or show the manual page of one. No target is opened."""
    from inspector.report.catalogue import build_catalogue, render_catalogue  # noqa: PLC0415  (NumPy)
    from inspector.report.rules import build_rules, render_page, render_rules  # noqa: PLC0415
    from inspector.rules import all_rules, find_rule  # noqa: PLC0415
    from inspector.rules.catalogue import catalogue as lines  # noqa: PLC0415

    if catalogue and rule is not None:
        raise UsageError("--catalogue shows all lines", rule, "Give a rule or --catalogue, not both")
    if catalogue:
        print_report(settings, build_catalogue(lines()), render_catalogue)
    elif rule is None:
        print_report(settings, build_rules(all_rules()), render_rules)
    else:
        print_report(settings, build_rules([find_rule(rule)]), render_page)
