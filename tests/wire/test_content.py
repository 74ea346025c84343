"""An answer's content as a list of parts."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmtune import grade
from pytest_llmtune.wire.response import text_of, written_bytes

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Maybe 41?"}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([THOUGHT, {"type": "text", "text": "It is 42."}], "It is 42."),
        ([{"type": "text", "text": "It is "}, {"type": "text", "text": "42."}], "It is 42."),
        ([{"type": "output_text", "text": "42", "annotations": []}], "42"),
        ([{"type": "text", "text": {"value": "42", "annotations": []}}], "42"),
        ([{"type": "thinking", "thinking": "Maybe 41?"}, {"type": "redacted_thinking", "data": "x"}], ""),
        ([{"type": "reasoning", "text": "Maybe 41?"}, "42"], "42"),
        ([{"type": "refusal", "refusal": "I cannot."}], "I cannot."),
        (
            [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": "data:"}}],
            'Look: {"type": "image_url", "image_url": {"url": "data:"}}',
        ),
        ([], ""),
        (None, ""),
        ("42", "42"),
    ],
)
def test_texts_are_joined_and_reasoning_is_left_out(content: Any, text: str) -> None:
    """Other parts are shown as they are."""
    assert text_of({"message": {"content": content}}) == text


def test_reasoning_parts_count_as_written_but_are_not_graded() -> None:
    """They were billed."""
    choice = {"message": {"content": [THOUGHT, {"type": "text", "text": "42"}]}}
    assert written_bytes(choice) > len("Maybe 41?")
    assert grade("exact", [text_of(choice)], {"answer": "42"}).metrics["success"] == 1


def test_a_list_without_text_leaves_room_for_calls() -> None:
    """As an empty text does."""
    message = {"content": [], "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": "{}"}}]}
    assert text_of({"message": message}) == '[{"name": "add", "arguments": "{}"}]'
