"""Metrics of one example from the answers of its n responses, and the ways to elect one answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import Answer, ExampleGrade

__all__ = ["VOTES", "Vote", "check_vote", "grade_answers"]


Vote = Literal["equivalence", "medoid"] | Callable[[Sequence[str]], int]
"""``equivalence``: the most frequent answer; ``medoid``: the text most like all others; or a function that is given the
texts of the answers and returns the position of the elected one."""

VOTES = ("equivalence", "medoid")

_WORD = re.compile(r"[a-z0-9]+|[^\W_]")
"""A word of Latin letters and digits, or one letter of any other script, some of which put no spaces."""


def check_vote(vote: object, where: str = "vote") -> Vote:
    """Raises SuiteError where ``vote`` is none of the ways to vote."""
    if callable(vote) or (isinstance(vote, str) and vote in VOTES):
        return vote  # type: ignore[return-value]
    raise SuiteError(f"{where}: vote={vote!r} is not one of {', '.join(VOTES)} or a function of the answers' texts")


def grade_answers(answers: Sequence[Answer], vote: Vote = "equivalence") -> ExampleGrade:
    """Elect an answer and count.

    ``expected_success`` is 1-(1-p)^n, with p the share of right answers among all n, readable or not: the chance that n fresh
    draws hold a right one. ``success``: any answer is right. ``success_vote``: the elected one is. An answer with key None
    was not readable: it is never elected and never counted. Ties go to the first seen, in every way of voting.
    """
    n = len(answers)
    known: dict[Answer, Answer] = {}
    answers = tuple(known.setdefault(answer, answer) for answer in answers)  # equal ones are kept once
    right = sum(answer.correct for answer in answers)
    readable = [answer for answer in answers if answer.key is not None]
    groups = _groups(readable)
    elected = _elect(readable, groups, vote) if readable else None
    return ExampleGrade(
        metrics=_metrics(right, n, elected is not None and elected.correct),
        votes=tuple((group[0].text, len(group)) for group in groups),
        voted_answer=elected.text if elected else None,
        answers=answers,
    )


@lru_cache(maxsize=10_000)
def _metrics(right: int, n: int, voted: bool) -> Mapping[str, float]:
    """One mapping for all examples that did alike."""
    return {
        "expected_success": 1 - (1 - right / n) ** n if n else 0.0,
        "success": float(right > 0),
        "success_vote": float(voted),
    }


def _groups(readable: Sequence[Answer]) -> list[list[Answer]]:
    """Answers by key, the largest group first, ties in order of appearance."""
    groups: dict[str | None, list[Answer]] = {}
    for answer in readable:
        groups.setdefault(answer.key, []).append(answer)
    return sorted(groups.values(), key=len, reverse=True)  # a stable sort


def _elect(readable: Sequence[Answer], groups: Sequence[Sequence[Answer]], vote: Vote) -> Answer:
    if vote == "equivalence":
        return groups[0][0]
    texts = [answer.text for answer in readable]
    place = _medoid(texts) if vote == "medoid" else vote(texts)
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(texts):
        raise SuiteError(f"the vote function returned {place!r}; expected a position from 0 to {len(texts) - 1}")
    return readable[place]


def _medoid(texts: Sequence[str]) -> int:
    """The place of the text with the greatest total similarity to all others: Dice's coefficient over words."""
    words = [Counter(_WORD.findall(text.casefold())) for text in texts]
    sizes = [bag.total() for bag in words]
    totals = [0.0] * len(texts)
    for i, one in enumerate(words):
        for j in range(i):
            shared = (one & words[j]).total()
            likeness = 2 * shared / (sizes[i] + sizes[j]) if shared else 0.0
            totals[i] += likeness
            totals[j] += likeness
    return max(range(len(texts)), key=lambda place: (round(totals[place], 9), -place))
