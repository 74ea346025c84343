"""Prices of models in USD per million tokens, and parsers for ``prices``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import InvalidError, did_you_mean, parse_dollars, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import CHEAPER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from genai_prices.types import ModelInfo, ModelPrice, Provider

    from pytest_llmtune.types import Usage


RATES = ("input", "output", "cached_input", "cache_write")
"""Rates of a price; the last two are optional."""

_MILLION = Decimal(1_000_000)
_ZERO = Decimal(0)
_LISTED = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}
_MAKERS = (
    "openai", "anthropic", "google", "mistral", "cohere", "deepseek", "x-ai", "perplexity", "voyageai", "moonshotai", "aws",
)  # fmt: skip
"""Providers whose price is used if neither the address nor genai-prices' rules identify one."""
_YOUR_OWN = "give your own price: prices, or llmtune_prices in the ini file"
_UNMEASURED = frozenset({"web_searches", "social_searches", "storage_searches", "code_executions"})
"""Units that some models bill per request or within the tokens: a missing price of their own is not a gap."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per 1M tokens of one model."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """For prompt tokens read from the provider's own cache; None: same as ``input``."""
    tiers: tuple[tuple[int, Price], ...] = ()
    """(prompt tokens, price): a longer prompt bills *all* its tokens at that price; in ascending order."""
    cache_write: Decimal | None = None
    """For prompt tokens written to the provider's own cache; None: same as ``input``."""
    listed: ModelPrice | None = field(default=None, compare=False, repr=False)
    """genai-prices' price; None: the user's."""
    service: tuple[tuple[str, Price], ...] = field(default=(), compare=False, repr=False)
    """Prices of other service tiers (``flex``, ``priority``, ``batch``, ``fast``), by name as served."""
    text_rated: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Kinds of sounds and images, such as ``input_audio``, that are billed as text where ``listed`` has no rate for them."""
    share: Decimal = field(default=Decimal(1), compare=False, repr=False)
    """Fraction of ``listed`` that is paid; the rates already include it."""

    def cost(self, usage: Usage) -> Decimal:
        """USD for this usage; listed prices use genai-prices' own calculation.

        Raises:
            SuiteError: a part of the usage has no price.
        """
        price = self.at_tier(usage.tier)
        if gap := _gap(price, usage):
            raise SuiteError(f"{gap}; {_YOUR_OWN}")
        if price.listed is not None and not _is_linear(price.listed, usage):
            return _calculated(price.listed, usage) * price.share
        rate = next((tier for start, tier in reversed(price.tiers) if usage.prompt_tokens > start), price)
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
        return (
            rate.input * (usage.prompt_tokens - cached - written)
            + (rate.input if rate.cached_input is None else rate.cached_input) * cached
            + (rate.input if rate.cache_write is None else rate.cache_write) * written
            + rate.output * usage.completion_tokens
        ) / _MILLION

    def worst(self, prompt_tokens: int, completion_tokens: int, tier: str = "") -> Decimal:
        """The most USD that a request may cost, however much of its prompt is read from or written to a cache.

        Args:
            tier: the requested service tier.

        Raises:
            SuiteError: it has no price.
        """
        price = self.at_tier(tier)
        dearest = max(price.input, price.cached_input or _ZERO, price.cache_write or _ZERO)
        own = (dearest * prompt_tokens + price.output * completion_tokens) / _MILLION
        others: Mapping[str, Any] = {} if price.listed is None else price.listed.__dict__
        request = (others.get("requests_kcount") or _ZERO) / 1000
        letters = (others.get("input_mchars") or _ZERO) * prompt_tokens / _MILLION  # no text has more than bytes
        tiers = [p.worst(prompt_tokens, completion_tokens) for start, p in price.tiers if start < prompt_tokens]
        return max([own + self.share * (request + letters), *tiers])

    def at_tier(self, tier: str) -> Price:
        """The price of a service tier; the ordinary one where that is no less, or is the user's own.

        Raises:
            SuiteError: it has no price.
        """
        if (
            not tier or self.listed is None or (tier in CHEAPER and self.share != 1)
        ):  # a batch's share is no discount on another
            return self
        if (price := dict(self.service).get(tier)) is not None:
            return price
        if tier in CHEAPER:
            return self
        raise SuiteError(f"genai-prices has no price for the model's service tier {tier!r}; {_YOUR_OWN}")

    def times(self, share: Decimal) -> Price:
        """This price times ``share``."""
        return replace(
            self,
            input=self.input * share,
            output=self.output * share,
            cached_input=None if self.cached_input is None else self.cached_input * share,
            cache_write=None if self.cache_write is None else self.cache_write * share,
            tiers=tuple((start, price.times(share)) for start, price in self.tiers),
            service=tuple((name, price.times(share)) for name, price in self.service),
            share=self.share * share,
        )

    def to_plain(self) -> dict[str, str]:
        """As in a suite or a lock file (without tiers, which only genai-prices has)."""
        rates = {name: getattr(self, name) for name in RATES}
        return {name: str(rate) for name, rate in rates.items() if rate is not None}

    @property
    def bounded(self) -> bool:
        """Whether ``worst`` is a bound: billing is by tokens or characters, not by seconds or pages."""
        return self.listed is None or not _rates(self.listed).isdisjoint(("input_mtok", "input_mchars"))

    @property
    def free(self) -> bool:
        """Whether every request is free."""
        return self.listed is None and not any(getattr(self, name) for name in RATES)


_SIMPLE = frozenset(_LISTED.values())


def _rates(listed: ModelPrice) -> frozenset[str]:
    return frozenset(key for key, rate in listed.__dict__.items() if rate is not None)


def _is_linear(listed: ModelPrice, usage: Usage) -> bool:
    """Whether the four rates are the whole bill; genai-prices' own calculation takes ten times as long."""
    if any(count for _, count in usage.units):
        return _rates(listed) <= _SIMPLE
    return listed.__dict__.get("requests_kcount") is None


