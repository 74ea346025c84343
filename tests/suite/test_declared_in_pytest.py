"""Declaring suites, end to end: what pytest says of wrong ones, and how YAML suites behave as tests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np  # noqa: F401  # pytester forgets what an inner run imported, and numpy cannot be imported twice
import pytest
from support.suites import SUMS

HEADER = "import pytest\n"
GOOD = {
    "dataset": "sums.jsonl",
    "prompt": "{question} = ?",
    "model": "m",
    "grader": "exact",
    "temperature": 0,
    "n": 1,
    "max_tokens": 5,
    "prices": {"m": {"input": 1, "output": 1}},
}
YAML = "\n".join(f"{name}: {json.dumps(value)}" for name, value in GOOD.items()) + "\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with data."""
    text = "".join(json.dumps(row) + "\n" for row in SUMS)
    (pytester.path / "sums.jsonl").write_text(text, encoding="utf-8")
    (pytester.path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return pytester


def python(project: pytest.Pytester, **suites: dict[str, object]) -> None:
    """A test file with a marked test for each suite; a key whose value is ``...`` is left out."""
    text = HEADER
    for name, changes in suites.items():
        keys = ", ".join(f"{key}={value!r}" for key, value in (GOOD | changes).items() if value is not ...)
        text += f"@pytest.mark.llmtune({keys})\ndef test_{name}(llmtune):\n    llmtune.check()\n"
    (project.path / "test_sums.py").write_text(text, encoding="utf-8")


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


def said(result: pytest.RunResult) -> str:
    """All that pytest wrote; an internal error is never right."""
    text = str(result.stdout) + str(result.stderr)
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text
    return text


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "unknown": ({"promt": "x"}, "promt: unknown key (did you mean 'prompt'?); valid: name, dataset"),
    "missing": ({"model": ...}, "model is missing; a suite needs dataset, prompt or messages, model and grader"),
    "both": ({"messages": [{"role": "user", "content": "a"}]}, "prompt: give either prompt or messages, not both"),
    "absent": ({"dataset": "sum.jsonl"}, "dataset: no file "),
    "column": ({"prompt": "{qestion}"}, "names {qestion} (did you mean 'question'?), but the columns are"),
    "attribute": ({"prompt": "{question.x}"}, "prompt: the field {question.x} reaches into a value"),
    "threshold": ({"min_success_vote": 85}, "min_success_vote is 85 (did you mean 0.85?)"),
    "metric": ({"min_sucess_vote": 0.5}, "no metric 'sucess_vote' (did you mean 'success_vote'?)"),
    "budget": (
        {"num_samples": -1, "n": [1, 2]},
        "num_samples is -1 (no limit), so that optimization_budget must limit",
    ),
    "domain": ({"temperature": {"uniform": [0, 3]}}, "temperature is 3; valid: a number from 0 to 2"),
    "groups": ({"min_success": {"a": 0.5}}, "min_success has a limit for each group; give group_by"),
    "where": ({"where": "level > 3"}, "where='level > 3' names 'level', but the columns are"),
    "call": ({"where": "open('x')"}, "is not allowed in \"open('x')\""),
    "empty": ({"where": "question == 'x'"}, "no row of 30 is left"),
}


