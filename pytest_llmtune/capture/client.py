"""The OpenAI client behind the ``llm_client`` fixture."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.aio import outside
from pytest_llmtune.capture.flow import in_loop, wait_turn, wait_turn_async
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from types import ModuleType

    from openai import AsyncOpenAI, OpenAI

    from pytest_llmtune.capture.session import Call, Replay
    from pytest_llmtune.recording.format import Interaction

__all__ = ["async_client", "bound", "client"]


# Responses are passed on decoded and complete, so that these transfer headers no longer apply.
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})
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


def bound(made: Any, replay: Replay) -> Any:
    """A copy of a client for the calls of another recording; whichever endpoint serves a call may answer it."""
    import openai

    base = made.base_url.path.rstrip("/")
    if isinstance(made, openai.OpenAI):
        own: Any = _Transport(replay, _http(), base)
        return made.with_options(http_client=openai.DefaultHttpxClient(transport=own))
    own = _AsyncTransport(replay, _http(), base)
    return made.with_options(http_client=openai.DefaultAsyncHttpxClient(transport=own))


def _key(replay: Replay, given: str | None) -> str | None:
    """The key; None lets openai read the environment, and report a missing key."""
    return given or os.environ.get("OPENAI_API_KEY") or (None if replay.mode.online else _NO_KEY)


@cache
def _http() -> ModuleType:
    """The HTTP library that this version of openai uses: httpx, or its fork httpx2."""
    import openai

    base = next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
    return import_module(base.__module__.partition(".")[0])


def _client_request(request: Any, body: bytes, base: str | None) -> ClientRequest:
    client_request = ClientRequest.of(request.method, str(request.url), body, request.headers.items())
    return client_request if base is None else replace(client_request, route=request.url.path.removeprefix(base))


def _rerouted(http: ModuleType, call: Call, request: Any, body: bytes) -> Any:
    """The request as it is sent: to the endpoint that serves it, where there are several."""
    if call.instead is None:
        return request
    url, headers, content = call.instead(request.headers, body)
    return http.Request(request.method, url, headers=headers, content=content, extensions=request.extensions)


def _played(http: ModuleType, interaction: Interaction) -> Any:
    return http.Response(
        interaction.status, headers=dict(interaction.headers), stream=http.ByteStream(interaction.content)
    )


def _answered(replay: Replay, http: ModuleType, call: Call, response: Any) -> Any:
    headers = {name.lower(): value for name, value in response.headers.items() if name.lower() not in _OF_THE_WIRE}
    replay.answer(call, response.status_code, response.reason_phrase, headers, response.content)
    kept = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _OF_THE_WIRE]
    return http.Response(response.status_code, headers=kept, stream=http.ByteStream(response.content))


class _Transport:
    """A transport that plays recorded responses, and sends other requests through a separate client."""

    def __init__(self, replay: Replay, http: ModuleType, base: str | None = None) -> None:
        self._replay = replay
        self._http = http
        self._base = base
        self._verify: Any = None  # certificates are loaded once, for the first request sent

    def handle_request(self, request: Any) -> Any:
        import openai

        body = request.read()
        client_request = _client_request(request, body, self._base)
        call = wait_turn(self._replay, self._replay.ask(client_request, waits=not in_loop()))
        if call.interaction is not None:
            return _played(self._http, call.interaction)
        request = _rerouted(self._http, call, request, body)
        self._verify = self._verify or self._http.create_ssl_context()
        try:
            if call.delay:
                time.sleep(call.delay)
                call.started = time.perf_counter()
            with outside(), openai.DefaultHttpxClient(verify=self._verify) as sender:
                response = sender.send(request)
        except BaseException as error:
            self._replay.drop(call, f"did not come ({type(error).__name__})")
            raise
        return _answered(self._replay, self._http, call, response)

    def __enter__(self) -> _Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to close: no connection is kept open beyond a request."""


class _AsyncTransport:
    """Asynchronous version of ``_Transport``."""

    def __init__(self, replay: Replay, http: ModuleType, base: str | None = None) -> None:
        self._replay = replay
        self._http = http
        self._base = base
        self._verify: Any = None  # certificates are loaded once, for the first request sent

    async def handle_async_request(self, request: Any) -> Any:
        import openai

        body = await request.aread()
        client_request = _client_request(request, body, self._base)
        call = await wait_turn_async(self._replay, self._replay.ask(client_request, waits=in_loop()))
        if call.interaction is not None:
            return _played(self._http, call.interaction)
        request = _rerouted(self._http, call, request, body)
        self._verify = self._verify or self._http.create_ssl_context()
        try:
            if call.delay:
                await asyncio.sleep(call.delay)
                call.started = time.perf_counter()
            with outside():
                async with openai.DefaultAsyncHttpxClient(verify=self._verify) as sender:
                    response = await sender.send(request)
        except BaseException as error:
            self._replay.drop(call, f"did not come ({type(error).__name__})")
            raise
        return _answered(self._replay, self._http, call, response)

    async def __aenter__(self) -> _AsyncTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to close."""
