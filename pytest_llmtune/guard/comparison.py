"""Two results of the same examples, side by side: what flipped, and how surprising that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._util.stats import mcnemar_exact
from pytest_llmtune.guard.lockfile import LockedExample, short_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.guard.lockfile import Lock
    from pytest_llmtune.types import Evaluation, ExampleGrade, ExampleResult, Row

__all__ = ["Comparison", "Flip", "Outcome", "compare", "excerpt"]


_QUESTION_COLUMNS = ("problem", "question", "input", "prompt", "text", "query", "instruction", "sentence", "message")
_EXCERPT = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """One example on one side of a comparison."""

    value: float
    """The tuned metric."""
    voted_answer: str | None
    votes: int
    """How many responses gave the voted answer."""
    responses: int


@dataclass(frozen=True, slots=True)
class Flip:
    """An example whose tuned metric changed since the baseline."""

    id: str
    index: int
    question: str
    """The beginning of what was asked."""
    direction: Literal["lost", "gained"]
    before: Outcome
    now: Outcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """The baseline and today over the examples that both know."""

    before: float
    now: float
    drop: float
    """How much worse; negative where it got better."""
    flips: tuple[Flip, ...]
    p_value: float
    compared: int
    added: int
    """Examples of today that the baseline does not know."""
    gone: int


def compare(
    evaluation: Evaluation,
    baseline: Lock,
    metric: str,
    mode: Literal["max", "min"],
    aggregate: Callable[[Sequence[float]], float],
) -> Comparison | None:
    """Compare by example; None where no example has the metric on both sides.

    The p-value is exact McNemar's over the examples that changed; for metrics other than 0 and 1 that is the sign test.
    """
    locked = {example.id: example for example in baseline.examples}
    olds, news, found, today = [], [], [], set()
    for result in evaluation.results:  # once: they may lie on disk
        today.add(result.example.id)
        example = locked.get(result.example.id)
        if example and metric in example.metrics and result.grade and metric in result.grade.metrics:
            olds.append(example.metrics[metric])
            news.append(_value(result.grade, metric))
            found.append(_flip(example, result, result.grade, metric, mode))
    if not olds:
        return None
    flips = [flip for flip in found if flip]
    lost = sum(flip.direction == "lost" for flip in flips)
    before, now = aggregate(olds), aggregate(news)
    return Comparison(
        before=before,
        now=now,
        drop=before - now if mode == "max" else now - before,
        flips=tuple(sorted(flips, key=lambda flip: (flip.direction != "lost", flip.index))),
        p_value=mcnemar_exact(lost, len(flips) - lost),
        compared=len(olds),
        added=len(today - locked.keys()),
        gone=len(locked.keys() - today),
    )


def _value(grade: ExampleGrade, metric: str) -> float:
    """Rounded as in a lock file, so that an unchanged example compares equal."""
    return round(float(grade.metrics[metric]), 6)


def _flip(before: LockedExample, result: ExampleResult, grade: ExampleGrade, metric: str, mode: str) -> Flip | None:
    old, new = before.metrics[metric], _value(grade, metric)
    if old == new:
        return None
    return Flip(
        id=result.example.id,
        index=result.example.index,
        question=excerpt(result.example.row),
        direction="lost" if (new < old) == (mode == "max") else "gained",
        before=Outcome(old, before.voted_answer, before.votes[0][1] if before.votes else 0, before.responses),
        now=Outcome(
            new,
            None if grade.voted_answer is None else short_answer(grade.voted_answer),
            grade.votes[0][1] if grade.votes else 0,
            len(result.responses),
        ),
    )


def excerpt(row: Row) -> str:
    """The beginning of what a row asks: the column that usually holds it, else the longest text."""
    texts = {name: value for name, value in row.items() if isinstance(value, str) and value.strip()}
    known = next((texts[name] for name in _QUESTION_COLUMNS if name in texts), None)
    text = known or max(texts.values(), key=len, default="")
    return " ".join(text[: 4 * _EXCERPT].split())[:_EXCERPT]
