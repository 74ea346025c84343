"""The main job, end to end: tune, guard, and every way a suite can go red."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Fault

if TYPE_CHECKING:
    from conftest import Project


def test_tuning_finds_the_better_model_and_commits_it(project: Project) -> None:
    """``--llm-tune`` chooses the model that adds up, and writes lock file and recording."""
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    assert "model: good" in project.lock
    assert len(project.recording["interactions"]) >= 18
    assert "sk-test-secret" not in project.lock + str(project.recording)


def test_the_guard_replays_without_one_request(tuned: Project) -> None:
    """Plain ``pytest`` is green and asks nothing."""
    before = tuned.server.count
    tuned.run().assert_outcomes(passed=1)
    assert tuned.server.count == before


def test_a_guard_imports_nothing_heavy(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay needs no client, no search, no cache and no event loop: each takes a second to import, or a part of one."""
    heavy = {"asyncio", "diskcache", "flaml", "numpy", "openai", "pandas", "ray", "ssl", "sympy", "vcr"}
    text = f"import sys\n\ndef pytest_unconfigure():\n    print('heavy:', *sorted({heavy!r} & set(sys.modules)))\n"
    tuned.pytester.makeconftest(text)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others import much
    result = tuned.pytester.runpytest_subprocess("-s", "-p", "pytest_llmtune.plugin")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["heavy:"])


def test_an_idle_run_imports_four_modules_and_leaves_no_finder(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finder of ours in ``sys.meta_path`` at exit costs half as much as all else that an idle run does."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugin would be registered twice
    pytester.makepyfile(test_nothing="def test_nothing():\n    pass\n")
    pytester.makepyfile(
        run="""
        import atexit, sys

        def report():
            finders = [finder for finder in sys.meta_path if str(finder.__module__).startswith("pytest_llmtune")]
            print("modules:", *sorted(name for name in sys.modules if name.startswith("pytest_llmtune")))
            print("finders:", *finders)

        atexit.register(report)  # runs last
        import pytest

        sys.exit(pytest.main(["-p", "pytest_llmtune.plugin", "test_nothing.py"]))
        """
    )
    result = pytester.run(sys.executable, "run.py")
    names = ["pytest_llmtune", *(f"pytest_llmtune.plugin{name}" for name in ("", ".hookspecs", ".options"))]
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"modules: {' '.join(names)}", "finders:"])


def test_pytest_rewrites_none_of_our_modules(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest marks every package that the files of a plugin's distribution name; ours is parsed at no run."""
    installed = tuned.pytester.path / "site" / "installed_llmtune-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: installed-llmtune\nVersion: 1\n", encoding="utf-8"
    )
    (installed / "RECORD").write_text("pytest_llmtune/__init__.py,,\npytest_llmtune/types.py,,\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text("[pytest11]\nllmtune = pytest_llmtune.plugin\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(installed.parent), prepend=os.pathsep)
    tuned.pytester.makeconftest(
        """
        import sys
        from _pytest.assertion.rewrite import AssertionRewritingHook

        def pytest_unconfigure(config):
            [hook] = [finder for finder in sys.meta_path if isinstance(finder, AssertionRewritingHook)]
            ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "pytest_llmtune"}
            print("marked:", "pytest_llmtune" in hook._must_rewrite, len(ours) > 50)
            print("rewritten:", *[name for name, module in ours.items() if "@pytest_ar" in vars(module)])
            print("parsed:", *[name for name, module in ours.items() if isinstance(module.__loader__, AssertionRewritingHook)])
        """
    )
    result = tuned.pytester.runpytest_subprocess("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["marked: True True", "rewritten:", "parsed: pytest_llmtune"])


def test_a_suites_recording_has_an_age(tuned: Project) -> None:
    """The lock file says when its answers were given and by whom; the summary and ``llmtune_max_age`` hold it too."""
    path = tuned.pytester.path / "llmtune" / "sums.cassette.json"
    text = path.read_text(encoding="utf-8")
    today = json.loads(text)["interactions"][0]["llmtune"]["recorded"]
    assert f"\nrecording: {{first: '{today}', last: '{today}', models: [good]}}\n" in tuned.lock
    path.write_text(text.replace(today, "2020-01-31", 1), encoding="utf-8")
    result = tuned.run("--llm-json=result.json")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["oldest recorded answer: 2020-01-31 (* days), llmtune/sums.cassette.json"])
    report = json.loads((tuned.pytester.path / "result.json").read_text(encoding="utf-8"))
    assert report["suites"][0]["recording"]["oldest"] == "2020-01-31"
    tuned.pytester.makeini("[pytest]\nllmtune_max_age = 90d:fail\n")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*recorded on 2020-01-31*llmtune_max_age=90d; record again: pytest *test_sums *"])
    tuned.run("--llm-accept")
    assert f"\nrecording: {{first: '2020-01-31', last: '{today}', models: [good]}}\n" in tuned.lock
    path.write_text(text.replace(today, "some day"), encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    said = "llmtune/sums.cassette.json does not say when it was recorded, which has to be known for llmtune_max_age=90d"
    result.stdout.fnmatch_lines([f"*{said}; record again: pytest *test_sums *"])


def test_tuning_again_costs_nothing(tuned: Project) -> None:
    """Every paid answer is in the cache: the same search asks nothing and writes the same lock file apart from spend."""
    before, config = tuned.server.count, tuned.lock.split("metrics:")[0]
    tuned.run("--llm-tune").assert_outcomes(passed=1)
    assert tuned.server.count == before
    assert tuned.lock.split("metrics:")[0] == config


def test_an_edited_prompt_is_stale_and_one_command_mends_it(tuned: Project) -> None:
    """The failure names the prompt, counts the requests, and its command makes the guard green again."""
    tuned.write_suite(prompt="Please: {question}")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*prompt changed: 18 of 18 requests have no recording*", "*--llm-record=missing*"])
    recorded = tuned.run("--llm-record=missing")
    recorded.assert_outcomes(failed=1)
    recorded.stdout.fnmatch_lines(["*prompt changed*success_vote is still 1*", "next: pytest --llm-accept *"])
    tuned.run("--llm-accept").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)


