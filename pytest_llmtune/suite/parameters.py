"""OpenAI parameters: which there are, what values they take, and how a suite spells their domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_llmtune._util.invalid import InvalidError, meant, shown
from pytest_llmtune.suite.domains import (
    Choice,
    Constant,
    Domain,
    LogRandInt,
    LogUniform,
    OneOf,
    QUniform,
    RandInt,
    Range,
    Uniform,
)

__all__ = [
    "LISTS",
    "PARAMETERS",
    "TEMPERATURE_OR_TOP_P",
    "WORDS",
    "Bounds",
    "check_name",
    "parse_branches",
    "parse_domain",
]


TEMPERATURE_OR_TOP_P = "temperature_or_top_p"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The numbers a parameter takes."""

    low: float
    high: float = math.inf
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g}" + ("" if math.isinf(self.high) else f" to {self.high:g}")

    def check(self, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidError(f"is {shown(value)}; valid: {self}")
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            raise InvalidError(f"is {shown(value)}; valid: {self}")


_LENGTH, _PENALTY = Bounds(1, whole=True), Bounds(-2, 2)

PARAMETERS: Mapping[str, Bounds | None] = {
    "temperature": Bounds(0, 2),
    "top_p": Bounds(0, 1),
    "max_tokens": _LENGTH,
    "max_completion_tokens": _LENGTH,
    "n": Bounds(1, 10_000, whole=True),
    "stop": None,
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "reasoning_effort": None,
    "verbosity": None,
    "response_format": None,
    "logit_bias": None,
    "logprobs": None,
    "top_logprobs": Bounds(0, 20, whole=True),
    "tools": None,
    "tool_choice": None,
    "parallel_tool_calls": None,
    "functions": None,
    "function_call": None,
    "metadata": None,
    "modalities": None,
    "prediction": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": None,
    "store": None,
    "user": None,
    "web_search_options": None,
}
"""Parameters of ``POST /chat/completions`` that a suite gives by their own names, with the numbers they take."""

LISTS = frozenset({"tools", "functions", "modalities"})
"""Their plain value is a list, so that only a list of lists is a choice."""

WORDS: Mapping[str, Callable[..., Domain]] = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "randint": RandInt,
    "lograndint": LogRandInt,
    "quniform": QUniform,
}


def parse_domain(name: str, raw: Any) -> Domain:
    """A parameter's domain: a constant, a list (choice), a domain, or ``{"uniform": [0, 2]}`` and its like.

    Raises:
        SuiteError: no such domain, or it holds values that the parameter does not take.
    """
    domain = _domain(name, raw)
    bounds = PARAMETERS.get(name)
    for value in _extremes(domain):
        if bounds is not None:
            bounds.check(value)
    if bounds is not None and bounds.whole and isinstance(domain, Range) and not domain.whole:
        raise InvalidError(
            f"is {domain.word}, which draws fractions; valid: a whole number, a list, randint, lograndint"
        )
    return domain


def _domain(name: str, raw: Any) -> Domain:
    if isinstance(raw, OneOf):
        raise InvalidError(f"is {shown(raw)}; valid: a constant, a list of choices, or a range")
    if isinstance(raw, (Constant, Choice)):
        return Constant(_plain(raw.value)) if isinstance(raw, Constant) else _choice(raw.options)
    if isinstance(raw, Domain):
        return raw
    if isinstance(raw, Mapping) and len(raw) == 1:
        [(word, arguments)] = raw.items()
        if word == "choice":
            return _choice(arguments)
        if word in WORDS:
            return _range(str(word), arguments)
    if isinstance(raw, (list, tuple)) and not (name in LISTS and not _all_lists(raw)):
        return _choice(raw)
    return Constant(_plain(raw))


def _all_lists(raw: Iterable[Any]) -> bool:
    return all(isinstance(item, (list, tuple)) for item in raw)


def _choice(raw: Any) -> Choice:
    if not isinstance(raw, (list, tuple)):
        raise InvalidError(f"choice takes a list, got {shown(raw)}")
    return Choice(tuple(option if isinstance(option, Domain) else _plain(option) for option in raw))


def _range(word: str, raw: Any) -> Domain:
    wanted = "[low, high, step]" if word == "quniform" else "[low, high]"
    if not isinstance(raw, (list, tuple)) or len(raw) != wanted.count(",") + 1:
        raise InvalidError(f"{word} takes {wanted}, got {shown(raw)}")
    return WORDS[word](*raw)


def _plain(raw: Any) -> Any:
    """JSON data only: it is sent over the wire and written to the lock file."""
    if raw is None or isinstance(raw, (str, bool, int)) or (isinstance(raw, float) and math.isfinite(raw)):
        return raw
    if isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw):
        return {key: _plain(value) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return [_plain(value) for value in raw]
    raise InvalidError(
        f"is {shown(raw)} ({type(raw).__name__}); valid: a constant, a list of choices, "
        f"or a range: {', '.join(f'{word}(...)' for word in WORDS)}"
    )


def _extremes(domain: Domain) -> tuple[Any, ...]:
    if isinstance(domain, Constant):
        return (domain.value,)
    if isinstance(domain, Choice):
        return domain.options
    return (domain.low, domain.top) if isinstance(domain, Range) else ()


def parse_branches(raw: Any) -> OneOf | Constant:
    """``temperature_or_top_p``: a list of mappings, each a branch; None: neither is sent.

    Raises:
        SuiteError: not such a list.
    """
    if raw is None:
        return Constant(None)
    if isinstance(raw, OneOf):
        return raw
    if isinstance(raw, Mapping):
        raw = [raw]
    if not isinstance(raw, (list, tuple)) or not all(isinstance(branch, Mapping) and branch for branch in raw):
        raise InvalidError(
            f"is {shown(raw)}; valid: a list such as [{{'temperature': {{'uniform': [0, 2]}}}}, {{'top_p': 0.9}}]"
        )
    for index, branch in enumerate(raw):
        for name in branch:
            if name not in ("temperature", "top_p"):
                raise InvalidError(f"has {shown(name)}; valid: temperature, top_p", index)
    return OneOf(tuple(_parsed(branch, index) for index, branch in enumerate(raw)))


def _parsed(branch: Mapping[str, Any], index: int) -> dict[str, Domain]:
    domains = {}
    for name, raw in branch.items():
        try:
            domains[name] = parse_domain(name, raw)
        except InvalidError as problem:
            raise problem.inside(index, name) from None
    return domains


def check_name(name: Any, extra: Iterable[str] = ()) -> None:
    """Refuse a parameter that nobody knows.

    Raises:
        SuiteError: with the nearest known name.
    """
    if name in PARAMETERS or name in extra or name == TEMPERATURE_OR_TOP_P:
        return
    raise InvalidError(
        f"unknown parameter{meant(name, PARAMETERS)}; what only your server knows goes into extra_body", str(name)
    )
