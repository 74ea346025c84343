"""A suite whose unit is a function of the app, end to end: tuned, replayed, recorded again, told where it differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.llm_server import Fault

if TYPE_CHECKING:
    from conftest import Project

CONSTANT = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl",
    task="desk:handle",
    model="good",
    temperature=0.5,
    params={{"style": "short", "planner_model": "good"}},
    n=2,
    grader="numeric",
    prices={{"good": {{"input": 1, "output": 2}}}},
    tune_size=2,
    test_size=6,
    {more}
)
def test_desk(llmtune):
    llmtune.check()
"""


@pytest.fixture
def recorded(project: Project) -> Project:
    """A project without anything to choose, tuned: 6 rows of 2 runs of 2 calls."""
    project.write_suite(suite=CONSTANT)
    project.run("--llm-tune").assert_outcomes(passed=1)
    return project


def places(project: Project) -> list[tuple[str, int, int]]:
    facts = [each["llmtune"] for each in project.recording["interactions"]]
    return [(each["row"], each["run"], each["call"]) for each in facts]


def test_tuning_and_replaying(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--llm-tune`` finds the model that adds up; plain ``pytest`` replays its runs and asks nothing."""
    monkeypatch.delenv("PYTHONHASHSEED")
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert "model: good" in project.lock
    assert len({row for row, _, _ in places(project)}) == 12
    before = project.server.count
    project.run().assert_outcomes(passed=1)
    project.run("-n", "2").assert_outcomes(passed=1)
    assert project.server.count == before


def test_one_line_a_call_in_the_order_of_rows_runs_and_calls(recorded: Project) -> None:
    """Each call of each run is an interaction, sorted, and nothing of the key is kept."""
    found = places(recorded)
    assert len(found) == 6 * 2 * 2
    assert found == sorted(found)
    assert [(run, call) for _, run, call in found[:4]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert "sk-test-secret" not in str(recorded.recording)


def test_stock_vcrpy_reads_it(recorded: Project) -> None:
    """The recording is a cassette of version 1 for vcrpy's own JSON serializer."""
    import vcr

    path = recorded.pytester.path / "llmtune" / "desk.cassette.json"
    with vcr.use_cassette(str(path), serializer="json", record_mode="none") as cassette:
        assert len(cassette.requests) == 24


def test_a_miss_names_row_run_and_call_and_shows_the_difference(recorded: Project) -> None:
    """An edited second call: told with its difference, asked alone, and green again."""
    desk = (recorded.pytester.path / "desk.py").read_text(encoding="utf-8")
    recorded.write_task(desk.replace("[{plan}]", "<{plan}>"))
    before = recorded.server.count
    result = recorded.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*6 of 6 requests have no recording*", "*run 1, call 2 asks something else*"])
    result.stdout.fnmatch_lines(["*+messages[[]0].content: *<add, says good>*"])
    assert re.search(r"row \d+ \[[0-9a-f]{16}\], run 1, call 2 asks", result.stdout.str())
    assert recorded.server.count == before
    recorded.run("--llm-record=missing").assert_outcomes(passed=1)
    asked = recorded.server.requests[before:]
    assert len(asked) == 12
    assert all("<add" in body["messages"][-1]["content"] for body in asked)
    recorded.run().assert_outcomes(passed=1)
    assert len(places(recorded)) == 24


def test_recording_again_asks_everything(recorded: Project) -> None:
    """``--llm-record=all`` asks every call of every run, and the same answers change no byte of the recording."""
    path, before = recorded.pytester.path / "llmtune" / "desk.cassette.json", recorded.server.count
    text = path.read_bytes()
    recorded.run("--llm-record=all").assert_outcomes(passed=1)
    assert recorded.server.count - before == 24
    assert path.read_bytes() == text


def test_live_is_judged_and_not_recorded(recorded: Project) -> None:
    """``--llm-live`` asks today's model; a worse one fails against the baseline."""
    text = (recorded.pytester.path / "llmtune" / "desk.cassette.json").read_bytes()
    recorded.server.answer = lambda _: "The answer is 999."
    result = recorded.run("--llm-live")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*success_vote*"])
    assert (recorded.pytester.path / "llmtune" / "desk.cassette.json").read_bytes() == text


def test_accept_makes_a_change_of_the_app_the_baseline(recorded: Project) -> None:
    """What the app makes of the same answers is judged, and accepted, offline."""
    desk = (recorded.pytester.path / "desk.py").read_text(encoding="utf-8")
    recorded.write_task(
        desk.replace("def handle", "def inner") + "\ndef handle(**given):\n    return inner(**names(given))\n"
    )
    wrapped = (
        "\ndef handle(question, model, style, config, client):\n"
        "    inner(question, model, style, config, client)\n    return 'no number'\n"
    )
    recorded.write_task(desk.replace("def handle", "def inner") + wrapped)
    recorded.run().assert_outcomes(failed=1)
    before = recorded.server.count
    recorded.write_suite("", suite=CONSTANT)
    recorded.run("--llm-accept")
    assert "success_vote: {value: 0.0" in recorded.lock
    assert recorded.server.count == before


@pytest.mark.parametrize("source", ["time.time()", "random.random()", "id(object())", "sorted_no([question])"])
def test_a_task_that_asks_something_else_each_time_is_found_when_it_is_recorded(
    project: Project, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, and the difference is shown: such a recording could never be replayed."""
    monkeypatch.delenv("PYTHONHASHSEED")
    if source.startswith("sorted"):
        source = "list({'alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta', 'eta', 'theta'})"
    project.write_suite(suite=CONSTANT)
    project.write_task(
        f"""
import random, time

def handle(question, client):
    return client.chat.completions.create(
        model="good", messages=[{{"role": "user", "content": f"{{{source}}} {{question}}"}}], max_tokens=20
    ).choices[0].message.content
"""
    )
    result = project.run("--llm-tune")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*asks something else when its recording is replayed unchanged*"])
    result.stdout.fnmatch_lines(["*row *, run *, call 1 asks something else*"])
    assert not (project.pytester.path / "llmtune" / "desk.cassette.json").exists()


def test_where_the_order_of_sets_cannot_be_tried_a_note_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module cannot be imported by the process that would try it."""
    monkeypatch.delenv("PYTHONHASHSEED")
    project.write_suite(suite=CONSTANT)
    desk = (project.pytester.path / "desk.py").read_text(encoding="utf-8")
    project.write_task(f"import os\nassert 'PYTHONHASHSEED' not in os.environ, 'only here'\n{desk}")
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*it was not checked whether the task asks the same where sets*only here*"])


def test_an_exception_of_the_app_is_a_wrong_answer_told_with_its_last_line(recorded: Project) -> None:
    """The row counts as wrong, offline too, and the report says what was raised."""
    desk = (recorded.pytester.path / "desk.py").read_text(encoding="utf-8")
    recorded.write_task(f"{desk}\n    raise LookupError('no such order')\n".replace("return client", "client"))
    result = recorded.run("-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*success_vote fell from 1 to 0*"])
    result.stdout.fnmatch_lines(["*LookupError: no such order*"])
    recorded.write_task("def handle(question):\n    return '3'\n")
    recorded.run().stdout.fnmatch_lines(["*the task makes no call that can be recorded, so that its cost is 0*"])


def test_a_fault_of_the_endpoint_makes_the_row_unknown(recorded: Project) -> None:
    """What the endpoint did is not the app's fault, even where the app makes an answer of it."""
    desk = (recorded.pytester.path / "desk.py").read_text(encoding="utf-8")
    recorded.write_task(
        desk.replace("def handle", "def inner") + "\ndef handle(question, model, style, config, client):\n    try:\n"
        "        return inner(question, model, style, config, client.with_options(max_retries=0))\n"
        "    except Exception:\n        return '0'\n"
    )
    recorded.server.fault = lambda _: Fault.http(500)
    result = recorded.run("--llm-live")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*6 of 6 examples have no answer*"])


def test_a_client_that_tries_again_heals_a_fault(recorded: Project) -> None:
    """One 500 that the client's own retry gets over is no fault of the run, and is not recorded."""
    recorded.server.faults.extend([Fault.http(500)])
    recorded.run("--llm-record=all").assert_outcomes(passed=1)
    recorded.run().assert_outcomes(passed=1)
    assert len(places(recorded)) == 24


def test_what_cannot_be_filled_is_an_error_at_collection(project: Project) -> None:
    """A parameter that is neither a column nor a key of the configuration is named before anything runs."""
    project.write_suite(suite=CONSTANT)
    project.write_task("def handle(question, stile):\n    return question\n")
    result = project.run()
    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert "takes 'stile' (did you mean 'style'?), which nothing fills" in text
    assert "columns" in text or "column" in text


@pytest.mark.parametrize("kept", [10_000, 3])
def test_a_task_moves_to_another_model(project: Project, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that is a model is named; what is locked is replayed. So it is where rows are too many to keep."""
    monkeypatch.setattr("pytest_llmtune.guard.evaluation._MANY", kept)
    project.write_suite("max_drop=0.5,")
    project.run("--llm-tune").assert_outcomes(passed=1)
    planner = "bad" if "planner_model: good" in project.lock else "good"
    result = project.run(f"--llm-migrate=planner_model={planner}", "--llm-accept")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*planner_model={planner} keeps quality*"])
    assert f"planner_model: {planner}" in project.lock
    asked = project.server.count
    project.run().assert_outcomes(passed=1)
    assert project.server.count == asked
    result = project.run("--llm-migrate=bad")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*bad is worse*"])
    result = project.run(f"--llm-migrate=planner_model={planner}")
    result.stdout.fnmatch_lines(["*is the locked model already. Next: pytest --llm-migrate=planner_model=MODEL *"])
