"""Record and play requests of aiohttp and Tornado with vcrpy's stubs."""

from __future__ import annotations

import asyncio
import functools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.aio import has_loop
from pytest_llmtune._util.jsonhash import canonical_json
from pytest_llmtune.capture.flow import Flow, wait_async
from pytest_llmtune.capture.matching import ClientRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vcr.request import Request

    from pytest_llmtune.capture.session import Replay


def patches(module: Any, replay_here: Callable[[], Replay | None]) -> Iterator[tuple[Any, str, Any]]:
    """(owner, name, replacement) for one of the libraries."""
    owner, name, stub = LIBRARIES[module.__name__]
    client = getattr(module, owner)
    original = getattr(client, name)
    yield client, name, stub(original, replay_here)


def _aiohttp(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    async def request(session: Any, method: str, url: Any, **options: Any) -> Any:
        if (replay := replay_here()) is None or "upgrade" in {
            str(name).lower() for name in options.get("headers") or ()
        }:
            return await original(session, method, url, **options)
        from vcr.stubs.aiohttp_stubs import build_response, vcr_request

        async def sent(*args: Any, **kwargs: Any) -> Any:
            """Called by the stub for what is not recorded, so that a refusal after the wait is answered here."""
            flow = cassette.flow
            if flow.call is not None:
                await wait_async(replay, flow.call)
            if flow.played is not None:
                return build_response(cassette.request, cassette.play_response(cassette.request), [])
            stack.enter_context(flow.sent())
            return await original(*args, **kwargs)

        with ExitStack() as stack:
            cassette = _Cassette(replay)
            return await vcr_request(cassette, sent)(session, method, url, **options)

    return request


def _tornado(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def fetch_impl(client: Any, request: Any, callback: Any) -> Any:
        if (replay := replay_here()) is None:
            return original(client, request, callback)
        from vcr.stubs.tornado_stubs import HTTPResponse, vcr_fetch_impl

        def sent(client: Any, request: Any, answered: Any) -> None:
            """Called by the stub for what is not recorded; ``answered`` records, and then calls ``callback``."""
            call = cassette.flow.call
            if call is None or call.ready is None:
                go(client, request, answered)
                return

            async def later() -> None:
                try:
                    await wait_async(replay, call)
                    if cassette.flow.played is None:
                        go(client, request, answered)
                    else:  # refused
                        vcr_fetch_impl(_Cassette(replay, cassette.flow), original)(client, request, callback)
                except BaseException as error:  # noqa: BLE001  # raised by ``fetch``
                    callback(HTTPResponse(request, 599, error=error))

            waiting.add(task := asyncio.ensure_future(later()))
            task.add_done_callback(waiting.discard)

        def go(client: Any, request: Any, answered: Any) -> None:
            with cassette.flow.sent():
                original(client, request, answered)

        waiting: set[Any] = set()  # a loop holds its tasks weakly
        cassette = _Cassette(replay)
        return vcr_fetch_impl(cassette, sent)(client, request, callback)

    return fetch_impl


LIBRARIES: dict[str, tuple[str, str, Any]] = {
    "aiohttp.client": ("ClientSession", "_request", _aiohttp),
    "tornado.simple_httpclient": ("SimpleAsyncHTTPClient", "fetch_impl", _tornado),
    "tornado.curl_httpclient": ("CurlAsyncHTTPClient", "fetch_impl", _tornado),
}
"""Modules, their client, its sending method, and the replacement."""


_NO_RESPONSE = 599  # Tornado's, for a refused connection or a timeout


class _Cassette:
    """Used by vcrpy's stubs instead of a cassette, for one request and its redirects."""

    write_protected = False  # a request without a recording is refused by ``Replay.begin``

    def __init__(self, replay: Replay, begun: Flow | None = None) -> None:
        self._replay, self._begun = replay, begun
        self.request: Any = None
        """The last request, with its flow."""

    @property
    def flow(self) -> Flow:
        """Of the last request."""
        flow: Flow = self.request.llmtune
        return flow

    def filter_request(self, request: Request) -> Request:
        return request

    def can_play_response_for(self, request: Request) -> bool:
        """Called first by a stub; the request's flow is stored on it."""
        request.llmtune = self._begun or Flow.begun(self._replay, _client_request(request), waits=has_loop())
        self.request = request
        return self.flow.played is not None

    def play_response(self, request: Request) -> dict[str, Any]:
        played = request.llmtune.played
        response: dict[str, Any] = played.to_plain()["response"]
        return response | {"body": {"string": played.content}}

    def append(self, request: Request, response: dict[str, Any]) -> None:
        """Handle a real response; for a redirect target of aiohttp, this is the first call."""
        if not hasattr(request, "llmtune"):
            request.llmtune = Flow.begun(self._replay, _client_request(request), waits=False)
        if request.llmtune.played is not None:  # or refused
            return
        headers = {name.lower(): ", ".join(values) for name, values in dict(response["headers"]).items()}
        status = response["status"]
        body = response["body"].get("string") or b""
        if status["code"] == _NO_RESPONSE and request.llmtune.call is not None:
            self._replay.drop(request.llmtune.call, f"did not come ({status['message']})")
            return
        request.llmtune.answered(status["code"], status["message"] or "", headers, body)

    def find_requests_with_most_matches(self, request: Request) -> list[tuple[Request]]:
        """Called by aiohttp's stub for the target of a redirect, which is the request itself."""
        return [(request,)]


def _client_request(request: Request) -> ClientRequest:
    body = request.body
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, dict):  # aiohttp's json=
        body = canonical_json(body)
    if not isinstance(body, (bytes, str, type(None))):
        body = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in body)
    return ClientRequest.of(request.method, request.uri, body or b"", request.headers.items())
