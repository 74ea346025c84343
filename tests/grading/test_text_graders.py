"""The graders of labels, numbers and texts, by tables of what they accept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.registry import resolve


def right(grader: Any, reference: Any, response: str) -> bool:
    return resolve(grader).grade([response], {"answer": reference}).metrics["success_vote"] == 1


MOODS = {"choice": {"labels": {"positive": ["good", "긍정"], "negative": ["bad", "부정"]}}}


@pytest.mark.parametrize(
    ("grader", "reference", "response", "expected"),
    [
        ("numeric", "18", "So 7 and 11 make 18.", True),
        ("numeric", "18", "18 is not 19", False),
        ({"numeric": {"take": "first"}}, "18", "18 is not 19", True),
        ("numeric", "1000", "It costs $1,000.00", True),
        ("numeric", "0.5", "1/2", True),
        ("numeric", "-3", "minus: -3", True),
        ("numeric", "3", "-3", False),
        ({"numeric": {"abs_tol": 0.01}}, "3.14", "3.1415", True),
        ({"numeric": {"abs_tol": 0.001}}, "3.14", "3.1415", False),
        ({"numeric": {"rel_tol": 0.1}}, "200", "181", True),
        ({"numeric": {"rel_tol": 0.1}}, "200", "179", False),
        ({"numeric": {"decimal_comma": True}}, "1234,5", "1.234,5", True),
        ("choice", "B", "Answer: B", True),
        ("choice", "B", "(B)", True),
        ("choice", "B", "Answer: C", False),
        (MOODS, "positive", "The mood is good.", True),
        (MOODS, "positive", "긍정", True),
        (MOODS, "positive", "It is not good, it is bad.", False),
        (MOODS, "positive", "not good", False),
        (MOODS, "negative", "정답: 부정", True),
        ("exact", "Paris", " Paris\n", True),
        ("exact", "Paris", "paris", False),
        ({"exact": {"ignore_case": True}}, "Straße", "STRASSE", True),
        ({"exact": {"ignore_space": True}}, "New York", "New \n York", True),
        ({"exact": {"ignore_punctuation": True}}, "Yes!", "Yes.", True),
        ("exact", "\u00e9", "e\u0301", True),
        ("exact", "A", "\uff21", False),
        ({"exact": {"form": "NFKC"}}, "A", "\uff21", True),
        ("contains", "10", "There are 10 of them", True),
        ("contains", "10", "There are 100 of them", False),
        ({"contains": {"whole_words": False}}, "서울", "수도는 서울입니다", True),
        ({"contains": {"match": "all"}}, ["red", "blue"], "red and green", False),
        ("contains", ["red", "blue"], "red and green", True),
        ({"contains": {"match": "any"}}, ["red", "blue"], "red and green", True),
        ({"regex": {"pattern": r"Total: (\d+)"}}, "7", "Total: 3, no: Total: 7", True),
        ({"regex": {"pattern": r"Total: (\d+)"}}, "3", "Total: 3, no: Total: 7", False),
        ({"regex": {"pattern": r"(?P<unit>\w+) = (?P<answer>\d+)"}}, "7", "km = 7", True),
        ("regex", r"^yes\b", "yes, it is", True),
        ("regex", r"^yes\b", "oh yes", False),
        ({"regex": {"ignore_case": True}}, r"^yes\b", "YES!", True),
        ("json", '{"a": 1, "b": [1, 2]}', 'Here: ```json\n{"b": [1, 2], "a": 1.0}\n```', True),
        ("json", '{"a": 1}', '{"a": true}', False),
        ("json", "[1, 2]", "[2, 1]", False),
        ({"json": {"any_order": True}}, "[1, 2]", "[2, 1]", True),
        (
            {"json": {"fields": ["user.tags[0]"]}},
            '{"user": {"tags": ["x"]}}',
            '{"user": {"tags": ["x", "y"]}, "z": 1}',
            True,
        ),
        ({"json": {"fields": ["user.tags[0]"]}}, '{"user": {"tags": ["x"]}}', '{"user": {"tags": ["y"]}}', False),
    ],
)
def test_what_a_grader_accepts(grader: Any, reference: Any, response: str, expected: bool) -> None:
    """One line a rule; each accepted response has a refused neighbour."""
    assert right(grader, reference, response) is expected


@pytest.mark.parametrize("value", ['{"age": 7}', '{"age": "7"}', "no JSON"])
def test_a_schema_without_a_reference(value: str) -> None:
    """Fitting is all that is asked."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    grade = resolve({"json": {"schema": schema}}).grade([value], {"question": "How old?"})
    assert grade.metrics["success"] == float(value == '{"age": 7}')


