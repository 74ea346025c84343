"""Whatever client a test uses: vcrpy's patches, and ours beneath ``http.client``, in front of the test's recording."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.jsonhash import canonical_json
from pytest_llmtune.capture import patches as http_patch
from pytest_llmtune.capture.belonging import Belonging
from pytest_llmtune.capture.matching import Asked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcr.request import Request

    from pytest_llmtune.capture.session import Replay

__all__ = ["recorded"]


# vcrpy's patches of these are not thread-safe; http_patch takes their place
_OURS = ("httplib", "requests", "boto3", "urllib3", "httplib2")


@contextmanager
def recorded(replay: Replay) -> Iterator[Replay]:
    """Every HTTP request made in this context belongs to the recording, whatever client makes it.

    Several may be open at once, in threads of their own: each keeps to itself what its context, and the tasks and
    threads that inherit it, ask.
    """
    with replay, _PATCHES.for_one(replay):
        yield replay


class _Patches:
    """The libraries of this process are patched once, while any recording is open."""

    def __init__(self) -> None:
        self._belonging = Belonging()
        self._lock = threading.Lock()
        self._users = 0
        self._stack = ExitStack()

    @contextmanager
    def for_one(self, replay: Replay) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._install()
            self._users += 1
        try:
            with self._belonging.opened(replay):
                yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._stack.close()

    def _install(self) -> None:
        from vcr.patch import CassettePatcherBuilder

        with ExitStack() as stack:
            for patcher in CassettePatcherBuilder(_Cassette(self._belonging)).build():
                stack.enter_context(patcher)
            stack.enter_context(http_patch.patched(self._belonging.replay))
            self._stack = stack.pop_all()


class _Cassette:
    """What vcrpy's stubs talk to instead of a cassette: it finds the recording that a request belongs to."""

    _path = "llmtune"
    skip_patchers = _OURS
    custom_patches = ()
    write_protected = False  # a request without a recording is refused by ``Replay.ask``

    def __init__(self, belonging: Belonging) -> None:
        self._belonging = belonging

    def filter_request(self, request: Request) -> Request:
        return request

    def can_play_response_for(self, request: Request) -> bool:
        """The first thing that a stub asks; the call is kept on the request until its end."""
        replay = self._belonging.replay()
        if replay is None or replay.ignores(request.uri):
            return False
        call = replay.ask(_asked(request))
        request.llmtune = replay, call
        return call.interaction is not None

    def play_response(self, request: Request) -> dict[str, Any]:
        _, call = request.llmtune
        response: dict[str, Any] = call.interaction.to_plain()["response"]
        response["body"]["string"] = call.interaction.text.encode()
        return response

    def append(self, request: Request, response: dict[str, Any]) -> None:
        """A real response came; one that aiohttp was redirected to was not asked about before."""
        if not hasattr(request, "llmtune") and self.can_play_response_for(request):
            return
        if not hasattr(request, "llmtune"):
            return
        replay, call = request.llmtune
        headers = {name.lower(): ", ".join(values) for name, values in response["headers"].items()}
        status = response["status"]
        replay.answer(call, status["code"], status["message"] or "", headers, response["body"].get("string") or b"")

    def find_requests_with_most_matches(self, request: Request) -> list[tuple[Request]]:
        """aiohttp's stub looks for the target of a redirect: it is the request itself."""
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


_PATCHES = _Patches()
