"""Arms: what samples can be pooled over. An arm is a configuration without ``n`` and without the limit of length."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune.suite import Config
from pytest_llmtune.suite.domains import Choice, Constant, Domain, Range

if TYPE_CHECKING:
    from pytest_llmtune.suite import Space, Template

__all__ = ["LENGTHS", "Arm", "Family", "families_of"]

LENGTHS = ("max_completion_tokens", "max_tokens")
"""Parameters that limit an answer's length, in tokens."""


@dataclass(frozen=True)
class Family:
    """What all arms of one model share: the choices that cost no samples to compare."""

    model: str
    n: Domain | None
    """None: not sent, one answer."""
    limit_name: str | None
    limit: Domain | None
    """Of the length of an answer; None: not sent."""

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Numbers of answers worth telling apart: all small ones, then in steps of about a fifth."""
        return _counts(self.n)

    @cached_property
    def longest(self) -> int | None:
        """The largest limit; None: unlimited."""
        if isinstance(self.limit, Range):
            return int(self.limit.top)
        values = _options(self.limit)
        return None if None in values else max(values)

    def limit_near(self, tokens: float) -> int | None:
        """The smallest limit of the domain that is no smaller than ``tokens``; the largest one where there is none."""
        if isinstance(self.limit, Range):
            return int(min(max(math.ceil(tokens), self.limit.low), self.limit.top))
        values = [value for value in _options(self.limit) if value is not None and value >= tokens]
        return min(values, default=self.longest)


def _options(domain: Domain | None) -> tuple[Any, ...]:
    if domain is None:
        return (None,)
    if isinstance(domain, Constant):
        return (domain.value,)
    if isinstance(domain, Choice):
        return domain.options
    raise TypeError(f"{domain!r} has no options")


def _counts(domain: Domain | None) -> tuple[int, ...]:
    if not isinstance(domain, Range):
        return tuple(sorted({1 if value is None else int(value) for value in _options(domain)}))
    top, found = int(domain.top), []
    value = max(1, math.ceil(domain.low))
    while value < top:
        found.append(value)
        value = max(value + 1, round(value * 1.2))
    grid = [*found, top]
    return tuple(value for value in grid if domain.contains(value)) or (top,)


def families_of(space: Space) -> dict[str, Family]:
    """Model to its family."""
    found = {}
    for model in space.models:
        domains = space.for_model(model)
        name = next((name for name in LENGTHS if name in domains), None)
        found[model] = Family(model, domains.get("n"), name, domains[name] if name else None)
    return found


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to sample; equal arms have equal keys."""

    params: Mapping[str, Any]
    """OpenAI parameters, without ``n`` and the family's limit."""
    template: Template
    template_index: int
    family: Family
    cap: int | None = None
    """The limit its samples are drawn with: answers that end before a smaller limit serve that, too."""

    @cached_property
    def key(self) -> str:
        """16 hex digits: equal for arms that draw from the same distribution with the same cap."""
        text = json.dumps([self.params, self.template.fingerprint, self.cap], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def model(self) -> str:
        return self.family.model

    @property
    def region(self) -> tuple[str, str, str]:
        """Model, prompt and stop, which together decide how long prompts and answers are (EcoOptiGen)."""
        return self.model, self.template.fingerprint, json.dumps(self.params.get("stop"))

    def config(self, n: int | None = None, limit: int | None = None) -> Config:
        """The configuration with n answers of at most ``limit`` tokens (default: the cap)."""
        params = dict(self.params)
        if self.family.limit_name is not None:
            params[self.family.limit_name] = self.cap if limit is None else limit
        if self.family.n is not None:
            params["n"] = self.family.counts[0] if n is None else n
        return Config(params, self.template)
