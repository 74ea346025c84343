"""``--llm-shard`` and ``--llm-merge``, end to end: parts of the rows, and the one verdict over them."""

from __future__ import annotations

import json
import re
import shutil
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

GATES = """min_success_vote={"even": 0.9, "odd": 0.95}, max_drop=0.05, alpha=0.9, max_inference_cost=1,
    group_by="kind", min_success=0.8,"""


def results(path: Path) -> dict[str, Any]:
    """The one suite of a JSON document, without what names the run and not its outcome."""
    (suite,) = json.loads(path.read_text(encoding="utf-8"))["suites"]
    assert isinstance(suite, dict)
    return suite


def sharded(project: Project, count: int, *args: str) -> Path:
    """The directory with the results of all shards."""
    for index in range(1, count + 1):
        file = f"shards/{index}.json"
        project.run(f"--llm-shard={index}/{count}", f"--llm-json={file}", *args).assert_outcomes(passed=1)
    return project.pytester.path / "shards"


@pytest.fixture
def worse(project: Project) -> Project:
    """A project whose recorded answers got worse for some rows since the baseline, with gates for groups of rows."""
    good = project.server.answer
    rows = map(json.loads, (project.pytester.path / "data.jsonl").read_text(encoding="utf-8").splitlines())
    project.write_data([row | {"kind": "even" if int(row["answer"]) % 2 == 0 else "odd"} for row in rows])
    project.write_suite(more=GATES)
    project.run("--llm-tune").assert_outcomes(passed=1)
    project.server.answer = lambda body: "The answer is 999." if "plus 3" in str(body) else good(body)
    project.run("--llm-record=all").assert_outcomes(failed=1)
    return project


def test_merged_shards_give_the_verdict_of_a_whole_run_to_the_digit(worse: Project) -> None:
    """Gates, flips, p-value, interval, costs, notes, results and their order: all is equal, and so is the exit code."""
    whole = worse.run("--llm-json=whole.json")
    whole.assert_outcomes(failed=1)
    sharded(worse, 3)
    before = worse.server.count
    merged = worse.run("--llm-merge=shards", "--llm-json=merged.json")
    merged.assert_outcomes(failed=1)
    one, other = (results(worse.pytester.path / name) for name in ("whole.json", "merged.json"))
    assert one == other
    assert one["verdict"]["flips"]
    assert worse.server.count == before


def test_shards_part_the_rows(tuned: Project) -> None:
    """Each row is in one shard, and a shard says how many of how many it saw."""
    whole = tuned.run("--llm-json=whole.json")
    whole.assert_outcomes(passed=1)
    directory = sharded(tuned, 4)
    ids = [
        [result["example"]["id"] for result in results(file)["evaluation"]["results"]]
        for file in sorted(directory.glob("*.json"))
    ]
    every = [result["example"]["id"] for result in results(tuned.pytester.path / "whole.json")["evaluation"]["results"]]
    assert sorted(chain.from_iterable(ids)) == sorted(every)
    assert max(map(len, ids)) < len(every)
    tuned.run("--llm-shard=1/4").stdout.fnmatch_lines([f"note: sums: shard 1/4, {len(ids[0])} of 18 rows: not judged*"])


def test_a_shard_is_not_judged(worse: Project) -> None:
    """A shard of a suite that fails passes: only all rows together are held against the gates."""
    worse.run().assert_outcomes(failed=1)
    sharded(worse, 2)


def test_a_stale_suite_is_stale_in_shards_and_merged(tuned: Project) -> None:
    """Requests without a recording are counted over all shards, as an unsharded run counts them."""
    tuned.write_suite(prompt="Please: {question}")
    for index in (1, 2):
        result = tuned.run(f"--llm-shard={index}/2", f"--llm-json=shards/{index}.json")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*prompt changed: * requests have no recording*"])
    merged = tuned.run("--llm-merge=shards")
    merged.assert_outcomes(failed=1)
    merged.stdout.fnmatch_lines(["*prompt changed: 18 of 18 requests have no recording*"])


def test_live_shards_merge(tuned: Project) -> None:
    """Each shard asks its own rows only; merged, the report says that they were asked live, and what all of them cost."""
    before = tuned.server.count
    sharded(tuned, 2, "--llm-live")
    asked = tuned.server.count - before
    merged = tuned.run("--llm-merge=shards", "--llm-json=merged.json")
    merged.assert_outcomes(passed=1)
    found = results(tuned.pytester.path / "merged.json")
    assert found["mode"] == "live"
    whole = tuned.server.count
    tuned.run("--llm-live", "--llm-json=whole.json").assert_outcomes(passed=1)
    assert tuned.server.count - whole == asked
    one = results(tuned.pytester.path / "whole.json")
    assert (found["spent"], found["by_model"]) == (one["spent"], one["by_model"])
    assert sum(each["usage"]["requests"] for each in found["by_model"].values()) == asked


