"""The forms that a suite's values take: each reads what was written, and knows its JSON Schema."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import InvalidError, meant, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Form",
    "anything",
    "dollars",
    "flag",
    "fraction",
    "number",
    "one_of",
    "or_callable",
    "positive",
    "rows_or_share",
    "text",
    "texts",
    "whole",
]


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of value is read."""

    parse: Callable[[Any], Any]
    """Raises ``InvalidError``."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """What an editor checks; may allow more than ``parse``, never less."""


def number(raw: Any) -> Decimal | None:
    """A finite number exactly as written (0.1 is 0.1), or None."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, Decimal, str)):
        return None
    try:
        value = Decimal(str(raw).strip())
    except (InvalidOperation, ValueError):
        return None
    return value if value.is_finite() else None


def _real(raw: Any) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, Decimal)) or not math.isfinite(raw):
        return None
    return float(raw)


def _whole(raw: Any) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw) or raw != int(raw):
        return None
    return int(raw)


def text(wanted: str = "a text") -> Form:
    """Text that is not blank."""

    def parse(raw: Any) -> str:
        if not isinstance(raw, str) or not raw.strip():
            raise InvalidError(f"is {shown(raw)}; valid: {wanted}")
        return raw

    return Form(parse, {"type": "string", "minLength": 1})


def texts(wanted: str) -> Form:
    """A list of texts."""

    def parse(raw: Any) -> tuple[str, ...]:
        if (
            not isinstance(raw, (list, tuple))
            or not raw
            or not all(isinstance(item, str) and item.strip() for item in raw)
        ):
            raise InvalidError(f"is {shown(raw)}; valid: {wanted}")
        return tuple(raw)

    return Form(parse, {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1})


def flag() -> Form:
    """True or false."""

    def parse(raw: Any) -> bool:
        if not isinstance(raw, bool):
            raise InvalidError(f"is {shown(raw)}; valid: true, false")
        return raw

    return Form(parse, {"type": "boolean"})


def whole(low: int, what: str, *, also: int | None = None) -> Form:
    """A whole number from ``low``, or the one value ``also``."""
    extra = "" if also is None else f", or {also}"

    def parse(raw: Any) -> int:
        value = _whole(raw)
        if value is None or (value < low and value != also):
            raise InvalidError(f"is {shown(raw)}; valid: {what}, a whole number from {low}{extra}")
        return value

    bounded = {"type": "integer", "minimum": low}
    return Form(parse, bounded if also is None else {"anyOf": [bounded, {"const": also}]})


def rows_or_share(low: int) -> Form:
    """A count of rows, or a share of them between 0 and 1."""

    def parse(raw: Any) -> int | float:
        share = _real(raw)
        if isinstance(raw, float) and share is not None and 0 < share < 1:
            return share
        value = _whole(raw)
        if value is None or value < low:
            raise InvalidError(
                f"is {shown(raw)}; valid: rows, a whole number from {low}, or a share of them between 0 and 1"
            )
        return value

    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    return Form(parse, {"anyOf": [{"type": "integer", "minimum": low}, share]})


def fraction(what: str) -> Form:
    """A number between 0 and 1."""

    def parse(raw: Any) -> float:
        value = _real(raw)
        if value is None or not 0 <= value <= 1:
            raise InvalidError(f"is {shown(raw)}; valid: {what}, a number from 0 to 1")
        return value

    return Form(parse, {"type": "number", "minimum": 0, "maximum": 1})


def positive(what: str) -> Form:
    """A number above 0."""

    def parse(raw: Any) -> float:
        value = _real(raw)
        if value is None or value <= 0:
            raise InvalidError(f"is {shown(raw)}; valid: {what}, a number above 0")
        return value

    return Form(parse, {"type": "number", "exclusiveMinimum": 0})


def dollars(what: str) -> Form:
    """USD, above 0, exact."""

    def parse(raw: Any) -> Decimal:
        value = number(raw)
        if value is None or value <= 0:
            raise InvalidError(f"is {shown(raw)}; valid: {what}, above 0")
        return value

    return Form(parse, {"type": ["number", "string"], "exclusiveMinimum": 0})


def one_of(*words: str) -> Form:
    """One of some words."""

    def parse(raw: Any) -> str:
        if raw not in words or not isinstance(raw, str):
            raise InvalidError(f"is {shown(raw)}{meant(raw, words)}; valid: {', '.join(words)}")
        return raw

    return Form(parse, {"enum": list(words)})


def or_callable(form: Form, wanted: str) -> Form:
    """What ``form`` reads, or a function."""

    def parse(raw: Any) -> Any:
        if callable(raw):
            return raw
        try:
            return form.parse(raw)
        except InvalidError as problem:
            raise InvalidError(f"{problem}, {wanted}") from None

    return Form(parse, form.schema)


def anything(schema: Mapping[str, Any] | None = None) -> Form:
    """Whatever it is; read where its meaning is known."""
    return Form(lambda raw: raw, schema or {})
