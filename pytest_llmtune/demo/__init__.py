"""A local stand-in for a model server, which labels the demo's messages with a known accuracy.

It is not a model: it knows every message's label, and answers with that or another one at random.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

ACCURACY = {"stand-in-small": 0.5, "stand-in-large": 0.8}
"""Share of right answers at temperature 0, for a message of medium difficulty."""
TEMPERATURE, HINT, SPREAD = -0.2, 0.1, 0.25
"""Added to that share: for temperature 1, for a prompt that asks for one word, for the easiest message (minus: the hardest)."""
_LABELS = ("praise", "complaint", "question")


def serve() -> str:
    """Serve on a free local port until the process ends, and set ``OPENAI_BASE_URL`` to it; returns the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    os.environ["OPENAI_BASE_URL"] = url
    return url


def answers(body: dict[str, Any], before: int = 0) -> list[str]:
    """Deterministic answers to one request.

    Args:
        body: the request body of a chat completion.
        before: number of earlier answers to the same request; later answers are different samples.
    """
    prompt = "\n".join(str(message.get("content")) for message in body["messages"])
    brief = "one word" in prompt
    message, label = next((each for each in _known().items() if each[0] in prompt), ("", _LABELS[0]))
    rate = ACCURACY[body["model"]] + TEMPERATURE * float(body.get("temperature") or 0) + HINT * brief
    rate += SPREAD * (_hash(message) % 2001 / 1000 - 1)
    key = f"{body['model']}\n{prompt}\n{body.get('temperature')}"
    texts = [_answer(label, rate, f"{key}\n{before + index}") for index in range(body.get("n") or 1)]
    return texts if brief else [f"That looks like a {text} to me." for text in texts]


def _answer(label: str, rate: float, key: str) -> str:
    value = _hash(key)
    right = value % 10_000 < rate * 10_000
    others = [other for other in _LABELS if other != label]
    text = label if right else others[value // 10_000 % 2]
    return text if value % 3 else text.capitalize()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


@cache
def _known() -> dict[str, str]:
    """Labels of the messages."""
    text = files(__name__).joinpath("project", "messages.jsonl").read_text(encoding="utf-8")
    return {row["message"]: row["label"] for row in map(json.loads, text.splitlines())}


_ANSWERED: Counter[str] = Counter()
_LOCK = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in ACCURACY]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("model") not in ACCURACY:
            text = f"The model `{body.get('model')}` does not exist; there are {', '.join(ACCURACY)}."
            self._reply(404, {"error": {"message": text, "code": "model_not_found"}})
            return
        same = json.dumps({**body, "n": None}, sort_keys=True)
        with _LOCK:
            before = _ANSWERED[same]
            _ANSWERED[same] += body.get("n") or 1
        texts = answers(body, before)
        prompt = sum(len(str(message.get("content")).split()) for message in body["messages"]) + 4
        completion = sum(len(text.split()) for text in texts)
        choices = [
            {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        reply = {"id": "demo", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices}
        self._reply(200, reply | {"usage": usage})

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
