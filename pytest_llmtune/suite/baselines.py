"""From a suite's ``baselines`` to configurations: what one leaves out is the untuned configuration's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import InvalidError, shown
from pytest_llmtune.suite.config import Config
from pytest_llmtune.suite.domains import Constant
from pytest_llmtune.suite.parameters import LISTS, check_name, parse_domain
from pytest_llmtune.suite.space import Space, overlaid
from pytest_llmtune.suite.templates import one_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.suite.declaration import Declaration, Problems

__all__ = ["read_baselines"]


def read_baselines(
    values: Mapping[str, Any], space: Space, declaration: Declaration, problems: Problems
) -> tuple[Config, ...]:
    """The configurations to evaluate beside the winner."""
    read = [
        problems.attempt(_baseline, raw, values, space, declaration, path=("baselines", index))
        for index, raw in enumerate(values["baselines"] or ())
    ]
    return tuple(config for config in read if config is not None)


def _baseline(raw: Mapping[str, Any], values: Mapping[str, Any], space: Space, declaration: Declaration) -> Config:
    model = raw.get("model", space.models[0])
    if not isinstance(model, str) or not model.strip():
        raise InvalidError(f"is {shown(model)}; valid: a model's name", "model")
    untuned = space.first(model)
    template = untuned.template
    given: dict[str, Any] = {}
    for name, value in raw.items():
        if name in ("prompt", "messages"):
            template = one_template(name, value, values["system"], declaration)
        elif name != "model":
            check_name(name, values["extra_body"])
            given[name] = _constant(name, value)
    params = overlaid({name: Constant(value) for name, value in untuned.params.items()}, given)
    return Config({name: domain.to_plain() for name, domain in params.items()} | {"model": model}, template)


def _constant(name: str, raw: Any) -> Constant:
    """One value; a list is one too where the parameter takes lists."""
    try:
        domain = Constant(raw) if isinstance(raw, list) and name in {"stop", *LISTS} else parse_domain(name, raw)
    except InvalidError as problem:
        raise problem.inside(name) from None
    if not isinstance(domain, Constant):
        raise InvalidError(f"is {shown(raw)}; a baseline has one value for each parameter", name)
    return domain
