"""A verdict that cannot lie: plain ``pytest`` is never green where quality or cost fell, whatever changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault

from pytest_llmtune.completions import requester

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project


def rows_of(project: Project) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (project.pytester.path / "data.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def guarded(project: Project) -> set[str]:
    """The questions of the rows that the guard uses."""
    return set(re.findall(r"What is \d plus \d\?", json.dumps(project.recording)))


def relabel(project: Project, count: int) -> None:
    """Wrong references for so many of the guarded rows."""
    rows, left = rows_of(project), count
    for row in rows:
        if left and row["question"] in guarded(project):
            row["answer"], left = "77", left - 1
    project.write_data(rows)


def verdict_of(project: Project, *args: str) -> dict[str, Any]:
    """What ``--llm-json`` says of the one suite."""
    project.run(*args, "--llm-json=out.json")
    [suite] = json.loads((project.pytester.path / "out.json").read_text(encoding="utf-8"))["suites"]
    found: dict[str, Any] = suite["verdict"]
    return found


# -- edited labels


@pytest.mark.parametrize("more", ["", "max_drop=0.05,", "min_success_vote=0.05, max_drop=0.05,"])
@pytest.mark.parametrize("count", [1, 17, 18])
def test_edited_labels_fail(tuned: Project, more: str, count: int) -> None:
    """A row is known by what it asks: its new label is another outcome of the same row, and no row of its own."""
    tuned.write_suite(more=more)
    relabel(tuned, count)
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*success_vote fell from 1 to {round(1 - count / 18, 4):g}*", "*lost *What is*"])
    assert f"{count} relabelled" in result.stdout.str()
    found = verdict_of(tuned)
    assert (found["compared"], found["baseline"]) == (18, 1.0)
    result = tuned.run("--llm-accept")
    result.stdout.fnmatch_lines([f"*accepted: success_vote was 1 over 18 rows, and is {round(1 - count / 18, 4):g} *"])


def test_added_and_removed_rows_are_stale_until_they_are_accepted(tuned: Project) -> None:
    """Another population: named by count and row; the offline command that accepts shows both scores."""
    rows, gone = rows_of(tuned), min(guarded(tuned))
    tuned.write_data([row for row in rows if row["question"] != gone])
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["sums is stale: the rows changed since the baseline: *1 removed (row *"])
    result.stdout.fnmatch_lines(["next: pytest --llm-accept test_sums.py::test_sums"])
    accepted = tuned.run("--llm-accept")
    accepted.assert_outcomes(passed=1)
    accepted.stdout.fnmatch_lines(
        ["note: sums: accepted: success_vote was 1 over 18 rows, and is 1 over 17 rows*1 removed*"]
    )
    tuned.run().assert_outcomes(passed=1)


# -- a grader that changed


def test_a_changed_grader_does_not_hide_a_regression(tuned: Project) -> None:
    """Stale, with the gates, both scores and the flips, before anybody accepts; and accepting shows them once more."""
    path = tuned.pytester.path / "test_sums.py"
    path.write_text(path.read_text(encoding="utf-8").replace('"numeric"', '"exact"'), encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["sums is stale: the grader changed: *; success_vote fell from 1 to 0, and 2 gates fail", "*FAIL*", "*lost *"]
    )
    result = tuned.run("--llm-accept")
    result.stdout.fnmatch_lines(["*accepted: success_vote was 1 over 18 rows, and is 0 *18 lost, 0 gained*"])


# -- suites without a gate


def test_a_suite_without_a_gate_fails_on_any_drop(tuned: Project) -> None:
    """The answers are the recorded ones, so that a lost row is no luck; ``max_drop`` allows it, None opts out, and it is said."""
    tuned.write_suite(more="")
    tuned.run().assert_outcomes(passed=1)
    relabel(tuned, 1)
    tuned.run().assert_outcomes(failed=1)
    tuned.write_suite(more="max_drop=0.1,")
    tuned.run().assert_outcomes(passed=1)
    tuned.write_suite(more="max_drop=None,")
    result = tuned.run("--junitxml=out.xml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["sums *passed, not gated", "note: sums: not gated against the baseline (max_drop=None)*"]
    )
    assert "not gated" in (tuned.pytester.path / "out.xml").read_text(encoding="utf-8")
    assert "not gated" in tuned.run("-q").stdout.str()


def test_new_answers_fail_where_the_drop_is_more_than_chance(tuned: Project) -> None:
    """One row less may be luck where the model was asked again; all rows less are not. Which rule it was is said."""
    tuned.write_suite(more="")
    good = tuned.server.answer
    unlucky = min(guarded(tuned))
    tuned.server.answer = lambda body: "999" if unlucky in str(body["messages"]) else good(body)
    tuned.run("--llm-live").assert_outcomes(passed=1)
    tuned.server.answer = lambda _: "The answer is 999."
    result = tuned.run("--llm-live")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*more than chance (exact McNemar p = 7.6e-06, below alpha = 0.05)*"])
    tuned.write_suite(more="max_drop=0.05,")
    tuned.server.answer = lambda body: "999" if unlucky in str(body["messages"]) else good(body)
    result = tuned.run("--llm-live")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*more than max_drop 0.05, though not more than chance*"])


def test_a_recording_made_again_is_judged_as_new_answers(tuned: Project) -> None:
    """What passed as chance when it was recorded still passes when it is replayed; a broken parser does not."""
    tuned.write_suite(more="")
    good, unlucky = tuned.server.answer, min(guarded(tuned))
    tuned.server.answer = lambda body: "999" if unlucky in str(body["messages"]) else good(body)
    tuned.run("--llm-record=all").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)
    relabel(tuned, 2)
    tuned.run().assert_outcomes(failed=1)


# -- the cost


def test_a_risen_price_fails_by_itself_and_is_named(tuned: Project) -> None:
    """Without any budget: the cost per instance is held against the baseline; which price rose, and from what to what."""
    path = tuned.pytester.path / "test_sums.py"
    tuned.write_suite(more="")
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('"good": {"input": 1, "output": 2}', '"good": {"input": 1, "output": 3}'), encoding="utf-8"
    )
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*inference_cost rose from *max_cost_rise allows 0 %: the output price of good changed from $2.00 to $3.00*"]
    )
    result.stdout.fnmatch_lines(["next: pytest --llm-accept *"])
    tuned.run("--llm-accept").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)


def test_a_rise_of_the_cost_can_be_allowed(tuned: Project) -> None:
    """As a share of the baseline's; None opts out, and it is said."""
    path = tuned.pytester.path / "test_sums.py"
    for more, passes in (("max_cost_rise=0.6,", True), ("max_cost_rise=0.0500,", False), ("max_cost_rise=None,", True)):
        tuned.write_suite(more=more)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"output": 2', '"output": 3'), encoding="utf-8")
        result = tuned.run()
        result.assert_outcomes(passed=int(passes), failed=int(not passes))
    result.stdout.fnmatch_lines(["note: sums: cost not gated against the baseline (max_cost_rise=None)"])


