"""Record and play requests of aiohttp and Tornado with vcrpy's stubs."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import canonical_json
from pytest_llmtune.capture.flow import Flow
from pytest_llmtune.capture.matching import Asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vcr.request import Request

    from pytest_llmtune.capture.session import Replay

__all__ = ["LIBRARIES", "patches"]


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
        from vcr.stubs.aiohttp_stubs import vcr_request

        with ExitStack() as stack:
            cassette = _Cassette(replay, stack)
            return await vcr_request(cassette, original)(session, method, url, **options)

    return request


def _tornado(original: Any, replay_here: Callable[[], Replay | None]) -> Any:
    @functools.wraps(original)
    def fetch_impl(client: Any, request: Any, callback: Any) -> Any:
        if (replay := replay_here()) is None:
            return original(client, request, callback)
        from vcr.stubs.tornado_stubs import vcr_fetch_impl

        with ExitStack() as stack:
            return vcr_fetch_impl(_Cassette(replay, stack), original)(client, request, callback)

    return fetch_impl


LIBRARIES: dict[str, tuple[str, str, Any]] = {
    "aiohttp.client": ("ClientSession", "_request", _aiohttp),
    "tornado.simple_httpclient": ("SimpleAsyncHTTPClient", "fetch_impl", _tornado),
    "tornado.curl_httpclient": ("CurlAsyncHTTPClient", "fetch_impl", _tornado),
}
"""Modules, their client, its sending method, and the replacement."""


class _Cassette:
    """Used by vcrpy's stubs instead of a cassette, for one request and its redirects."""

    write_protected = False  # a request without a recording is refused by ``Replay.ask``

    def __init__(self, replay: Replay, stack: ExitStack) -> None:
        self._replay, self._stack = replay, stack

    def filter_request(self, request: Request) -> Request:
        return request

    def can_play_response_for(self, request: Request) -> bool:
        """Called first by a stub; the request's flow is stored on it."""
        flow = Flow.of(self._replay, _asked(request))
        request.llmtune = flow
        if flow.played is None:
            self._stack.enter_context(flow.sent())
        return flow.played is not None

    def play_response(self, request: Request) -> dict[str, Any]:
        played = request.llmtune.played
        response: dict[str, Any] = played.to_plain()["response"]
        return response | {"body": {"string": played.content}}

    def append(self, request: Request, response: dict[str, Any]) -> None:
        """Handle a real response; for a redirect target of aiohttp, this is the first call."""
        if not hasattr(request, "llmtune") and self.can_play_response_for(request):
            return
        headers = {name.lower(): ", ".join(values) for name, values in response["headers"].items()}
        status = response["status"]
        body = response["body"].get("string") or b""
        request.llmtune.answered(status["code"], status["message"] or "", headers, body)

    def find_requests_with_most_matches(self, request: Request) -> list[tuple[Request]]:
        """Called by aiohttp's stub for the target of a redirect, which is the request itself."""
        return [(request,)]


def _asked(request: Request) -> Asked:
    body = request.body
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, dict):  # aiohttp's json=
        body = canonical_json(body)
    if not isinstance(body, (bytes, str, type(None))):
        body = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in body)
    return Asked.of(request.method, request.uri, body or b"", request.headers.items())
