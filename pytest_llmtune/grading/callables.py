"""Graders of the user's own: a function ``grade(responses, **row) -> dict``, given or named "module:function"."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import numbers
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.grading.grader import digest, qualified_name, source_of
from pytest_llmtune.model import Answer, ExampleGrade, Row

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Function", "GradeFunction", "load_function"]

GradeFunction = Callable[..., Mapping[str, Any] | ExampleGrade]

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Function:
    """A function of all responses of an example, as in AutoGen: it names its own metrics."""

    function: GradeFunction

    def __post_init__(self) -> None:
        if inspect.iscoroutinefunction(self.function):
            raise SuiteError(
                f"the grader {self.name} is async; a grader is a plain function (to ask a model, use `judge`)"
            )

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def fingerprint(self) -> str:
        return digest({"kind": "function", "name": qualified_name(self.function), "source": source_of(self.function)})

    @property
    def per_response(self) -> bool:
        return False

    def reference(self, row: Row) -> str:
        """Checks only that the row has every column that the function asks for by name."""
        self._arguments(row)
        return ""

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        raise TypeError(f"the grader {self.name} judges all responses together")

    def grade(self, responses: Sequence[str], row: Row) -> ExampleGrade:
        arguments = self._arguments(row)
        try:
            result = self.function(list(responses), **arguments)
        except LLMTuneError:
            raise
        except Exception as error:
            row_text = ", ".join(f"{key}={value!r:.40}" for key, value in list(row.items())[:4])
            raise SuiteError(
                f"the grader {self.name} raised {type(error).__name__}: {error}; on {len(responses)} responses and {row_text}"
            ) from error
        return result if isinstance(result, ExampleGrade) else self._grade_of(result)

    def _arguments(self, row: Row) -> Mapping[str, Any]:
        """The columns that the function takes, all of them where it has ``**row``."""
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # a builtin without a signature
            return row
        named = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        missing = [p.name for p in named if p.default is p.empty and p.name not in row]
        if missing or not parameters:
            what = f"asks for {', '.join(map(repr, missing))}" if missing else "takes no argument"
            raise SuiteError(
                f"the grader {self.name} {what}; it is called as {self.name}(responses, **row), "
                f"and the columns are {', '.join(map(repr, row)) or 'none'}"
            )
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return {key: value for key, value in row.items() if key != parameters[0].name}
        return {p.name: row[p.name] for p in named if p.name in row}

    def _grade_of(self, result: object) -> ExampleGrade:
        if not isinstance(result, Mapping):
            raise SuiteError(f"the grader {self.name} returned {result!r:.60}; expected a dict of metrics to numbers")
        metrics = {
            str(key): self._number(key, value) for key, value in result.items() if key not in ("voted_answer", "votes")
        }
        voted = result.get("voted_answer")
        return ExampleGrade(metrics, self._votes(result.get("votes"), voted), None if voted is None else str(voted))

    def _votes(self, votes: object, voted: object) -> tuple[tuple[str, int], ...]:
        """AutoGen's graders return the number of votes of the elected answer; pairs are taken as they are."""
        if isinstance(votes, numbers.Real) and voted is not None:
            return ((str(voted), int(votes)),)
        if isinstance(votes, Mapping):
            votes = list(votes.items())
        if isinstance(votes, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in votes):
            return tuple((str(answer), int(count)) for answer, count in votes)
        return ()

    def _number(self, key: object, value: object) -> float:
        if hasattr(value, "item"):  # numpy's and torch's scalars
            value = value.item()
        if not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
            raise SuiteError(f"the grader {self.name} returned {key}={value!r:.60}; a metric is a finite number")
        return float(value)


def load_function(path: str, base_dir: Path) -> Callable[..., Any]:
    """The function named ``"module:function"``; a module that is not importable is looked for as a file in ``base_dir``.

    Raises:
        SuiteError: no such module or function, or the module fails to import.
    """
    if not _PATH.fullmatch(path):
        raise SuiteError(f"{path!r} is not of the form 'module:function'")
    module_name, _, names = path.partition(":")
    module: Any = _module(module_name, base_dir)
    found: Any = module
    for part in names.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        there = ", ".join(sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))) or "none"
        raise SuiteError(f"{module_name} has no function {names!r}; it has: {there:.200}")
    return found  # type: ignore[no-any-return]


def _module(name: str, base_dir: Path) -> ModuleType:
    file = base_dir.joinpath(*name.split(".")).with_suffix(".py")
    try:
        if file.is_file():
            return _from_file(name, file)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise SuiteError(f"no module {name!r}: neither importable nor a file {file}") from None
        raise SuiteError(f"importing {name!r} failed: {error}") from error
    except Exception as error:
        raise SuiteError(f"importing {name!r} failed: {type(error).__name__}: {error}") from error


def _from_file(name: str, file: Path) -> ModuleType:
    """The module of this very file: another of its name may be imported already (two suites' ``graders.py``)."""
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) and Path(str(known.__file__)).resolve() == file.resolve():
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{file} cannot be imported", name=name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