# -- the prompt that is tested


def test_a_new_prompt_is_stale_until_it_is_the_apps(tuned: Project) -> None:
    """Recording it shows its score; only accepting it hands it to the app, and only then anything is green."""
    tuned.pytester.makepyfile(test_app="def test_app(tuned_config):\n    print('prompt:', tuned_config['prompt'])\n")
    tuned.write_suite(prompt="Please: {question}")
    tuned.run().assert_outcomes(failed=1, errors=1)
    for args in (["--llm-record=missing"], []):
        result = tuned.run(*args)
        result.assert_outcomes(failed=1, errors=1)
        result.stdout.fnmatch_lines(["sums is stale: the prompt changed: *; success_vote is still 1*"])
        result.stdout.fnmatch_lines(["next: pytest --llm-accept test_sums.py::test_sums"])
    for selection in ("test_app.py", "-kapp"):  # the suite's own test is not even collected, or not chosen
        result = tuned.run(selection)
        result.assert_outcomes(errors=1, deselected=int(selection == "-kapp"))
        text = " ".join(result.stdout.str().split())
        assert "what is locked is not what the suite 'sums' tests: the prompt changed" in text
        assert "the app: pytest --llm-accept test_sums.py::test_sums" in text
    result = tuned.run("-s", "--llm-accept")  # the suite first, wherever it stands
    result.assert_outcomes(passed=2)
    assert "prompt: Please: {question}\n" in result.stdout.str()
    assert "prompt: Please: {question}\n" in tuned.run("-s", "test_app.py").stdout.str()
    tuned.write_suite(prompt="Please: {question}", more='stop="###",')
    result = tuned.run("test_app.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*is outside the search space: *search again: pytest --llm-tune test_sums.py::*"])


