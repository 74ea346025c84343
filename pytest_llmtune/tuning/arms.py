"""Arms: what samples can be pooled over. An arm is a configuration without ``n`` and without the limit of length."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune.suite import Config
from pytest_llmtune.suite.domains import Choice, Constant, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.suite import Space, Template
    from pytest_llmtune.suite.domains import Domain

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
        if not isinstance(self.n, Range):
            return tuple(sorted({1 if value is None else int(value) for value in _options(self.n)}))
        low, top = max(1, math.ceil(self.n.low)), int(self.n.top)
        found = [low]
        while found[-1] < top:
            found.append(min(top, max(found[-1] + 1, round(found[-1] * 1.2))))
        return tuple(value for value in found if self.n.contains(value)) or (top,)

    @cached_property
    def longest(self) -> int | None:
        """The largest limit, which samples are drawn with; None: unlimited."""
        if isinstance(self.limit, Range):
            return int(self.limit.top)
        values = _options(self.limit)
        return None if None in values else max(values)

    @cached_property
    def shorter(self) -> tuple[int, ...]:
        """Limits below the longest that are worth telling apart, in steps of half an octave, the longest first."""
        if not isinstance(self.limit, Range):
            return tuple(sorted((v for v in _options(self.limit) if v is not None and v != self.longest), reverse=True))
        steps = (int(self.limit.top / 2 ** (step / 2)) for step in range(1, 24))
        return tuple(value for value in steps if self.limit.contains(value))


def _options(domain: Domain | None) -> tuple[Any, ...]:
    if domain is None:
        return (None,)
    if isinstance(domain, Choice):
        return domain.options
    assert isinstance(domain, Constant)  # noqa: S101  # n and the limits are ranges, choices and constants
    return (domain.value,)


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
    family: Family

    @cached_property
    def key(self) -> str:
        """16 hex digits: equal for arms that draw from the same distribution."""
        text = json.dumps([self.params, self.template.fingerprint], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def model(self) -> str:
        return self.family.model

    @cached_property
    def region(self) -> tuple[str, str, str]:
        """Model, prompt and stop, which together decide how long prompts and answers are (EcoOptiGen)."""
        return self.model, self.template.fingerprint, json.dumps(self.params.get("stop"))

    @cached_property
    def groups(self) -> tuple[str, str, str]:
        """What arms share their lengths with, from the narrowest to the widest: itself, its region, its model."""
        return self.key, repr(self.region), self.model

    def config(self, n: int | None = None, limit: int | None = None) -> Config:
        """The configuration with n answers (default: the fewest) of at most ``limit`` tokens (default: the longest)."""
        params = dict(self.params)
        if self.family.n is not None:
            params["n"] = self.family.counts[0] if n is None else n
        if self.family.limit_name is not None:
            params[self.family.limit_name] = self.family.longest if limit is None else limit
        return Config(params, self.template)