def test_every_wrong_suite_is_said_in_one_run(project: pytest.Pytester) -> None:
    """Each is the error of its own test, with file, line and test; the others run, and the run is a wrong usage."""
    python(project, **{name: changes for name, (changes, _) in WRONG.items()})
    (project.path / "test_other.py").write_text("def test_other():\n    pass\n", encoding="utf-8")
    result = project.runpytest_inprocess("-p", "no:cacheprovider", "--llm-json=out.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.assert_outcomes(passed=1, errors=len(WRONG))
    lines = said(result).splitlines()
    for number, (name, (_, says)) in enumerate(WRONG.items()):
        line = next(line for line in lines if line.startswith(f"test_sums.py:{2 + 3 * number} (test_{name}): "))
        assert says in line
    found = json.loads((project.path / "out.json").read_text(encoding="utf-8"))
    assert found["verdicts"] == {"error": len(WRONG)}


def test_a_wrong_suite_that_is_not_selected_is_no_error(project: pytest.Pytester) -> None:
    """``-k`` and node ids choose what is declared."""
    python(project, good={}, wrong={"promt": "x"})
    result = run(project, "--collect-only", "-q", "test_sums.py::test_good")
    assert result.ret == pytest.ExitCode.OK
    assert "test_sums.py::test_good" in said(result)


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("'data.jsonl'", "takes keyword arguments only, got 'data.jsonl'"),
        ("", "dataset is missing"),
    ],
)
def test_a_marker_that_is_no_declaration(project: pytest.Pytester, marker: str, says: str) -> None:
    """Positional arguments and an empty marker."""
    (project.path / "test_x.py").write_text(
        f"{HEADER}@pytest.mark.llmtune({marker})\ndef test_x(llmtune):\n    pass\n", encoding="utf-8"
    )
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in said(result)


def test_two_suites_of_one_name(project: pytest.Pytester) -> None:
    """Names are file names; both places are said."""
    python(project, one={"name": "same"}, two={"name": "same"})
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(
        r"test_sums\.py:5 \(test_two\): the suite 'same' is also declared at test_sums\.py:2", said(result)
    )


def test_words_of_the_search_space_in_a_marker(project: pytest.Pytester) -> None:
    """A wrong range fails where it is written, when the file is imported."""
    (project.path / "test_x.py").write_text(
        "from pytest_llmtune import uniform\nimport pytest\n"
        "@pytest.mark.llmtune(temperature=uniform(2, 0))\ndef test_x(llmtune):\n    pass\n",
        encoding="utf-8",
    )
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*uniform(2, 0): the lower bound is not below the upper one"])


def yaml_files(project: pytest.Pytester) -> None:
    """Three suites in two files."""
    (project.path / "sums.llmtune.yaml").write_text(YAML, encoding="utf-8")
    several = f"name: first\n{YAML}---\nname: second one\n{YAML}"
    (project.path / "more.llmtune.yml").write_text(several, encoding="utf-8")


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in said(result).splitlines() if "::" in line]


def test_yaml_suites_are_collected_beside_tests(project: pytest.Pytester) -> None:
    """One document, one item; its id is file and name."""
    yaml_files(project)
    python(project, good={})
    assert collected(run(project, "--collect-only", "-q")) == [
        "more.llmtune.yml::first",
        "more.llmtune.yml::second one",
        "sums.llmtune.yaml::sums",
        "test_sums.py::test_good",
    ]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["-k", "second"], ["more.llmtune.yml::second one"]),
        (["-k", "sums and not good"], ["sums.llmtune.yaml::sums"]),
        (["-m", "not llmtune"], []),
        (["more.llmtune.yml::first"], ["more.llmtune.yml::first"]),
        (["sums.llmtune.yaml"], ["sums.llmtune.yaml::sums"]),
        (["--deselect", "more.llmtune.yml"], ["sums.llmtune.yaml::sums"]),
    ],
)
def test_yaml_suites_are_selected_as_tests_are(project: pytest.Pytester, arguments: list[str], ids: list[str]) -> None:
    """By keyword, marker, node id, path and deselection."""
    yaml_files(project)
    assert collected(run(project, "--collect-only", "-q", *arguments)) == ids


def test_yaml_suites_run(project: pytest.Pytester) -> None:
    """Without a lock file each fails with the command that mends it, and --lf runs it again."""
    yaml_files(project)
    result = project.runpytest_inprocess("sums.llmtune.yaml", "more.llmtune.yml::first")
    result.assert_outcomes(failed=2)
    assert "--llm-tune" in said(result)
    again = project.runpytest_inprocess("--lf", "--collect-only", "-q")
    assert collected(again) == ["more.llmtune.yml::first", "sums.llmtune.yaml::sums"]