def test_an_evaluation_with_asserts_is_skipped_in_shards(tuned: Project) -> None:
    """What a test asserts of all rows is asserted once, over all rows."""
    path = tuned.pytester.path / "test_sums.py"
    path.write_text(path.read_text().replace("llmtune.check()", "assert len(llmtune.evaluate().results) == 18"))
    for index in (1, 2):
        tuned.run(f"--llm-shard={index}/2", f"--llm-json=shards/{index}.json").assert_outcomes(skipped=1)
    tuned.run("--llm-merge=shards").assert_outcomes(passed=1)


def _lose(shards: Path) -> None:
    (shards / "2.json").unlink()


def _copy(shards: Path) -> None:
    shutil.copy(shards / "2.json", shards / "again.json")


def _redivide(shards: Path) -> None:
    text = (shards / "2.json").read_text(encoding="utf-8")
    (shards / "2.json").write_text(text.replace('"index": 2, "count": 3', '"index": 2, "count": 4'), encoding="utf-8")


def _foreign(shards: Path) -> None:
    (shards / "notes.json").write_text('{"some": "data"}', encoding="utf-8")


def _whole(shards: Path) -> None:
    shutil.copy(shards.parent / "whole.json", shards / "whole.json")


def _empty(shards: Path) -> None:
    for file in shards.glob("*"):
        file.unlink()


def _other(shards: Path) -> None:
    for file in shards.glob("*.json"):
        file.write_text(file.read_text(encoding="utf-8").replace('"name": "sums"', '"name": "products"'), "utf-8")


def _fail(shards: Path) -> None:
    text = (shards / "2.json").read_text(encoding="utf-8")
    text = text.replace('"verdict": {"status": "passed"', '"verdict": {"status": "error", "problem": "no memory left"')
    (shards / "2.json").write_text(re.sub(r', "problem": ""', "", text), encoding="utf-8")


SPOILED = {
    _fail: "*sums: the shard in 2.json could not be judged: no memory left*",
    _lose: "*sums: missing: shard 2/3*",
    _copy: "*sums: duplicate: shard 2/3 in 2.json and again.json*",
    _redivide: "*sums: shards of different divisions: 1/3 in 1.json, 2/4 in 2.json, 3/3 in 3.json*",
    _foreign: "*notes.json: not a results file of pytest-llmtune*",
    _whole: "*sums: whole.json is of a run without --llm-shard*",
    _empty: "*shards holds no results of shards*",
    _other: "*sums: *shards holds no results of this suite*",
}


def test_what_is_not_all_shards_each_once_is_refused(tuned: Project) -> None:
    """One usage error names every shard that is missing, doubled or foreign; nothing is judged."""
    tuned.run("--llm-json=whole.json").assert_outcomes(passed=1)
    shards = sharded(tuned, 3)
    sound = shards.rename(shards.with_name("sound"))
    for spoil, message in SPOILED.items():
        shutil.rmtree(shards, ignore_errors=True)
        shutil.copytree(sound, shards)
        spoil(shards)
        result = tuned.run("--llm-merge=shards")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        # of a suite that the shards do not hold, its own test tells
        shown = pytest.LineMatcher([*result.errlines, *result.outlines])
        shown.fnmatch_lines([message])
        shown.fnmatch_lines(["*pytest --llm-shard=K/N --llm-json=FILE*"])


def test_shards_of_another_state_are_refused(tuned: Project) -> None:
    """A shard that was run with other data, or other prices, is not merged; the message says what differs."""
    sharded(tuned, 2)
    tuned.write_data([{"question": f"What is {a} plus {a}?", "answer": str(2 * a)} for a in range(30)])
    result = tuned.run("--llm-merge=shards")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sums: shard 1/2 was run with a different dataset; *"])


@pytest.mark.parametrize(
    "args",
    [
        ("--llm-shard=1/2", "--llm-tune"),
        ("--llm-shard=1/2", "--llm-record=missing"),
        ("--llm-merge=x", "--llm-live"),
        ("--llm-merge=x", "--llm-shard=1/2"),
    ],
)
def test_what_is_written_is_never_a_part(project: Project, args: tuple[str, ...]) -> None:
    """Searching, recording and accepting need all rows; merging asks nothing."""
    result = project.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-* and --llm-* cannot be combined*"])


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "-1/2", "1/99999"])
def test_a_shard_that_is_none_is_refused(project: Project, text: str) -> None:
    """``--llm-shard`` says what is valid."""
    result = project.run(f"--llm-shard={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--llm-shard is *valid: K/N, with K from 1 to N, such as 2/5*"])
