"""Reads a model's answers.

One answer of a small model is often wrong, so the shop asks for several and lets them vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["boxed_number", "elect", "stated_label"]

T = TypeVar("T", bound=Hashable)


def boxed_number(text: str) -> int | None:
    r"""The whole number in the last ``\boxed{}`` of an answer; None where there is none."""
    _, found, rest = text.rpartition("\\boxed{")
    number, closed, _ = rest.partition("}")
    digits = number.replace("$", "").replace(",", "").strip()
    return int(digits) if found and closed and digits.isascii() and digits.isdigit() else None


def stated_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that an answer states; None where it states none, or several."""
    stated = [label for label in labels if label in text]
    return stated[0] if len(stated) == 1 else None


def elect(answers: Iterable[T | None]) -> T | None:
    """The most frequent answer; of equals the first. Unreadable answers (None) do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=lambda answer: votes[answer]) if votes else None
