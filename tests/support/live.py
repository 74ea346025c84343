"""Live sources for tests: on loopback servers, with a cache in a directory of its own, closed in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from support.llm_server import LLMServer

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.source import LiveSource
from pytest_llmtune.money.prices import PriceBook

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.types import Completion, CompletionRequest

__all__ = ["PRICES", "Live", "request"]

T = TypeVar("T")
PRICES = PriceBook({"m": {"input": 1, "output": 10}, "dear": {"input": 100, "output": 1000}})
"""USD per 1M tokens: a prompt token of "m" costs a millionth, a completion token ten."""


def request(question: object = "6 x 7?", n: int = 1, **parameters: Any) -> CompletionRequest:
    """What one example asks."""
    body = {"model": "m", "messages": [{"role": "user", "content": str(question)}], "max_tokens": 20} | parameters
    return build(body, n)


@dataclass(slots=True)
class Live:
    """Makes sources that retry after milliseconds."""

    directory: Path
    caches: list[Cache] = field(default_factory=list)

    def source(self, at: LLMServer | list[Any] | str, **options: Any) -> LiveSource:
        """A source at a server (or a list of endpoints), with a cache unless ``cache`` says otherwise."""
        listed = at if isinstance(at, list) else [{"base_url": at.base_url if isinstance(at, LLMServer) else at}]
        environ = options.pop("environ", {"OPENAI_API_KEY": "sk-test-0123456789abcdef"})
        endpoints = endpoints_of(listed, root=self.directory, environ=environ)
        if "cache" not in options:
            options["cache"] = self.cache()
        return LiveSource(endpoints, **({"prices": PRICES, "pause": 0.005, "timeout": 5.0} | options))

    def cache(self, seed: int | str = 0) -> Cache:
        """The cache in this test's directory."""
        self.caches.append(Cache(self.directory / "cache", seed))
        return self.caches[-1]

    def close(self) -> None:
        for cache in self.caches:
            cache.close()

    @staticmethod
    def run(source: LiveSource, *requests: CompletionRequest) -> list[Completion]:
        """All requests together, each answer or the first error."""
        return Live.results(source, *requests, errors=False)

    @staticmethod
    def results(source: LiveSource, *requests: CompletionRequest, errors: bool = True) -> list[Any]:
        """All requests together, errors in their places."""

        async def work() -> list[Any]:
            try:
                return await asyncio.gather(*map(source.complete, requests), return_exceptions=errors)
            finally:
                await source.aclose()

        return asyncio.run(work())