def _gap(price: Price, usage: Usage) -> str:
    """Message naming the part of the usage that has no price; else the empty string."""
    if price.free:
        return ""
    units = {name for name, count in usage.units if count}
    if price.listed is None:
        counted = usage.prompt_tokens or usage.completion_tokens or not units
        return "" if counted else f"tokens have a price, and {', '.join(sorted(units))} have none"
    from genai_prices.data_units import unit_data

    rates = _rates(price.listed)
    dimensions = [unit_data[name]["dimensions"] for name in units]
    directions = {each["direction"] for each in dimensions if each["family"] == "tokens"}
    for way, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
        if (count or way in directions) and not any(key.startswith(way) and key.endswith("_mtok") for key in rates):
            return f"genai-prices has no price for the model's {way} tokens"
    for kind in _MEDIA:
        if f"{kind}_tokens" in units and f"{kind}_mtok" not in rates and kind not in price.text_rated:
            return f"genai-prices has no price for the model's {kind.replace('_', ' ')} tokens"
    others = {name for name in units - _UNMEASURED if unit_data[name]["dimensions"]["family"] != "tokens"}
    if others and not any(unit_data[name]["price_key"] in rates for name in others):
        return f"genai-prices has no price for the model's {', '.join(sorted(others))}"
    return ""


def _calculated(listed: ModelPrice, usage: Usage) -> Decimal:
    """USD by genai-prices' own calculation."""
    from genai_prices.types import Usage as Listed

    cached = min(usage.cached_tokens, usage.prompt_tokens)
    tokens: dict[str, float] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_tokens": cached,
        "cache_write_tokens": min(usage.cache_write_tokens, usage.prompt_tokens - cached),
    }
    try:
        found = listed.calc_price(Listed(**tokens, **dict(usage.units)))["total_price"]
    except ValueError:
        found = _at_most(listed, usage)
    again = max(0, usage.requests - 1)  # the calculation counts one request
    return found + again * Decimal(str(listed.__dict__.get("requests_kcount") or 0)) / 1000


