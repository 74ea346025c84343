"""Send one HTTP request to one endpoint."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import replace
from pytest_llmtune.completions.failures import Failure, Hide, Kind, failure_in, failure_of
from pytest_llmtune.types import Exchange
from pytest_llmtune.wire.response import embedding_in, parse_object, route_of, wants_embedding

if TYPE_CHECKING:
    from collections.abc import Mapping

    import openai

    from pytest_llmtune.completions.routing import KeyChannel


_LONGEST_NAME = 100
_HEADERS = {"content-type": "application/json"}


async def send(channel: KeyChannel, body: Mapping[str, Any], seconds: float, hide: Hide = str) -> Exchange | Failure:
    """Post a body and read the complete response.

    A prompt refused by a content filter (Azure: status 400) counts as answered, and becomes an exchange with that status.

    Args:
        body: with the suite's name of the model, which the exchange keeps, whatever the server's name.
        seconds: time limit for the whole request.
        hide: removes keys from a failure's message.
    """
    model = str(body["model"])
    started = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            text = await channel.post(model, body)
    except Exception as error:  # noqa: BLE001  # any exception is dropped here, because its frames have the key
        found: Exchange | Failure = failure_of(error, hide)
    else:
        found = _read(channel, body, text, hide)
    if isinstance(found, Failure):
        if found.kind is not Kind.FILTERED:
            return found
        refusal = {"error": dict(found.body or {})}
        found = Exchange(
            "POST", channel.endpoint.url(model, route_of(body)), body, refusal, status=400, headers=_HEADERS
        )
    today = datetime.now(UTC).date().isoformat()
    return replace(found, latency=time.perf_counter() - started, recorded=today)


async def _models(client: openai.AsyncOpenAI, seconds: float) -> list[Any] | None:
    """The entries of a server's list of models; None if it does not answer with one in time."""
    with suppress(Exception):  # as in ``send``; the list is optional
        async with asyncio.timeout(seconds):
            listing = parse_object(str(await client.get("/models", cast_to=str)))
        if listing and isinstance(entries := listing.get("data"), list):
            return entries
    return None


async def model_names(channel: KeyChannel, seconds: float) -> tuple[str, ...]:
    """The models that a server lists; empty if it does not answer in time."""
    entries = await _models(channel.client(), seconds) or ()
    return tuple(str(item["id"])[:_LONGEST_NAME] for item in entries if isinstance(item, dict) and "id" in item)


async def base_urls(channel: KeyChannel, seconds: float) -> tuple[tuple[str, ...], str]:
    """The same server's addresses with and without ``/v1``, and the one at which it lists its models; empty: none does."""
    base_url = channel.endpoint.base_url.rstrip("/")
    base = base_url.removesuffix("/chat/completions").removesuffix("/completions").removesuffix("/models")
    others = [base, base.removesuffix("/v1")] if base.endswith("/v1") else [base, f"{base}/v1"]
    others += [base.removesuffix("/v1")] if base.endswith("/v1/v1") else []
    tried = tuple(dict.fromkeys(other for other in others if other != base_url))
    for other in tried:
        if await _models(channel.client().with_options(base_url=other), seconds) is not None:
            return tried, other
    return tried, ""


def _read(channel: KeyChannel, body: Mapping[str, Any], text: str, hide: Hide) -> Exchange | Failure:
    response = parse_object(text)
    if response is None:
        excerpt = " ".join(hide(text[:100_000]).split())[:80]
        return Failure(Kind.BROKEN, f"the answer is not a JSON object: {excerpt!r}", uncertain=True)
    if (failure := failure_in(response, hide)) is not None:
        return failure
    if wants_embedding(body):
        if embedding_in(response) is None:
            return Failure(Kind.BROKEN, "the answer has no embedding of finite numbers", uncertain=True)
    else:
        choices = response.get("choices")
        if not isinstance(choices, list) or not choices:
            return Failure(Kind.EMPTY, "the answer has no choices", uncertain=True)
        if not all(isinstance(choice, dict) and isinstance(choice.get("message"), dict) for choice in choices):
            return Failure(Kind.BROKEN, "a choice of the answer has no message", uncertain=True)
    url = channel.endpoint.url(str(body["model"]), route_of(body))
    return Exchange("POST", url, body, response, headers=_HEADERS)
