"""A real OpenAI-compatible HTTP server on loopback, for tests; it answers as told and misbehaves on command.

In a test:

    with LLMServer(answer="42") as server:                      # or a list, or a callable(body) -> str | list[str]
        client = openai.OpenAI(base_url=server.base_url, api_key="any")

By hand:  python tests/support/llm_server.py --port 8700 --answer hello --fail-429 0.1 --latency-ms 50

Tokens are counted simply, so that tests can compute them: a text has one token for each four UTF-8 bytes begun, a
prompt has besides 4 for each message and 3 more. An answer longer than ``max_tokens`` is cut and ends with ``length``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import subprocess

if __package__:
    from support.batch_api import Batches
else:  # run by hand
    from batch_api import Batches

__all__ = ["Answer", "Fault", "LLMServer", "prompt_tokens", "refused_url", "tokens"]

Body = dict[str, Any]


class Answer(NamedTuple):
    """One choice, where more than its text matters."""

    text: str
    finish_reason: str = "stop"


Answers = str | Answer | Sequence[str | Answer]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave, instead of (or on top of) a proper answer."""

    kind: Literal[
        "status",  # an error response with ``status``
        "reset",  # the connection is reset before any answer
        "reset_mid_body",  # ... after half of the body
        "stall",  # no answer for ``seconds``
        "drip",  # an answer that comes byte by byte and never ends
        "truncated",  # half of the JSON, with a matching content-length
        "not_json",  # an HTML page with status 200
        "empty_choices",
        "no_usage",
        "content_filter",  # every choice stopped by the filter
        "raw",  # what ``data`` makes of the proper answer's JSON, as it is, and the connection is closed
        "flood",  # an answer that never ends, as fast as it is taken
    ]
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "the server had an error"
    code: str | None = None
    seconds: float = 30.0
    data: Callable[[bytes], bytes] = bytes
    """Of ``raw``: from the JSON to the whole response, status line and headers included."""

    @classmethod
    def http(cls, status: int, message: str = "the server had an error", code: str | None = None) -> Fault:
        """An error response."""
        return cls("status", status, message=message, code=code)

    @classmethod
    def busy(cls, retry_after: str | None = None, retry_after_ms: str | None = None) -> Fault:
        """A 429 as rate limits give it."""
        headers = {"retry-after": retry_after, "retry-after-ms": retry_after_ms}
        kept = {name: value for name, value in headers.items() if value is not None}
        return cls("status", 429, kept, "Rate limit reached", "rate_limit_exceeded")

    @classmethod
    def azure_filter(cls) -> Fault:
        """Azure's refusal of a prompt."""
        message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
        return cls("status", 400, message=message, code="content_filter")


_LONE = re.compile("[\ud800-\udfff]")  # surrogates, which JSON can escape and UTF-8 cannot say


def tokens(text: str) -> int:
    """The number of tokens this server bills for a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def prompt_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    """The number of tokens this server bills for a prompt."""
    return 3 + sum(4 + tokens(str(message.get("content") or "")) for message in messages)


def refused_url() -> str:
    """A base URL at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


