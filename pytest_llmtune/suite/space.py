"""The search space of a suite: models, templates, a domain for every parameter, and what differs for a model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import listed, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.config import Config
from pytest_llmtune.suite.domains import Choice, Constant, Domain, LogRandInt, OneOf, RandInt, Range, Uniform
from pytest_llmtune.suite.parameters import TEMPERATURE_OR_TOP_P

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_llmtune.suite.prompts import Template

__all__ = ["DEFAULTS", "Space", "overlaid"]


DEFAULTS: Mapping[str, Domain] = {
    TEMPERATURE_OR_TOP_P: OneOf(({"temperature": Uniform(0, 2)}, {"top_p": Uniform(0, 1)})),
    "max_tokens": LogRandInt(50, 1000),
    "n": RandInt(1, 100),
}
"""The space of the system this grew from (AutoGen's ``ChatCompletion.tune``), beside model and prompt."""

_REPLACES: Mapping[str, tuple[str, ...]] = {
    "temperature": (TEMPERATURE_OR_TOP_P,),
    "top_p": (TEMPERATURE_OR_TOP_P,),
    TEMPERATURE_OR_TOP_P: ("temperature", "top_p"),
    "max_tokens": ("max_completion_tokens",),
    "max_completion_tokens": ("max_tokens",),
}
"""What a given parameter puts out of the space, unless it is given too."""
_LENGTHS = ("max_tokens", "max_completion_tokens")


def overlaid(base: Mapping[str, Domain], given: Mapping[str, Domain]) -> dict[str, Domain]:
    """The domains of ``base`` with those of ``given`` in their place."""
    replaced = {other for name, domain in given.items() for other in _replaced(name, domain)}
    return {name: domain for name, domain in base.items() if name not in replaced} | dict(given)


def _replaced(name: str, domain: Domain) -> tuple[str, ...]:
    """``max_tokens=None`` leaves ``max_completion_tokens`` where it is; ``temperature=None`` means: send neither."""
    return () if name in _LENGTHS and domain == Constant(None) else _REPLACES.get(name, ())


@dataclass(frozen=True, slots=True)
class Space:
    """Every configuration that a search may try."""

    models: tuple[str, ...]
    templates: tuple[Template, ...]
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(DEFAULTS))
    """Parameter to domain, without model and template; ``temperature_or_top_p`` is a ``OneOf``."""
    conditions: Mapping[str, Mapping[str, Domain]] = field(default_factory=dict)
    """Model to the domains that hold for it alone; ``Constant(None)``: this model is not sent the parameter."""

    def for_model(self, model: str) -> dict[str, Domain]:
        """The domains that hold for one model; a parameter that it is not sent is left out."""
        domains = overlaid(self.parameters, self.conditions.get(model, {}))
        return {name: domain for name, domain in domains.items() if domain != Constant(None)}

    @property
    def is_constant(self) -> bool:
        """Whether there is only one configuration."""
        single = len(self.models) == 1 and len(self.templates) == 1
        return single and all(domain.is_constant for domain in self.for_model(self.models[0]).values())

    @property
    def constant(self) -> Config:
        """The only configuration.

        Raises:
            SuiteError: there is something to choose.
        """
        if not self.is_constant:
            raise SuiteError("the search space has several configurations")
        return self.first()

    def first(self, model: str | None = None) -> Config:
        """A model (default: the first), the first template, and what is constant: the untuned configuration.

        What is to be chosen is not sent, so that the server's own default holds (n is then 1); but the answer's length
        is always bounded, by the largest value allowed, because its cost must be.
        """
        model = self.models[0] if model is None else model
        domains = self.for_model(model)
        values = {name: _constant(domain) for name, domain in domains.items() if domain.is_constant}
        lengths = {
            name: _longest(domain) for name, domain in domains.items() if name in _LENGTHS and name not in values
        }
        return self.config({"model": model, **values, **lengths}, self.templates[0])

    def config(self, chosen: Mapping[str, Any], template: Template) -> Config:
        """The configuration of one draw from the space: ``model`` and a value for every parameter of ``for_model``.

        A ``OneOf``'s value is the mapping of the branch taken; its parameters stand by their own names in the result.
        """
        params: dict[str, Any] = {"model": chosen["model"]}
        for name, value in chosen.items():
            if name == TEMPERATURE_OR_TOP_P:
                params.update(value or {})
            elif name != "model":
                params[name] = value
        return Config(params, template)

    def why_not(self, config: Config) -> str | None:
        """Why a configuration is not in the space, as a phrase for people; None where it is."""
        return next(self._reasons(config), None)

    def contains(self, config: Config) -> bool:
        """Whether a search may try this configuration."""
        return self.why_not(config) is None

    def _reasons(self, config: Config) -> Iterator[str]:
        if config.params.get("model") not in self.models:
            yield f"the model {shown(config.params.get('model'))} is not one of {listed(self.models)}"
            return
        if config.template.fingerprint not in {template.fingerprint for template in self.templates}:
            yield f"the {config.template.kind} {shown(config.template.label, 60)} is not among the suite's"
        left = {name: value for name, value in config.params.items() if name != "model"}
        for name, domain in self.for_model(config.model).items():
            names = domain.names if isinstance(domain, OneOf) else {name}
            value = (
                {key: left.pop(key) for key in names & left.keys()}
                if isinstance(domain, OneOf)
                else left.pop(name, None)
            )
            if not domain.contains(value):
                yield f"{name} is {shown(value)}, outside {shown(domain.to_plain())}"
        for name, value in left.items():
            yield f"{name} is {shown(value)}, which the suite does not send"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all of it, in an order-free form."""
        plain = {
            "models": sorted(self.models),
            "templates": sorted(template.fingerprint for template in self.templates),
            "parameters": {model: _plain(self.for_model(model)) for model in self.models},
        }
        return hashlib.sha256(
            json.dumps(plain, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")
        ).hexdigest()


def _plain(domains: Mapping[str, Domain]) -> dict[str, Any]:
    return {name: domain.to_plain() for name, domain in domains.items()}


def _longest(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return max((option for option in domain.options if option is not None), default=None)
    return int(domain.top) if isinstance(domain, Range) else None


def _constant(domain: Domain) -> Any:
    plain = domain.to_plain()
    if isinstance(domain, OneOf):
        return {name: _constant(inner) for name, inner in domain.branches[0].items()}
    return plain["choice"][0] if not isinstance(domain, Constant) else plain
