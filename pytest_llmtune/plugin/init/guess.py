"""Guess task, grader and columns from a data file."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import check, resolve
from pytest_llmtune.suite.prompts import escape, format_fields
from pytest_llmtune.suite.suite import REFERENCE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmtune.data.dataset import Dataset


_ANSWERS = (
    *REFERENCE_COLUMNS,
    *("gold", "gold_answer", "ground_truth", "correct_answer", "correct", "ideal", "category", "class"),
    *("sentiment", "intent", "output", "completion", "response", "summary", "translation"),
)
_QUESTIONS = (
    *("instruction", "context", "passage", "document", "article", "premise", "hypothesis", "question", "problem"),
    *("query", "prompt", "input", "message", "text", "sentence", "review", "content", "options", "choices"),
)
_EXPLAINING = ("rationale", "explanation", "reasoning", "thought", "cot")
_NUMBERING = ("id", "idx", "index", "no", "number", "row", "uid", "uuid", "key")


def values(data: Dataset, column: str) -> list[Any]:
    """A column's values, without missing ones."""
    return [row.row[column] for row in data.examples if row.row.get(column) not in (None, "")]


def reference_column(data: Dataset) -> str:
    """The column with the correct answers: by name, else with the fewest distinct values; SuiteError if there is none."""
    named = {name.casefold(): name for name in reversed(data.columns)}
    for known in _ANSWERS:
        if known in named:
            return named[known]
    distinct = {name: len(set(map(str, values(data, name)))) for name in data.columns}
    others = (*_QUESTIONS, *_EXPLAINING, *_NUMBERING)
    possible = [name for name, count in distinct.items() if count > 1 and name.casefold() not in others]
    if len(data.columns) < 2 or not possible:
        raise SuiteError(
            f"{data.source}: no column holds the right answers (there is {', '.join(data.columns)}); "
            f"call it {', '.join(REFERENCE_COLUMNS[:-1])} or {REFERENCE_COLUMNS[-1]}"
        )
    return min(reversed(possible), key=lambda name: distinct[name])


def question_columns(data: Dataset, answer: str) -> tuple[str, ...]:
    """The columns for the prompt, in order: by name, else the one with the longest texts; SuiteError if none is left."""
    rest = [name for name in data.columns if name != answer and _is_field(name)]
    if known := tuple(name for name in rest if name.casefold() in _QUESTIONS):
        return known
    texts = [name for name in rest if name.casefold() not in (*_ANSWERS, *_EXPLAINING, *_NUMBERING)]
    if not texts:
        raise SuiteError(f"{data.source}: besides {answer!r} there is no column with a question")
    return (max(texts, key=lambda name: sum(len(str(value)) for value in values(data, name))),)


def _is_field(name: str) -> bool:
    """Whether a format string can name the column."""
    try:
        return format_fields(f"{{{name}}}") == {name}
    except SuiteError:
        return False


_NUMBER = lazy_regex(r"[-+]?[$€£¥₩]?\s?\d[\d,]*(\.\d+)?\s?%?")
_MATH = lazy_regex(r"\\[a-zA-Z]+|\$.+\$|[\d)}a-z]\s?[\^_=]|####")
_MOST_LABELS, _LONGEST_LABEL, _LONGEST_ANSWER = 12, 40, 200
_RUBRIC = "The answer says the same as the reference, and nothing that contradicts it."


@dataclass(frozen=True, slots=True)
class Guess:
    """The guess for a data file."""

    fields: tuple[str, ...]
    """Columns used in the prompt."""
    reference: str
    """The column with the correct answers."""
    grader: Any
    """As declared in a suite."""
    why: str
    """Why this grader, for the comment above it."""
    ending: str
    """End of the prompt that asks for the answer; a format string."""
    longest: int
    """Generous limit in tokens for an answer."""


def guess(data: Dataset, fields: tuple[str, ...], reference: str) -> Guess:
    """Guess from all rows; SuiteError if no built-in grader can use the reference."""
    found = next((name for name in REFERENCE_COLUMNS if name in data.columns), None)  # by the grader, without an option
    named = {} if found == reference else {"reference": reference}
    problem: SuiteError | None = None
    for name, options, why, ending, longest in _candidates(values(data, reference), len(data.examples)):
        all_options = named | options
        grader = {name: all_options} if all_options else name
        try:
            check(resolve(grader), data.examples)
        except SuiteError as error:
            problem = problem or error
        else:
            return Guess(fields, reference, grader, why, ending, longest)
    raise SuiteError(f"{data.source}: no built-in grader can use the column {reference!r}: {problem}")


_Candidate = tuple[str, dict[str, Any], str, str, int]


def _candidates(answers: Sequence[Any], rows: int) -> Iterator[_Candidate]:
    """Suitable graders, best first: (name, options, why, end of the prompt, tokens)."""
    texts = [str(answer).strip() for answer in answers]
    labels = list(dict.fromkeys(texts))
    longest = max(map(len, texts), default=0)
    if any(isinstance(answer, (dict, list)) or _is_json(answer) for answer in answers):
        yield "json", {}, "the answers are JSON", "Answer with JSON only.", 1000
    if all(re.fullmatch("[A-Z]", label) for label in labels):
        yield "choice", {}, "the answers are single letters", "Answer with the letter of the right choice.", 500
    if all(map(_NUMBER.fullmatch, texts)):
        yield "numeric", {}, "the answers are numbers", "End with: The answer is (a number).", 1000
    if any("####" in text or (len(text) <= _LONGEST_ANSWER and _MATH.search(text)) for text in texts):
        yield "math", {}, "the answers are mathematics", "Put the final answer in \\boxed{{}}.", 1000
    few = 2 <= len(labels) <= min(_MOST_LABELS, rows // 3) and max(map(len, labels)) <= _LONGEST_LABEL
    if few and len({label.casefold() for label in labels}) == len(labels):
        why = f"the answers are {len(labels)} labels"
        yield "choice", {"labels": labels}, why, f"Answer with one of: {escape(', '.join(labels))}.", 100
    if longest > _LONGEST_ANSWER:
        judge = {"model": "gpt-4o-mini", "rubric": _RUBRIC}
        yield "judge", judge, "the answers are long texts: a model compares them, at its price", "", 1000
    yield "contains", {"ignore_case": True}, "the answers are short texts", "Answer in a few words.", 200
    yield "exact", {"ignore_case": True}, "the whole response is compared", "Answer with nothing but the answer.", 200


def _is_json(answer: Any) -> bool:
    if not isinstance(answer, str) or not answer.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True
