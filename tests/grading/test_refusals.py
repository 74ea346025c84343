"""What graders refuse, before anything is spent: options that mean nothing, and rows that cannot be used."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.graders import shared

from pytest_llmtune.errors import LLMTuneError, MissingToolError, SuiteError
from pytest_llmtune.grading import resolve, with_reliability
from pytest_llmtune.grading.base import BuiltIn, Grader, digest
from pytest_llmtune.grading.preflight import check
from pytest_llmtune.grading.registry import fits
from pytest_llmtune.types import Accept, Example, ExampleGrade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.types import Row


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"judge": {"model": "m"}}, "rubric is missing: a judge needs a model and a rubric, as text"),
        ({"judge": {"model": " ", "rubric": "r"}}, "model is missing"),
        ({"judge": {"model": "m", "rubric": "r", "samples": 0}}, "samples=0; expected a whole number from 1"),
        ({"judge": {"model": "m", "rubric": "r", "scale": 5}}, "scale=5, pass_mark=None; a scale of 2 or more"),
        ({"judge": {"model": "m", "rubric": "r", "scale": 5, "pass_mark": 1}}, "scale=5, pass_mark=1"),
        ({"judge": {"model": "m", "rubric": "r", "scale": 5, "pass_mark": 6}}, "scale=5, pass_mark=6"),
        ({"judge": {"model": "m", "rubric": "r", "min_agreement": 0}}, "expected a share above 0 and up to 1"),
        ({"judge": {"model": "m", "rubric": "r", "prompt": "{question}"}}, r"the prompt has no field {response}"),
        ({"tools": {"include": ["a"], "max_calls": -1}}, "max_calls=-1; expected a whole number from 0"),
        ({"tools": {"args": 3}}, "args=3; expected a mapping of tools to arguments, or a column in braces"),
        ({"tools": {"include": 3}}, "include=3; expected a list of tools' names"),
        ({"tools": {}}, "needs one of include, exclude, args and max_calls"),
        ({"tools": {"include": ["a"], "order": "random"}}, "valid: any, in_order, exact"),
        ({"calls": {}}, "needs one of max_calls, max_turns and no_repeats"),
        ({"calls": {"max_turns": -1}}, "max_turns=-1; expected a whole number from 0"),
        ({"json": {"fields": ["a..b"]}}, r"fields: 'a\.\.b' is no path such as 'name' or 'user\.tags\[0\]'"),
        ({"json": {"fields": [1]}}, "fields: 1 is no path"),
        ({"json": {"schema": "object"}}, "expected a mapping, the JSON schema itself"),
        ({"exact": {"form": "NFD"}}, "form='NFD'; valid: NFC, NFKC"),
        ({"contains": {"match": "some"}}, "match='some'; valid: any, all"),
        ({"numeric": {"take": "middle"}}, "take='middle'; valid: last, first"),
        ({"numeric": {"abs_tol": -1}}, "abs_tol=-1; expected a number of 0 or more"),
        ({"math": {"time_limit": 0}}, "time_limit=0; expected seconds, more than 0"),
        (
            {"math": {"extract": []}},
            r"extract=\[\]; expected a list of one or more of: boxed, hash, phrase, short, last",
        ),
        ({"math": {"extract": ["box"]}}, r"extract=\['box'\]"),
        ({"choice": {"negations": "not"}}, "negations='not'; expected a list of words"),
        ({"choice": {"labels": ["only"]}}, "expected a list of two or more labels"),
        ({"choice": {"labels": "AB"}}, "expected a list of two or more labels"),
        ({"choice": {"labels": ["a", "."]}}, "labels: '.' has an empty label or synonym"),
        ({"choice": {"labels": {"a": ["x"], "b": "x"}}}, "labels: 'x' stands for both 'a' and 'b'"),
        ({"python": {"allow_code_execution": True, "memory_mb": 0}}, "memory_mb=0; expected a number more than 0"),
        (
            {"python": {"allow_code_execution": True, "isolation": "podman:"}},
            "isolation='podman:'; expected bubblewrap",
        ),
        ({"exact": {"ignore_case": "no"}}, "exact: ignore_case='no'; expected true or false"),
        ({"numeric": {"abs_tol": True}}, "numeric: abs_tol=True; expected a number"),
        ({"judge": {"model": "m", "rubric": "r", "samples": 1.5}}, "judge: samples=1.5; expected a whole number"),
        ({"exact": "NFC"}, "exact: expected a mapping of options, got 'NFC'"),
        ([], "an empty list of graders"),
        (["exact", "exact"], "the grader 'exact' is listed twice; tell them apart with the option `name`"),
        (3, "3; expected one of math, exact"),
    ],
)
def test_an_option_that_means_nothing(spec: Any, says: str) -> None:
    """The message names it, with what is valid."""
    with pytest.raises(SuiteError, match=says):
        resolve(spec)


@pytest.mark.parametrize(
    ("spec", "row", "says"),
    [
        ({"python": {"allow_code_execution": True}}, {"tests": "assert ("}, "the tests are not Python"),
        ({"json": {"fields": ["a.b"]}}, {"answer": '{"a": 1}'}, "the reference has no field 'a.b'"),
        ("json", {"answer": "{"}, "is not JSON"),
        ({"tools": {"include": "{tools}"}}, {"answer": "1"}, "names the column 'tools'; the columns are 'answer'"),
        ({"tools": {"args": "{args}"}}, {"args": "{"}, "args: '{' is no JSON"),
        ({"tools": {"args": "{args}"}}, {"args": "[1]"}, "expected a mapping of tools to arguments"),
        ({"judge": {"model": "m", "rubric": "r"}}, {"answer": "x"}, "no column with the question"),
        (
            {"judge": {"model": "m", "rubric": "r"}},
            {"question": "q", "human_label": "maybe", "labelled_response": "x"},
            "the hand label 'maybe' in column 'human_label' is neither true nor false",
        ),
    ],
)
def test_a_row_that_cannot_be_used(spec: Any, row: dict[str, Any], says: str) -> None:
    """It is named before the first request."""
    with pytest.raises(SuiteError, match=says):
        shared(spec).reference(row)


def test_a_judge_grades_only_where_it_can_ask() -> None:
    """It has no verdict of its own."""
    judge = shared({"judge": {"model": "m", "rubric": "r"}})
    with pytest.raises(SuiteError, match="it grades only where completions can be asked for"):
        judge.grade(["x"], {"question": "q"})
    similarity = resolve({"similarity": {"threshold": 0.5, "model": "m"}})
    assert (similarity.per_response, similarity.probe_rows) == (False, 0)
    with pytest.raises(SuiteError, match="similarity asks m: it grades only where completions can be asked for"):
        similarity.grade(["x"], {"answer": "x"})


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer runs without the walls that were asked for."""
    monkeypatch.setenv("PATH", "")
    grader = resolve({"python": {"allow_code_execution": True, "isolation": "podman:python:3.13"}})
    with pytest.raises(MissingToolError, match="podman is not installed; this grader needs a sandbox"):
        grader.ready()


