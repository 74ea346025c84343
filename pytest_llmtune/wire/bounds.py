"""Upper bounds of the tokens that a request can be billed for, in any provider's format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.wire.response import parse_object, value_at

if TYPE_CHECKING:
    from collections.abc import Mapping


_LIMITS = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample", "max_gen_len", "max_new_tokens",
    "generationConfig.maxOutputTokens", "inferenceConfig.maxTokens", "options.num_predict",
    "textGenerationConfig.maxTokenCount", "parameters.max_new_tokens", "parameters.maxOutputTokens",
)  # fmt: skip
_CHOICES = ("n", "best_of", "num_generations", "generationConfig.candidateCount")
_NO_ANSWER = lazy_regex(r"(?:/embeddings|/embed|/rerank|:(?:batch)?[eE]mbedContents?)$")
_BLOB = lazy_regex(r'"(?:data:[^",]{0,100},)?[A-Za-z0-9+/=_-]{2000,}"')
"""A base64 image, sound or file in the request."""
_BLOB_TOKENS = 50_000
"""Maximum billed for an image by today's providers; a longer one counts one token more per 32 characters."""


@dataclass(frozen=True, slots=True)
class MostTokens:
    """Upper bounds of one call."""

    prompt: int
    answer: int | None
    """Total over all choices; None: the request sets no limit."""
    choices: int = 1
    tier: str = ""
    """The requested service tier."""


def most_tokens(uri: str, body: str) -> MostTokens:
    """Bounds for one call: a token per byte of its request, as no tokenizer makes more, and its limit for the answer."""
    request = parse_object(body) or {}
    blobs = [len(blob) for blob in _BLOB.findall(body)]
    text = len(body.encode("utf-8", "surrogatepass")) - sum(blobs)
    prompt = text + 16 * body.count('"role"') + 64 + sum(min(size, _BLOB_TOKENS + size // 32) for size in blobs)
    tier = request.get("service_tier")
    tier = tier if isinstance(tier, str) else ""
    if _NO_ANSWER.search(urlsplit(uri).path):
        return MostTokens(prompt, 0, tier=tier)
    limits = [limit for name in _LIMITS if (limit := _whole(request, name)) is not None]
    choices = max([1, *(number for name in _CHOICES if (number := _whole(request, name)) is not None)])
    return MostTokens(prompt, choices * max(limits) if limits else None, choices, tier)


def _whole(data: Mapping[str, Any], name: str) -> int | None:
    """A positive integer field of the request; None for anything else, which must not lower a bound."""
    found = value_at(data, name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
