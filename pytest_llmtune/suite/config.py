"""One configuration: the OpenAI parameters and the template, as the tuner tries them and the lock file keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import listed, shown
from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.prompts import Template

if TYPE_CHECKING:
    from pytest_llmtune.types import CompletionRequest, Row

__all__ = ["Config"]


_MOST_ANSWERS = 10_000


@dataclass(frozen=True)
class Config:
    """What a request depends on beside the row.

    Raises:
        SuiteError: ``n`` is no number of answers; it may come from a lock file that somebody edited.
    """

    params: Mapping[str, Any]
    """OpenAI parameters by their own names, ``model`` and ``n`` among them; None values are left out."""
    template: Template

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", {name: value for name, value in self.params.items() if value is not None})
        n = self.params.get("n", 1)
        if isinstance(n, bool) or not isinstance(n, (int, float)) or n != n // 1 or not 1 <= n <= _MOST_ANSWERS:
            raise SuiteError(f"n is {shown(n)}; valid: a whole number from 1 to {_MOST_ANSWERS:,}")

    @property
    def model(self) -> str:
        return str(self.params["model"])

    @property
    def n(self) -> int:
        """Answers asked for, for each example."""
        return int(self.params.get("n", 1))

    def request(self, row: Row) -> CompletionRequest:
        """What to ask for a row.

        Raises:
            SuiteError: the template does not fit the row, or JSON cannot say a parameter.
        """
        body = {**self.params, "messages": list(self.template.render(row))}
        return build(body, self.n)

    def to_lock(self) -> dict[str, Any]:
        """Parameters by their own names, and ``prompt`` or ``messages``: the template itself."""
        return {**self.params, self.template.kind: self.template.to_lock()}

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex): equal for configurations that ask the same of every row."""
        text = json.dumps([self.params, self.template.fingerprint], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def label(self) -> str:
        """One line for people."""
        return ", ".join(f"{name}={shown(value, 40)}" for name, value in self.params.items())

    @classmethod
    def from_lock(cls, mapping: Mapping[str, Any], templates: Sequence[Template] = ()) -> Config:
        """What ``to_lock`` wrote. A function is looked up among ``templates``, never imported by name.

        Raises:
            SuiteError: no model, not exactly one of prompt and messages, or a function that the suite does not have.
        """
        kinds = mapping.keys() & {"prompt", "messages"}
        if len(kinds) != 1 or not isinstance(mapping.get("model"), str):
            raise SuiteError(
                f"a configuration has a model, and one of prompt and messages; this one has {listed(mapping)}"
            )
        [kind] = kinds
        params = {name: value for name, value in mapping.items() if name != kind}
        return cls(params, _template(kind, mapping[kind], templates))


def _template(kind: str, locked: Any, templates: Sequence[Template]) -> Template:
    for template in templates:
        if template.kind == kind and template.to_lock() == locked:
            return template
    if _holds_function(locked):
        raise SuiteError(f"the locked {kind} is the function {shown(locked)}, which the suite does not have (any more)")
    return Template.prompt(locked) if kind == "prompt" else Template.messages(locked)


def _holds_function(locked: Any) -> bool:
    if isinstance(locked, Mapping):
        return locked.keys() == {"callable"} or any(_holds_function(value) for value in locked.values())
    return isinstance(locked, (list, tuple)) and any(_holds_function(item) for item in locked)
