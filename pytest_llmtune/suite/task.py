"""``task=``: a function of the app as the unit under test, and how its parameters are filled."""

from __future__ import annotations

import functools
import inspect
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.functions import load_function, qualified_name
from pytest_llmtune._util.serialize import fields_of
from pytest_llmtune._util.text import InvalidError, did_you_mean, listed, shown
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.types import Row


CLIENTS = ("client", "async_client")
"""Parameters that receive an OpenAI client of the run."""
RESERVED = ("row", "config", *CLIENTS)
"""Parameters of a task that are neither columns nor keys of the configuration."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a task with more than text."""

    text: str
    """The text to grade."""
    data: Any = None
    """Additional data for graders and reports, such as retrieved documents or a score."""


@dataclass(frozen=True)
class Task:
    """A function of the app, and how to call it."""

    name: str
    """As declared, else ``module:qualname``."""
    function: Callable[..., Any] = field(repr=False, compare=False)
    found_in: tuple[Path, Path | None] | None = field(default=None, repr=False, compare=False)
    """Where the name was looked up: the suite's directory, and the root that it must not leave; None: given as a function."""

    @classmethod
    def of(cls, raw: Any, base_dir: Path, root: Path | None) -> Task:
        """Create a task from a function, or from ``"module:function"``.

        Raises:
            SuiteError: neither, or it cannot be imported or called with keyword arguments.
        """
        if isinstance(raw, str):
            task = cls(raw, load_function(raw, base_dir, root), (base_dir, root))
        elif callable(raw):
            task = cls(qualified_name(raw), raw)
        else:
            raise InvalidError(f"is {shown(raw)}; valid: 'module:function', or a function")
        task.parameters  # noqa: B018  # fails now if the signature cannot be read
        called = task.called
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            raise InvalidError(f"is {task.name}, which yields; a task returns its answer as a whole")
        return task

    @cached_property
    def parameters(self) -> Mapping[str, bool]:
        """Whether each parameter is required, by name; without ``**row``.

        Raises:
            InvalidError: the signature cannot be read, or has positional-only parameters.
        """
        try:
            found = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError) as error:
            raise InvalidError(f"is {self.name}, whose parameters cannot be read: {error}") from None
        for each in found:
            if each.kind is each.POSITIONAL_ONLY and each.default is each.empty:
                raise InvalidError(f"is {self.name}, whose parameter {each.name!r} cannot be given by name")
        named = [each for each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        return {each.name: each.default is each.empty for each in named}

    @cached_property
    def takes_row(self) -> bool:
        """Whether it has ``**row``, which receives every column."""
        found = inspect.signature(self.function).parameters.values()
        return any(each.kind is each.VAR_KEYWORD for each in found)

    @cached_property
    def is_async(self) -> bool:
        """Whether calling it returns a coroutine; not what a decorator wraps, which may run it."""
        return inspect.iscoroutinefunction(self.called)

    @property
    def called(self) -> Callable[..., Any]:
        """The function itself, or what a callable object runs."""
        is_object = not (inspect.isroutine(self.function) or isinstance(self.function, (type, functools.partial)))
        return type(self.function).__call__ if is_object else self.function

    def check(self, columns: Sequence[str], keys: Sequence[str]) -> None:
        """Check that every parameter can be filled.

        Args:
            columns: columns of the data.
            keys: keys that every configuration has.

        Raises:
            SuiteError: a required parameter cannot be filled.
        """
        known = (*RESERVED, *columns, *keys)
        missing = [name for name, needed in self.parameters.items() if needed and name not in known]
        if missing:
            names = ", ".join(
                f"{name!r}{' (which model= of the suite gives)' if name == 'model' else did_you_mean(name, known)}"
                for name in missing
            )
            raise SuiteError(
                f"the task {self.name} takes {names}, which nothing fills; a parameter is one of {', '.join(RESERVED)}, "
                f"else a column ({listed(columns)}), else a key of the configuration ({listed(keys)})"
            )

    def arguments(self, row: Row, config: Mapping[str, Any], clients: Callable[[str], Any]) -> dict[str, Any]:
        """The keyword arguments of a call.

        Args:
            clients: returns this run's client for ``client`` or ``async_client``.
        """
        row, config = copied(dict(row)), copied(dict(config))  # a run may change what it is given
        filled: dict[str, Any] = dict(row) if self.takes_row else {}
        for name in self.parameters:
            if name in CLIENTS:
                filled[name] = clients(name)
            elif name == "row":
                filled[name] = row
            elif name == "config":
                filled[name] = config
            elif name in row:
                filled[name] = row[name]
            elif name in config:
                filled[name] = config[name]
        return filled


def copied(value: Any) -> Any:
    """A copy of JSON-like data down to its leaves, which are shared."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def outcome_of(returned: Any, name: str) -> Outcome:
    """A task's return value as an ``Outcome``.

    Raises:
        SuiteError: not a string, JSON data, a dataclass, a pydantic model or an ``Outcome``.
    """
    if isinstance(returned, Outcome):
        if isinstance(returned.text, str):
            return returned
        return Outcome(outcome_of(returned.text, name).text, returned.data)
    if isinstance(returned, str):
        return Outcome(str(returned))
    if returned is None:
        raise SuiteError(f"the task {name} returned None; a task returns text, a JSON value, or Outcome(text, data)")
    try:
        return Outcome(json.dumps(returned, ensure_ascii=False, allow_nan=False, default=_plain))
    except (TypeError, ValueError, RecursionError):
        raise SuiteError(
            f"the task {name} returned {shown(returned)}; a task returns text, a JSON value, or Outcome(text, data)"
        ) from None


def _plain(value: Any) -> Any:
    plain = fields_of(value, mode="json")
    if plain is value:
        raise TypeError
    return plain
