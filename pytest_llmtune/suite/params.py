"""``params=``: the parameters of a task, some of which may be models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.text import InvalidError, shown
from pytest_llmtune.suite.domains import Choice, Domain

if TYPE_CHECKING:
    from collections.abc import Callable


CLIENTS = ("client", "async_client")
"""Parameters that receive an OpenAI client of the run."""
RESERVED = ("row", "config", *CLIENTS)
"""Parameters of a task that are neither columns nor keys of the configuration."""


@dataclass(frozen=True, slots=True)
class Models(Choice):
    """A choice between models; each must have a price before anything is spent."""

    name: str = ""
    """The parameter's name, if given with the models."""

    def to_plain(self) -> Any:
        return {"models": list(self.options)}


def models(*given: Any) -> Models:
    """A task parameter that is a model: ``params={"planner_model": models(["small", "big"])}``.

    Equivalent: ``params=[models("planner_model", ["small", "big"]), models("writer_model", ["big"])]``.

    Raises:
        InvalidError: not a list of model names.
    """
    name, options = given if len(given) == 2 else ("", *given) if len(given) == 1 else ("", None)
    options = [options] if isinstance(options, str) else options
    if not isinstance(options, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in options):
        raise InvalidError(
            f"models{shown(given)}: valid: models(['small', 'big']), or models('name', ['small', 'big'])"
        )
    if not isinstance(name, str):
        raise InvalidError(f"models({shown(name)}, ...): the name of a parameter is text")
    return Models(tuple(options), name)


def read_params(raw: Any) -> dict[str, Any]:
    """``params`` as a mapping of names to domains; a list contains ``models(name, [...])``.

    Raises:
        InvalidError: neither.
    """
    if isinstance(raw, Models):
        raw = [raw]
    if isinstance(raw, (list, tuple)) and raw:
        for index, each in enumerate(raw):
            if not isinstance(each, Models) or not each.name:
                raise InvalidError(f"is {shown(each)}; in a list each is models('name', ['small', 'big'])", index)
        raw = {each.name: each for each in raw}
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) and name for name in raw):
        raise InvalidError(
            f"is {shown(raw)}; valid: a mapping of names to a constant, a list, a range or models([...])"
        )
    return dict(raw)


def parse_param(name: str, raw: Any, parse: Callable[[str, Any], Domain]) -> Domain:
    """The domain of a task's parameter.

    Raises:
        InvalidError: an invalid value, or a reserved name.
    """
    if isinstance(raw, Mapping) and raw.keys() == {"models"}:
        raw = models(raw["models"])
    if isinstance(raw, Models):
        if raw.name not in ("", name):
            raise InvalidError(f"is models({raw.name!r}, ...), which has a different name")
        return Models(raw.options)
    return parse(name, raw)


def models_of(domains: Mapping[str, Domain]) -> tuple[str, ...]:
    """All models of parameters declared with ``models``."""
    return tuple(str(option) for domain in domains.values() if isinstance(domain, Models) for option in domain.options)