def test_an_app_test_sees_what_suites_beside_it_declare(tuned: Project) -> None:
    """In YAML, too; in files that cannot be collected there is nothing to see, and another candidate is no change."""
    root, app = tuned.pytester.path, "def test_app(tuned_config):\n    pass\n"
    tuned.pytester.makepyfile(test_app=app, test_broken="llmtune = 1 / 0\n")
    path = root / "test_sums.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace("'{question}'", "['Now: {question}', '{question}']"), encoding="utf-8"
    )
    tuned.run("test_app.py").assert_outcomes(passed=1)
    path.unlink()
    tuned.run("test_app.py").assert_outcomes(passed=1)  # nobody knows what the suite says
    yaml = "dataset: data.jsonl\nprompt: 'Now: {question}'\nmodel: good\ngrader: numeric\nname: sums\n"
    (root / "sums.llmtune.yaml").write_text(yaml, encoding="utf-8")
    result = tuned.run("test_app.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pytest --llm-tune sums.llmtune.yaml::sums*"])


# -- tests that forget to judge


@pytest.mark.parametrize(
    "body", ["pass", "assert llmtune.config['model'] == 'good'", "assert llmtune.suite.name == 'sums'"]
)
def test_a_test_that_judges_nothing_fails(tuned: Project, body: str) -> None:
    """It is told which line is missing, also under ``--llm-tune``; the other test of the file runs."""
    path = tuned.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace("llmtune.check()", body)
    path.write_text(f"{text}\n\ndef test_other():\n    pass\n", encoding="utf-8")
    for args in ([], ["--llm-tune"]):
        result = tuned.run(*args)
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(["*never judges it: the line llmtune.check() is missing*"])


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        ("assert llmtune.evaluate().success_vote >= 0.5", True),
        ("llmtune.check()", True),
        ("assert llmtune.evaluate().success_vote > 1", False),
    ],
)
def test_figures_are_a_judgement_too(tuned: Project, body: str, passes: bool) -> None:
    """A test may judge by the figures; where the suite's own gates fail, it fails all the same, as its report says."""
    path = tuned.pytester.path / "test_sums.py"
    path.write_text(path.read_text(encoding="utf-8").replace("llmtune.check()", body), encoding="utf-8")
    tuned.run().assert_outcomes(passed=int(passes), failed=int(not passes))
    relabel(tuned, 5)
    tuned.run().assert_outcomes(failed=1)
    assert verdict_of(tuned)["status"] == "failed"


def test_figures_of_a_stale_suite_are_no_fact(tuned: Project) -> None:
    """``evaluate()`` gives none, whatever would be asserted about them."""
    path = tuned.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace("llmtune.check()", "llmtune.evaluate()")
    path.write_text(text.replace('"numeric"', '"contains"'), encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["sums is stale: the grader changed*"])


# -- less is better


GRADERS = """
def accuracy(responses, question, answer):
    return {"score": float(f" {answer}." in responses[0])}

def error(responses, question, answer):
    return {"score": 1.0 - (f" {answer}." in responses[0])}

def never_wrong(responses, question, answer):
    return {"score": 0.0}

def always_right(responses, question, answer):
    return {"score": 1.0}
"""


def own_grader(project: Project, grader: str, mode: str) -> None:
    project.pytester.makepyfile(own_graders=GRADERS)
    project.write_suite(more=f"metric='score', mode={mode!r},")
    path = project.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace('grader="numeric"', f'grader="own_graders:{grader}"')
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("grader", "mode", "best"), [("accuracy", "max", 1), ("error", "min", 0)])
def test_both_ways_of_better_are_tuned_and_guarded_alike(project: Project, grader: str, mode: str, best: int) -> None:
    """An honest grader is accepted, the better model wins, worse is lost, and what is lost fails."""
    own_grader(project, grader, mode)
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert "model: good" in project.lock
    assert verdict_of(project)["value"] == best
    relabel(project, 9)
    result = project.run()
    result.assert_outcomes(failed=1)
    words = {"max": "fell from 1 to 0.5, a drop of 0.5", "min": "rose from 0 to 0.5, worse by 0.5"}
    result.stdout.fnmatch_lines([f"*score {words[mode]}*", "flipped since the baseline: 9 lost, 0 gained*"])
    project.server.answer = lambda _: "The answer is 999."
    project.run("--llm-live").assert_outcomes(failed=1)