def test_yaml_suites_under_xdist(project: pytest.Pytester) -> None:
    """The same results with two workers."""
    yaml_files(project)
    result = project.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=3)
    assert "INTERNALERROR" not in str(result.stdout)


def test_wrong_yaml_suites_name_line_and_column(project: pytest.Pytester) -> None:
    """Other files are collected all the same."""
    yaml_files(project)
    (project.path / "bad.llmtune.yaml").write_text(YAML + "modle: x\nseed: -1\n", encoding="utf-8")
    (project.path / "worse.llmtune.yaml").write_text("a: [\n", encoding="utf-8")
    result = run(project, "--collect-only", "-q")
    text = said(result)
    assert "bad.llmtune.yaml:9:1: modle: unknown key (did you mean 'model'?)" in text
    assert "bad.llmtune.yaml:10:1: seed is -1; valid: a seed, a whole number from 0" in text
    assert "worse.llmtune.yaml:2:1: while parsing a flow node" in text
    assert len(collected(result)) >= 3
    assert result.ret != pytest.ExitCode.OK


def test_a_yaml_column_that_is_not_there(project: pytest.Pytester) -> None:
    """What is wrong with the data has the place of the dataset."""
    (project.path / "sums.llmtune.yaml").write_text(YAML.replace("{question}", "{qestion}"), encoding="utf-8")
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "sums.llmtune.yaml:1:1: the prompt '{qestion} = ?' names {qestion} (did you mean 'question'?)" in said(
        result
    )


