"""The `choice` grader: the label that a response states, in any language, is the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value
from pytest_llmtune.grading.choice import Terms, folded, stated_text
from pytest_llmtune.types import Answer, Row

__all__ = ["Choice"]


@dataclass(frozen=True, kw_only=True)
class Choice(BuiltIn):
    """Right where the response states the reference's label: not where it only mentions or denies it.

    Without labels a single letter is one of A to Z, and any other reference is compared with what the response states.
    """

    labels: Mapping[str, Sequence[str]] | Sequence[str] | None = None
    """The labels, or a mapping from label to its synonyms."""
    negations: Sequence[str] = ()
    """Words before a label that deny it, besides the built-in ones of a dozen languages."""

    kind: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        if isinstance(self.negations, str) or not all(isinstance(word, str) for word in self.negations):
            raise SuiteError(f"negations={self.negations!r}; expected a list of words")
        if self.labels is not None:
            _labels(self.labels)

    @cached_property
    def _terms(self) -> Terms:
        if self.labels is None:
            return Terms.of(_LETTERS, self.negations)
        named = {label: (label, *synonyms) for label, synonyms in _labels(self.labels).items()}
        return Terms.of(named, self.negations)

    def reference(self, row: Row) -> str:
        text = str(reference_value(row, self.reference_column)).strip()
        label = self._terms.exactly(text)
        if label is not None:
            return label
        if self.labels is not None:
            raise SuiteError(f"the reference {text!r:.60} is none of the labels: {', '.join(_labels(self.labels))}")
        return text

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self.reference(row)
        free = self.labels is None and self._terms.exactly(reference) is None
        return tuple(_free(text, reference) if free else self._label(text, reference) for text in responses)

    def _label(self, text: str, reference: str) -> Answer:
        label = self._terms.stated(text)
        return Answer(label, label or "", label == reference)


def _free(text: str, reference: str) -> Answer:
    stated = stated_text(text)
    key = folded(stated) if stated else None
    return Answer(key, stated or "", key is not None and key == folded(reference))


_LETTERS: Mapping[str, Sequence[str]] = MappingProxyType(
    {chr(code): (chr(code),) for code in range(ord("A"), ord("Z") + 1)}
)


def _labels(raw: Any) -> dict[str, tuple[str, ...]]:
    """Label to synonyms, checked: no empty label, no word that stands for two labels."""
    if isinstance(raw, str) or not isinstance(raw, (Mapping, Sequence)) or len(raw) < 2:
        raise SuiteError(
            f"labels={raw!r:.80}; expected a list of two or more labels, or a mapping of label to synonyms"
        )
    pairs = raw.items() if isinstance(raw, Mapping) else ((label, ()) for label in raw)
    labels: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for label, synonyms in pairs:
        listed = (synonyms,) if isinstance(synonyms, str) else tuple(map(str, synonyms or ()))
        labels[str(label)] = listed
        for word in (str(label), *listed):
            if not folded(word):
                raise SuiteError(f"labels: {label!r} has an empty label or synonym")
            if owner.setdefault(folded(word), str(label)) != str(label):
                raise SuiteError(f"labels: {word!r} stands for both {owner[folded(word)]!r} and {label!r}")
    return labels
