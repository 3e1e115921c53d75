"""Each line of docs/systems.md is answered or says why not, and what it names exists."""

from __future__ import annotations

import click

from inspector.cli import COMMANDS, cli
from tests.faults.every import CATALOGUE
from tests.systems.clause import WHY, Clause, kernels_of, slugs_of_test
from tests.systems.table import SYSTEMS

CLAUSES = [(f"{s.id}: {c.text}", c) for s in SYSTEMS for c in s.clauses]


def test_there_are_29_and_each_asks_for_all_three() -> None:
    assert [s.id for s in SYSTEMS] == [f"S{number}" for number in range(1, 30)]
    assert [s.id for s in SYSTEMS if {c.ask for c in s.clauses} != {"show", "check", "bad"}] == []


def _open(clause: Clause) -> str:
    """What a clause lacks, "" for nothing."""
    why, _, rest = clause.reason.partition(": ")
    if clause.reason and not (why in WHY and rest):
        return "its reason begins with none of the words"
    if clause.rules and why not in ("", "partly"):
        return "a rule and a reason why there is none"
    answered = clause.commands if clause.ask == "show" else clause.rules
    return "" if answered or clause.reason else "neither answer nor reason"


def test_a_clause_is_answered_or_says_why_not() -> None:
    assert [(name, _open(clause)) for name, clause in CLAUSES if _open(clause)] == []


def test_its_commands_and_their_options_exist() -> None:
    wrong = []
    for line in {line for _, clause in CLAUSES for line in clause.commands}:
        name, *options = line.split()
        command = cli.get_command(click.Context(cli), name) if name in COMMANDS else None
        known = {opt for param in command.params for opt in param.opts} if command is not None else set()
        if command is None or not set(options) <= known:
            wrong.append(line)
    assert wrong == []


def test_its_faults_exist_and_give_a_rule() -> None:
    faults = {fault for _, clause in CLAUSES for fault in clause.faults}
    assert faults <= set(CATALOGUE)
    assert [fault for fault in faults if not kernels_of(fault)] == []
    tests = [(test, clause.reason) for _, clause in CLAUSES for test in clause.tests]
    assert [test for test, reason in tests if not slugs_of_test(test) and not reason] == []
