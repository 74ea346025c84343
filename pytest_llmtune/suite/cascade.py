"""The key ``cascade``: allowed models of its steps, and which answers of the first are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.functions import is_function_path, load_function
from pytest_llmtune._util.text import InvalidError, listed, shown
from pytest_llmtune.types import Accept

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class CascadeSteps:
    """The allowed steps of a cascade."""

    first: tuple[str, ...] = ()
    """Models of the first step; empty: any."""
    last: tuple[str, ...] = ()
    """Models of the last step; empty: any."""
    accept: Accept = Accept()
    """What the first step's answers must satisfy besides a clear vote."""
    margin: float | None = None
    """The lead of a clear vote; None: found by the search."""

    def why_not(self, models: Sequence[str], accept: Accept | None) -> str | None:
        """Why a search could not choose a cascade with these models and this rule; None: it could.

        Args:
            models: of the steps; empty: any may stand, as after a migration.
        """
        for declared, model in zip((self.first, self.last), models, strict=False):
            if declared and model not in declared:
                return f"a step uses the model {model}; declared: {listed(declared)}"
        if accept is None:
            return None
        names = ("regex", "schema", *(("margin",) if self.margin is not None else ()))
        other = [name for name in names if getattr(self.accept, name) != getattr(accept, name)]
        if (self.accept.function is None) != (accept.function is None):
            other.append("function")
        return f"its {listed(other)} in accept differs from the declared one" if other else None


def steps_of(cascade: bool | CascadeSteps) -> CascadeSteps:
    """The steps that a suite's ``cascade`` allows: any, where it is only true."""
    return cascade if isinstance(cascade, CascadeSteps) else CascadeSteps()


def read_accept(raw: Any, *, declared: bool = False) -> Accept:
    """Read a step's ``accept`` from a lock file or a suite; only a suite's function is loaded."""
    known = ("margin", "regex", "schema", "function", "grader")
    if not isinstance(raw, Mapping) or not raw or raw.keys() - {*known}:
        raise InvalidError(f"accept of a cascade's step is {shown(raw)}; valid: {', '.join(known)}")
    margin, pattern, schema, function = (raw.get(name) for name in known[:-1])
    margin = 0.0 if margin is None else margin
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin <= 1:
        raise InvalidError(f"margin of a cascade's step is {shown(margin)}; valid: a number from 0 to 1")
    if pattern is not None:
        import re

        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError, MemoryError) as error:
            raise InvalidError(f"regex of a cascade's step is {shown(pattern)}: {error}") from None
    if schema is not None and not isinstance(schema, Mapping):
        raise InvalidError(f"schema of a cascade's step is {shown(schema)}; valid: a JSON schema")
    named = isinstance(function, Mapping) and function.keys() == {"callable"}
    allowed = (callable(function) or is_function_path(str(function))) if declared else named or callable(function)
    if function is not None and not allowed:
        raise InvalidError(
            f"function of a cascade's step is {shown(function)}; valid: a function of an answer's text, 'module:function'"
        )
    return Accept(float(margin), pattern, raw.get("grader"), schema, function)


def read_cascade(raw: Any, models: Sequence[str], base_dir: Path, root: Path | None) -> bool | CascadeSteps:
    """``True``, ``{"accept": {...}}``, or two steps: ``[{"model": "small", "accept": {...}}, {"model": "large"}]``.

    Raises:
        SuiteError: invalid, or a model that the suite does not have.
    """
    if isinstance(raw, bool):
        return raw
    steps = [raw, {}] if isinstance(raw, Mapping) else raw
    if not isinstance(steps, (list, tuple)) or len(steps) != 2 or not all(isinstance(one, Mapping) for one in steps):
        raise InvalidError(f"is {shown(raw)}; valid: true, false, {{accept: {{...}}}}, or a list of two steps")
    found = []
    for index, step in enumerate(steps):
        if step.keys() - {"model", *(() if index else ("accept",))}:
            raise InvalidError(f"has the step {shown(step)}; valid: model, and in the first accept", index)
        if "model" in step and not any(models):
            raise InvalidError(
                "names a model, but the suite has no model=, only parameters of its task; valid there: true, or accept alone",
                index,
            )
        declared = step.get("model", ())
        several = (declared,) if isinstance(declared, str) else tuple(declared)
        if unknown := [name for name in several if name not in models]:
            raise InvalidError(f"names {listed(unknown)}, which is no model of the suite: {listed(models)}", index)
        found.append(several)
    accept = read_accept(steps[0]["accept"], declared=True) if "accept" in steps[0] else Accept()
    if isinstance(accept.function, str):
        accept = replace(accept, function=load_function(accept.function, base_dir, root))
    margin = accept.margin if "margin" in steps[0].get("accept", {}) else None
    return CascadeSteps(found[0], found[1], accept, margin)
