"""Compare answers with math-verify and sympy, in worker processes with a time limit."""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.workers import WorkerPool

_LONGEST = 500  # characters; longer answers are not worth sympy's time


def is_installed() -> bool:
    return importlib.util.find_spec("math_verify") is not None


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of comparing one answer."""

    equal: bool
    key: str | None
    """Equal for wrong answers that are equal to each other; None if it was not parsed in time."""


_NOTHING = Finding(equal=False, key=None)


class Algebra:
    """Compares answers, with a cache; thread-safe. Past ``limit`` CPU seconds they are unequal."""

    def __init__(self, limit: float, workers: int | None = None) -> None:
        self._limit = limit
        self._pool = WorkerPool("compare", "math_verify", workers)
        self.compare = lru_cache(maxsize=50_000)(self._compare)

    def _compare(self, reference: str, answer: str) -> Finding:
        """Compare two extracted answers in LaTeX."""
        texts = _spelled(reference), _spelled(answer)
        if max(map(len, texts)) > _LONGEST:
            return _NOTHING
        found = self._pool.call({"gold": texts[0], "answer": texts[1]}, self._limit)
        return Finding(found["equal"], found["key"]) if found else _NOTHING

    def close(self) -> None:
        self._pool.close()


_DEGREES = lazy_regex(
    r"\\(sin|cos|tan|cot|sec|csc)\s*[{(]?\s*(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z]))\s*[})]?"
)


_VARIABLE = lazy_regex(r"(?<![a-zA-Z\\])(?:(?<=[\d\s)}])([a-zA-Z](?<![mgshLWVJNKCFA])))$")
"""A last letter that is no unit: math-verify takes the t of ``2 t + 2 t`` for one."""


_D = r"(?:\\mathrm\s*\{\s*d\s*\}|\\partial(?![a-zA-Z])|d)\s*"
_ORDER = r"(?:\^\s*\{?\s*(\d)\s*\}?)?\s*"
_DERIVATIVE = lazy_regex(rf"\\[dt]?frac\s*\{{\s*{_D}{_ORDER}([a-zA-Z])\s*\}}\s*\{{\s*{_D}([a-zA-Z])\s*{_ORDER}\}}")
"""``\frac{dx}{dt}``, which sympy takes for the derivative of a variable, 0."""


def _spelled(text: str) -> str:
    text = _DERIVATIVE.sub(lambda match: f" D_{{{match[2]}{match[3]}{match[1] or ''}}} ", text)
    text = _DEGREES.sub(r"\\\1(\\frac{\2\\pi}{180})", text)
    text = re.sub(r"(?<!\\)\\\\(?=[a-zA-Z]{2})", r"\\", text.replace("$", " ")).strip().rstrip(".")
    return _VARIABLE.sub(r"\1^{1}", text)