def test_an_edited_row_asks_for_that_row_only(tuned: Project) -> None:
    """Editing one guarded row leaves the others recorded."""
    lines = (tuned.pytester.path / "data.jsonl").read_text(encoding="utf-8").splitlines()
    guarded = re.findall(r"What is \d plus \d\?", json.dumps(tuned.recording))[-1]
    rows = [line.replace(guarded, guarded.replace("What is", "How much is")) for line in lines]
    (tuned.pytester.path / "data.jsonl").write_text("\n".join(rows), encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*dataset changed: * of 18 requests have no recording*"])


def test_worse_answers_fail_the_guard_and_name_the_flips(tuned: Project) -> None:
    """After re-recording from a model that rots, the verdict says both numbers and which examples flipped."""
    tuned.server.answer = lambda _: "The answer is 999."
    result = tuned.run("--llm-record=all")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*success_vote*0.9*"])
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*max_drop*"])
    assert "What is" in result.stdout.str()


def test_a_risen_price_fails_the_guard(tuned: Project) -> None:
    """The inference cost per instance is reckoned at today's prices."""
    tuned.write_suite(more="min_success_vote=0.9, max_inference_cost=0.0000001,")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*inference_cost*"])


def test_live_sees_drift_and_writes_nothing(tuned: Project) -> None:
    """``--llm-live`` gates today's model against the baseline."""
    before = (tuned.lock, tuned.recording)
    tuned.run("--llm-live").assert_outcomes(passed=1)
    tuned.server.answer = lambda _: "The answer is 999."
    tuned.run("--llm-live").assert_outcomes(failed=1)
    assert (tuned.lock, tuned.recording) == before
    tuned.run().assert_outcomes(passed=1)


def test_accept_makes_today_the_baseline(tuned: Project) -> None:
    """After ``--llm-accept`` a changed grader is no longer stale."""
    suite = (tuned.pytester.path / "test_sums.py").read_text(encoding="utf-8")
    (tuned.pytester.path / "test_sums.py").write_text(suite.replace('"numeric"', '"contains"'), encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*grader changed*", "*--llm-accept*"])
    tuned.run("--llm-accept").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("grader", "there", "why"),
    [
        (
            '"math"',
            True,
            '*graded with the extra `math`, which is not installed here: pip install "pytest-llmtune[[]math]"*',
        ),
        ('["math", "numeric"]', False, "*graded without the extra `math`, which is installed here; *symbolic: false*"),
    ],
)
def test_a_grader_that_changed_by_an_extra_alone_names_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, grader: str, there: bool, why: str
) -> None:
    """And nothing of it where an option was edited besides."""
    suite = project.pytester.path / "test_sums.py"
    suite.write_text(suite.read_text(encoding="utf-8").replace('"numeric"', grader), encoding="utf-8")
    monkeypatch.setattr("pytest_llmtune.grading.math.is_installed", lambda: there)
    project.run("--llm-tune").assert_outcomes(passed=1)
    project.run().assert_outcomes(passed=1)
    monkeypatch.setattr("pytest_llmtune.grading.math.is_installed", lambda: not there)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([why])

    edited = suite.read_text(encoding="utf-8").replace('"math"', '{"math": {"time_limit": 9}}')
    suite.write_text(edited, encoding="utf-8")
    result = project.run()
    result.stdout.fnmatch_lines(["*the grader changed: 0 of 18 requests lack a recording*"])


