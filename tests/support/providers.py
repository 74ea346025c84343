"""A server on loopback that answers as several providers of models do: OpenAI, Anthropic, Gemini, Cohere, Bedrock, Ollama.

Ids, times and rate limits differ in every answer, as they do at the providers; what the models say does not.
"""

from __future__ import annotations

import base64
import json
import secrets
import struct
import threading
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from string import ascii_letters
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Providers", "message"]

SAID = "forty-two"
SPEECH = b"ID3\x04\x00\xff\xfb\x90\xc4" + bytes(range(256))


def made_up(prefix: str) -> str:
    """An id as servers make them up; one in seventy has no digit, and here all of them."""
    return prefix + "".join(secrets.choice(ascii_letters) for _ in range(24)) if prefix else str(uuid.uuid4())


class Providers:
    """The server, and how many requests it saw."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Without ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Providers:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Providers

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(data)
        except ValueError:
            body = {}
        self._answer(body if isinstance(body, dict) else {})

    def _answer(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        self.owner.requests.append(path)
        if "refuse this" in json.dumps(body):
            self._send(
                400, {"error": {"message": "refused", "type": "invalid_request_error", "code": "content_filter"}}
            )
            return
        for ending, answer in _ROUTES.items():
            if path.endswith(ending):
                made = answer(body, path)
                self._send(200, *made) if isinstance(made, tuple) else self._send(200, made)
                return
        self._send(404, {"error": {"message": f"no route {path}"}})

    def _send(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("x-request-id", made_up("req_"))
        self.send_header("x-amzn-requestid", made_up(""))
        self.send_header("x-ratelimit-remaining-requests", str(secrets.randbelow(5000)))
        self.send_header("set-cookie", f"__cf_bm={secrets.token_hex(16)}")
        self.end_headers()
        self.wfile.write(data)


def _events(events: list[dict[str, Any]], *, named: bool = False, done: bool = False) -> tuple[str, str]:
    lines = [(f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join(lines) + ("data: [DONE]\n\n" if done else ""), "text/event-stream; charset=utf-8"


def _chat(body: dict[str, Any], _: str) -> Any:
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    head = {"id": made_up("chatcmpl-"), "created": int(time.time()), "model": body.get("model", "gpt-4o-mini")}
    said = "[[ ## answer ## ]]\nforty-two\n\n[[ ## completed ## ]]" if "[[ ##" in json.dumps(body) else SAID
    tools = body.get("tools") if not any(message.get("role") == "tool" for message in body["messages"]) else None
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if (body.get("response_format") or {}).get("type", "text") != "text":
        message["content"] = '{"name": "Ann"}'
    if tools:
        call = {"name": tools[0]["function"]["name"], "arguments": '{"name": "Ann"}'}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": made_up("call_"), "type": "function", "function": call}],
        }
    reason = "tool_calls" if tools else "stop"
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
    pieces = [{"role": "assistant", "content": "forty-"}, {"content": "two"}, {}]
    events = [
        {
            **head,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": piece, "finish_reason": None if piece else "stop"}],
        }
        for piece in pieces
    ]
    return _events([*events, {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}], done=True)


def _responses(body: dict[str, Any], _: str) -> Any:
    text = {"type": "output_text", "text": SAID, "annotations": []}
    message = {"type": "message", "id": made_up("msg_"), "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": made_up("resp_"),
        "object": "response",
        "created_at": time.time(),
        "status": "completed",
        "model": body["model"],
        "output": [message],
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _anthropic(body: dict[str, Any], _: str) -> Any:
    usage = {"input_tokens": 20, "output_tokens": 5}
    tools = body.get("tools") if "tool_result" not in json.dumps(body) else None
    head = {
        "id": made_up("msg_01"),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }
    if not body.get("stream"):
        content = [{"type": "text", "text": SAID}]
        if tools:
            content = [
                {"type": "tool_use", "id": made_up("toolu_01"), "name": tools[0]["name"], "input": {"name": "Ann"}}
            ]  # type: ignore[dict-item]
        return {**head, "content": content, "stop_reason": "tool_use" if tools else "end_turn", "usage": usage}
    start = {**head, "content": [], "stop_reason": None, "usage": {"input_tokens": 20, "output_tokens": 1}}
    delta = [{"type": "text_delta", "text": text} for text in ("forty-", "two")]
    return _events(
        [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0, "delta": each} for each in delta),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 5},
            },
            {"type": "message_stop"},
        ],
        named=True,
    )


def _gemini(_: dict[str, Any], path: str) -> Any:
    usage = {"promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25}
    head = {"modelVersion": path.split("/models/")[1].partition(":")[0], "responseId": made_up("x")[1:]}

    def part(text: str, **more: Any) -> dict[str, Any]:
        content = {"parts": [{"text": text}], "role": "model"}
        return {**head, "candidates": [{"content": content, "index": 0, **more}], "usageMetadata": usage}

    if path.endswith(":generateContent"):
        return part(SAID, finishReason="STOP")
    return _events([part("forty-"), part("two", finishReason="STOP")])


def _cohere(body: dict[str, Any], _: str) -> Any:
    number = made_up("")
    usage = {
        "billed_units": {"input_tokens": 20, "output_tokens": 5},
        "tokens": {"input_tokens": 20, "output_tokens": 5},
    }
    if not body.get("stream"):
        message = {"role": "assistant", "content": [{"type": "text", "text": SAID}]}
        return {"id": number, "message": message, "finish_reason": "COMPLETE", "usage": usage}
    begin = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return _events(
        [
            {"type": "message-start", "id": number, "delta": {"message": begin}},
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": SAID}}}},
            {"type": "content-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
        ],
        named=True,
    )


def _ollama(body: dict[str, Any], _: str) -> Any:
    head = {"model": body["model"], "created_at": time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime())}
    end = {"done": True, "done_reason": "stop", "total_duration": secrets.randbelow(10**9), "load_duration": 1}
    end |= {
        "prompt_eval_count": 20,
        "prompt_eval_duration": 1,
        "eval_count": 5,
        "eval_duration": secrets.randbelow(10**9),
    }
    if not body.get("stream", True):
        return {**head, "message": {"role": "assistant", "content": SAID}, **end}
    parts = [{**head, "message": {"role": "assistant", "content": text}, "done": False} for text in ("forty-", "two")]
    last = {**head, "message": {"role": "assistant", "content": ""}, **end}
    return "".join(f"{json.dumps(part)}\n" for part in [*parts, last]), "application/x-ndjson"


def _bedrock(_: dict[str, Any], __: str) -> Any:
    message = {"role": "assistant", "content": [{"text": SAID}]}
    usage = {"inputTokens": 20, "outputTokens": 5, "totalTokens": 25}
    metrics = {"latencyMs": secrets.randbelow(1000)}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": metrics}


def _bedrock_stream(*_: object) -> Any:
    use = {"toolUseId": made_up("tooluse_"), "name": "who"}
    events = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": use}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": SAID}}),
        ("messageStop", {"stopReason": "end_turn"}),
        (
            "metadata",
            {
                "metrics": {"latencyMs": secrets.randbelow(1000)},
                "usage": {"inputTokens": 20, "outputTokens": 5, "totalTokens": 25},
            },
        ),
    ]
    padded = [(kind, {**event, "p": "abcdefghijklmnop"[: secrets.randbelow(16)]}) for kind, event in events]
    return b"".join(message(kind, event) for kind, event in padded), "application/vnd.amazon.eventstream"


def _bedrock_model(body: dict[str, Any], _: str) -> Any:
    """InvokeModelWithResponseStream: the events of Anthropic, each in base64."""
    text, _ = _anthropic({**body, "model": "m", "stream": True}, "")
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    times = {"invocationLatency": secrets.randbelow(1000), "firstByteLatency": secrets.randbelow(1000)}
    events[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 20, "outputTokenCount": 5, **times}
    coded = [{"bytes": base64.b64encode(json.dumps(event).encode()).decode()} for event in events]
    return b"".join(message("chunk", each) for each in coded), "application/vnd.amazon.eventstream"


def message(kind: str, payload: dict[str, Any]) -> bytes:
    """A message of AWS' binary event stream."""
    said = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in said.items()
    )
    content = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(content), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + content
    return whole + struct.pack(">I", zlib.crc32(whole))


def _mistral(body: dict[str, Any], path: str) -> Any:
    """A tool call's id has nine letters and digits."""
    made = _chat({**body, "tools": [{"function": {"name": "who"}}]}, path)
    made["choices"][0]["message"]["tool_calls"][0]["id"] = "aB" + made_up("x")[1:8]
    return made


def _embeddings(body: dict[str, Any], _: str) -> Any:
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


_ROUTES: dict[str, Any] = {
    "/v2/chat": _cohere,
    "/api/chat": _ollama,
    "/mistral/v1/chat/completions": _mistral,
    "/chat/completions": _chat,
    "/responses": _responses,
    "/messages": _anthropic,
    "enerateContent": _gemini,
    "/converse": _bedrock,
    "/converse-stream": _bedrock_stream,
    "/invoke-with-response-stream": _bedrock_model,
    "/embeddings": _embeddings,
    "/audio/speech": lambda *_: (SPEECH, "audio/mpeg"),
}
