"""From a suite's keys to its search space: models and what differs for one, templates, parameters, baselines."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.suite.config import Config
from pytest_llmtune.suite.domains import Choice, Constant, Domain
from pytest_llmtune.suite.invalid import Invalid, shown
from pytest_llmtune.suite.keys import PARAMETER_KEYS
from pytest_llmtune.suite.parameters import PARAMETERS, TEMPERATURE_OR_TOP_P, check_name, parse_branches, parse_domain
from pytest_llmtune.suite.prompt import Template
from pytest_llmtune.suite.reading import Declaration, Problems
from pytest_llmtune.suite.space import DEFAULTS, Space, overlaid

__all__ = ["SuiteWarning", "read_baselines", "read_space"]

_NOT_SENT = Constant(None)
_OWN = frozenset({"model", "messages", "stream", "stream_options", *PARAMETERS})
"""Parameters with a place of their own, so that ``extra_body`` may not hold them."""


class SuiteWarning(LLMTuneError, UserWarning):
    """A suite is declared in a way that is allowed, but rarely meant."""


def read_space(
    mapping: Mapping[str, Any], values: Mapping[str, Any], declaration: Declaration, problems: Problems
) -> Space | None:
    """The search space, or None where the problems leave none."""
    extra = values["extra_body"] or {}
    given = _parameters({name: mapping[name] for name in PARAMETER_KEYS if name in mapping}, problems, ())
    for name in extra:
        if name in _OWN:
            problems.add("has a key of its own in a suite; give it there", "extra_body", name)
    given |= _parameters(extra, problems, ("extra_body",))
    _check_pairs(given, problems, ())
    models, conditions = _models(values["model"], frozenset(extra), problems)
    templates = _templates(values, declaration, problems)
    if problems.found:
        return None
    if all(given.get(name, _NOT_SENT) != _NOT_SENT for name in ("temperature", "top_p")):
        message = (
            f"{declaration.where}: both temperature and top_p are given; it is usual to vary one (temperature_or_top_p)"
        )
        warnings.warn(message, SuiteWarning, stacklevel=2)
    return Space(models, templates, overlaid(DEFAULTS, given), conditions)


def _parameters(given: Mapping[str, Any], problems: Problems, path: tuple[str | int, ...]) -> dict[str, Domain]:
    domains = {name: problems.attempt(_parameter, name, raw, path=(*path, name)) for name, raw in given.items()}
    return {name: domain for name, domain in domains.items() if domain is not None}


def _parameter(name: str, raw: Any) -> Domain:
    return parse_branches(raw) if name == TEMPERATURE_OR_TOP_P else parse_domain(name, raw)


def _check_pairs(given: Mapping[str, Domain], problems: Problems, path: tuple[str | int, ...]) -> None:
    sent = {name for name, domain in given.items() if domain != _NOT_SENT}
    if TEMPERATURE_OR_TOP_P in sent and sent & {"temperature", "top_p"}:
        problems.add("cannot be given together with temperature or top_p; choose one way", *path, TEMPERATURE_OR_TOP_P)
    if {"max_tokens", "max_completion_tokens"} <= sent:
        problems.add("cannot be given together with max_completion_tokens; servers refuse both", *path, "max_tokens")


def _models(
    raw: Any, extra: frozenset[str], problems: Problems
) -> tuple[tuple[str, ...], dict[str, dict[str, Domain]]]:
    if raw is None:
        return (), {}
    entries, listed = _several(raw)
    if not entries:
        problems.add("is an empty list; valid: a model's name, or a list of names", "model")
    names: list[str] = []
    conditions: dict[str, dict[str, Domain]] = {}
    for index, entry in enumerate(entries):
        path: tuple[str | int, ...] = ("model", index) if listed else ("model",)
        name, differing = (
            (entry.get("model"), {k: v for k, v in entry.items() if k != "model"})
            if isinstance(entry, Mapping)
            else (entry, {})
        )
        if not isinstance(name, str) or not name.strip():
            problems.add(
                f"is {shown(entry)}; valid: a model's name, or {{'model': name, parameter: value, ...}}", *path
            )
        elif name in names:
            problems.add(f"is {shown(name)}, which stands twice", *path)
        else:
            names.append(name)
            conditions |= _condition(name, differing, extra, problems, path)
    return tuple(names), conditions


def _several(raw: Any) -> tuple[Sequence[Any], bool]:
    """The choices that a value holds, and whether it was a list."""
    if isinstance(raw, Choice):
        return raw.options, True
    if isinstance(raw, Mapping) and raw.keys() == {"choice"} and isinstance(raw["choice"], (list, tuple)):
        return raw["choice"], True
    return (raw, True) if isinstance(raw, (list, tuple)) else ([raw], False)


def _condition(
    name: str, differing: Mapping[str, Any], extra: frozenset[str], problems: Problems, path: tuple[str | int, ...]
) -> dict[str, dict[str, Domain]]:
    for parameter in differing:
        problems.attempt(check_name, parameter, extra, path=path)
    known = {parameter: raw for parameter, raw in differing.items() if parameter in (*PARAMETER_KEYS, *extra)}
    domains = _parameters(known, problems, path)
    _check_pairs(domains, problems, path)
    return {name: domains} if domains else {}


def _templates(values: Mapping[str, Any], declaration: Declaration, problems: Problems) -> tuple[Template, ...]:
    prompt, messages, system = values["prompt"], values["messages"], values["system"]
    if (prompt is None) == (messages is None):
        problems.add("give either prompt or messages" + ("" if prompt is None else ", not both"), "prompt")
        return ()
    if system is not None and messages is not None:
        problems.add("goes with prompt; in messages, write {'role': 'system', 'content': ...}", "system")
    base = {"base_dir": declaration.base_dir, "root": declaration.root}
    if messages is not None:
        entries, listed = _message_lists(messages)
        made = [
            (index, _made(problems, "messages", index, listed, lambda raw: Template.messages(raw, **base), raw))
            for index, raw in enumerate(entries)
        ]
    else:
        entries, listed = _several(prompt)
        made = [
            (
                index,
                _made(problems, "prompt", index, listed, lambda raw: Template.prompt(raw, system=system, **base), raw),
            )
            for index, raw in enumerate(entries)
        ]
    if not entries:
        problems.add(
            "is an empty list; valid: a template, or a list of templates", "prompt" if messages is None else "messages"
        )
    return _unlike([(index, template) for index, template in made if template is not None], problems)


def _made(problems: Problems, key: str, index: int, listed: bool, make: Any, raw: Any) -> Any:
    return problems.attempt(make, raw, path=(key, index) if listed else (key,))


def _message_lists(raw: Any) -> tuple[Sequence[Any], bool]:
    """A list of messages is one template; a list that holds lists or functions is a choice of templates."""
    entries, listed = _several(raw)
    one = (
        listed
        and isinstance(raw, (list, tuple))
        and any(isinstance(item, Mapping) and "role" in item for item in entries)
    )
    return ([raw], False) if one else (entries, listed)


def _unlike(made: list[tuple[int, Template]], problems: Problems) -> tuple[Template, ...]:
    kept: list[Template] = []
    for index, template in made:
        key = "messages" if template.kind == "messages" else "prompt"
        if any(template.to_lock() == other.to_lock() for other in kept):
            why = "; functions are told apart by name: define them with def" if template.is_function else ""
            problems.add(f"is {shown(template.label, 60)}, which stands twice{why}", key, index)
        kept.append(template)
    return tuple(kept)


def read_baselines(
    values: Mapping[str, Any], space: Space, declaration: Declaration, problems: Problems
) -> tuple[Config, ...]:
    """The baselines as configurations: what one leaves out is the untuned configuration's."""
    read = [
        problems.attempt(_baseline, raw, values, space, declaration, path=("baselines", index))
        for index, raw in enumerate(values["baselines"])
    ]
    return tuple(config for config in read if config is not None)


