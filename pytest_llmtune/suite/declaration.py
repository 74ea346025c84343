"""Read declared keys, and collect all problems instead of stopping at the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.text import InvalidError, did_you_mean
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.keys import GATE, KEYS, PARAMETER_KEYS, RELIABILITY_GATES, REQUIRED, parse_threshold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_llmtune.suite.keys import Threshold


_NAMES = tuple(key.name for key in KEYS)
_KNOWN = (*_NAMES, *PARAMETER_KEYS)
MISSING = "is missing; a suite needs dataset, prompt or messages, model and grader"
_SAMPLING = ("min_p", "min_tokens", "max_new_tokens")
"""Parameters of other servers that look like thresholds."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """Where a suite is declared."""

    where: str
    """For messages: ``tests/test_algebra.py:12 (test_algebra)``."""
    base_dir: Path
    """Base of relative paths."""
    root: Path | None = None
    """If given, nothing outside this directory is read or run."""
    default_name: str | None = None
    positions: Mapping[str, str] = field(default_factory=dict)
    """A value's path (``model[1].stop``) to its ``file:line:column``, if declared in a file."""

    def at(self, problem: InvalidError) -> str:
        """The location of a problem, or the nearest known one."""
        for length in range(len(problem.path), 0, -1):
            spot = InvalidError("", *problem.path[:length]).spot
            if spot in self.positions:
                return self.positions[spot]
        return self.where


@dataclass(slots=True)
class Problems:
    """All problems of a declaration, to be reported together."""

    found: list[InvalidError] = field(default_factory=list)

    def add(self, message: str, *path: str | int) -> None:
        self.found.append(InvalidError(message, *path))

    def attempt(
        self, parse: Callable[..., Any], *arguments: Any, path: tuple[str | int, ...], default: Any = None
    ) -> Any:
        """The result of ``parse``; if it fails, ``default``, and the problem is added."""
        try:
            return parse(*arguments)
        except InvalidError as problem:
            self.found.append(problem.inside(*path))
        except SuiteError as error:
            self.add(str(error), *path)
        return default

    def raise_any(self, declaration: Declaration) -> None:
        """Raise one error for all problems."""
        if self.found:
            lines = []
            for problem in self.found:
                joint = " " if str(problem).startswith(("is ", "has ", "names ")) else ": "
                spot = f"{problem.spot}{joint}" if problem.path else ""
                lines.append(f"{declaration.at(problem)}: {spot}{problem}")
            raise SuiteError("\n".join(dict.fromkeys(lines)))


def read_keys(mapping: Mapping[Any, Any], problems: Problems) -> dict[str, Any]:
    """The parsed values of all keys in the table, given or default."""
    for name in mapping:
        if not isinstance(name, str):
            problems.add(f"keys must be strings, got {name!r}")
        elif name not in _KNOWN and not _is_gate(name):
            valid = ", ".join((*_NAMES, "min_<metric>", "max_<metric>"))
            rest = "and OpenAI's parameters (put parameters that only your server knows into extra_body)"
            problems.add(f"unknown key{did_you_mean(name, _KNOWN)}; valid: {valid}, {rest}", name)
    values: dict[str, Any] = {}
    for key in KEYS:
        raw = mapping.get(key.name)
        if raw is None and key.off and key.name in mapping:
            values[key.name] = None
        elif raw is None:
            values[key.name] = None if key.default is REQUIRED else key.default
            if key.default is REQUIRED:
                problems.add(MISSING, key.name)
        else:
            values[key.name] = problems.attempt(key.form.parse, raw, path=(key.name,), default=key.default)
    return values


def _is_gate(name: str) -> bool:
    """Whether a key is a threshold, and not a misspelled key such as ``max_tokens``."""
    if name in _KNOWN or name in _SAMPLING:
        return False
    return re.match(GATE, name) is not None and not did_you_mean(name, _KNOWN, cutoff=0.85)


def read_thresholds(mapping: Mapping[Any, Any], values: Mapping[str, Any], problems: Problems) -> tuple[Threshold, ...]:
    """All ``min_<metric>`` and ``max_<metric>``, those in ``thresholds`` and ``pass_at_k`` too; None disables one."""
    own = {name: raw for name, raw in mapping.items() if isinstance(name, str) and _is_gate(name)}
    listed = mapping.get("thresholds")
    read = [problems.attempt(parse_threshold, name, raw, path=(name,)) for name, raw in own.items() if raw is not None]
    for name, raw in listed.items() if isinstance(listed, Mapping) else ():
        if name in own:
            problems.add("is given twice: as a separate key, and here", "thresholds", str(name))
        elif raw is not None:
            read.append(problems.attempt(parse_threshold, str(name), raw, path=("thresholds", str(name))))
    read += [
        problems.attempt(parse_threshold, f"min_{key.removesuffix('k')}{k}", least, path=(key, str(k)))
        for key in RELIABILITY_GATES
        for k, least in (values[key] or {}).items()
    ]
    return tuple(gate for gate in read if gate is not None)