@pytest.mark.parametrize(("grader", "mode"), [("never_wrong", "min"), ("always_right", "max")])
def test_a_grader_that_accepts_anything_is_refused_both_ways(project: Project, grader: str, mode: str) -> None:
    """The best value for an answer that says nothing, whichever value is the best."""
    own_grader(project, grader, mode)
    result = project.run("--llm-tune")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*is vacuous: answers that say nothing count as success*"])
    assert project.server.count == 0


# -- vacuous the other way round


def test_a_prompt_that_asks_the_same_of_every_row_is_refused(project: Project) -> None:
    """Before anything is paid for; with the columns, and the key that means it."""
    project.write_suite(prompt="Say {{question}}")
    result = project.run("--llm-tune")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*is the same for every row; name a column in it, as in {question}*allow_constant_prompt=True*"]
    )
    assert project.server.count == 0
    project.write_suite(prompt="Say {{question}}", more="allow_constant_prompt=True,")
    assert "is the same for every row" not in project.run().stdout.str()


@pytest.mark.parametrize(("grader", "mode"), [("accuracy", "max"), ("error", "min")])
def test_a_winner_that_is_never_right_is_reported_in_red(project: Project, grader: str, mode: str) -> None:
    """Its lock file would always pass, as nothing can get worse. Three rows show what went wrong."""
    own_grader(project, grader, mode)
    project.server.answer = lambda _: "I would say seven."
    for args in (["--llm-tune"], []):
        result = project.run(*args, "--color=yes")
        result.assert_outcomes(failed=1)
        text = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout.str())
        assert text.count("the model said  I would say seven.") == 3
        assert text.count("expected  ") >= 3
        assert "on every row: it cannot get worse, so that nothing is guarded" in text
    path = project.pytester.path / "test_sums.py"
    path.write_text(path.read_text(encoding="utf-8").replace("tune_size", "max_drop=None, tune_size"), encoding="utf-8")
    result = project.run("--color=yes")
    result.assert_outcomes(passed=1)
    assert "\x1b[1;31mno row is right: score is" in result.stdout.str()


def test_rows_dropped_for_empty_cells_are_counted_everywhere(project: Project) -> None:
    """In the terminal, in the lock file, in the JSON and on the page."""
    rows = rows_of(project)
    project.write_data([{**row, "answer": None} if index < 4 else row for index, row in enumerate(rows)])  # type: ignore[dict-item]
    note = "4 of 30 rows were dropped for empty cells: 4 without 'answer'"
    result = project.run("--llm-tune", "--llm-json=out.json", "--llm-report=page.html")
    result.stdout.fnmatch_lines([f"note: sums: {note}"])
    assert "4 dropped for empty cells" in project.lock
    root = project.pytester.path
    assert note in (root / "out.json").read_text(encoding="utf-8")
    assert "4 of 30 rows were dropped" in (root / "page.html").read_text(encoding="utf-8")


# -- faults inside proper responses


def inside(change: Callable[[dict[str, Any]], object]) -> Fault:
    """A response of status 200 with this in it."""

    def respond(body: bytes) -> bytes:
        document = json.loads(body)
        change(document)
        text = json.dumps(document).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        return head.encode() + text

    return Fault("raw", data=respond)


def ends(reason: str | None, text: str = "") -> Fault:
    said = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return inside(lambda document: document["choices"][0].update(said))