def _baseline(raw: Mapping[str, Any], values: Mapping[str, Any], space: Space, declaration: Declaration) -> Config:
    model = raw.get("model", space.models[0])
    if not isinstance(model, str):
        raise Invalid(f"is {shown(model)}; valid: a model's name", "model")
    given = {name: value for name, value in raw.items() if name not in ("model", "prompt", "messages")}
    for name in given:
        check_name(name, values["extra_body"] or {})
    untuned = space.first(model)
    base = {name: Constant(value) for name, value in untuned.params.items()}
    params = overlaid(base, {name: _constant(name, value) for name, value in given.items()})
    return Config(
        {name: domain.to_plain() for name, domain in params.items()} | {"model": model},
        _own_template(raw, values, untuned, declaration),
    )


def _constant(name: str, raw: Any) -> Constant:
    domain = parse_domain(name, raw) if not isinstance(raw, list) else Constant(raw)
    if not isinstance(domain, Constant) or name == TEMPERATURE_OR_TOP_P:
        raise Invalid(f"is {shown(raw)}; a baseline's parameters are constants", name)
    return domain


def _own_template(
    raw: Mapping[str, Any], values: Mapping[str, Any], untuned: Config, declaration: Declaration
) -> Template:
    base = {"base_dir": declaration.base_dir, "root": declaration.root}
    if "messages" in raw:
        return Template.messages(raw["messages"], **base)
    return Template.prompt(raw["prompt"], system=values["system"], **base) if "prompt" in raw else untuned.template
