"""Which columns of a data file ask the question, and which one holds the answer: by name, else by what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.columns import REFERENCE_COLUMNS
from pytest_llmtune.suite.format_string import fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.data.dataset import Dataset

__all__ = ["asking", "reference", "values"]


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
    """What the rows hold in a column; rows without it left out."""
    return [row.row[column] for row in data.examples if row.row.get(column) not in (None, "")]


def reference(data: Dataset) -> str:
    """The column with the right answers: the best known name, else the one with the fewest different values.

    Raises:
        SuiteError: the data have only one column.
    """
    named = {name.casefold(): name for name in reversed(data.columns)}
    for known in _ANSWERS:
        if known in named:
            return named[known]
    possible = [name for name in _told_apart(data) if not _is_any(name, (*_QUESTIONS, *_EXPLAINING, *_NUMBERING))]
    if len(data.columns) < 2 or not possible:
        raise SuiteError(
            f"{data.source}: no column holds the right answers (there is {', '.join(data.columns)}); "
            f"call it {', '.join(REFERENCE_COLUMNS[:-1])} or {REFERENCE_COLUMNS[-1]}"
        )
    return min(reversed(possible), key=lambda name: len(set(map(str, values(data, name)))))


def asking(data: Dataset, answer: str) -> tuple[str, ...]:
    """The columns that a prompt shows, in their order: those of known names, else the one with the longest texts.

    Raises:
        SuiteError: no column is left to ask with.
    """
    rest = [name for name in data.columns if name != answer and _is_field(name)]
    known = tuple(name for name in rest if _is_any(name, _QUESTIONS))
    if known:
        return known
    texts = [name for name in rest if not _is_any(name, (*_ANSWERS, *_EXPLAINING, *_NUMBERING))]
    if not texts:
        raise SuiteError(f"{data.source}: beside {answer!r} no column is left to ask a question with")
    return (max(texts, key=lambda name: sum(len(str(value)) for value in values(data, name))),)


def _told_apart(data: Dataset) -> Sequence[str]:
    """Columns with more than one value."""
    return [name for name in data.columns if len(set(map(str, values(data, name)))) > 1]


def _is_any(name: str, known: tuple[str, ...]) -> bool:
    return name.casefold() in known


def _is_field(name: str) -> bool:
    """Whether a format string can name the column."""
    try:
        return fields(f"{{{name}}}") == {name}
    except SuiteError:
        return False
