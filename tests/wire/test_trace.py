"""What was asked and answered in one call, in the shapes of five providers, whole and as a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.providers import message

from pytest_llmtune.types import ToolCall
from pytest_llmtune.wire.trace import message_text, read_call, tool_results

ARGUMENTS = {"order": "A7"}
TEXT = json.dumps(ARGUMENTS)
CHAT = {
    "choices": [
        {
            "index": 0,
            "message": {
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": TEXT}}
                ],
            },
        }
    ]
}
RESPONSES = {
    "object": "response",
    "output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hidden"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": TEXT},
    ],
}
ANTHROPIC = {
    "type": "message",
    "content": [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_1", "name": "look_up", "input": ARGUMENTS},
    ],
}
GEMINI = {
    "candidates": [
        {"content": {"parts": [{"text": "Let me see."}, {"functionCall": {"name": "look_up", "args": ARGUMENTS}}]}}
    ]
}
BEDROCK = {
    "output": {
        "message": {
            "content": [
                {"text": "Let me see."},
                {"toolUse": {"toolUseId": "call_1", "name": "look_up", "input": ARGUMENTS}},
            ]
        }
    }
}


BEDROCK_STREAM = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Let me see."}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "call_1", "name": "look_up"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": TEXT[:5]}}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": TEXT[5:]}}}),
    ("messageStop", {"stopReason": "tool_use"}),
]


def stream(*events: Any) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def piece(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


SHAPES: dict[str, str | bytes] = {
    "bedrock stream": b"".join(message(name, event) for name, event in BEDROCK_STREAM),
    "chat": json.dumps(CHAT),
    "responses": json.dumps(RESPONSES),
    "anthropic": json.dumps(ANTHROPIC),
    "bedrock": json.dumps(BEDROCK),
    "chat stream": stream(
        piece(content="Let me "),
        piece(content="see."),
        piece(tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "look_up", "arguments": ""}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": TEXT[:5]}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": TEXT[5:]}}]),
    ),
    "responses stream": stream(
        {"type": "response.output_text.delta", "delta": "Let me see."},
        {"type": "response.completed", "response": RESPONSES},
    ),
    "anthropic stream": stream(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me see."}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": TEXT[:5]}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": TEXT[5:]}},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_text_and_tool_calls_of_every_shape(shape: str) -> None:
    """The same text, the same tool with the same arguments and id."""
    found = read_call("{}", SHAPES[shape])
    assert found.text == "Let me see."
    assert found.tool_calls == (ToolCall("look_up", ARGUMENTS, "call_1"),)


@pytest.mark.parametrize("text", [json.dumps(GEMINI), json.dumps([GEMINI]), stream(GEMINI)])
def test_gemini_has_no_ids(text: str) -> None:
    """Whole, as the list that its stream is, and as events."""
    assert read_call("{}", text).tool_calls == (ToolCall("look_up", ARGUMENTS),)
    assert read_call("{}", text).text == "Let me see."


def function(name: str, arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


def event(**item: Any) -> dict[str, Any]:
    return {"type": "content_block_start", **item}


TWO: dict[str, str] = {
    "choices of n": json.dumps(
        {"choices": [{"index": i, "message": {"tool_calls": [function(f"t{i}")]}} for i in (0, 1)]}
    ),
    "one index, ids": stream(
        piece(tool_calls=[function("t0", "", index=0, id="a")]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        piece(tool_calls=[function("t1", index=0, id="b")]),
    ),
    "no index, ids": stream(*(piece(tool_calls=[function(f"t{i}", id=f"c{i}")]) for i in (0, 1))),
    "custom tools": stream(
        piece(tool_calls=[{"index": 0, "id": "a", "custom": {"name": "t0", "input": "x"}}]),
        piece(tool_calls=[{"index": 1, "id": "b", "custom": {"name": "t1", "input": ""}}]),
        piece(tool_calls=[{"index": 1, "custom": {"input": "y"}}]),
    ),
    "ollama": json.dumps({"message": {"tool_calls": [function("t0", {}), function("t1", {})]}}),
    "ollama stream": "\n".join(
        json.dumps({"model": "m", "message": {"content": "", "tool_calls": [function(f"t{i}", {})]}}) for i in (0, 1)
    ),
    "gemini stream": stream(
        *({"candidates": [{"content": {"parts": [{"functionCall": {"name": f"t{i}"}}]}}]} for i in (0, 1))
    ),
    "run by OpenAI": json.dumps(
        {"output": [{"type": "mcp_call", "id": "m", "name": "t0", "arguments": "{}"}, {"type": "t1_call", "id": "w"}]}
    ),
    "run by Anthropic": json.dumps(
        {
            "content": [
                {"type": "server_tool_use", "id": "s", "name": "t0", "input": {}},
                {"type": "mcp_tool_use", "id": "m", "name": "t1", "input": {}},
            ]
        }
    ),
    "run by Anthropic, stream": stream(
        event(index=0, content_block={"type": "server_tool_use", "id": "s", "name": "t0", "input": {}}),
        event(index=1, content_block={"type": "mcp_tool_use", "id": "m", "name": "t1", "input": {}}),
    ),
}


@pytest.mark.parametrize("shape", TWO)
def test_two_calls_stay_two(shape: str) -> None:
    """Whatever tells them apart: an index, an id, or that each came whole; also those that the provider runs itself."""
    assert [call.name for call in read_call("{}", TWO[shape]).tool_calls] == ["t0", "t1"]


def test_arguments_that_are_no_json_stay_text() -> None:
    """A model may write anything."""
    broken = json.loads(json.dumps(CHAT).replace(json.dumps(TEXT), '"{oops"'))
    assert read_call("{}", json.dumps(broken)).tool_calls[0].arguments == "{oops"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "call_1", "content": "on its way"},
        {"type": "function_call_output", "call_id": "call_1", "output": "on its way"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "on its way"},
        {"role": "function", "name": "call_1", "content": "on its way"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "on its way"}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "call_1", "content": [{"text": "on its way"}]}}]},
    ],
)
def test_results_that_the_app_sends_back(message: dict[str, Any]) -> None:
    """By the id of the call."""
    assert tool_results([message]) == {"call_1": "on its way"}


def test_the_prompt_is_read_from_every_shape() -> None:
    """System text first, whatever it is called."""
    asked = {"instructions": "Be brief.", "input": "Where is A7?"}
    roles = [(message["role"], message["content"]) for message in read_call(json.dumps(asked), "{}").messages]
    assert roles == [("system", "Be brief."), ("user", "Where is A7?")]


@pytest.mark.parametrize("text", ["", "no json", "[1, 2", '{"choices": null}', '{"candidates": [null], "output": 5}'])
def test_what_has_no_known_shape_says_nothing(text: str) -> None:
    """No error, and nothing made up."""
    found = read_call("", text)
    assert (found.messages, found.text, found.tool_calls) == ((), "", ())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "Where is A7?"}, "user: Where is A7?"),
        ({"role": "user", "content": [{"type": "text", "text": "Where is "}, {"text": "A7?"}]}, "user: Where is A7?"),
        ({"role": "model", "parts": [{"text": "On its way."}]}, "model: On its way."),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]},
            'assistant: {"tool_calls": [{"id": "call_1"}]}',
        ),
        (
            {"role": "tool", "tool_call_id": "call_1", "content": "on its way"},
            'tool: {"tool_call_id": "call_1", "content": "on its way"}',
        ),
        ({"type": "function_call_output", "output": "x"}, 'function_call_output: {"output": "x"}'),
    ],
)
def test_a_message_of_any_shape_is_shown(message: dict[str, Any], text: str) -> None:
    """Its role, and its text; where there is more to it, all of it."""
    assert message_text(message) == text


def test_results_of_tools_of_each_provider() -> None:
    """By the call's ID; Gemini's by the tool's name."""
    messages = [
        {"role": "tool", "tool_call_id": "1", "content": "a"},
        {"type": "function_call_output", "call_id": "2", "output": [{"text": "b"}, "c"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "3", "content": "d"}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "4", "content": {"parts": [{"text": "e"}]}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"found": 1}}}]},
    ]
    assert tool_results(messages) == {"1": "a", "2": "bc", "3": "d", "4": "e", "look": '{"found": 1}'}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"prompt": "Hi"}, ["Hi"]),
        ({"input": "Hi"}, ["Hi"]),
        ({"input": ["Hi", {"role": "user", "content": "there"}]}, ["Hi", "there"]),
        ({"system": "Be kind.", "messages": "Hi"}, ["Be kind.", "Hi"]),
        ({"messages": 3, "contents": {"role": "user"}}, []),
    ],
)
def test_prompts_of_other_shapes(request_: dict[str, Any], said: list[str]) -> None:
    """Texts, lists of texts, and what is neither."""
    assert [item["content"] for item in read_call(request_, "{}").messages] == said


def test_the_function_call_of_old_clients_and_calls_that_are_none() -> None:
    """One index for several calls makes several; a call without a function is left out."""
    old = {"message": {"content": None, "function_call": {"name": "look_up", "arguments": TEXT}}}
    assert read_call({}, json.dumps({"choices": [old]})).tool_calls == (ToolCall("look_up", ARGUMENTS, ""),)
    calls = [
        {"index": 0, "id": "1", "function": {"name": "a", "arguments": {"x": 1}}},
        {"index": 0, "id": "2", "function": {"name": "b", "arguments": {"x": 2}}},
        {"index": 0, "id": "3", "function": {"name": "c", "arguments": "no json"}},
        {"index": 1, "function": "none"},
    ]
    found = read_call({}, json.dumps({"choices": [{"message": {"tool_calls": calls}}]})).tool_calls
    assert found == (ToolCall("a", {"x": 1}, "1"), ToolCall("b", {"x": 2}, "2"), ToolCall("c", "no json", "3"))
