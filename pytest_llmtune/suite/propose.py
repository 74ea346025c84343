"""``propose``: prompts written by a model during a search; ``shots``: tuning rows as examples in a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.text import InvalidError, did_you_mean, listed, shown
from pytest_llmtune.suite.prompts import Template, escape

if TYPE_CHECKING:
    from pytest_llmtune.types import Row


BY = ("model", "gepa")
"""Names of built-in proposers."""
_MOST_ROUNDS, _MOST_A_ROUND = 20, 50


@dataclass(frozen=True, slots=True)
class Failure:
    """A tuning row on which the best configuration failed, as shown to a proposer."""

    question: str
    """The question to the model."""
    expected: str
    """The row's reference; may be empty."""
    answer: str
    """The model's answer."""


@runtime_checkable
class Proposer(Protocol):
    """Writes prompts with a model: builds the request, and reads a template from the answer.

    The search sends, pays and validates; every answer gives one template.
    """

    def prompt(self, template: str, failures: Sequence[Failure]) -> str:
        """The request to the proposing model, given the best template and rows on which it failed."""

    def read(self, answer: str) -> str:
        """The new template, a format string over the same columns."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Prompts written during a search; created by ``propose``."""

    seeds: tuple[str, ...]
    model: str
    rounds: int = 2
    per_round: int = 6
    by: str | Proposer = "model"

    def to_plain(self) -> dict[str, Any]:
        """As used in the space's fingerprint."""
        by = self.by if isinstance(self.by, str) else type(self.by).__qualname__
        return {"model": self.model, "rounds": self.rounds, "per_round": self.per_round, "by": by}


def propose(
    seeds: str | Sequence[str], *, model: str, rounds: int = 2, per_round: int = 6, by: str | Proposer = "model"
) -> Propose:
    """Initial prompts, and a model that writes more: ``prompt=propose(["{question}"], model="gpt-4o")``.

    Args:
        seeds: format strings over the columns.
        rounds: how often failed rows are sent to the model.
        per_round: number of templates written each time.
        by: what builds the request and reads the answers: ``model``, ``gepa`` (the extra of that name), or a ``Proposer``.

    Raises:
        InvalidError: an invalid argument.
    """
    several = (seeds,) if isinstance(seeds, str) else seeds
    if not isinstance(several, (list, tuple)) or not several or not all(isinstance(seed, str) for seed in several):
        raise InvalidError(f"propose: seeds is {shown(seeds)}; valid: a format string, or a list of these")
    if not isinstance(model, str) or not model.strip():
        raise InvalidError(f"propose: model is {shown(model)}; valid: the name of the model that writes prompts")
    for name, value, most in (("rounds", rounds, _MOST_ROUNDS), ("per_round", per_round, _MOST_A_ROUND)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise InvalidError(f"propose: {name} is {shown(value)}; valid: a whole number from 1 to {most}")
    if by not in BY and (isinstance(by, str) or not isinstance(by, Proposer)):
        near = did_you_mean(by, BY) if isinstance(by, str) else ""
        raise InvalidError(f"propose: by is {shown(by)}{near}; valid: {', '.join(BY)}, an object with prompt and read")
    return Propose(tuple(several), model, rounds, per_round, by)


def read_prompt(raw: Any) -> Any:
    """Read ``prompt``, with ``{propose: {seeds: [...], model: ...}}`` as a ``Propose``."""
    if not isinstance(raw, Mapping) or raw.keys() != {"propose"}:
        return raw
    arguments, names = raw["propose"], ("seeds", "model", "rounds", "per_round", "by")
    if not isinstance(arguments, Mapping) or not {"seeds", "model"} <= arguments.keys() or arguments.keys() - {*names}:
        raise InvalidError(
            f"propose takes seeds and model, and may have rounds, per_round and by; got {shown(arguments)}"
        )
    return propose(**arguments)


def text_of(template: Template) -> str | None:
    """The format string of the user message; None if it is not one."""
    source = template.source
    if isinstance(source, tuple):
        last = source[-1]
        source = last.get("content") if isinstance(last, Mapping) and last.get("role") == "user" else None
    elif template.kind != "prompt":
        return None
    return source if isinstance(source, str) else None


def rewritten(template: Template, text: str, columns: Sequence[str]) -> Template:
    """The template with another, validated text for the user message, which must name the same columns.

    Raises:
        SuiteError: not a format string, or other columns.
    """
    checked = Template.prompt(text)
    checked.check(columns)
    expected = Template.prompt(text_of(template) or "").fields
    if checked.fields != expected:
        raise InvalidError(f"names the columns {listed(sorted(checked.fields))} in place of {listed(sorted(expected))}")
    if not isinstance(template.source, tuple):
        return checked
    return replace(template, source=(*template.source[:-1], {**template.source[-1], "content": text}))


def with_shots(template: Template, examples: Sequence[tuple[Row, str]]) -> Template:
    """The template with examples before the user message: a row's question and reference.

    They are stored by content, so that a lock file can be read without the data.

    Raises:
        SuiteError: a row's question is not text.
    """
    if not examples:
        return template
    last = ({"role": "user", "content": text_of(template)},)
    before = template.source[:-1] if isinstance(template.source, tuple) else ()
    shots: list[Mapping[str, Any]] = []
    for row, expected in examples:
        question = template.render(row)[-1]["content"]
        if not isinstance(question, str):
            raise InvalidError(f"shots: what is asked for a row is no text: {shown(question)}")
        shots += [{"role": "user", "content": escape(question)}, {"role": "assistant", "content": escape(expected)}]
    return Template("messages", (*before, *shots, *last))