class LLMServer:
    """The server and what it saw; every attribute may be read and changed while it runs.

    Args:
        answer: the answers to every request; one text answers all n choices, a list is repeated as needed.
        max_n: a larger n is refused with status 400, in the words of ``n_message``.
        ignore_n: one choice is given, whatever n is, as some servers do.
        latency: seconds before each answer, or a callable(body).
        usage: whose tokens ``completion_tokens`` counts; ``one_choice`` is what llama.cpp does, and
            ``llama.cpp`` is that with its stopwatch, and with an event of usage for each streamed choice.
        models: the models there are; None takes any name.
        models_at: the one path that lists them; None: every path that ends so.
        api_key: the key, or keys, taken; None takes any.
        faults: misbehaviour for the next requests, in order; None in the list is a proper answer.
        fault_rate: probability of a fault by status ("429", "503") or kind ("reset"), for each request.
        fault: callable(body) -> Fault | None, asked for each request where the queue is empty.
        gzip: whether answers are compressed for clients that take it.
        cached_tokens: prompt tokens reported as cached.
        embed: the vector of a request for an embedding; None: there is no such path.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        answer: Answers | Callable[[Body], Answers] = "ok",
        *,
        max_n: int | None = None,
        n_message: str = "Invalid 'n': integer above maximum value. Expected a value <= {max_n}, but got {n} instead.",
        ignore_n: bool = False,
        latency: float | Callable[[Body], float] = 0.0,
        usage: Literal["all", "one_choice", "llama.cpp", "none"] = "all",
        models: Sequence[str] | None = None,
        models_at: str | None = None,
        api_key: str | Iterable[str] | None = None,
        faults: Iterable[Fault | None] = (),
        fault_rate: Mapping[str, float] | None = None,
        fault: Callable[[Body], Fault | None] | None = None,
        gzip: bool = False,
        cached_tokens: int = 0,
        embed: Callable[[Body], Sequence[Any]] | None = None,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self.answer, self.max_n, self.n_message, self.ignore_n = answer, max_n, n_message, ignore_n
        self.latency, self.usage, self.models = latency, usage, models
        self.api_keys = None if api_key is None else {api_key} if isinstance(api_key, str) else set(api_key)
        self.faults = deque(faults)
        self.fault_rate, self.fault, self.gzip = dict(fault_rate or {}), fault, gzip
        self.cached_tokens, self.port, self.models_at = cached_tokens, port, models_at
        self.embed = embed
        self.batches = Batches()
        """The files and batches endpoints."""
        self.requests: list[Body] = []
        """The bodies of all requests for answers, in order of arrival, refused ones too."""
        self.answered: list[Body] = []
        """The bodies of those that got a whole, proper answer."""
        self.keys: list[str] = []
        """The API key of each request."""
        self.paths: list[str] = []
        self.billed = 0
        """Completion tokens over all choices of all proper answers, whatever ``usage`` reports."""
        self.in_flight = self.peak = 0
        self.opened = 0
        """Connections."""
        self.lock = threading.Condition()
        """Held where counts change; whoever waits on it is told of each change."""
        self._random = random.Random(seed)
        self._connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._stopping = threading.Event()

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def count(self) -> int:
        """How many requests for answers arrived."""
        return len(self.requests)

    def __enter__(self) -> LLMServer:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._stopping.set()
        self._server.shutdown()
        with self.lock:
            connections = list(self._connections)
        for connection in connections:
            _hang_up(connection)
        self._server.server_close()
        self._thread.join()

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    def until(
        self, condition: Callable[[], bool], process: subprocess.Popen[Any] | None = None, seconds: float = 180
    ) -> None:
        """Wait until a condition on what the server saw holds, or until a process has ended.

        Raises:
            AssertionError: neither came true in time.
        """

        def ended() -> bool:
            return process is not None and process.returncode is not None

        def tell() -> None:
            assert process is not None
            process.wait()
            with self.lock:
                self.lock.notify_all()

        if process is not None:
            threading.Thread(target=tell, daemon=True).start()
        with self.lock:
            assert self.lock.wait_for(lambda: condition() or ended(), seconds), "the server never came to see it"

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the end of the server."""
        self._stopping.wait(seconds)

    def next_fault(self, body: Body) -> Fault | None:
        with self.lock:
            if self.faults:
                return self.faults.popleft()
            draw = self._random.random() if self.fault_rate else 1.0
        for kind, rate in self.fault_rate.items():
            if draw < rate:
                if kind == "429":
                    return Fault.busy(retry_after_ms="5")
                return Fault.http(int(kind)) if kind.isdigit() else Fault(kind)  # type: ignore[arg-type]
            draw -= rate
        return self.fault(body) if self.fault else None

    def refusal(self, body: Body, key: str) -> Fault | None:
        """What a proper server says to a request that it cannot answer."""
        if self.api_keys is not None and key not in self.api_keys:
            shown = f"{key[:3]}****{key[-4:]}"
            return Fault.http(401, f"Incorrect API key provided: {shown}.", "invalid_api_key")
        if self.models is not None and body.get("model") not in self.models:
            text = f"The model `{body.get('model')}` does not exist or you do not have access to it."
            return Fault.http(404, text, "model_not_found")
        n = body.get("n") or 1
        if self.max_n is not None and n > self.max_n:
            return Fault.http(400, self.n_message.format(max_n=self.max_n, n=n), "integer_above_max_value")
        return None

    def choices(self, body: Body) -> list[Answer]:
        """The n answers to a request, cut to ``max_tokens``."""
        given = self.answer(body) if callable(self.answer) else self.answer
        several = [given] if isinstance(given, (str, Answer)) else list(given)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
        n = 1 if self.ignore_n else body.get("n") or 1
        return [_cut(several[index % len(several)], limit) for index in range(n)]

    def completion(self, body: Body, answers: Sequence[Answer]) -> Body:
        choices = [
            {"index": i, "finish_reason": a.finish_reason, "message": {"role": "assistant", "content": a.text}}
            for i, a in enumerate(answers)
        ]
        reply = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model", ""),
            "choices": choices,
        }
        usage = self.usage_of(body, answers)
        if self.usage == "llama.cpp":
            reply["timings"] = {"predicted_n": tokens(answers[0].text), "predicted_ms": 3391.027}
        return reply if usage is None else reply | {"usage": usage}

    def embedding(self, body: Body) -> Body:
        assert self.embed is not None
        assert "n" not in body, "OpenAI refuses it here"
        data = [{"object": "embedding", "index": 0, "embedding": list(self.embed(body))}]
        used = tokens(body["input"])
        reply = {"object": "list", "model": body["model"], "data": data}
        return reply if self.usage == "none" else reply | {"usage": {"prompt_tokens": used, "total_tokens": used}}

    def usage_of(self, body: Body, answers: Sequence[Answer]) -> Body | None:
        if self.usage == "none":
            return None
        counted = answers if self.usage == "all" else answers[:1]
        prompt, completion = prompt_tokens(body.get("messages", ())), sum(tokens(a.text) for a in counted)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return usage | ({"prompt_tokens_details": {"cached_tokens": self.cached_tokens}} if self.cached_tokens else {})

    def response(self, body: Body, answers: Sequence[Answer]) -> Body:
        """A reply of the Responses API."""
        given = body.get("input", "")
        messages = [{"content": given}] if isinstance(given, str) else given
        used = prompt_tokens(messages), sum(tokens(a.text) for a in answers)
        content = [{"type": "output_text", "text": answers[0].text, "annotations": []}]
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": body.get("model", ""),
            "status": "completed",
            "output": [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": used[0],
                "input_tokens_details": {"cached_tokens": self.cached_tokens},
                "output_tokens": used[1],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sum(used),
            },
        }


