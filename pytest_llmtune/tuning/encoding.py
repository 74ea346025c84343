"""Arms as numbers: which categories they are of, and where their continuous parameters lie between 0 and 1."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_llmtune.suite.domains import OneOf, Range
from pytest_llmtune.tuning.arms import LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.suite import Space
    from pytest_llmtune.suite.domains import Domain
    from pytest_llmtune.tuning.arms import Arm

__all__ = ["Encoder"]


_NONE = float("nan")


@dataclass(slots=True)
class Encoder:
    """Every arm of one space gets vectors of equal lengths."""

    space: Space
    ranges: dict[str, Range] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Parameters that are chosen from a list, or sent by some models only."""
    _codes: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model in self.space.models:
            for name, domain in _flat(self.space.for_model(model)):
                if name == "n" or name in LENGTHS:
                    continue
                if isinstance(domain, Range):
                    self.ranges[name] = _wider(self.ranges.get(name), domain)
                elif name not in self.names:
                    self.names.append(name)
        self.names = [name for name in self.names if name not in self.ranges]

    def cell(self, arm: Arm) -> tuple[int, ...]:
        """Category numbers: model, prompt, which continuous parameters are sent, and every chosen parameter."""
        sent = " ".join(name for name in self.ranges if name in arm.params)
        chosen = [(name, _text(arm.params.get(name))) for name in self.names]
        named = [("model", arm.model), ("prompt", arm.template.fingerprint), ("sent", sent), *chosen]
        return tuple(self._codes.setdefault(item, len(self._codes)) for item in named)

    def heat(self, arm: Arm) -> tuple[float, ...]:
        """Each continuous parameter, from 0 to 1; NaN where it is not sent, or not as a number."""
        return tuple(_scaled(domain, arm.params.get(name)) for name, domain in self.ranges.items())


def _flat(domains: Mapping[str, Domain]) -> Iterator[tuple[str, Domain]]:
    for name, domain in domains.items():
        if isinstance(domain, OneOf):
            for branch in domain.branches:
                yield from _flat(branch)
        else:
            yield name, domain


def _wider(one: Range | None, other: Range) -> Range:
    return other if one is None or other.high - other.low > one.high - one.low else one


def _scaled(domain: Range, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _NONE
    if domain.logarithmic:
        return math.log(max(value, domain.low) / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