def test_without_a_lock_file_the_failure_names_the_command(project: Project) -> None:
    """A suite that was never tuned says how to."""
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no lock file*pytest --llm-tune*"])


def test_a_dry_run_asks_nothing(project: Project) -> None:
    """``--llm-tune-dry-run`` prints what a search may cost."""
    result = project.run("--llm-tune-dry-run")
    result.stdout.fnmatch_lines(
        ["*at most 6 trials on 12 rows cost at most $*", "*nothing is cached yet: every request has to be sent*"]
    )
    assert project.server.count == 0


def test_a_dry_run_knows_what_is_cached(project: Project) -> None:
    """All of a search that was run, its first part where it was cut short, and nothing of another one."""
    undisturbed = project.server.fault
    project.server.fault = lambda _: Fault.http(401, "gone", "invalid_api_key") if project.server.count > 60 else None
    project.run("--llm-tune").assert_outcomes(failed=1)
    project.server.fault, before = undisturbed, project.server.count
    found = project.run("--llm-tune-dry-run").stdout.str()
    first = int(re.search(r"the first (\d+) requests of the search .* are cached", found)[1])  # type: ignore[index]
    assert 12 <= first < 60
    project.run("--llm-tune").assert_outcomes(passed=1)
    spent = re.search(r"\$([\d.]+). are cached", project.run("--llm-tune-dry-run").stdout.str())
    after = project.server.count
    assert after > before
    assert f"spent: {spent[1]}" in project.lock  # type: ignore[index]
    found = project.run("--llm-tune-dry-run").stdout.str()
    assert "it chooses model='good'" in found
    assert "18 of 18 test rows are cached" in found
    project.write_suite(prompt="Once more: {question}")
    project.run("--llm-tune-dry-run").stdout.fnmatch_lines(["*the first 0 requests of the search*"])
    assert project.server.count == after


def test_a_dry_run_after_a_search_finds_all_of_it(project: Project) -> None:
    """Also where the budget ended it: what the search paid for counts in it again, as in a search that goes on."""
    budget = "optimization_budget=1,"
    path = project.pytester.path / "test_sums.py"
    path.write_text(path.read_text(encoding="utf-8").replace(budget, "optimization_budget=0.0012,"), encoding="utf-8")
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert "stopped_by: optimization_budget" in project.lock
    log = project.pytester.path / ".llmtune" / "studies" / "sums.jsonl"
    before = log.read_bytes(), project.server.count
    found = project.run("--llm-tune-dry-run").stdout.str()
    assert re.search(r"all \d+ requests of the search .* are cached", found)
    assert "18 of 18 test rows are cached" in found
    assert (log.read_bytes(), project.server.count) == before
    lock = project.lock
    project.run("--llm-tune").assert_outcomes(passed=1)
    assert project.server.count == before[1]
    assert project.lock == lock


@pytest.mark.parametrize("mode", [[], ["--llm-live"]])
def test_verdicts_are_the_same_under_xdist(tuned: Project, mode: list[str]) -> None:
    """A worker's verdict reaches the controller's summary."""
    tuned.server.answer = lambda _: "The answer is 999."
    plain = tuned.run(*mode, "--llm-json=plain.json")
    spread = tuned.pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2", *mode, "--llm-json=spread.json")
    assert plain.ret == spread.ret
    texts = [(tuned.pytester.path / name).read_text(encoding="utf-8") for name in ("plain.json", "spread.json")]
    (one,), (other,) = (json.loads(text)["suites"] for text in texts)
    assert one["name"] == other["name"] == "sums"
    assert (one["spent"], one["by_model"]) == (other["spent"], other["by_model"])
    assert bool(one["by_model"]) == bool(mode)


