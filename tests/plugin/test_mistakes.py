"""What people write by mistake: one message each, which says what to do and begins with it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.live import Live, request
from support.llm_server import Fault, LLMServer

from pytest_llmtune.api import grade
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.plugin import options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = 'KEYS = dict(dataset="data.jsonl", prompt="{question}", model="gpt-4o-mini", grader="numeric", tune_size=2)'
DECLARED = f"""
import unittest, pytest, pandas, pydantic, dataclasses
{KEYS}
@dataclasses.dataclass
class Row:
    question: str
    answer: int
class Model(pydantic.BaseModel):
    question: str
    answer: int
rows = [dict(question=f"1 + {{i}}?", answer=i + 1) for i in range(4)]
class TestCase(unittest.TestCase):
    @pytest.mark.llmtune(name="case", **KEYS)
    def test_case(self, llmtune): llmtune.check()
@pytest.mark.llmtune(name="late", **KEYS)
async def test_async(llmtune): llmtune.check()
@pytest.mark.llmtune(name="all", **KEYS)
class TestAll:
    def test_one(self, llmtune): llmtune.check()
    def test_two(self, llmtune): llmtune.check()
    def test_plain(self): pass
def test_unmarked(llmtune): llmtune.check()
@pytest.mark.parametrize("shop", ["north", "south/1"])
@pytest.mark.llmtune(**KEYS)
def test_each(llmtune, shop): llmtune.check()
@pytest.mark.parametrize("shop", ["north", "south"])
@pytest.mark.llmtune(name="named", **KEYS)
def test_named(llmtune, shop): llmtune.check()
@pytest.mark.llmtune(**(KEYS | dict(dataset=pandas.DataFrame(rows))))
def test_frame(llmtune): llmtune.check()
@pytest.mark.llmtune(**(KEYS | dict(dataset=[Row(**row) for row in rows])))
def test_dataclass(llmtune): llmtune.check()
@pytest.mark.llmtune(**(KEYS | dict(dataset=[Model(**row) for row in rows])))
def test_pydantic(llmtune): llmtune.check()
@pytest.mark.llmtune(**(KEYS | dict(dataset=dict(question=["1 + 1?"], answer=[2]))))
def test_columns(llmtune): llmtune.check()
@pytest.mark.llmtune(**(KEYS | dict(dataset="semicolons.csv")))
def test_semicolons(llmtune): llmtune.check()
@pytest.mark.llmtune(**(KEYS | dict(dataset="other.jsonl")))
def test_other_column(llmtune): llmtune.check()
@pytest.mark.llmtune(name="right", **(KEYS | dict(grader=lambda responses, answer: responses[0] == str(answer))))
def test_right(llmtune): llmtune.check()
@pytest.mark.llmtune(optimization_budget=0.0000001, **KEYS)
def test_no_request(llmtune): llmtune.check()
@pytest.mark.llmtune(inference_budget=0.0000000001, optimization_budget=1, **KEYS)
def test_no_prompt(llmtune): llmtune.check()
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    rows = [{"question": f"1 + {i}?", "answer": i + 1} for i in range(4)]
    files = {
        "data.jsonl": "\n".join(map(json.dumps, rows)),
        "other.jsonl": "\n".join(json.dumps({"question": row["question"], "sum": row["answer"]}) for row in rows),
        "semicolons.csv": "question;answer\n" + "".join(f"{row['question']};{row['answer']}\n" for row in rows),
        "test_it.py": DECLARED,
    }
    for name, text in files.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "200")
    return pytester


def test_declared_wrongly(project: pytest.Pytester) -> None:
    """Each in the first words of pytest's summary; what works has only no lock file yet."""
    result = project.runpytest_inprocess("-q", "-p", "no:cacheprovider")
    told = {
        line.partition(" - ")[0].rpartition("::")[2]: line.partition(" - ")[2]
        for line in result.outlines
        if line.startswith(("FAILED", "ERROR"))
    }
    works = "test_one test_each[north] test_each[south/1] test_named[north] test_named[south] test_frame test_dataclass"
    works += " test_pydantic test_semicolons test_right test_no_request test_no_prompt"
    for name in works.split():
        assert told.pop(name).startswith("no lock file"), name
    expected = {
        "test_case": "a method of unittest.TestCase takes no fixture",
        "test_async": "a suite's test is a plain function, not async: def test_async(llmtune)",
        "test_two": "the suite 'all' is also declared at test_it.py:19 (TestAll.test_one); names are unique in a run: mark",
        "test_plain": "a test marked llmtune uses the fixture 'llmtune'",
        "test_unmarked": "the fixture 'llmtune' needs a suite: @pytest.mark.llmtune(",
        "test_columns": "dataset is {'question': ['1 + 1?'], 'answer': [2]}, a dict of columns; give a list of rows; valid:",
        "test_other_column": "the grader numeric cannot use the reference of 4 of 4 rows:",
    }
    assert told.keys() == expected.keys()
    for name, start in expected.items():
        assert told[name].startswith(start), name
    result.stdout.fnmatch_lines(["  ... and the same in 3 more", "fix the data, name the right column *"])


