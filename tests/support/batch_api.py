"""The files and batches endpoints of OpenAI's API, for the server of the tests; they misbehave as told."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Batches"]

Document = dict[str, Any]


@dataclass(slots=True)
class Batches:
    """Files and batches of a server.

    A batch is worked off when it is created, and says so after ``looks`` looks at it.
    """

    looks: int = 1
    """How often a batch is ``in_progress`` before it has ended."""
    fail: Callable[[Document], int | None] = lambda _: None
    """From a request of a batch to the status that it fails with."""
    expire: int = 0
    """So many batches expire after half of their requests."""
    invalid: str = ""
    """Why each batch fails its validation."""
    blind: int = 0
    """So many looks at a batch fail with 500."""
    unsent: int = 0
    """So many downloads of a file fail with 500."""
    unsaid: int = 0
    """So many batches are created, and the reply is a 500."""
    shuffled: bool = False
    """Results come in the reverse order, each that succeeded also once more as an error."""
    files: dict[str, str] = field(default_factory=dict)
    batches: dict[str, Document] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    """Requests of each batch, in the order of their creation."""

    def upload(self, raw: bytes) -> Document:
        """A multipart body: its part that is called a file is the content."""
        found = re.search(rb'filename="[^"]*"\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', raw, re.DOTALL)
        assert found is not None
        assert b'name="purpose"' in raw
        return self._keep(found[1].decode())

    def create(self, body: Document, answer: Callable[[Document], Document]) -> Document:
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert {line["url"] for line in lines} == {body["endpoint"]}
        assert body["endpoint"] in ("/v1/chat/completions", "/v1/embeddings")
        assert len({line["custom_id"] for line in lines}) == len(lines)
        self.sizes.append(len(lines))
        status = "failed" if self.invalid else "expired" if len(self.sizes) <= self.expire else "completed"
        todo = lines[: len(lines) // 2] if status == "expired" else [] if status == "failed" else lines
        done, failed = [], []
        for line in todo:
            wrong = self.fail(line["body"])
            reply = {"error": {"message": "it failed", "code": None}} if wrong else answer(line["body"])
            response = {"status_code": wrong or 200, "request_id": "r", "body": reply}
            (failed if wrong else done).append(
                {"id": "l", "custom_id": line["custom_id"], "response": response, "error": None}
            )
        for line in lines[len(todo) :] if status == "expired" else []:
            error = {
                "code": "batch_expired",
                "message": "This request could not be executed before the completion window expired.",
            }
            failed.append({"id": "l", "custom_id": line["custom_id"], "response": None, "error": error})
        if self.shuffled:
            failed += [row | {"response": None, "error": {"code": "x", "message": "said twice"}} for row in done]
            done.reverse()
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "created_at": 1,
            "metadata": body.get("metadata"),
            "status": status,
            "output_file_id": self._lines(done),
            "error_file_id": self._lines(failed),
            "errors": {"object": "list", "data": [{"message": self.invalid}]} if self.invalid else None,
            "looks": self.looks,
        }
        return self.shown(name)

    def look(self, name: str) -> Document:
        batch = self.batches[name]
        found = self.shown(name)
        batch["looks"] -= 1
        return found

    def shown(self, name: str) -> Document:
        batch = self.batches[name]
        if batch["looks"] > 0:
            return batch | {"status": "in_progress", "output_file_id": None, "error_file_id": None, "errors": None}
        return batch

    def _lines(self, rows: list[Document]) -> str | None:
        return str(self._keep("\n".join(map(json.dumps, rows)))["id"]) if rows else None

    def _keep(self, text: str) -> Document:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = text
        return {
            "id": name,
            "object": "file",
            "bytes": len(text),
            "created_at": 1,
            "filename": "requests.jsonl",
            "purpose": "batch",
            "status": "processed",
        }