def test_two_modes_cannot_be_combined(project: Project) -> None:
    """Misuse is one clear line, not a traceback."""
    result = project.run("--llm-tune", "--llm-live")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-live and --llm-tune cannot be combined*"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("modle='x',", "*modle*"),
        ("min_success_vote=2,", "*min_success_vote*"),
        ("where='nonsense > 1',", "*nonsense*"),
        ("metric='acuracy',", "*metric: the grader numeric gives no metric 'acuracy'*"),
        ("min_acuracy=0.5,", "*min_acuracy: the grader numeric gives no metric 'acuracy'*"),
    ],
)
def test_a_wrong_suite_is_a_usage_error_at_collection(project: Project, more: str, message: str) -> None:
    """Unknown keys and metrics, unusable thresholds and columns that are not there stop the run before any test."""
    project.write_suite(more=more)
    result = project.run()
    assert result.ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
    text = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in text
    assert message.strip("*") in text


def test_a_damaged_recording_is_mended_by_the_command_that_it_names(tuned: Project) -> None:
    """Recording does not stumble over the file that it replaces, and asks only what is lost; live runs do not look at it."""
    path = tuned.pytester.path / "llmtune" / "sums.cassette.json"
    path.write_text(path.read_text(encoding="utf-8")[:-200], encoding="utf-8")
    result = tuned.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*record what is lost: pytest --llm-record=missing test_sums.py::test_sums*"])
    tuned.run("--llm-live").assert_outcomes(passed=1)
    tuned.run("--llm-record=missing").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)
    path.write_text(path.read_text(encoding="utf-8")[:-200], encoding="utf-8")
    tuned.run("--llm-record=all").assert_outcomes(passed=1)
    tuned.run().assert_outcomes(passed=1)


def test_a_winner_too_dear_on_the_test_rows_gives_way(project: Project) -> None:
    """Its answers to rows that the search did not see are four times as long: the next best is locked, and it is said."""

    def answer(body: dict[str, Any]) -> str:
        a, b = map(int, re.findall(r"\d+", body["messages"][-1]["content"])[-2:])
        good = body["model"] == "good"
        return f"{a + b if good or b % 2 else 999}" + " word" * (18 if good and 5 * a + b >= 12 else 1)

    project.server.answer = answer
    project.write_suite(more="shuffle=False, inference_budget=0.00003,")
    result = project.run("--llm-tune")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*trial * costs $0.* per 1,000 instances on the test rows: the next best won*"])
    assert "model: bad" in project.lock
    project.run().assert_outcomes(passed=1)


def test_a_search_says_that_its_scores_are_means_where_the_suites_is_not(project: Project) -> None:
    """In the terminal and in the lock file, where they stand beside the median; a guard shows no score of the search."""
    note = (
        "the search compared means of success_vote, and its scores are means; the suite is judged by aggregate=median"
    )
    project.write_suite(more="aggregate='median',")
    result = project.run("--llm-tune")
    result.stdout.fnmatch_lines([f"note: sums: {note}"])
    assert f"note: {note}\n" in project.lock
    assert note not in project.run().stdout.str()


def test_latency_has_percentiles_to_gate_on(tuned: Project) -> None:
    """Those of the recorded answers: a limit that they pass, and one that they do not."""
    tuned.write_suite(more="max_latency_p95=60, max_latency_p50=60,")
    tuned.run().assert_outcomes(passed=1)
    tuned.write_suite(more="max_latency_p95=0.000001,")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*latency_p95 * is over max_latency_p95*"])


def test_messages_of_a_column_are_sent_as_they_are(project: Project) -> None:
    """``messages="{history}"``: each row's conversation, recorded, locked as a template and replayed; a changed one is a miss."""
    rows = [
        {
            "history": [
                {"role": "system", "content": "Add up {these}."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": f"What is {a} plus {b}?"},
            ],
            "answer": str(a + b),
        }
        for a in range(5)
        for b in range(4)
    ]
    project.write_data(rows)  # type: ignore[arg-type]
    project.write_suite()
    path = project.pytester.path / "test_sums.py"
    path.write_text(path.read_text("utf-8").replace("prompt='{question}'", 'messages="{history}"'), "utf-8")
    project.run("--llm-tune").assert_outcomes(passed=1)
    conversations = [row["history"] for row in rows]
    assert {len(body["messages"]) for body in project.server.requests} == {4}
    assert all(body["messages"] in conversations for body in project.server.requests)
    assert "'{history}'" in project.lock
    asked = project.server.count
    project.run().assert_outcomes(passed=1)
    for row in rows:
        row["history"][1]["content"] = "Hey"  # type: ignore[index]
    project.write_data(rows)  # type: ignore[arg-type]
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*--llm-record=missing*"])
    assert project.server.count == asked
