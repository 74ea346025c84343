"""The OpenAI client behind the ``llm_client`` fixture."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.aio import has_loop
from pytest_llmtune.capture.flow import Flow, wait, wait_async
from pytest_llmtune.capture.matching import ClientRequest
from pytest_llmtune.capture.traffic import Kind

if TYPE_CHECKING:
    from types import ModuleType

    from openai import AsyncOpenAI, OpenAI

    from pytest_llmtune.capture.call import Call
    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.recording.format import Interaction

# Responses are passed on decoded and complete, so that these transfer headers no longer apply.
_TRANSFER = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})
_NO_KEY = "replayed"


def client(replay: Replay, *, base_url: str | None = None, api_key: str | None = None) -> OpenAI:
    """A synchronous client for the calls of one test.

    Args:
        base_url: default: ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key: default: ``OPENAI_API_KEY``; replay needs none.
    """
    import openai

    transport: Any = _Transport(replay, _http())  # a transport of httpx or httpx2
    http = openai.DefaultHttpxClient(transport=transport)
    return openai.OpenAI(api_key=_key(replay, api_key), base_url=base_url, http_client=http)


def async_client(replay: Replay, *, base_url: str | None = None, api_key: str | None = None) -> AsyncOpenAI:
    """Asynchronous version of ``client``."""
    import openai

    transport: Any = _AsyncTransport(replay, _http())
    http = openai.DefaultAsyncHttpxClient(transport=transport)
    return openai.AsyncOpenAI(api_key=_key(replay, api_key), base_url=base_url, http_client=http)


def copy_for(original: Any, replay: Replay) -> Any:
    """A copy of a client for the calls of another recording; whichever endpoint serves a call may answer it."""
    import openai

    base = original.base_url.path.rstrip("/")
    if isinstance(original, openai.OpenAI):
        own: Any = _Transport(replay, _http(), base)
        return original.with_options(http_client=openai.DefaultHttpxClient(transport=own))
    own = _AsyncTransport(replay, _http(), base)
    return original.with_options(http_client=openai.DefaultAsyncHttpxClient(transport=own))


def _key(replay: Replay, explicit: str | None) -> str | None:
    """The key; None lets openai read the environment, and report a missing key."""
    return explicit or os.environ.get("OPENAI_API_KEY") or (None if replay.mode.online else _NO_KEY)


@cache
def _http() -> ModuleType:
    """The HTTP library that this version of openai uses: httpx, or its fork httpx2."""
    import openai

    base = next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
    return import_module(base.__module__.partition(".")[0])


class _Base:
    """Plays recorded responses, and sends other requests through a separate client."""

    def __init__(self, replay: Replay, http: ModuleType, base: str | None = None) -> None:
        self._replay = replay
        self._http = http
        self._base = base
        self._verify: Any = None  # certificates are loaded once, for the first request sent

    def _client_request(self, request: Any, body: bytes) -> ClientRequest:
        found = ClientRequest.of(request.method, str(request.url), body, request.headers.items())
        return found if self._base is None else replace(found, route=request.url.path.removeprefix(self._base))

    def _played(self, interaction: Interaction) -> Any:
        stream = self._http.ByteStream(interaction.content)
        return self._http.Response(interaction.status, headers=dict(interaction.headers), stream=stream)

    def _to_send(self, call: Call, request: Any, body: bytes) -> Any:
        """The request to the endpoint that serves it, where there are several."""
        self._verify = self._verify or self._http.create_ssl_context()
        if call.instead is None:
            return request
        url, headers, content = call.instead(request.headers, body)
        return self._http.Request(request.method, url, headers=headers, content=content, extensions=request.extensions)

    def _answered(self, call: Call, response: Any) -> Any:
        kept = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _TRANSFER]
        headers = {name.lower(): value for name, value in response.headers.items() if name.lower() not in _TRANSFER}
        self._replay.answer(call, response.status_code, response.reason_phrase, headers, response.content)
        return self._http.Response(response.status_code, headers=kept, stream=self._http.ByteStream(response.content))


class _Transport(_Base):
    def handle_request(self, request: Any) -> Any:
        import openai

        body = request.read()
        call = wait(self._replay, self._replay.begin(self._client_request(request, body), waits=not has_loop()))
        if call.interaction is not None:
            return self._played(call.interaction)
        request = self._to_send(call, request, body)
        with Flow(self._replay, Kind.MODEL, call).sent():
            if call.delay:
                time.sleep(call.delay)
                call.started = time.perf_counter()
            with openai.DefaultHttpxClient(verify=self._verify) as sender:
                response = sender.send(request)
        return self._answered(call, response)

    def __enter__(self) -> _Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to close: no connection is kept open beyond a request."""


class _AsyncTransport(_Base):
    async def handle_async_request(self, request: Any) -> Any:
        import openai

        body = await request.aread()
        call = self._replay.begin(self._client_request(request, body), waits=has_loop())
        call = await wait_async(self._replay, call)
        if call.interaction is not None:
            return self._played(call.interaction)
        request = self._to_send(call, request, body)
        with Flow(self._replay, Kind.MODEL, call).sent():
            if call.delay:
                await asyncio.sleep(call.delay)
                call.started = time.perf_counter()
            async with openai.DefaultAsyncHttpxClient(verify=self._verify) as sender:
                response = await sender.send(request)
        return self._answered(call, response)

    async def __aenter__(self) -> _AsyncTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to close."""
