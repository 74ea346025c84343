"""Question and reference columns of rows, for matching and displaying rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.jsonhash import digest
from pytest_llmtune.suite.suite import REFERENCE_COLUMNS, reference_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_llmtune.suite import Suite
    from pytest_llmtune.suite.prompts import Template
    from pytest_llmtune.types import Row, TaskRun


_EXCERPT = 300


@dataclass(frozen=True, slots=True)
class RowColumns:
    """The columns of a suite's rows by purpose."""

    asked: tuple[str, ...] = ()
    """Columns used by the prompt; if it is a function, all that are not references."""
    reference: tuple[str, ...] = ()
    """Columns that the grader compares answers with; empty if it needs none."""

    @classmethod
    def of(cls, suite: Suite, template: Template, columns: Sequence[str]) -> RowColumns:
        """The columns used by ``template`` and the suite's grader, in the order of the data."""
        read = reference_columns(suite.grader, columns) - template.fields
        expected = read & frozenset(REFERENCE_COLUMNS) or read  # a grading function may also read the question
        by_name = template.fields and not template.is_function
        prompt = template.fields if by_name else (frozenset(columns) - expected or frozenset(columns))
        return cls(*(tuple(name for name in columns if name in part) for part in (prompt, expected)))

    def key(self, row: Row) -> str:
        """16 hex digits of a hash: equal for rows with the same question, regardless of their references."""
        return digest({name: row.get(name) for name in self.asked}, default=str)[:16]

    def question(self, row: Row) -> str:
        """The beginning of a row's question, on one line."""
        return _shown(row, self.asked or tuple(row))

    def expected(self, row: Row) -> str:
        """The beginning of a row's reference, on one line; empty if the grader needs none."""
        return _shown(row, self.reference)


def _shown(row: Row, columns: Sequence[str]) -> str:
    cells = {name: row[name] for name in columns if row.get(name) is not None}
    texts = {name: " ".join(str(value)[: 4 * _EXCERPT].split()) for name, value in cells.items()}
    parts = texts.values() if len(texts) == 1 else (f"{name}: {text}" for name, text in texts.items() if text)
    return "; ".join(parts)[:_EXCERPT]


def answers_digest(responses: Iterable[str]) -> str:
    """8 hex digits of a hash: equal for the same answers in any order."""
    return digest(sorted(responses))[:8]


def calls_digest(runs: Iterable[TaskRun]) -> str:
    """8 hex digits of a hash: equal for task runs that make the same calls and get the same answers, in any order of runs."""
    return digest(sorted([call.digest for call in run.calls] for run in runs))[:8]
