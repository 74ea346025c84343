"""Exchanges as a server would have given them, for tests of recordings."""

from __future__ import annotations

from typing import Any

from pytest_llmtune.types import Exchange

__all__ = ["body_of", "exchange"]


def body_of(question: str, **parameters: Any) -> dict[str, Any]:
    """The body of a chat completion's request, without ``n``."""
    return {"model": "small", "messages": [{"role": "user", "content": question}], "temperature": 0.5, **parameters}


def exchange(
    question: str,
    *answers: str,
    latency: float = 0.25,
    identity: str = "chatcmpl-9f8e7d6c5b4a3210",
    created: int = 1790000000,
    base: str = "https://api.example.com/v1",
    **parameters: Any,
) -> Exchange:
    """One chat completion with its answers."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        for index, answer in enumerate(answers)
    ]
    return Exchange(
        method="POST",
        uri=f"{base}/chat/completions",
        request=body_of(question, **parameters) | {"n": len(answers)},
        response={
            "id": identity,
            "object": "chat.completion",
            "created": created,
            "model": "small-2026-01-01",
            "choices": choices,
            "usage": {
                "prompt_tokens": 11,
                "completion_tokens": 3 * len(answers),
                "total_tokens": 11 + 3 * len(answers),
            },
        },
        latency=latency,
        headers={"Content-Type": "application/json", "x-request-id": "req_1", "set-cookie": "session=1"},
    )