def _at_most(listed: ModelPrice, usage: Usage) -> Decimal:
    """USD of usage whose parts contradict its totals: every token at the highest rate of the kinds that it names.

    Raises:
        SuiteError: none of these kinds has a price.
    """
    from genai_prices.data_units import unit_data
    from genai_prices.types import Usage as Listed

    dimensions = {name: unit_data[name]["dimensions"] for name, _ in usage.units}
    others = {name: count for name, count in usage.units if dimensions[name]["family"] != "tokens"}
    found = listed.calc_price(Listed(input_tokens=0, output_tokens=0, **others))["total_price"]
    inputs: dict[str, float] = {"input_tokens": usage.prompt_tokens}
    if usage.cache_write_tokens:
        inputs["cache_write_tokens"] = usage.cache_write_tokens
    outputs: dict[str, float] = {"output_tokens": usage.completion_tokens}
    for direction, parts in (("input", inputs), ("output", outputs)):
        for name, count in usage.units:
            if name not in others and dimensions[name]["direction"] == direction:
                parts[name] = count
        rates = [listed.__dict__.get(unit_data[name]["price_key"]) for name in parts]
        prices = [getattr(rate, "base", rate) for rate in rates]
        prices += [tier.price for rate in rates for tier in getattr(rate, "tiers", ())]
        count, listed_prices = max(parts.values()), [price for price in prices if price is not None]
        if count and not listed_prices:
            raise SuiteError(f"genai-prices has no price for the model's {direction} tokens; {_YOUR_OWN}")
        found += max(listed_prices, default=_ZERO) * Decimal(str(count)) / _MILLION
    return found


