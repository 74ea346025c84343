"""Under ``-n`` a suite larger than a worker should take is shared by the workers, and has one verdict."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from conftest import Project

GRADED = """
import os

met = []

def graded(responses, answer, **_):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "none")
    if responses[0].startswith("The answer is"):  # no probe of the grader itself
        with open("graded.txt", "a") as file:
            file.write(worker + "\\n")
        if "[part" in os.environ["PYTEST_CURRENT_TEST"] and os.path.exists("crash"):
            os._exit(3)
        if worker not in met and os.path.exists("meet"):
            met.append(worker)
            os.close(os.open("meet", os.O_WRONLY if worker == "gw0" else os.O_RDONLY))  # opens once the other does, too
    return {"success_vote": float(f"is {answer}." in responses[0])}
"""
SHARED = ("-n", "2", "--llm-share-rows=5")
OTHERS = "".join(f"def test_{number}(): pass\n" for number in range(20))


def suite_of(path: Path) -> dict[str, Any]:
    """The one suite of a JSON document."""
    (suite,) = json.loads(path.read_text(encoding="utf-8"))["suites"]
    assert isinstance(suite, dict)
    return suite


def spread(project: Project, *args: str) -> pytest.RunResult:
    """A run whose workers are processes of their own."""
    return project.pytester.runpytest_subprocess("-p", "no:cacheprovider", *SHARED, *args, timeout=180)


def test_a_shared_suite_has_the_verdict_of_a_whole_run_to_the_digit(
    tuned: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers do a part each; the suite's own test fails as it fails alone, and the helper has no verdict."""
    path, temporary = tuned.pytester.path, tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    (path / "test_others.py").write_text(OTHERS, encoding="utf-8")
    tuned.write_suite(more="min_success_vote=0.9, max_inference_cost=0.0000001,")
    tuned.run("--llm-json=whole.json").assert_outcomes(passed=20, failed=1)
    result = spread(tuned, "--llm-json=shared.json", "--junitxml=junit.xml")
    result.assert_outcomes(passed=21, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_sums.py::test_sums*"])
    assert suite_of(path / "shared.json") == suite_of(path / "whole.json")
    assert not list(temporary.glob("llmtune-*"))
    assert "test_sums[part 2]" in (path / "junit.xml").read_text(encoding="utf-8")


def test_what_is_deselected_is_not_helped(tuned: Project) -> None:
    """No worker does parts of a suite that was not chosen."""
    (tuned.pytester.path / "test_others.py").write_text(OTHERS, encoding="utf-8")
    spread(tuned, "-k", "test_3").assert_outcomes(passed=1)


def own_grader(project: Project) -> Path:
    """The suite with a grader of the test's own, accepted; where it keeps count of who graded."""
    path = project.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace('grader="numeric"', "grader=graded")
    path.write_text(GRADED + text, encoding="utf-8")
    project.run("--llm-accept").assert_outcomes(passed=1)
    graded = project.pytester.path / "graded.txt"
    graded.unlink()
    return graded


def test_both_workers_grade_and_no_row_is_graded_twice(tuned: Project) -> None:
    """The helper takes a part over, and what it found is not done again."""
    graded = own_grader(tuned)
    os.mkfifo(tuned.pytester.path / "meet")
    spread(tuned).assert_outcomes(passed=2)
    workers = Counter(graded.read_text(encoding="utf-8").split())
    assert workers.total() == 18
    assert set(workers) == {"gw0", "gw1"}


def test_what_a_crashed_worker_had_begun_is_done_by_another(tuned: Project) -> None:
    """The helper's process dies in the middle of its part: its test fails, and the suite's verdict stands."""
    own_grader(tuned)
    (tuned.pytester.path / "crash").touch()
    result = spread(tuned, "--llm-json=shared.json", "--max-worker-restart=0")
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running 'test_sums.py::test_sums[[]part 2]'*"])
    assert suite_of(tuned.pytester.path / "shared.json")["verdict"]["status"] == "passed"
