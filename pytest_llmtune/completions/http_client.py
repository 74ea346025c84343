"""An HTTP client for openai that limits the size of responses and does not follow redirects to other hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai

if TYPE_CHECKING:
    import httpx2


MOST_BYTES = 64 * 1024 * 1024
"""Limit for a decompressed response; 100 answers of 1,000 tokens with logprobs take a third of it."""
_MOST_OF_FILES = 1024 * 1024 * 1024
"""Limit for a batch's results, which are one file."""
_HOPS = 5
_TRANSPORT = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that do not apply to a body that is read and decompressed."""


class TooLargeError(Exception):
    """A response exceeds the limit."""


class ElsewhereError(Exception):
    """A server redirects to another one."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """Reads every response completely, including errors, within a size limit.

    A redirect is followed only to the same scheme, host and port, with an unchanged request. Another host would receive
    the prompts, and a key in a header that HTTP libraries do not know to remove, such as Azure's.
    """

    most: int | None = None
    """Limit in bytes; None: depends on the URL."""

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:  # noqa: ARG002
        """Send a request and read the response, even for a ``stream``.

        Raises:
            TooLargeError: the response exceeds the limit.
            ElsewhereError: the server redirects to another one.
        """
        options["follow_redirects"] = False
        for _ in range(_HOPS):
            response = await super().send(request, stream=True, **options)
            try:
                following = response.next_request
                if following is None:
                    return await self._read(response)
                url, target = request.url, following.url
                same = (url.scheme, url.host, url.port) == (target.scheme, target.host, target.port)
                if not same or following.method != request.method:
                    shown = target.copy_with(query=None, fragment=None, username=None, password=None)
                    raise ElsewhereError(f"HTTP {response.status_code}: it redirects to {shown}; check base_url")
            finally:
                await response.aclose()
            request = following
        raise ElsewhereError(f"it redirects more than {_HOPS} times")

    async def _read(self, response: httpx2.Response) -> httpx2.Response:
        """The response with its body read and decompressed."""
        path = response.request.url.path
        most = self.most or (_MOST_OF_FILES if path.endswith("/content") else MOST_BYTES)
        chunks, size = [], 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > most:
                raise TooLargeError(f"the answer is larger than {most // 1024 // 1024} MiB")
            chunks.append(chunk)
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _TRANSPORT]
        return type(response)(response.status_code, headers=headers, content=b"".join(chunks), request=response.request)