def parse_price(model: str, raw: Any, where: str = "prices") -> Price:
    """Read ``{"input": USD per 1M tokens, "output": ..., "cached_input": ..., "cache_write": ...}``.

    Raises:
        SuiteError: a field is missing, unknown, negative or not a number.
    """
    if isinstance(raw, Price):
        return raw
    try:
        rates = _rates_in(model, raw)
    except InvalidError as error:
        what = " ".join([*map(str, error.path[1:]), "price"])
        raise SuiteError(f"{where}: the {what} of {model!r} {error}") from None
    return Price(rates["input"], rates["output"], rates.get("cached_input"), cache_write=rates.get("cache_write"))


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The prices of a run: the user's, else genai-prices' for the provider at ``base_urls``, else by the model's name.

    Prices that change over the day (an off-peak discount) are taken at noon UTC, so that the same answers always cost
    the same.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    """Model name to Price, to the mapping that ``parse_price`` reads, or to ``{"model": NAME}``: an alias of that model."""
    base_urls: tuple[str, ...] = ()
    of_suite: bool = True
    """Whether a suite's keys can give a price; an app's own tests have none."""
    _known: dict[object, Price] = field(default_factory=dict, compare=False)
    _served: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)
    """What answered at an address in the name of a deployment, by both."""

    def price(self, model: str, address: str | None = None, *, input_only: bool = False) -> Price:
        """USD per 1M tokens of a model that is billed by tokens.

        Args:
            address: of the endpoint; if it is a known provider's, that provider's price.
            input_only: a price of the input is enough, as embeddings have it; output tokens are then an error.

        Raises:
            SuiteError: the price is unknown; the message says how to give one.
        """
        key = f"{model} {address}" if address else model
        if (price := self._known.get(key)) is None:
            urls = [address, *self.base_urls, None] if address else [*self.base_urls, None]
            price = self._known[key] = self._look_up([model], urls, ())
        needed = {"input_mtok"} if input_only else {"input_mtok", "output_mtok"}
        if price.listed is not None and not needed <= price.listed.__dict__.keys():
            raise self._unknown(model)  # billed by other units: images, minutes, requests
        return price

    def price_at(self, uri: str, models: Iterable[str], providers: Iterable[str] = ()) -> Price:
        """The price of one call.

        Args:
            uri: the URL; if it is a known provider's, that provider's price.
            models: names of the model, most reliable first: as served, as requested, as in the URL.
            providers: genai-prices' IDs of possible providers, by the format of the response.

        Raises:
            SuiteError: the price is unknown.
        """
        names, ids = [name for name in dict.fromkeys(models) if name], tuple(providers)
        if len(names) == 1 and (served := self._served.get((uri.partition("?")[0], names[0]))):
            names.insert(0, served)
        key = (uri.partition("?")[0], *names, ids)
        if key not in self._known:
            self._known[key] = self._look_up(names, [uri, *self.base_urls, None], ids)
        return self._known[key]

    def learn(self, uri: str, models: Sequence[str]) -> None:
        """Note which model answered at an address: later calls there are priced by it, not by the requested name.

        Args:
            models: names of the model, the one served first, the requested one last.
        """
        if len(models) > 1:
            self._served[uri.partition("?")[0], models[-1]] = models[0]

    def check(self, models: Iterable[str], judges: Iterable[str] = ()) -> None:
        """Check before the first request that every model has a price.

        Args:
            judges: the grader's models, some of which may give embeddings.

        Raises:
            SuiteError: a model has none.
        """
        for model in models:
            self.price(model)
        for model in judges:
            self.price(model, input_only=True)

    def has_own(self, models: Iterable[str]) -> bool:
        """Whether the user gave a price, not only another model's name, for one of these names."""
        return any(model in self.own and not _aliased(self.own[model]) for model in models)

    def _look_up(self, models: list[str], urls: Iterable[str | None], providers: Iterable[str]) -> Price:
        for model in reversed(models):  # the requested name first: it is the one in the user's code
            if self.has_own([model]):
                return parse_price(model, self.own[model])
        for model in models:
            if alias := _aliased(self.own.get(model)):
                if self.has_own([alias]):
                    return parse_price(alias, self.own[alias])
                model = alias  # noqa: PLW2901
            for provider, info in _found(model, urls, providers):
                if (price := _listed(provider, info)) is not None:
                    return price
        raise self._unknown(models[-1] if models else "")

    def _unknown(self, model: str) -> SuiteError:
        own = f" (prices are given for: {', '.join(sorted(self.own))})" if self.own else ""
        suite = f'in the suite: prices={{"{model}": {{"input": 0.15, "output": 0.60}}}}, or ' if self.of_suite else ""
        if alias := _aliased(self.own.get(model)):
            return SuiteError(
                f"prices: {model!r} stands for the model {alias!r}, whose price is unknown; give its price"
            )
        return SuiteError(
            f"the price of model {model!r} is unknown{own}; give it in USD per 1M tokens, {suite}"
            f"in the ini file: llmtune_prices = {model} input=0.15 output=0.60 or, where it is a gateway's name of a "
            f"known model, llmtune_prices = {model} model=gpt-4o-mini"
        )


def _aliased(raw: Any) -> str:
    """The model that a name given in ``prices`` is an alias of; empty if it has rates of its own."""
    return str(raw.get("model", "")) if isinstance(raw, Mapping) else ""


def _found(model: str, urls: Iterable[str | None], providers: Iterable[str]) -> Iterator[tuple[Provider, ModelInfo]]:
    """Possible providers of the model with genai-prices' entry for it, most reliable first."""
    from genai_prices import data_snapshot

    table = data_snapshot.get_snapshot()
    candidates: list[tuple[str | None, str | None]] = [(None, url) for url in urls if url]
    candidates += [(provider, None) for provider in providers]
    if any(url is None for url in urls):
        # ``litellm``: by the provider prefix of the name, as in openai/gpt-4o
        candidates += [(None, None), ("litellm", None), *((maker, None) for maker in _MAKERS)]
    for provider_id, url in candidates:
        with suppress(LookupError):
            yield table.find_provider_model(model, None, provider_id, url)
    sellers = [(provider, info) for provider in table.providers for info in provider.models if info.id == model.lower()]
    if len(sellers) == 1:  # a name that only one provider uses
        yield sellers[0]