def test_a_strangers_yaml_runs_nothing(project: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither as data, prompt, aggregate nor grader can it name code: without leave none, with it the project's own."""
    outside = tmp_path_factory.mktemp("outside")
    witness = outside / "ran"
    (outside / "evil_tools.py").write_text(
        f"open({str(witness)!r}, 'w')\ndef f(*a, **k): return []\n", encoding="utf-8"
    )
    project.syspathinsert(outside)
    for number, change in enumerate(
        [
            ('dataset: "sums.jsonl"', "dataset: evil_tools:f"),
            ('prompt: "{question} = ?"', "prompt: {callable: 'evil_tools:f'}"),
            ('grader: "exact"', "grader: evil_tools:f"),
            ("n: 1", "n: 1\naggregate: evil_tools:f"),
        ]
    ):
        assert change[0] in YAML
        (project.path / f"evil{number}.llmtune.yaml").write_text(YAML.replace(*change), encoding="utf-8")
    for number in range(4):
        result = run(project, f"evil{number}.llmtune.yaml")
        assert result.ret != pytest.ExitCode.OK
        assert "is 'evil_tools:f', which runs code" in said(result)
        result = run(project, f"evil{number}.llmtune.yaml", "-o", f"llmtune_allow_code=evil{number}")
        assert result.ret != pytest.ExitCode.OK
        assert "the module 'evil_tools' is outside the project" in said(result)
    assert not witness.exists()


def test_a_yaml_suite_runs_code_where_the_project_says_so(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions of the project, and the python grader beside its own consent: for the suite that is named, no other."""
    (project.path / "own_tools.py").write_text(
        "def rows():\n    return [{'question': str(i), 'answer': '1'} for i in range(9)]"
    )
    text = YAML.replace('dataset: "sums.jsonl"', "dataset: own_tools:rows")
    (project.path / "own.llmtune.yaml").write_text(text, encoding="utf-8")
    (project.path / "code.llmtune.yaml").write_text(
        YAML.replace('grader: "exact"', "grader: [exact, {python: {allow_code_execution: true}}]"), encoding="utf-8"
    )
    for name, what in (("own", "dataset is 'own_tools:rows'"), ("code", "grader is 'python'")):
        result = run(project, f"{name}.llmtune.yaml", "--llm-allow-code=another")
        assert f"{what}, which runs code" in said(result)
        assert f"llmtune_allow_code = {name}" in said(result)
        monkeypatch.setenv("LLMTUNE_ALLOW_CODE", "another, " + name)
        assert "which runs code" not in said(run(project, f"{name}.llmtune.yaml"))
        monkeypatch.delenv("LLMTUNE_ALLOW_CODE")


def test_a_suite_of_the_data_of_published_files(project: pytest.Pytester) -> None:
    """A Korean CSV with BOM, trailing comma and empty cells is refused with ``math`` for the right reason."""
    rows = "".join(f"감정,안녕 {number},{'네' if number % 3 else ''},\r\n" for number in range(30))
    Path(project.path / "wellness.csv").write_bytes(("\ufeff구분,유저,챗봇,\r\n" + rows).encode())
    python(project, korean={"dataset": "wellness.csv", "prompt": "{유저}", "grader": "math"})
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "the columns are '구분', '유저', '챗봇'" in said(result)


FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "labels": ({"grader": {"choice": {"labels": ["yes", "no"]}}}, "cannot use the reference of"),
    "grader": ({"grader": "nosuch"}, "nosuch"),
    "column": ({"prompt": "{qestion}"}, "names {qestion} (did you mean 'question'?)"),
    "twin": ({"name": "good"}, "the suite 'good' is also declared at test_a.py:2"),
    "empty": ({"dataset": []}, "dataset is an empty list; a suite needs rows"),
    "module": ({"grader": "nosuch_module:grade"}, "nosuch_module"),
}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_one_wrong_suite_stops_no_other(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """Wherever the fault is found, it is the error of its own test, in one style, with and without workers."""
    python(project, good={})
    (project.path / "test_sums.py").rename(project.path / "test_a.py")
    python(project, **{name: changes for name, (changes, _) in FAULTS.items()})
    (project.path / "bad.llmtune.yaml").write_text(YAML + "modle: x\n", encoding="utf-8")
    (project.path / "worse.llmtune.yaml").write_text("a: [\n", encoding="utf-8")
    (project.path / "none.llmtune.yaml").write_text("", encoding="utf-8")
    several = f"name: fine\n{YAML}---\nname: fine\n{YAML}---\nseed: -1\n"
    (project.path / "several.llmtune.yaml").write_text(several, encoding="utf-8")
    keys = ", ".join(f"{key}={value!r}" for key, value in GOOD.items())
    (project.path / "test_marked.py").write_text(
        f"import pytest\npytestmark = pytest.mark.llmtune({keys})\n\n"
        "def test_marked(llmtune):\n    llmtune.check()\n\ndef test_plain():\n    pass\n\n",
        encoding="utf-8",
    )
    (project.path / "test_other.py").write_text("def test_other():\n    pass\n", encoding="utf-8")
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "-rE", *workers)
    text = said(result)
    # three good suites that have no lock file yet fail as they should
    result.assert_outcomes(passed=1, failed=3, errors=len(FAULTS) + 6)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    for _, message in FAULTS.values():
        assert message in text
    for message in (
        "bad.llmtune.yaml:9:1: modle: unknown key (did you mean 'model'?)",
        "worse.llmtune.yaml:2:1: while parsing a flow node",
        "none.llmtune.yaml:1:1: has no suite",
        "the suite 'fine' is also declared on line 1",
        "a document among several needs a name, as in `name: algebra`",
        "a test marked llmtune uses the fixture 'llmtune': def test_plain(llmtune): ...",
    ):
        assert message in text


def test_a_wrong_suite_that_is_skipped_is_skipped(project: pytest.Pytester) -> None:
    """A skip mark comes first, as for any test."""
    python(project, bad={"promt": "x"})
    path = project.path / "test_sums.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace("@pytest.mark.llmtune", "@pytest.mark.skip\n@pytest.mark.llmtune")
    )
    result = run(project)
    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.OK
