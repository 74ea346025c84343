"""Resolve what a suite calls its grader, and what a cascade accepts."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util import plugins
from pytest_llmtune._util.functions import load_function
from pytest_llmtune._util.text import did_you_mean, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import Grader, Vote, check_vote
from pytest_llmtune.grading.custom import AnswerGrader, CompositeGrader, Function, ShapedGrader
from pytest_llmtune.grading.reasoning import marks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.grading.base import BuiltIn
    from pytest_llmtune.grading.text import Regex
    from pytest_llmtune.suite import Suite
    from pytest_llmtune.types import Accept


BUILT_IN: Mapping[str, str] = {
    "math": "math:Math",
    "exact": "text:Exact",
    "choice": "choice:ChoiceGrader",
    "numeric": "text:Numeric",
    "contains": "text:Contains",
    "regex": "text:Regex",
    "json": "json_match:JsonAnswer",
    "python": "code:PythonCode",
    "similarity": "similarity:Similarity",
    "judge": "judge:Judge",
    "tools": "trace:Tools",
    "calls": "trace:Calls",
}
"""Name to module and class; modules are imported on demand."""


def built_in(name: str) -> type[BuiltIn]:
    """The class of a built-in grader."""
    module, _, attribute = BUILT_IN[name].partition(":")
    found: type[BuiltIn] = getattr(import_module(f"pytest_llmtune.grading.{module}"), attribute)
    return found


def resolve(
    spec: Any,
    *,
    base_dir: Path | None = None,
    root: Path | None = None,
    vote: Any = "equivalence",
    reasoning: Any = True,
    where: str = "",
) -> Grader:
    """Create the grader that a suite declares.

    Args:
        spec: ``"math"``, ``{"math": {option: value}}``, ``"module:function"``, a function, an object like Grader, or a list of
            these; metrics of all but the first are named ``<name>_<metric>``.
        base_dir: where "module:function" looks for ``module.py`` first; default: the current directory.
        root: if given, "module:function" runs no code outside this directory.
        vote: how the built-in graders elect an answer; see ``base``.
        reasoning: whether graders see responses without the model's reasoning: true, false, or the marks of a thought,
            ``{"open": ..., "close": ...}``.
        where: prefix of messages, for example ``"suite algebra: grader"``.

    Raises:
        SuiteError: unknown grader or option, or an invalid value.
    """
    try:
        one = partial(_one, base_dir=base_dir or Path.cwd(), root=root, vote=check_vote(vote))
        grader = CompositeGrader(tuple(map(one, spec))) if isinstance(spec, (list, tuple)) else one(spec)
        return AnswerGrader(grader, marks_of(reasoning))
    except SuiteError as error:
        raise SuiteError(f"{where}: {error}" if where else str(error)) from error.__cause__


def grader_of(suite: Suite) -> Grader:
    """The grader that a suite declares; raises SuiteError as ``resolve`` does."""
    return resolve(
        suite.grader,
        base_dir=suite.base_dir,
        root=suite.root,
        vote=suite.vote,
        reasoning=suite.reasoning,
        where=suite.where_declared,
    )


def _one(spec: Any, *, base_dir: Path, root: Path | None, vote: Vote) -> Grader:
    if isinstance(spec, str):
        return Function(load_function(spec, base_dir, root)) if ":" in spec else _built_in(spec, {}, vote)
    if isinstance(spec, Mapping) and len(spec) == 1:
        [(name, options)] = spec.items()
        if not isinstance(options, Mapping) and options is not None:
            raise SuiteError(f"{name}: expected a mapping of options, got {shown(options)}")
        loaded = dict(options or {})
        for option, value in loaded.items():
            if isinstance(value, Mapping) and value.keys() == {"callable"}:  # such as the prompt of a judge
                loaded[option] = load_function(str(value["callable"]), base_dir, root)
        return _built_in(str(name), loaded, vote)
    if isinstance(spec, Grader):
        return spec
    if hasattr(spec, "fingerprint") and hasattr(spec, "grade"):
        return ShapedGrader(spec)
    if callable(spec):
        return Function(spec)
    raise SuiteError(
        f"{shown(spec)}; expected one of {', '.join(BUILT_IN)}, {{name: {{option: value}}}}, 'module:function', "
        f"a function, or a list of these"
    )


def _built_in(name: str, options: Mapping[Any, Any], vote: Vote) -> Grader:
    if name not in BUILT_IN:
        return _registered(name, options)
    kind = built_in(name)
    fields = {_OPTION.get(item.name, item.name): item for item in dataclasses.fields(kind) if item.name != "vote"}
    for option, value in options.items():
        if option not in fields:
            raise SuiteError(
                f"{name}: no option {option!r}{did_you_mean(option, fields)}; valid: {', '.join(sorted(fields))}"
            )
        _check_type(f"{name}: {option}", value, str(fields[option].type))
    try:
        return kind(vote=vote, **{fields[option].name: value for option, value in options.items()})
    except SuiteError as error:
        raise SuiteError(f"{name}: {error}") from error.__cause__


def _registered(name: str, options: Mapping[Any, Any]) -> Grader:
    """A grader of another distribution: a factory, called with the options, or a plain grading function."""
    factory = plugins.load("graders", name)
    if factory is None:
        known = [*BUILT_IN, *sorted({entry.name for entry in plugins.installed("graders")})]
        raise SuiteError(f"no grader {name!r}{did_you_mean(name, known)}; valid: {', '.join(known)}, 'module:function'")
    if inspect.isfunction(factory) and "responses" in inspect.signature(factory).parameters:
        if options:
            raise SuiteError(f"{name}: takes no options, got {', '.join(map(str, options))}")
        return Function(factory)
    try:
        grader = factory(**options)
    except TypeError as error:
        raise SuiteError(f"{name}: {error}") from error
    if not isinstance(grader, Grader):
        raise SuiteError(f"{name}: the installed factory gave {shown(grader)}; expected a pytest_llmtune.Grader")
    return grader


def _check_type(what: str, value: Any, annotation: str) -> None:
    """Check scalars by annotation: YAML's ``"no"`` must not count as true."""
    kind = annotation.removesuffix(" | None")
    if kind not in _SCALARS or (value is None and kind != annotation):
        return
    types, expected = _SCALARS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise SuiteError(f"{what}={shown(value)}; expected {expected}")