def broken(responses: Sequence[str]) -> dict[str, float]:
    raise ValueError(f"{len(responses)} are too many")


def known(responses: Sequence[str]) -> dict[str, float]:
    raise LLMTuneError(f"{len(responses)} answers")


async def later(responses: Sequence[str]) -> dict[str, float]:
    return {"success": float(bool(responses))}


def nothing() -> dict[str, float]:
    return {}


def needy(responses: Sequence[str], hint: str) -> dict[str, float]:
    return {"success": float(hint in responses)}


def test_functions_that_fail() -> None:
    """The message names the function, what it asks for and the row; our own errors stay as they are."""
    with pytest.raises(SuiteError, match=r"the grader broken raised ValueError: 1 are too many; on the row \{'q': 1\}"):
        resolve(broken).grade(["a"], {"q": 1})
    with pytest.raises(LLMTuneError, match=r"^1 answers$"):
        resolve(known).grade(["a"], {"q": 1})
    with pytest.raises(SuiteError, match="the grader later is async"):
        resolve(later)
    with pytest.raises(SuiteError, match=r"takes no argument; it is called as nothing\(responses, \*\*row\)"):
        resolve(nothing).reference({"q": 1})
    with pytest.raises(SuiteError, match=r"asks for 'hint'; .* and the columns are 'q'"):
        resolve(needy).reference({"q": 1})
    assert resolve(needy).grade(["a"], {"hint": "a"}).metrics == {"success": 1.0}


