"""A call of a client, and how its response is read or it is refused."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.aio import has_loop
from pytest_llmtune._util.jsonhash import safe_json
from pytest_llmtune.recording.format import Interaction
from pytest_llmtune.wire.body import decoded, text_or_data, why_incomplete
from pytest_llmtune.wire.tokens import with_counted_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from pytest_llmtune.capture.matching import ClientRequest
    from pytest_llmtune.capture.meter import Hold
    from pytest_llmtune.errors import LLMTuneError

_MAX_REFUSALS = 20
"""Number of refusals in a test or run after which even code that reports errors and continues is stopped."""
_REFUSED = {"content-type": "application/json", "x-should-retry": "false"}


class CallRefusedError(BaseException):
    """A refused call. Not an ``Exception``, because clients would retry it, and tests would swallow it.

    The ``Replay`` context replaces it by the underlying error.
    """

    def __init__(self, error: LLMTuneError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True, eq=False)
class Call:
    """A client's request until it is answered."""

    request: ClientRequest
    counts: bool = True
    """Whether it is a model call; only these count against the limits."""
    interaction: Interaction | None = None
    """The recordable answer, once there is one."""
    played: bool = False
    """Whether the answer is played from the recording, or a refusal."""
    hold: Hold | None = None
    """Its hold on the limits of the test and the run, while in flight."""
    model: str = ""
    """The requested model, of a call that may have to wait."""
    ready: Future[LLMTuneError | None] | None = None
    """Done once it need not wait any longer, where USD are limited; with the reason if it must not be sent."""
    started: float = field(default_factory=time.perf_counter)
    fault: str = ""
    """Why there is no recordable answer."""
    retryable: bool = False
    """Whether clients retry after such an answer."""
    recordable: bool = True
    """Whether its answer belongs into the recording: not where the client repeated the request."""
    delay: float = 0.0
    """Seconds that our own client waits before it sends the request, for the rate limits of the endpoint."""
    instead: Callable[[Mapping[str, str], bytes], tuple[str, dict[str, str], bytes]] | None = None
    """From headers and body of our own client's request to URL, headers and body to send in its place."""


def refused(call: Call, error: LLMTuneError, thread: int, number: int) -> Call:
    """The call, answered with a non-retryable error.

    Args:
        thread: the one that opened the recording, or runs the task. Outside its event loop the error is raised.
        number: of refusals so far.

    Raises:
        CallRefusedError: nobody waits for this code, or it goes on after many refusals.
    """
    if (threading.get_ident() == thread and not has_loop()) or number > _MAX_REFUSALS:
        raise CallRefusedError(error)
    content = {"message": str(error), "type": "llmtune_refused", "code": "llmtune_refused"}
    body = safe_json({"error": content, "message": str(error)})
    call.played, call.recordable, call.counts = True, False, False
    call.interaction = Interaction("", "", "", 400, body, "Bad Request", {}, _REFUSED)
    return call


def received(call: Call, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> tuple[Interaction, str]:
    """A server's complete response, secrets included, and why it cannot be recorded, or an empty text.

    Args:
        headers: names are in lower case.

    Raises:
        ValueError: its body cannot be decoded.
    """
    latency, request = time.perf_counter() - call.started, call.request
    content_type = headers.get("content-type", "")
    text, data = text_or_data(decoded(body, headers.get("content-encoding", "")), status, content_type)
    text = with_counted_mark(request.body, text)
    interaction = Interaction(
        request.method,
        request.uri,
        request.body,
        status,
        text,
        reason,
        {"content-type": request.content_type} if request.content_type else {},
        headers,
        latency,
        data=data,
        recorded=datetime.now(UTC).date().isoformat(),
    )
    return interaction, why_incomplete(interaction.path, status, text, content_type, data)