def test_budgets_that_pay_for_nothing(project: pytest.Pytester) -> None:
    """The dry run says so, and suites that parametrize makes have names of their own."""
    result = project.runpytest_inprocess("-q", "-p", "no:cacheprovider", "--llm-tune-dry-run", "-k", "no_ or named")
    result.stdout.fnmatch_lines_random(
        [
            "no_request: *The optimization budget of $0.0000001 does not pay for one request, which may cost $0.*",
            "no_prompt: *The inference budget of $0.0000000001 does not pay for the shortest prompt alone, about $*",
            "named_north: at most 20 trials *",
            "named_south: at most 20 trials *",
        ]
    )


def test_a_report_is_a_page(project: pytest.Pytester) -> None:
    (project.path / "out.d").mkdir()
    for path in ("x.txt", "out/x.json"):
        result = project.runpytest_inprocess(f"--llm-report={path}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*--llm-report is '{path}'; valid: a directory, or a file that ends in .html"])
    result = project.runpytest_inprocess("-q", "-p", "no:cacheprovider", "--llm-report=out.d", "-k", "frame")
    result.stdout.fnmatch_lines(["report: out.d/index.html"])


@pytest.mark.parametrize(("value", "score"), [(True, 1.0), (False, 0.0), (0.25, 0.25)])
def test_a_grader_may_return_a_bool_or_a_number(value: object, score: float) -> None:
    """It is the row's success, all responses taken together."""
    numpy = pytest.importorskip("numpy")
    for same in (value, numpy.float64(value)):
        found = grade(lambda _responses, same=same, **_: same, ["a"], {"answer": 1})
        assert found.metrics == {"success": score, "success_vote": score}


@pytest.mark.parametrize("value", [None, "yes", [True], float("nan")])
def test_a_grader_returns_nothing_else(value: object) -> None:
    with pytest.raises(LLMTuneError, match=r"expected True, False, a number, or a dict|a metric is a finite number"):
        grade(lambda _responses, **_: value, ["a"], {"answer": 1})


@pytest.mark.parametrize(
    ("given", "told"),
    [("", "{root}/v1"), ("/v1/chat/completions", "{root}/v1"), ("/v1/v1", "{root}/v1"), ("/api", "")],
)
def test_a_wrong_base_url(given: str, told: str, tmp_path: Path) -> None:
    """With and without /v1 are tried; the one that answers is named."""

    def only_v1(_: Any) -> Fault | None:
        return None if server.paths[-1] == "/v1/chat/completions" else Fault.http(404, "Not Found")

    with LLMServer(fault=only_v1, models_at="/v1/models", models=["m"]) as server:
        live = Live(tmp_path)
        source = live.source(f"{server.root_url}{given}", cache=None)
        error = " ".join(map(str, live.results(source, *map(request, range(3)))))
    if told:
        assert f"{told.format(root=server.root_url)} answers: make that the base URL" in error
    else:
        assert f"no list of models at {server.root_url}/api nor at {server.root_url}/api/v1: is the base" in error


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (options.boolean, "off", False),
        (options.boolean, "Yes", True),
        (options.pruning, "false", None),
        (options.pruning, "on", "yes"),
        (options.engine, "local", None),
        (options.names, "a, b,\nc", ("a", "b", "c")),
    ],
)
def test_words_of_the_environment_are_understood(parse: Callable[[str], object], text: str, value: object) -> None:
    """A variable and an ini key cannot be left bare: each has a word for no."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (options.boolean, "perhaps", "is 'perhaps'; valid: 1, true, yes, on, 0, false, no, off"),
        (options.pruning, "tests", "is 'tests'; valid: nothing or show, to look; yes, to remove. It takes no paths"),
        (options.prices, "m input=1", "has the line 'm input=1'; valid: MODEL input=USD output=USD"),
        (options.fraction, "1.5", "is '1.5'; valid: a number above 0, at most 1"),
        (options.models, " ,", "is ' ,'; valid: names of models, separated by commas"),
    ],
)
def test_other_words_are_refused_with_the_valid_ones(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_a_misspelt_variable_is_not_ignored(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is not set limits nothing. Variables of other names are somebody else's."""
    monkeypatch.setenv("LLMTUNE_HOME_OF_SOMETHING_ELSE", "x")
    pytester.makepyfile("def test(llmtune): pass")
    assert pytester.runpytest_inprocess("--llm-tune").ret != pytest.ExitCode.USAGE_ERROR
    monkeypatch.setenv("LLMTUNE_MAX_SPENT", "0.01")
    result = pytester.runpytest_inprocess("--llm-tune")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    line = "ERROR: the environment variable LLMTUNE_MAX_SPENT is unknown (did you mean 'LLMTUNE_MAX_SPEND'?)"
    result.stderr.fnmatch_lines([line])


def test_a_migration_to_no_model_is_no_guard(pytester: pytest.Pytester) -> None:
    """As with ``--llm-migrate=$MODELS`` where the variable is not set."""
    result = pytester.runpytest_inprocess("--llm-migrate=")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --llm-migrate is ''; valid: names of models*"])