FAULTS = {
    "error": ends("error"),
    "network_error": ends("network_error"),
    "resources": ends("insufficient_system_resource", "The ans"),
    "nothing": ends(None),
    "choice": inside(lambda document: document["choices"][0].update(error={"code": 502, "message": "gone"})),
    "half": inside(lambda document: document.update(error={"code": 502, "message": "gone"})),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_providers_fault_is_no_wrong_answer(tuned: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is asked again; where it lasts, the row is unknown, the suite is inconclusive, and the good recording stays."""
    monkeypatch.setattr(requester, "backoff", lambda *_: 0)
    tuned.server.faults.append(FAULTS[name])
    result = tuned.run("--llm-live")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["note: sums: retried: 1 x server error"])
    before = tuned.recording
    unlucky = min(guarded(tuned))
    tuned.server.fault = lambda body: FAULTS[name] if unlucky in str(body["messages"]) else None
    result = tuned.run("--llm-record=all")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["sums is inconclusive: 1 of 18 examples have no answer*", "*unknown  row *"])
    assert tuned.recording == before
    tuned.run().assert_outcomes(passed=1)


def test_a_filter_of_any_name_is_a_refusal(tuned: Project) -> None:
    """It counts as a wrong answer, and is told as refused."""
    tuned.server.fault = lambda _: ends("sensitive")
    assert verdict_of(tuned, "--llm-live")["value"] == 0
    [suite] = json.loads((tuned.pytester.path / "out.json").read_text(encoding="utf-8"))["suites"]
    assert {result["status"] for result in suite["evaluation"]["results"]} == {"refused"}


def test_a_fault_that_was_recorded_once_is_unknown(tuned: Project) -> None:
    """Recordings that are older than the rule hold such answers: they are no answers in a replay either."""
    path = tuned.pytester.path / "llmtune" / "sums.cassette.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('\\"finish_reason\\":\\"stop\\"', '\\"finish_reason\\":\\"error\\"', 1), encoding="utf-8"
    )
    assert path.read_text(encoding="utf-8") != text
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "sums is inconclusive: 1 of 18*",
            "*finish_reason is 'error'; it must be requested again*",
            "next: pytest --llm-record=missing test_sums.py::test_sums*",
        ]
    )
    asked = tuned.server.count
    tuned.run("--llm-record=missing").assert_outcomes(passed=1)
    assert tuned.server.count == asked  # the cache has it
    tuned.run().assert_outcomes(passed=1)


SKIPS = {
    "skip": "import pytest; pytest.skip('away')",
    "importorskip": "import pytest; pytest.importorskip('no_module_of_this_name')",
    "xfail": "import pytest; pytest.xfail('away')",
    "exit": "raise SystemExit(0)",
    "unittest": "import unittest; raise unittest.SkipTest('away')",
}


@pytest.mark.parametrize("place", ["grader", "aggregate", "import"])
@pytest.mark.parametrize("way", SKIPS)
def test_code_of_a_suite_cannot_skip_its_guard(tuned: Project, way: str, place: str) -> None:
    """An error in words: a grader that lacks a module, for one, would switch the guard off in CI, and nobody would see it."""
    inside = dict.fromkeys(("grader", "aggregate"), "    pass") | {place: f"    {SKIPS[way]}"}
    top = SKIPS[way] if place == "import" else ""
    (tuned.pytester.path / "own.py").write_text(
        f"{top}\n"
        "def grade(responses, answer):\n"
        "    if responses[0].startswith('The answer'):\n"
        f"    {inside['grader']}\n"
        "    return answer in responses[0]\n"
        f"def total(values):\n{inside['aggregate']}\n    return min(values)\n",
        encoding="utf-8",
    )
    path = tuned.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace('"numeric"', '"own:grade", aggregate="own:total"')
    path.write_text(f"{text}\n\ndef test_other(): pass\n", encoding="utf-8")
    result = tuned.run()
    found = result.parseoutcomes()
    assert (found.pop("passed"), sum(found.values())) == (1, 1), found
    assert result.ret != 0
    raised = {"exit": "SystemExit", "unittest": "SkipTest", "xfail": "XFailed"}.get(way, "Skipped")
    result.stdout.fnmatch_lines([f"*{raised}*"])
    assert "Traceback" not in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    "catch",
    ["try:\n        {}\n    except BaseException:\n        pass", "with pytest.raises(BaseException):\n        {}"],
)
@pytest.mark.parametrize("call", ["check", "evaluate"])
def test_a_verdict_that_the_test_catches_still_fails_it(tuned: Project, catch: str, call: str) -> None:
    """The exit code says what the reports say."""
    path = tuned.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace("llmtune.check()", catch.format(f"llmtune.{call}()"))
    path.write_text(text, encoding="utf-8")
    relabel(tuned, 17)
    result = tuned.run("--llm-json=out.json")
    result.assert_outcomes(failed=1)
    [suite] = json.loads((tuned.pytester.path / "out.json").read_text(encoding="utf-8"))["suites"]
    assert (suite["verdict"]["status"], result.ret) == ("failed", pytest.ExitCode.TESTS_FAILED)


@pytest.mark.parametrize("call", ["check", "evaluate"])
def test_an_error_that_the_test_catches_still_fails_it(tuned: Project, call: str) -> None:
    """Nothing was judged, and nothing is judged, or paid for, a second time."""
    path = tuned.pytester.path / "test_sums.py"
    caught = f"try:\n        llmtune.{call}()\n    except Exception:\n        pass"
    path.write_text(path.read_text(encoding="utf-8").replace("llmtune.check()", caught), encoding="utf-8")
    (tuned.pytester.path / "llmtune" / "sums.lock.yaml").unlink()
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*caught the error that its suite could not be judged*"])