_SCALARS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
}
_OPTION = {"reference_column": "reference", "alias": "name"}
"""Fields with another option name: ``reference`` is a method and ``name`` a property."""


def fits(accept: Accept) -> Callable[[str], bool]:
    """Whether one answer meets a cascade step's conditions for single answers (all but the vote).

    A SuiteError when it is called: the step's function is missing, or raises.
    """
    schema = None if accept.schema is None else _schema(json.dumps(accept.schema, default=str))
    pattern = None if accept.regex is None else _pattern(accept.regex)

    def fit(text: str) -> bool:
        if pattern is not None and not pattern.matches(text):
            return False
        if schema is not None and not schema.answers([text], {})[0].correct:
            return False
        if accept.function is None:
            return True
        if not callable(accept.function):
            raise SuiteError(
                f"accept of a cascade's step is the function {shown(accept.function)}, which is in the suite; give its Config"
            )
        try:
            return bool(accept.function(text))
        except Exception as error:
            raise SuiteError(f"accept of a cascade's step raised {type(error).__name__}: {error}") from error

    return fit


@lru_cache(maxsize=8)  # its worker serves all examples of a run
def _schema(schema: str) -> Any:
    return resolve({"json": {"schema": json.loads(schema)}})


@lru_cache(maxsize=8)
def _pattern(pattern: str) -> Regex:
    from pytest_llmtune.grading.text import Regex

    return Regex(pattern=pattern)


def accepts(accept: Accept, votes: Sequence[int], texts: Sequence[str]) -> bool:
    """Whether the answers of a cascade's step are accepted.

    Args:
        votes: count of each readable answer, most frequent first.
        texts: all answers.
    """
    return accept.is_clear(votes, len(texts)) and all(map(fits(accept), texts))
