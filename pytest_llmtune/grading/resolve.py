"""From what a suite says about its grader to a grader: a name, a name with options, a function, or a list of these."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.callables import Function, load_function
from pytest_llmtune.grading.choice import Choice
from pytest_llmtune.grading.grader import BuiltIn, Grader
from pytest_llmtune.grading.math import Math
from pytest_llmtune.grading.numeric import Numeric
from pytest_llmtune.grading.several import Several
from pytest_llmtune.grading.text import Contains, Exact, Regex
from pytest_llmtune.grading.votes import Vote, check_vote

__all__ = ["BUILT_IN", "resolve"]

BUILT_IN: Mapping[str, type[BuiltIn]] = {
    "math": Math,
    "exact": Exact,
    "choice": Choice,
    "numeric": Numeric,
    "contains": Contains,
    "regex": Regex,
}


def resolve(spec: Any, *, base_dir: Path | None = None, vote: Any = "equivalence", where: str = "") -> Grader:
    """The grader that a suite asks for.

    Args:
        spec: ``"math"``, ``{"math": {option: value}}``, ``"module:function"``, a function, or a list of these: the first names
            the metrics that are tuned and guarded, the metrics of the others are called ``<name>_<metric>``.
        base_dir: where "module:function" looks for ``module.py`` first; default: the current directory.
        vote: how the built-in graders elect an answer; see ``votes``.
        where: put before messages, for example ``"suite algebra: grader"``.

    Raises:
        SuiteError: no such grader or option, an option's value that does not fit.
    """
    try:
        elect = check_vote(vote)
        if not isinstance(spec, (list, tuple)):
            return _one(spec, base_dir or Path.cwd(), elect)
        if not spec:
            raise SuiteError("an empty list of graders")
        return Several(tuple(_one(item, base_dir or Path.cwd(), elect) for item in spec))
    except SuiteError as error:
        raise SuiteError(f"{where}: {error}" if where else str(error)) from error.__cause__


def _one(spec: Any, base_dir: Path, vote: Vote) -> Grader:
    if isinstance(spec, str):
        return Function(load_function(spec, base_dir)) if ":" in spec else _built_in(spec, {}, vote)
    if isinstance(spec, Mapping) and len(spec) == 1:
        [(name, options)] = spec.items()
        if not isinstance(options, Mapping) and options is not None:
            raise SuiteError(f"{name}: expected a mapping of options, got {options!r:.60}")
        return _built_in(str(name), options or {}, vote)
    if isinstance(spec, (BuiltIn, Function)):
        return spec
    if callable(spec):
        return Function(spec)
    raise SuiteError(
        f"{spec!r:.80}; expected one of {', '.join(BUILT_IN)}, 'module:function', a function, or a list of these"
    )


def _built_in(name: str, options: Mapping[Any, Any], vote: Vote) -> BuiltIn:
    kind = BUILT_IN.get(name)
    if kind is None:
        raise SuiteError(f"no grader {name!r}{_meant(name, BUILT_IN)}; valid: {', '.join(BUILT_IN)}, 'module:function'")
    known = {
        _OPTION.get(item.name, item.name) for item in dataclasses.fields(kind) if item.metadata.get("option", True)
    }
    for option in options:
        if option not in known:
            raise SuiteError(f"{name}: no option {option!r}{_meant(option, known)}; valid: {', '.join(sorted(known))}")
    fields = {
        next((field for field, word in _OPTION.items() if word == key), key): value for key, value in options.items()
    }
    try:
        return kind(vote=vote, **fields)
    except SuiteError as error:
        raise SuiteError(f"{name}: {error}") from error.__cause__


_OPTION = {"reference_column": "reference", "alias": "name"}
"""Fields whose option goes by another name: ``reference`` is a method and ``name`` a property."""


def _meant(word: Any, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