class Together(Grader):
    """Judges all responses at once."""

    fingerprint = "f"

    def reference(self, row: Row) -> str:
        return str(row)

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        return shared("exact").grade(responses, row)


def test_reliability_needs_single_answers() -> None:
    """And too few of them have no such metric."""
    with pytest.raises(SuiteError, match="judges all responses of a row together, so that pass_at_2 cannot be counted"):
        with_reliability(Together(), ["pass_at_2"])
    with pytest.raises(TypeError, match="judges all responses together"):
        Together().answers(["a"], {})
    wrapped = with_reliability(resolve("exact"), ["pass_at_2", "row_rate"])
    assert "pass_at_2" not in wrapped.grade(["a"], {"answer": "a"}).metrics
    assert wrapped.grade([], {"answer": "a"}).metrics.keys().isdisjoint({"pass_at_2", "row_rate"})
    assert with_reliability(Together(), ["success"]).name == "Together"


def test_a_step_of_a_cascade_that_fails_is_an_error() -> None:
    """And accepts nothing."""

    def odd(text: str) -> bool:
        raise KeyError(text)

    with pytest.raises(SuiteError, match="accept of a cascade's step raised KeyError: 'a'"):
        fits(Accept(function=odd))("a")
    with pytest.raises(SuiteError, match="which is in the suite; give its Config"):
        fits(Accept(function="module:name"))("a")


def test_fingerprints_of_options() -> None:
    """Sets have no order, paths are the same on every system, functions are hashed by their source."""
    assert digest({"a": {"y", "x"}}) == digest({"a": ["x", "y"]})
    assert digest(Path("a") / "b") == digest("a/b")
    assert digest({1: (1, 2)}) == digest({"1": [1, 2]})
    assert len({digest(broken), digest(known), digest(nothing)}) == 3


def test_what_is_delegated() -> None:
    """A wrapper is in everything like what it wraps, and holds what nobody has to be an error."""
    wrapped = resolve({"exact": {"reference": "a", "name": "mine"}}, vote="medoid")
    assert (wrapped.name, wrapped.vote, wrapped.reference_column) == ("mine", "medoid", "a")
    assert (wrapped.per_response, wrapped.reads_answers, wrapped.models) == (True, True, ())
    assert wrapped.parts == (wrapped.inner,)  # type: ignore[attr-defined]
    wrapped.ready()
    assert isinstance(wrapped.parts[0], BuiltIn)

    class Shaped:
        name, fingerprint = 7, 8

        def reference(self, row: Row) -> int:
            return len(row)

        def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
            return shared("exact").grade(responses, row)

    shaped = resolve(Shaped())
    assert (shaped.name, shaped.fingerprint, shaped.reference({"a": 1})) == ("7", "8", "1")
    assert (shaped.vote, shaped.caution, shaped.probe_rows, shaped.per_response) == ("equivalence", "", 50, False)
    assert (shaped.reads_answers, shaped.models, shaped.metric_names([])) == (False, (), None)
    shaped.ready()
    with pytest.raises(AttributeError, match="answers"):
        shaped.answers(["a"], {})


