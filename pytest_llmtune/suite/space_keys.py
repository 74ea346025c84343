"""From a suite's keys to its search space: models and what differs for one, templates, parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import shown
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.suite.domains import Constant, Domain
from pytest_llmtune.suite.keys import PARAMETER_KEYS
from pytest_llmtune.suite.parameters import PARAMETERS, TEMPERATURE_OR_TOP_P, check_name, parse_branches, parse_domain
from pytest_llmtune.suite.space import DEFAULTS, Space, overlaid
from pytest_llmtune.suite.templates import read_templates, several

if TYPE_CHECKING:
    from pytest_llmtune.suite.declaration import Declaration, Problems

__all__ = ["SuiteWarning", "read_space"]


_NOT_SENT = Constant(None)
_OWN = frozenset({"model", "messages", "stream", "stream_options", *PARAMETERS})
"""Parameters with a place of their own, so that ``extra_body`` may not hold them."""


class SuiteWarning(LLMTuneError, UserWarning):  # noqa: N818  # an error only under -W error
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
    templates = read_templates(values, declaration, problems)
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
    entries, listed = several(raw)
    if not entries:
        problems.add("is an empty list; valid: a model's name, or a list of names", "model")
    names: list[str] = []
    conditions: dict[str, dict[str, Domain]] = {}
    for index, entry in enumerate(entries):
        path: tuple[str | int, ...] = ("model", index) if listed else ("model",)
        given = dict(entry) if isinstance(entry, Mapping) else {"model": entry}
        name = given.pop("model", None)
        if not isinstance(name, str) or not name.strip():
            problems.add(
                f"is {shown(entry)}; valid: a model's name, or {{'model': name, parameter: value, ...}}", *path
            )
        elif name in names:
            problems.add(f"is {shown(name)}, which stands twice", *path)
        else:
            names.append(name)
            conditions |= _condition(name, given, extra, problems, path)
    return tuple(names), conditions


def _condition(
    name: str, differing: Mapping[str, Any], extra: frozenset[str], problems: Problems, path: tuple[str | int, ...]
) -> dict[str, dict[str, Domain]]:
    for parameter in differing:
        problems.attempt(check_name, parameter, extra, path=path)
    known = {parameter: raw for parameter, raw in differing.items() if parameter in (*PARAMETER_KEYS, *extra)}
    domains = _parameters(known, problems, path)
    _check_pairs(domains, problems, path)
    return {name: domains} if domains else {}
