"""The form of ``prices``: USD per 1M tokens for each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import InvalidError, meant, shown
from pytest_llmtune.suite.forms import Form, number

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["PRICES"]


_RATES = ("input", "output", "cached_input")


def _parse(raw: Any) -> dict[str, dict[str, Decimal]]:
    if not isinstance(raw, Mapping):
        raise InvalidError(f"is {shown(raw)}; valid: {{model: {{'input': USD per 1M tokens, 'output': ...}}}}")
    return {str(model): _price(str(model), rates) for model, rates in raw.items()}


def _price(model: str, raw: Any) -> dict[str, Decimal]:
    if not isinstance(raw, Mapping) or not {"input", "output"} <= raw.keys():
        raise InvalidError(
            f"is {shown(raw)}; valid: {{'input': USD per 1M tokens, 'output': USD per 1M tokens}}", model
        )
    for rate in raw:
        if rate not in _RATES:
            raise InvalidError(f"has {shown(rate)}{meant(rate, _RATES)}; valid: {', '.join(_RATES)}", model)
    prices = {}
    for rate, value in raw.items():
        dollars = number(value)
        if dollars is None or dollars < 0:
            raise InvalidError(f"is {shown(value)}; valid: USD per 1M tokens, from 0", model, rate)
        prices[rate] = dollars
    return prices


_DOLLARS = {"type": ["number", "string"], "minimum": 0}

PRICES = Form(
    _parse,
    {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": dict.fromkeys(_RATES, _DOLLARS),
            "required": ["input", "output"],
            "additionalProperties": False,
        },
    },
)