@pytest.mark.parametrize(
    ("grader", "row", "message"),
    [
        ("numeric", {"answer": "none"}, "holds no number"),
        ("numeric", {"answer": "3 or 4"}, "holds 2 numbers"),
        ("exact", {"answer": " "}, "is empty"),
        ("exact", {"reply": "x"}, "no reference column"),
        ({"exact": {"reference": "gold"}}, {"answer": "x"}, "no column 'gold'"),
        (MOODS, {"answer": "neutral"}, "none of the labels"),
        ("json", {"answer": "{"}, "is not JSON"),
        ("regex", {"answer": "("}, "not valid"),
    ],
)
def test_references_that_cannot_be_used_are_refused(grader: Any, row: dict[str, Any], message: str) -> None:
    """With what is wrong, so that the data can be mended."""
    with pytest.raises(SuiteError, match=message):
        resolve(grader).reference(row)


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ("maths", "did you mean 'math'"),
        ({"exact": {"ignorecase": True}}, "did you mean 'ignore_case'"),
        ({"exact": {"ignore_case": "no"}}, "expected true or false"),
        ({"numeric": {"abs_tol": -1}}, "0 or more"),
        ({"choice": {"labels": {"a": ["x"], "b": ["x"]}}}, "stands for both"),
        ({"regex": {"pattern": "("}}, "not valid"),
        ({"json": {"schema": {"type": "nonsense"}}}, "not a JSON schema"),
        (7, "expected one of"),
    ],
)
def test_a_wrong_declaration_is_one_clear_error(grader: Any, message: str) -> None:
    """It names what is wrong and what is meant."""
    with pytest.raises(SuiteError, match=message):
        resolve(grader, where="suite sums: grader")


def test_a_list_of_graders_gives_several_metrics() -> None:
    """The first names the metrics, the second's carry its name."""
    grader = resolve(["exact", {"contains": {"name": "mentions"}}])
    metrics = grader.grade(["It is Paris."], {"answer": "Paris"}).metrics
    assert metrics["success_vote"] == 0
    assert metrics["mentions_success_vote"] == 1
    assert grader.metric_names([]) == metrics.keys()


def test_a_function_cannot_tell_its_metrics_beforehand() -> None:
    """Nor can a list that it is in; a grader of a user's own class can."""
    own = SimpleNamespace(name="own", fingerprint="0", grade=None, metric_names=lambda _: frozenset({"mine"}))
    assert resolve(len).metric_names([]) is None
    assert resolve(["exact", len]).metric_names([]) is None
    assert resolve([own, {"exact": {"name": "same"}}]).metric_names([]) == {
        "mine",
        "same_success",
        "same_success_vote",
        "same_expected_success",
    }


def test_fingerprints_tell_options_apart() -> None:
    """What changes grades changes the fingerprint, and nothing else does."""
    prints = [
        resolve(spec).fingerprint for spec in ("exact", {"exact": {}}, {"exact": {"ignore_case": True}}, "contains")
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("reference", "inside", "beside"),
    [
        ("5", ["-5", "It is \u22125.", "5.3", "1,5", "1.5", ".5", "5,3", "15", "5e3", "1,5,3"],
         ["5", "5.", "(5)", "$5", "5, 6", "6,\n5", "5%", "3-5", "GPT-5", "+5", "5-6", "**5**"]),
        (5, ["-5", "5.0"], ["It is 5."]),
        ("-5", ["5", "-5.5"], ["-5", "(-5)"]),
        ("1.5", ["11.5", "1.55", "1.5.2", "-1.5"], ["1.5", "1.5.", "It is 1.5, or so"]),
        ("1,234", ["1,234,567", "-1,234", "21,234"], ["1,234.", "$1,234"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [{}, {"ignore_punctuation": True}, {"form": "NFKC", "ignore_case": True}])
def test_no_number_is_found_inside_another(
    reference: object, inside: list[str], beside: list[str], options: dict[str, Any]
) -> None:
    """A sign and a decimal mark are parts of a number."""
    grader = resolve({"contains": options})
    assert [text for text in inside if grader.answers([text], {"answer": reference})[0].correct] == []
    assert [text for text in beside if not grader.answers([text], {"answer": reference})[0].correct] == []
