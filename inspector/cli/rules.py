"""The command that lists the rules and shows their manual pages; it opens no target."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Settings


@click.command(cls=DoorCommand, schemas=("inspector.report.rules:RulesReport",))
@click.argument("rule", required=False, metavar="[RULE]")
@click.pass_obj
def rules(settings: Settings, rule: str | None) -> None:
    """List the rules that check applies, or show the manual page of one. No target is opened."""
    from inspector.report.rules import build_rules, render_rule, render_rules  # noqa: PLC0415  (NumPy)
    from inspector.rules import all_rules, find_rule  # noqa: PLC0415

    report = build_rules(all_rules() if rule is None else [find_rule(rule)])
    screen = settings.output.screen
    if settings.format == "json":
        settings.output.json(report)
    elif rule is None:
        settings.output.lines(render_rules(screen, report))
    else:
        settings.output.lines(render_rule(screen, report.rules[0]))
