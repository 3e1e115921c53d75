"""The command that shows what a stopped kernel was in the middle of."""

from __future__ import annotations

import json

import jsonschema

from tests.cli.conftest import Run


def test_a_guest_at_rest_stands_in_no_window_but_an_exec_that_somebody_holds_up(run: Run, any_core: str) -> None:
    result = run("-c", any_core, "windows", "--format", "json")
    assert (result.code, result.err) == (0, "")
    schema = json.loads(run("windows", "--schema").out)
    jsonschema.Draft202012Validator(schema).validate(result.object)
    assert set(result.object["stacks"]) <= {"unwound", "user", "none"}
    assert result.object["stacks"]["unwound"] > 100
    assert {(w["comm"], w["window"]) for w in result.object["windows"]} == {("in-exec", "W5")}
    assert all(w["known"] == "orc" and w["pid"] in {m["pid"] for m in w["mms"]} for w in result.object["windows"])


def test_the_stack_of_a_task_leads_from_the_scheduler_to_the_system_call(run: Run, any_core: str) -> None:
    found = run("-c", any_core, "windows", "--format", "json").object
    pid = found["windows"][0]["pid"]
    stack = run("-c", any_core, "windows", "--stack", str(pid), "--format", "json").object
    functions = [frame["function"].split("+")[0] for frame in stack["frames"]]
    assert (stack["pid"], stack["comm"], stack["stack"]) == (pid, "in-exec", "unwound")
    assert functions[0] == "__schedule"
    assert functions[-1] == "entry_SYSCALL_64_after_hwframe"
    assert "do_execveat_common" in {f.split(".")[0] for f in functions}
    assert [f["windows"] for f in stack["frames"] if f["windows"]] == [["W5"]]
    for words in (("windows",), ("windows", "--stack", str(pid))):
        text = run("-c", any_core, *words)
        assert (text.code, text.err) == (0, "")
        assert all(line.isprintable() and line == line.rstrip() for line in text.out.splitlines())


def test_a_task_that_is_not_there_is_an_error_in_one_line(run: Run, any_core: str) -> None:
    result = run("-c", any_core, "windows", "--stack", "999999")
    assert result.code == 2
    assert result.out == ""
    assert "no such task" in result.err