def _cut(answer: str | Answer, limit: int | None) -> Answer:
    whole = answer if isinstance(answer, Answer) else Answer(answer)
    if limit is None or tokens(whole.text) <= limit:
        return whole
    return Answer(whole.text.encode()[: 4 * limit].decode(errors="ignore"), "length")


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was quicker


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of ours; any other error is shown, by pytest too."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(server: LLMServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def setup(self) -> None:
            super().setup()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            with server.lock:
                server._connections.add(self.connection)
                server.opened += 1

        def finish(self) -> None:
            with server.lock:
                server._connections.discard(self.connection)
            try:
                super().finish()
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == server.models_at or (server.models_at is None and path.endswith("/models")):
                names = server.models or ["any"]
                data = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in names]
                self.reply(200, {"object": "list", "data": data})
            elif not self.batch_api(urlsplit(self.path).path, b""):
                self.reply(404, _error(f"no such path: {self.path}", "not_found"))

        def batch_api(self, path: str, raw: bytes) -> bool:
            """Whether the path is one of the files and batches endpoints; then it is answered."""
            batches, parts = server.batches, path.removeprefix("/v1/").split("/")
            match self.command, parts:
                case "POST", ["files"]:
                    self.reply(200, batches.upload(raw))
                case "POST", ["batches"]:
                    created = batches.create(json.loads(raw), self.answered_in_batch)
                    silent, batches.unsaid = batches.unsaid > 0, max(0, batches.unsaid - 1)
                    self.reply(500, _error("the server had an error", None)) if silent else self.reply(200, created)
                case "GET", ["batches"]:
                    shown = [batches.shown(name) for name in reversed(batches.batches)]
                    self.reply(200, {"object": "list", "data": shown, "has_more": False})
                case "GET", ["batches", _] if batches.blind:
                    batches.blind -= 1
                    self.reply(500, _error("the server had an error", None))
                case "GET", ["batches", name]:
                    self.reply(200, batches.look(name))
                case "GET", ["files", _, "content"] if batches.unsent:
                    batches.unsent -= 1
                    self.reply(500, _error("the server had an error", None))
                case "GET", ["files", name, "content"]:
                    self.send(200, batches.files[name].encode(), {"content-type": "application/octet-stream"})
                case _:
                    return False
            return True

        def answered_in_batch(self, body: Body) -> Body:
            if "input" in body:
                return server.embedding(body)
            answers = server.choices(body)
            self.billed(body, answers)
            return server.completion(body, answers)

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(size)
            if len(raw) < size:  # the client was killed while it sent
                self.close_connection = True
                return
            path = urlsplit(self.path).path
            if self.batch_api(path, raw):
                return
            body = json.loads(raw)
            parts = path.split("/")
            if "deployments" in parts:
                body.setdefault("model", parts[parts.index("deployments") + 1])
            key = self.headers.get("api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
            with server.lock:
                server.requests.append(body)
                server.keys.append(key)
                server.paths.append(self.path)
                server.in_flight += 1
                server.peak = max(server.peak, server.in_flight)
                server.lock.notify_all()
            try:
                self.serve(body, path, key)
            finally:
                with server.lock:
                    server.in_flight -= 1
                    server.lock.notify_all()

        def serve(self, body: Body, path: str, key: str) -> None:
            delay = server.latency(body) if callable(server.latency) else server.latency
            if delay:
                server.wait(delay)
            if self.gone():
                self.close_connection = True
                return
            fault = server.next_fault(body) or server.refusal(body, key)
            if fault is not None and fault.kind in ("status", "reset", "stall"):
                self.refuse(fault)
            elif path.endswith("/chat/completions"):
                self.chat(body, fault)
            elif path.endswith("/responses"):
                self.respond(body)
            elif path.endswith("/embeddings") and server.embed is not None:
                self.billed(body, [])
                self.reply(200, server.embedding(body))
            else:
                self.reply(404, _error(f"no such path: {path}", "not_found"))

        def gone(self) -> bool:
            """Whether the client hung up meanwhile: its request is then not answered, and not counted as answered."""
            try:
                return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

        def refuse(self, fault: Fault) -> None:
            if fault.kind == "stall":
                server.wait(fault.seconds)
            if fault.kind == "status":
                self.reply(fault.status, _error(fault.message, fault.code), fault.headers)
            else:
                self.reset()

        def reset(self) -> None:
            """Close the connection so that the client sees a reset."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def chat(self, body: Body, fault: Fault | None) -> None:
            answers = server.choices(body)
            kind = None if fault is None else fault.kind
            if kind == "content_filter":
                answers = [Answer("", "content_filter") for _ in answers]
            payload = server.completion(body, answers)
            if kind == "empty_choices":
                payload["choices"] = []
            if kind == "no_usage":
                payload.pop("usage", None)
            if kind in ("raw", "flood"):
                self.pour(fault, json.dumps(payload).encode())
                return
            if kind in ("reset_mid_body", "truncated", "not_json", "drip"):
                self.garble(json.dumps(payload).encode(), str(kind))
                return
            self.billed(body, answers)
            if body.get("stream"):
                self.stream(_chunks(payload, body))
            else:
                self.reply(200, payload)

        def billed(self, body: Body, answers: Sequence[Answer]) -> None:
            with server.lock:
                server.answered.append(body)
                server.billed += sum(tokens(answer.text) for answer in answers)
                server.lock.notify_all()

        def respond(self, body: Body) -> None:
            answers = server.choices(body | {"n": 1})
            payload = server.response(body, answers)
            self.billed(body, answers)
            if body.get("stream"):
                self.stream(_events(payload))
            else:
                self.reply(200, payload)

        def garble(self, data: bytes, kind: str) -> None:
            if kind == "not_json":
                self.send(200, b"<html><body>Bad gateway</body></html>", {"content-type": "text/html"})
            elif kind == "truncated":
                self.send(200, data[: len(data) // 2], {"content-type": "application/json"})
            else:
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data) if kind != "drip" else 10**9))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                if kind == "drip":
                    self.drip()
                self.reset()

        def pour(self, fault: Fault, payload: bytes) -> None:
            self.close_connection = True
            if fault.kind == "raw":
                self.wfile.write(fault.data(payload))
                return
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{")
            while not server.stopped:
                self.wfile.write(b" " * 100_000)

        def drip(self) -> None:
            while not server.stopped and not self.gone():
                server.wait(0.02)
                self.wfile.write(b" ")
                self.wfile.flush()

        def stream(self, events: Iterator[str]) -> None:
            data = "".join(f"{event}\n\n" for event in events).encode()
            self.send(200, data, {"content-type": "text/event-stream"})

        def reply(self, status: int, payload: Body, headers: Mapping[str, str] | None = None) -> None:
            text = json.dumps(payload, ensure_ascii=False)
            data = (json.dumps(payload) if _LONE.search(text) else text).encode()
            self.send(status, data, {"content-type": "application/json", **(headers or {})})

        def send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
            if server.gzip and "gzip" in self.headers.get("accept-encoding", ""):
                data, headers = gzip.compress(data), {**headers, "content-encoding": "gzip"}
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(data)), "x-request-id": "req_1"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

    return Handler


def _error(message: str, code: str | None) -> Body:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _chunks(payload: Body, body: Body) -> Iterator[str]:
    """A completion as server-sent events, one word a chunk."""
    head = {"id": payload["id"], "object": "chat.completion.chunk", "created": 1, "model": payload["model"]}

    def chunk(choices: list[Body], **more: Any) -> str:
        return "data: " + json.dumps(head | {"choices": choices} | more, ensure_ascii=False)

    for choice in payload["choices"]:
        index, words = choice["index"], choice["message"]["content"].split(" ")
        yield chunk([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for position, word in enumerate(words):
            text = word if position == len(words) - 1 else word + " "
            yield chunk([{"index": index, "delta": {"content": text}, "finish_reason": None}])
        yield chunk([{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}])
    if (body.get("stream_options") or {}).get("include_usage") and "usage" in payload:
        apart = payload["choices"] if "timings" in payload else [None]
        for choice in apart:
            own = {"completion_tokens": tokens(choice["message"]["content"])} if choice else {}
            yield chunk([], usage=payload["usage"] | own)
    yield "data: [DONE]"


def _events(payload: Body) -> Iterator[str]:
    """A reply of the Responses API as server-sent events."""
    message = payload["output"][0]
    text = message["content"][0]["text"]
    place = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    events: list[Body] = [
        {"type": "response.created", "response": payload | {"status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_text.delta", "delta": text, "logprobs": [], **place},
        {"type": "response.output_text.done", "text": text, "logprobs": [], **place},
        {"type": "response.completed", "response": payload},
    ]
    for number, event in enumerate(events):
        data = json.dumps(event | {"sequence_number": number}, ensure_ascii=False)
        yield f"event: {event['type']}\ndata: {data}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8700)
    parser.add_argument("--answer", action="append", help="may be given several times: answers of successive choices")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--max-n", type=int)
    parser.add_argument("--usage", choices=("all", "one_choice", "none"), default="all")
    parser.add_argument("--model", action="append", help="a model there is; default: any name")
    parser.add_argument("--api-key")
    parser.add_argument("--fail-429", type=float, default=0.0)
    parser.add_argument("--fail-5xx", type=float, default=0.0)
    given = parser.parse_args()
    server = LLMServer(
        given.answer or "ok",
        port=given.port,
        latency=given.latency_ms / 1000,
        max_n=given.max_n,
        usage=given.usage,
        models=given.model,
        api_key=given.api_key,
        fault_rate={"429": given.fail_429, "503": given.fail_5xx},
    )
    with server:
        print(f"ready: {server.base_url}", flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
