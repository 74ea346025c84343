"""``task=``: the app's own function as the unit under test, and how its parameters are filled."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.functions import load_function, qualified_name
from pytest_llmtune._util.text import InvalidError, listed, meant, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.params import CLIENTS, RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_llmtune.types import Row

__all__ = ["Outcome", "Task", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task may return where text alone is too little."""

    text: str
    """What is graded."""
    data: Any = None
    """Anything a grader or a reader of the report should see beside it: retrieved documents, a score."""


@dataclass(frozen=True)
class Task:
    """A function of the app, and what it is called with."""

    name: str
    """As declared, else ``module:qualname``."""
    function: Callable[..., Any] = field(repr=False, compare=False)
    found_in: tuple[Path, Path | None] | None = field(default=None, repr=False, compare=False)
    """Where a name was looked up: the suite's directory, and the root that it may not leave; None: it was given itself."""

    @classmethod
    def of(cls, raw: Any, base_dir: Path, root: Path | None) -> Task:
        """A function, or ``"module:function"``.

        Raises:
            SuiteError: neither, or it cannot be imported or called by name.
        """
        if isinstance(raw, str):
            task = cls(raw, load_function(raw, base_dir, root), (base_dir, root))
        elif callable(raw):
            task = cls(qualified_name(raw), raw)
        else:
            raise InvalidError(f"is {shown(raw)}; valid: 'module:function', or a function")
        task.parameters  # noqa: B018  # what has no readable signature is refused now
        return task

    @cached_property
    def parameters(self) -> Mapping[str, bool]:
        """Parameter to whether it must be filled; ``**row`` is no parameter.

        Raises:
            InvalidError: they cannot be read, or cannot be given by name.
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
        """Whether it has ``**row``, and is given every column."""
        found = inspect.signature(self.function).parameters.values()
        return any(each.kind is each.VAR_KEYWORD for each in found)

    @property
    def is_async(self) -> bool:
        """Whether calling it gives a coroutine."""
        function = inspect.unwrap(self.function)
        called = getattr(function, "__call__", None)  # noqa: B004  # of an object that is called
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(called)

    def check(self, columns: Sequence[str], keys: Sequence[str]) -> None:
        """Every parameter can be filled.

        Args:
            columns: of the data.
            keys: of every configuration that may be tried.

        Raises:
            SuiteError: one cannot, and has no default.
        """
        known = (*RESERVED, *columns, *keys)
        missing = [name for name, needed in self.parameters.items() if needed and name not in known]
        if missing:
            names = ", ".join(
                f"{name!r}{' (which model= of the suite gives)' if name == 'model' else meant(name, known)}"
                for name in missing
            )
            raise SuiteError(
                f"the task {self.name} takes {names}, which nothing fills; a parameter is one of {', '.join(RESERVED)}, "
                f"else a column ({listed(columns)}), else a key of the configuration ({listed(keys)})"
            )

    def arguments(self, row: Row, config: Mapping[str, Any], clients: Callable[[str], Any]) -> dict[str, Any]:
        """What to call it with.

        Args:
            clients: from ``client`` or ``async_client`` to a client of this run.
        """
        given: dict[str, Any] = dict(row) if self.takes_row else {}
        for name in self.parameters:
            if name in CLIENTS:
                given[name] = clients(name)
            elif name == "row":
                given[name] = dict(row)
            elif name == "config":
                given[name] = dict(config)
            elif name in row:
                given[name] = row[name]
            elif name in config:
                given[name] = config[name]
        return given


def outcome_of(returned: Any, name: str) -> Outcome:
    """What a task returned, as text to be graded.

    Raises:
        SuiteError: neither text, nor what JSON can say, nor an ``Outcome``.
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
        return Outcome(json.dumps(returned, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError):
        dump = getattr(returned, "model_dump", None)  # of pydantic
        if callable(dump):
            return outcome_of(dump(mode="json"), name)
        raise SuiteError(
            f"the task {name} returned {shown(returned)}; a task returns text, a JSON value, or Outcome(text, data)"
        ) from None