def _listed(provider: Provider, info: ModelInfo) -> Price | None:
    """genai-prices' current price; None if there is none."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    price = _as_listed(info.get_prices(noon))
    if price is None:
        return None
    whens = {next(iter(variant.when.items())) for variant in info.price_variants or () if len(variant.when) == 1}
    service = [
        (value, _as_listed(info.get_prices(noon, {name: value})))
        for name, value in sorted(whens)
        if name in ("service_tier", "speed", "processing") and value != "default" and info in provider.models
    ]
    only_media = _ONLY_MEDIA.search(info.id) is not None
    kinds = frozenset(each for each in _MEDIA if only_media or (provider.id == "google" and each == "input_audio"))
    price = replace(price, text_rated=kinds)
    return replace(
        price, service=tuple((name, replace(other, text_rated=kinds)) for name, other in service if other is not None)
    )


_MEDIA = ("input_audio", "output_audio", "output_image", "output_video")
"""Kinds of tokens that cost several times as much as those of text; an image in a prompt costs the same, and so do Gemini's sounds."""
_ONLY_MEDIA = lazy_regex(r"(?:^|/)(?:gpt|chatgpt)-image|-tts(?:-|$)")
"""Models whose only output is sound or images, at the price that is listed for their output."""


def _as_listed(listed: ModelPrice) -> Price | None:
    rates = {name: listed.__dict__.get(key) for name, key in _LISTED.items()}
    if not any(rate is not None for rate in listed.__dict__.values()):
        return None
    starts = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})
    return replace(_at(rates, 0), listed=listed, tiers=tuple((start, _at(rates, start)) for start in starts))


def _at(rates: Mapping[str, Any], start: int) -> Price:
    """Each rate in the tier that begins at ``start`` tokens; an unlisted one is never used (see ``_gap``)."""
    found = {}
    for name, rate in rates.items():
        reached = [tier.price for tier in getattr(rate, "tiers", ()) if tier.start <= start]
        found[name] = reached[-1] if reached else getattr(rate, "base", rate)
    return Price(
        found["input"] or _ZERO, found["output"] or _ZERO, found["cached_input"], cache_write=found["cache_write"]
    )


def parse_prices(raw: Any) -> dict[str, dict[str, Any]]:
    """The suite key ``prices``: USD per million tokens, or the model that it is another name of, by model.

    Raises:
        InvalidError: not such a mapping, or a rate is negative or not a number.
    """
    if not isinstance(raw, Mapping):
        raise InvalidError(f"is {shown(raw)}; valid: {{model: {{'input': USD per 1M tokens, 'output': ...}}}}")
    found = {}
    for model, rates in raw.items():
        alias = isinstance(rates, Mapping) and rates.keys() == {"model"} and rates["model"]
        found[str(model)] = (
            dict(rates) if isinstance(alias, str) and alias else _rates_in(str(model), rates, ", or {'model': NAME}")
        )
    return found


def _rates_in(model: str, raw: Any, also: str = "") -> dict[str, Decimal]:
    """USD per 1M tokens by rate."""
    if not isinstance(raw, Mapping) or not {"input", "output"} <= raw.keys():
        valid = f"{{'input': USD per 1M tokens, 'output': USD per 1M tokens}}{also}"
        raise InvalidError(f"is {shown(raw)}; valid: {valid}", model)
    rates = {}
    for rate, value in raw.items():
        if rate not in RATES:
            valid = f"{', '.join(RATES)}, in USD per 1M tokens"
            raise InvalidError(f"has {shown(rate)}{did_you_mean(rate, RATES)}; valid: {valid}", model)
        if (usd := parse_dollars(value)) is None:
            raise InvalidError(f"is {shown(value)}; valid: USD per 1M tokens, from 0", model, rate)
        rates[rate] = usd
    return rates


_DOLLARS = {"type": ["number", "string"], "minimum": 0}

PRICES_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {**dict.fromkeys(RATES, _DOLLARS), "model": {"type": "string", "minLength": 1}},
        "anyOf": [
            {"required": ["input", "output"], "not": {"required": ["model"]}},
            {"required": ["model"], "maxProperties": 1},
        ],
        "additionalProperties": False,
    },
}
