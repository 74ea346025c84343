"""Answers that would keep a grader busy for ever: each is given up in time, and the others are graded."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest

from pytest_llmtune._util.text import InvalidError
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import fits, resolve
from pytest_llmtune.grading.base import BuiltIn
from pytest_llmtune.grading.code.extract import code_in
from pytest_llmtune.grading.reasoning import BUILT_IN
from pytest_llmtune.grading.similarity import Similarity
from pytest_llmtune.suite.cascade import read_accept
from pytest_llmtune.types import Accept, ModelCall, RunText, TaskRun, ToolCall

PIECES = [
    "\\[", "\\(", "$", "$$", "\\boxed{", "\\boxed", "\\frac{", "\\text{", "{", "}", "(", "[", "[[", '{"a":', "#### ", "####\n",
    "the answer is ", "answer:", "answer ", "1", "1,", "1.", "1/", "-", "- ", "1 ", "1e", "^", "2^", "\\sqrt", "9", "一", "½", "%", "A",
    "(A", "(A) or ", "not ", "**", "*", "```", "```python\n", "```\n", "~~~\n", "<", "<b>", "<think>", "</think>", " ", "\n", "\t",
    "\u3000", "a", "a b ", "is ", "is not ", "option ", "正解", "답은 ", "答案是", "=", "x=", "x = 1, ", "\\\\", "\\,", "&", '"', "'",
    "`", "|", "> ", "1. ", "٣", "１", "$1 ", "1:30 ", "\\left(",
]  # fmt: skip
GRADERS: list[tuple[Any, dict[str, Any]]] = [
    ("math", {"answer": "1"}),
    ("numeric", {"answer": "1"}),
    ("choice", {"answer": "A"}),
    ("exact", {"answer": "1"}),
    ({"contains": {"ignore_punctuation": True}}, {"answer": "1 2"}),
    ("json", {"answer": '{"a": 1}'}),
    ({"regex": {"pattern": r"answer is (\d+)"}}, {"answer": "1"}),
]


def spent(grader: Any, texts: list[str], row: dict[str, Any]) -> float:
    """Seconds of CPU of this process."""
    started = time.process_time()
    answers = grader.answers(texts, row)
    assert len(answers) == len(texts)
    return time.process_time() - started


@pytest.mark.parametrize(("spec", "row"), GRADERS, ids=str)
def test_short_answers_take_no_time(spec: Any, row: dict[str, Any]) -> None:
    """What is read in this process: 5,000 characters of any beginning, opened again and again and never closed."""
    grader = resolve(spec)
    texts = [(piece * 5_000)[:4_999] for piece in PIECES]
    grader.answers(["1"], row)
    slowest = max((spent(grader, [text], row), text[:20]) for text in texts)
    assert slowest[0] < 5, slowest


@pytest.mark.parametrize(
    "text",
    [
        "#### 4" + "J" * 36 + "3&",  # found by .ci/fuzz
        "it is 5 " + "µ" * 23 + "!",
        "it is 5 " + "Ω" * 23 + "^",
        "it is 5 m" + "per" * 26 + "!",
        "\\boxed{5 miles" + " per" * 26 + " 5}",
        "\\boxed{5 초" + " per" * 26 + " 5}",
        "\\sqrt {}" * 26 + "!",
    ],
)
@pytest.mark.parametrize("spec", ["math", "numeric", "choice"])
def test_no_word_is_divided_in_every_possible_way(spec: str, text: str) -> None:
    """Few characters, but exponential time where one text is matched in several ways again and again."""
    grader, row = resolve(spec), {"answer": "A" if spec == "choice" else "1"}
    grader.answers(["1"], row)
    assert spent(grader, [text], row) < 0.5


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for each answer."""
    monkeypatch.setattr(BuiltIn, "time_allowed", 0.5)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "spec", [{"math": {"time_limit": 0.5}}, "numeric", "choice", {"json": {"time_limit": 0.5}}], ids=str
)
def test_long_answers_are_given_up(spec: Any) -> None:
    """200 KB: read in a worker within its limit, or no answer; a right answer beside it is right."""
    row = {"answer": "A" if spec == "choice" else '{"a": 1}' if "json" in spec else "1"}
    right = "The answer is A." if spec == "choice" else '{"a": 1}' if "json" in spec else "The answer is 1."
    grader = resolve(spec)
    texts = [piece * (200_000 // len(piece)) for piece in ("\\[", "\\boxed{", "1,")]
    answers = grader.answers([texts[0], right, *texts[1:]], row)
    assert [answer.correct for answer in answers] == [False, True, False, False]


def test_a_long_right_answer_is_right() -> None:
    """Read in a worker, with the same outcome as here."""
    long = "So it goes on. " * 1_000
    assert [
        answer.correct for answer in resolve("math").answers([long + r"\boxed{\frac12}", long], {"answer": "0.5"})
    ] == [
        True,
        False,
    ]
    assert resolve({"numeric": {"abs_tol": 0.1}}).answers([long + "The answer is 3.05."], {"answer": 3})[0].correct
    assert resolve("exact").answers([long], {"answer": long})[0].correct


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("by_column", [False, True])
def test_a_regular_expression_of_a_suite_is_stopped(by_column: bool) -> None:
    """(a+)+$ on a few dozen letters takes longer than the universe: no answer, and the others are searched."""
    evil = r"^(a+)+$"
    grader = resolve({"regex": {} if by_column else {"pattern": evil}})
    grader_row = {"answer": evil if by_column else "aaa"}
    answers = grader.answers(["a" * 40 + "!", "aaa"], grader_row)
    assert [answer.correct for answer in answers] == [False, True]


@pytest.mark.usefixtures("hurried")
def test_a_pattern_of_a_schema_is_stopped() -> None:
    """Of the arguments of a tool, and of a document."""
    schema = {"type": "object", "properties": {"q": {"pattern": "^(a+)+$"}}, "required": ["q"]}
    tools = resolve({"tools": {"args": {"find": {"schema": schema}}}})
    document = resolve({"json": {"schema": schema, "time_limit": 0.5}})
    for text, expected in (("a" * 40 + "!", False), ("aaa", True)):
        call = ModelCall(1, "m", (), "", (ToolCall("find", {"q": text}),))
        [answer] = tools.answers([RunText("x", TaskRun(1, "x", calls=(call,)))], {})
        assert answer.correct is expected
        assert document.answers([f'{{"q": "{text}"}}'], {})[0].correct is expected


@pytest.mark.usefixtures("hurried")
def test_a_pattern_of_a_cascade_is_stopped() -> None:
    """What the cheap answers must match: past the time limit they do not."""
    fit = fits(Accept(regex="^(a+)+$"))
    assert [fit(text) for text in ("a" * 40 + "!", "aaa", "b")] == [False, True, False]


@pytest.mark.parametrize("depth", [400, 900, 5_000])
def test_what_is_nested_too_deeply_is_no_answer(depth: int) -> None:
    """JSON in JSON, in answers, references and arguments of tools: wrong or our own error, and the others are graded."""
    text = '{"a":' * depth + "1" + "}" * depth
    try:
        arguments = json.loads(text)
    except RecursionError:
        arguments = text
    runs = [
        RunText("x", TaskRun(1, "x", calls=(ModelCall(1, "m", (), "", (ToolCall("f", given),) * 2),)))
        for given in (arguments, 1)
    ]
    assert resolve("json").answers([text, '{"a": 1}'], {"answer": '{"a": 1}'})[1].correct
    assert not resolve({"calls": {"no_repeats": True}}).answers(runs, {})[1].correct
    for grader, row, responses in (
        ("json", {"answer": text}, ["1", text]),
        ({"tools": {"args": "{args}"}}, {"args": f'{{"f": {text}}}'}, runs),
        ({"tools": {"args": {"f": {"schema": {"type": "integer"}}}}}, {}, runs),
    ):
        with suppress(SuiteError):
            assert len(resolve(grader).answers(responses, row)) == len(responses)


def test_expressions_and_labels_have_a_size() -> None:
    """One that needs a deep parser, as many labels as a file holds."""
    nested = {"pattern": "(" * 5_000 + ")" * 5_000}
    for grader in (
        {"json": {"schema": nested}},
        {"tools": {"args": {"f": {"schema": nested}}}},
        {"choice": {"labels": list(map(str, range(10_001)))}},
    ):
        with pytest.raises(SuiteError, match=r"nested too deeply|more than the limit of 10,000"):
            resolve(grader)
    with pytest.raises(InvalidError, match="regex of a cascade's step is"):
        read_accept({"regex": nested["pattern"]})


@pytest.mark.parametrize(
    "read",
    [
        BUILT_IN.answer,
        code_in,
        Similarity(threshold=0.5).grade,
        Similarity(threshold=0.5, measure="rouge_l").grade,
    ],
    ids=["reasoning", "python", "chrf", "rouge_l"],
)
def test_what_is_read_without_a_worker_takes_linear_time(read: Any) -> None:
    """Before every grader, and in those whose libraries are fast: 50,000 characters of any beginning."""
    if read not in (BUILT_IN.answer, code_in):
        grade = read
        read = lambda text: grade([text], {"answer": "a b c"})  # noqa: E731
    pairs = ["`<think>x</think>", "```\na <think>x</think>\n", "<think>x</think>", "[THINK]", "<|channel|>a<|message|>"]
    for piece in [*PIECES, *pairs]:
        text = piece * (50_000 // len(piece)) + "<"
        started = time.process_time()
        read(text)
        assert time.process_time() - started < 0.7, piece


@pytest.mark.parametrize("pattern", ["(" * 10_000 + ")" * 10_000, "a{99999999999999999999}", "(?P<x>"])
def test_an_expression_that_cannot_be_compiled(pattern: str) -> None:
    """Is the suite's error, not a crash."""
    with pytest.raises(SuiteError, match="the regular expression"):
        resolve({"regex": {"pattern": pattern}})