class Own(Grader):
    """Somebody's own: what it returns, or raises, is not what was agreed."""

    fingerprint = "f"

    def __init__(self, found: Any) -> None:
        self.found = found

    def reference(self, row: Row) -> str:
        return str(row["label"])

    def grade(self, responses: Sequence[str], row: Row) -> Any:  # noqa: ARG002
        return self.found() if callable(self.found) else self.found


class Duck:
    """The same without the base class."""

    name, fingerprint, reference, grade = "Own", "f", Own.reference, Own.grade

    def __init__(self, found: Any) -> None:
        self.found = found


def _scored(value: Any, metric: str = "success") -> ExampleGrade:
    return ExampleGrade({metric: value})


BROKEN = [
    (_scored(float("nan")), r"returned success=nan; a metric is a finite number"),
    (_scored(float("inf"), "length"), r"returned length=inf; a metric is a finite number"),
    (_scored("yes"), r"returned success='yes'; a metric is a finite number"),
    (_scored(None), r"returned success=None; a metric is a finite number"),
    (
        _scored(85),
        r"returned success=85; success is a share, from 0 to 1: divide it, or give the metric a name of its own",
    ),
    (_scored(-0.5, "success_vote"), r"returned success_vote=-0\.5; success_vote is a share"),
    ({"success": 1.0}, r"returned \{'success': 1\.0\}; expected an ExampleGrade"),
    (None, r"returned None; expected an ExampleGrade"),
    (lambda: {}["key"], r"raised KeyError: 'key'; on the row \{'label': 'a', 'answer': 'a'\}"),
]


@pytest.mark.parametrize("kind", [Own, Duck])
@pytest.mark.parametrize(("found", "says"), BROKEN)
def test_what_no_grade_is_is_refused(kind: Any, found: Any, says: str) -> None:
    """In words, alone and in a list, before anything is spent and later: no traceback, and no score that nothing can fail."""
    row, says = {"label": "a", "answer": "a"}, f"^the grader Own {says}"
    for grader in (resolve(kind(found)), resolve(["exact", kind(found)])):
        with pytest.raises(SuiteError, match=says):
            grader.grade(["a"], row)
        with pytest.raises(SuiteError, match=says):
            asyncio.run(grader.agrade(["a"], row, None))
    with pytest.raises(SuiteError, match=says):
        check(resolve(kind(found)), [Example("1", 0, row)])


def test_a_grader_that_lacks_its_column_is_told_with_the_row() -> None:
    """Its exception is its own; the run goes on with the other tests."""
    with pytest.raises(
        SuiteError, match=r"(?s)cannot use the reference of 1 of 1 rows:.*row 1: .* raised KeyError: 'label'"
    ):
        check(resolve(Own(None)), [Example("1", 0, {"text": "a"})])


@pytest.mark.parametrize("value", [True, 1, 0.25, Decimal(1)])
def test_numbers_of_any_kind_are_scores(value: Any) -> None:
    assert resolve(Own(_scored(value))).grade(["a"], {"label": "a"}).metrics["success"] == value


def test_a_function_that_counts_in_per_cent_is_refused() -> None:
    """``min_success_vote=0.9`` would hold for one per cent; a name of its own has any scale."""
    with pytest.raises(SuiteError, match=r"returned success=85\.0; success is a share"):
        resolve(lambda responses: 85).grade(["a"], {})  # noqa: ARG005
    assert resolve(lambda responses: {"bleu": 85}).grade(["a"], {}).metrics == {"bleu": 85.0}  # noqa: ARG005


def test_a_vote_that_raises_is_an_error_in_words() -> None:
    grader = resolve("exact", vote=lambda texts: texts.index("b"))
    with pytest.raises(SuiteError, match=r"^the vote function raised ValueError: .*; on \['a', 'a'\]$"):
        grader.grade(["a", "a"], {"answer": "a"})
