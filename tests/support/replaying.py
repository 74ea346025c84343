"""One test's recording in any mode, for tests of client code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune.capture.session import Replay
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COMMAND", "chat", "replay_of"]

COMMAND = "pytest tests/test_app.py::test_answer --llm-record=missing"


def replay_of(path: Path, mode: Mode = Mode.REPLAY, **fields: Any) -> Replay:
    """The calls of one test, with no secret in the environment."""
    return Replay(path, mode, COMMAND, Redactor.from_environment(environ={}), **fields)


def chat(question: str, **parameters: Any) -> dict[str, Any]:
    """The keyword arguments of ``client.chat.completions.create``."""
    return {"model": "small", "messages": [{"role": "user", "content": question}], **parameters}
