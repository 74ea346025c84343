"""What a starter suite says, found by looking at the data; the grader is held against every row before it is taken."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import check, resolve
from pytest_llmtune.plugin.init import columns
from pytest_llmtune.suite.columns import REFERENCE_COLUMNS
from pytest_llmtune.suite.format_string import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_llmtune.data.dataset import Dataset

__all__ = ["Guess", "guess"]


_NUMBER = re.compile(r"[-+]?[$€£¥₩]?\s?\d[\d,]*(\.\d+)?\s?%?")
_MATH = re.compile(r"\\[a-zA-Z]+|\$.+\$|[\d)}a-z]\s?[\^_=]|####")
_MOST_LABELS, _LONGEST_LABEL, _LONGEST_ANSWER = 12, 40, 200
_RUBRIC = "The answer says the same as the reference, and nothing that contradicts it."


@dataclass(frozen=True, slots=True)
class Guess:
    """What is known of the data."""

    fields: tuple[str, ...]
    """Columns that the prompt shows."""
    reference: str
    """The column with the right answers."""
    grader: Any
    """As a suite declares it."""
    why: str
    """Why this grader, for the comment above it."""
    ending: str
    """How the prompt asks for the answer; a format string, as the whole prompt is."""
    longest: int
    """Tokens that an answer may need, generously."""


def guess(data: Dataset, fields: tuple[str, ...], reference: str) -> Guess:
    """Look at all rows.

    Raises:
        SuiteError: no built-in grader can use the reference.
    """
    named = {} if _first_known(data) == reference else {"reference": reference}
    problem: SuiteError | None = None
    for name, options, why, ending, longest in _candidates(columns.values(data, reference), len(data.examples)):
        given = named | options
        grader = {name: given} if given else name
        try:
            check(resolve(grader), data.examples)
        except SuiteError as error:
            problem = problem or error
        else:
            return Guess(fields, reference, grader, why, ending, longest)
    raise SuiteError(f"{data.source}: no built-in grader can use the column {reference!r}: {problem}")


def _first_known(data: Dataset) -> str | None:
    return next((name for name in REFERENCE_COLUMNS if name in data.columns), None)


_Candidate = tuple[str, dict[str, Any], str, str, int]


def _candidates(answers: Sequence[Any], rows: int) -> Iterator[_Candidate]:
    """Graders that suit the answers, the best first: (name, options, why, the prompt's ending, tokens)."""
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
    if _are_labels(labels, rows):
        why = f"the answers are {len(labels)} labels"
        yield "choice", {"labels": labels}, why, f"Answer with one of: {escape(', '.join(labels))}.", 100
    if longest > _LONGEST_ANSWER:
        judge = {"model": "gpt-4o-mini", "rubric": _RUBRIC}
        yield "judge", judge, "the answers are long texts: a model compares them, at its price", "", 1000
    yield "contains", {"ignore_case": True}, "the answers are short texts", "Answer in a few words.", 200
    yield "exact", {"ignore_case": True}, "the whole response is compared", "Answer with nothing but the answer.", 200


def _are_labels(labels: Sequence[str], rows: int) -> bool:
    if not 2 <= len(labels) <= min(_MOST_LABELS, rows // 3) or max(map(len, labels)) > _LONGEST_LABEL:
        return False
    return len({label.casefold() for label in labels}) == len(labels)


def _is_json(answer: Any) -> bool:
    if not isinstance(answer, str) or not answer.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True
