"""Prices of models in USD per million tokens, and parsers for ``prices``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.text import InvalidError, meant, parse_number, shown
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from pytest_llmtune.types import Usage

__all__ = ["PRICES_SCHEMA", "Price", "PriceBook", "parse_price", "parse_prices"]


_MILLION = Decimal(1_000_000)
_FIELDS = ("input", "output", "cached_input")


@dataclass(frozen=True, slots=True)
class Price:
    """USD per 1M tokens of one model."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """For prompt tokens served from the provider's own cache; None: as ``input``."""
    tiers: tuple[tuple[int, Price], ...] = ()
    """(prompt tokens, price): a prompt longer than this bills *all* its tokens at that price; shortest first."""

    def cost(self, usage: Usage) -> Decimal:
        """USD for these tokens."""
        price = next((tier for start, tier in reversed(self.tiers) if usage.prompt_tokens > start), self)
        cached = price.input if price.cached_input is None else price.cached_input
        return (
            price.input * (usage.prompt_tokens - usage.cached_tokens)
            + cached * usage.cached_tokens
            + price.output * usage.completion_tokens
        ) / _MILLION

    def worst(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """USD that a request may cost at most; nothing of it cached."""
        dearest = max(self.input, self.cached_input or Decimal(0))  # a price for cached tokens may be the higher one
        own = (dearest * prompt_tokens + self.output * completion_tokens) / _MILLION
        return max(
            [own, *(p.worst(prompt_tokens, completion_tokens) for start, p in self.tiers if start < prompt_tokens)]
        )

    def times(self, share: Decimal) -> Price:
        """A part of the price."""
        cached = None if self.cached_input is None else self.cached_input * share
        tiers = tuple((start, price.times(share)) for start, price in self.tiers)
        return Price(self.input * share, self.output * share, cached, tiers)

    def to_plain(self) -> dict[str, str]:
        """As a suite or a lock file gives it (without tiers, which only genai-prices knows)."""
        plain = {"input": str(self.input), "output": str(self.output)}
        return plain if self.cached_input is None else plain | {"cached_input": str(self.cached_input)}


def parse_price(model: str, raw: Any, where: str = "prices") -> Price:
    """Read ``{"input": USD per 1M tokens, "output": ..., "cached_input": ...}``.

    Raises:
        SuiteError: a field is missing, unknown, negative or no number.
    """
    if isinstance(raw, Price):
        return raw
    if not isinstance(raw, Mapping) or not {"input", "output"} <= set(raw) <= set(_FIELDS):
        got = sorted(map(str, raw)) if isinstance(raw, Mapping) else repr(raw)
        raise SuiteError(
            f"{where}: the price of {model!r} has {got}; valid: "
            '{"input": USD per 1M tokens, "output": USD per 1M tokens}, and "cached_input" if it has one'
        )
    rates = {name: _dollars(model, name, raw[name], where) for name in _FIELDS if name in raw}
    return Price(rates["input"], rates["output"], rates.get("cached_input"))


def _dollars(model: str, name: str, raw: Any, where: str) -> Decimal:
    try:
        value = Decimal(str(raw)) if not isinstance(raw, bool) else Decimal("NaN")
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise SuiteError(f"{where}: the {name} price of {model!r} is {raw!r}; valid: USD per 1M tokens, from 0")
    return value


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The prices in force: own ones, else genai-prices' of the provider at ``base_urls``, else of the model's name.

    A price that changes over the day (an off-peak rebate) is taken as it is at noon UTC, so that the same answers cost
    the same all day long.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    """Model name to Price, or to the mapping that ``parse_price`` reads."""
    base_urls: tuple[str, ...] = ()
    _known: dict[str, Price] = field(default_factory=dict, compare=False)

    def price(self, model: str) -> Price:
        """USD per 1M tokens of a model.

        Raises:
            SuiteError: nobody knows the price; the message says how to give one.
        """
        if model not in self._known:
            self._known[model] = self._look_up(model)
        return self._known[model]

    def check(self, models: Iterable[str]) -> None:
        """Know the price of every model before the first request.

        Raises:
            SuiteError: as ``price``, for the first model without one.
        """
        for model in models:
            self.price(model)

    def _look_up(self, model: str) -> Price:
        if model in self.own:
            return parse_price(model, self.own[model])
        for base_url in (*self.base_urls, None):
            if (price := _listed(model, base_url)) is not None:
                return price
        own = f" (own prices are given for: {', '.join(sorted(self.own))})" if self.own else ""
        raise SuiteError(
            f"the price of model {model!r} is unknown{own}; give it in USD per 1M tokens, in the suite: "
            f'prices={{"{model}": {{"input": 0.15, "output": 0.60}}}}, '
            f"or in the ini file: llmtune_prices = {model} input=0.15 output=0.60"
        )


def _listed(model: str, base_url: str | None) -> Price | None:
    """From genai-prices' own table, without any request; None where it does not know the model."""
    from genai_prices import data_snapshot

    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    try:
        _, info = data_snapshot.get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    listed = info.get_prices(noon).__dict__
    if listed.get("input_mtok") is None or listed.get("output_mtok") is None:
        return None  # billed by other units: images, minutes, requests
    rates = {
        "input": listed["input_mtok"],
        "output": listed["output_mtok"],
        "cached_input": listed.get("cache_read_mtok"),
    }
    starts = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})
    return replace(_at(rates, 0), tiers=tuple((start, _at(rates, start)) for start in starts))


def _at(rates: Mapping[str, Any], start: int) -> Price:
    """Each rate in the tier that begins at ``start`` tokens."""
    found = {}
    for name, rate in rates.items():
        reached = [tier.price for tier in getattr(rate, "tiers", ()) if tier.start <= start]
        found[name] = reached[-1] if reached else getattr(rate, "base", rate)
    return Price(found["input"], found["output"], found["cached_input"])


_RATES = ("input", "output", "cached_input")


def parse_prices(raw: Any) -> dict[str, dict[str, Decimal]]:
    """The suite key ``prices``: USD per million tokens, by model.

    Raises:
        InvalidError: it has another shape, or a rate is no number from 0.
    """
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
        dollars = parse_number(value)
        if dollars is None or dollars < 0:
            raise InvalidError(f"is {shown(value)}; valid: USD per 1M tokens, from 0", model, rate)
        prices[rate] = dollars
    return prices


_DOLLARS = {"type": ["number", "string"], "minimum": 0}

PRICES_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": dict.fromkeys(_RATES, _DOLLARS),
        "required": ["input", "output"],
        "additionalProperties": False,
    },
}
