r"""The `math` grader: answers in ``\boxed{}`` and other forms, equal as mathematics and not as strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.equality import equal, is_settled
from pytest_llmtune.grading.extract import answer_in, check_forms, is_bare
from pytest_llmtune.grading.forms import Form, parse
from pytest_llmtune.grading.grader import BuiltIn, reference_value
from pytest_llmtune.model import Answer, Row

__all__ = ["Math"]

_REFERENCE_FORMS = ("boxed", "hash", "phrase")


@dataclass(frozen=True, kw_only=True)
class Math(BuiltIn):
    """In tiers: the MATH benchmark's string normalisation, then numbers and structure, then math-verify."""

    extract: Sequence[str] = ("boxed", "hash", "phrase", "bare")

    kind: ClassVar[str] = "math"

    def __post_init__(self) -> None:
        object.__setattr__(self, "extract", check_forms(self.extract))

    def reference(self, row: Row) -> str:
        return self._reference(row).text

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self._reference(row)
        return tuple(self._answer(text, reference) for text in responses)

    def _reference(self, row: Row) -> Form:
        value = reference_value(row, self.reference_column)
        text = str(value).strip()
        found = answer_in(text, _REFERENCE_FORMS) or (text if is_bare(text) else None)
        if found is None or not (form := _read(found)).text:
            raise SuiteError(rf"the reference {text!r:.60} holds no \boxed answer, no #### line, and is no formula")
        return form

    def _answer(self, response: str, reference: Form) -> Answer:
        found = answer_in(response, self.extract)
        if not found or not (form := _read(found)).text:
            return Answer(None, "", correct=False)
        correct = equal(reference, form)
        return Answer(_key(reference) if correct else _wrong_key(form, reference), form.text, correct)


@lru_cache(maxsize=50_000)
def _read(text: str) -> Form:
    return parse(text)


def _key(form: Form) -> str:
    return form.key


def _wrong_key(form: Form, reference: Form) -> str:
    """Never the reference's: ``y = 5`` is not ``x = 5``, though both are 5."""
    return form.key if form.key != reference.key else f"{form.name} = {form.key}"
