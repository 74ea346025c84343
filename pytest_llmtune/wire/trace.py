"""Read the messages, text and tool calls of a model call in any provider's format.

Formats: OpenAI chat completions and Responses, Anthropic Messages, Gemini ``generateContent``, Bedrock ``converse``; as
JSON, or as an event stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune.types import ToolCall
from pytest_llmtune.wire.event_stream import answer_documents
from pytest_llmtune.wire.response import dicts_in, request_of, value_at


@dataclass(frozen=True, slots=True)
class CallContent:
    """The content of one call."""

    messages: tuple[Mapping[str, Any], ...]
    text: str
    tool_calls: tuple[ToolCall, ...]


def read_call(body: str | Mapping[str, Any], answer: str | bytes) -> CallContent:
    """Read one call; what has no known shape has no messages, and its answer's text is empty.

    Args:
        body: of the request, as text, or as it was read.
        answer: as in ``answer_documents``.
    """
    texts: list[str] = []
    calls: dict[Any, dict[str, str]] = {}
    for document in answer_documents(answer):
        _read(document, texts, calls)
    tools = tuple(ToolCall(call["name"], _arguments(call["arguments"]), call["id"]) for call in calls.values())
    return CallContent(tuple(_messages(request_of(body))), "".join(texts), tools)


def tool_results(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tool results that an app sent to a model, by the tool call's ID (Gemini: the tool's name)."""
    found: dict[str, str] = {}
    for message in messages:
        if str(message.get("type")).endswith("_call_output"):
            found[str(message.get("call_id"))] = _text(message.get("output"))
        if message.get("role") in ("tool", "function"):
            found[str(message.get("tool_call_id") or message.get("name"))] = _text(message.get("content"))
        for part in dicts_in(message.get("content", message.get("parts"))):
            if part.get("type") == "tool_result":
                found[str(part.get("tool_use_id"))] = _text(part.get("content"))
            elif isinstance(part.get("toolResult"), Mapping):
                found[str(part["toolResult"].get("toolUseId"))] = _text(part["toolResult"].get("content"))
            elif isinstance(part.get("functionResponse"), Mapping):
                found[str(part["functionResponse"].get("name"))] = _text(part["functionResponse"].get("response"))
    return found


def message_text(message: Mapping[str, Any]) -> str:
    """A message in any provider's format as text: its role and its content, tool calls and results included."""
    content = message.get("content", message.get("parts"))
    rest = {name: value for name, value in message.items() if name not in ("role", "type") and value is not None}
    plain = content is not None and len(rest) == 1
    return f"{message.get('role') or message.get('type') or 'message'}: {_text(content if plain else rest)}"


def _messages(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The prompt, system text first."""
    system = request.get("system", request.get("instructions", request.get("systemInstruction")))
    if system:
        yield {"role": "system", "content": _text(system)}
    for name in ("messages", "contents", "input"):
        found = request.get(name)
        for item in [found] if isinstance(found, str) else found if isinstance(found, list) else ():
            if isinstance(item, dict):
                yield item
            elif isinstance(item, str):
                yield {"role": "user", "content": item}
    if isinstance(request.get("prompt"), str):
        yield {"role": "user", "content": request["prompt"]}


def _read(document: Mapping[str, Any], texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    """Add one document of a response: the whole response, or an event of its stream."""
    if isinstance(document.get("choices"), list):
        for choice in dicts_in(document["choices"]):
            _read_choice(choice, texts, calls)
    elif document.get("type") in ("response.completed", "response.incomplete"):
        texts.clear()  # the final event repeats the text of the earlier ones
        calls.clear()
        _read_items(value_at(document, "response.output"), texts, calls)
    elif isinstance(document.get("output"), list):
        _read_items(document["output"], texts, calls)
    elif str(document.get("type")).startswith("content_block_"):
        _read_anthropic_event(document, texts, calls)
    elif "contentBlockIndex" in document:  # `converse-stream`: the start of a content block, or another piece of it
        for part in (document.get("start"), document.get("delta")):
            if isinstance(part, dict):
                texts.append(_string(part.get("text")))
                if isinstance(tool := part.get("toolUse"), dict):
                    index = document["contentBlockIndex"]
                    _add(calls, index, tool.get("name"), tool.get("input"), tool.get("toolUseId"))
    else:
        _read_message(document, texts, calls)


def _read_anthropic_event(document: Mapping[str, Any], texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    block, delta = document.get("content_block"), document.get("delta")
    if isinstance(block, dict):
        _read_block(block, document.get("index"), texts, calls)
    if isinstance(delta, dict):
        texts.append(_string(delta.get("text")))
        if isinstance(delta.get("partial_json"), str) and (call := calls.get(document.get("index"))) is not None:
            call["arguments"] = ("" if call["arguments"] == "{}" else call["arguments"]) + delta["partial_json"]


def _read_message(document: Mapping[str, Any], texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    """A complete message of Gemini, Bedrock, Anthropic, Ollama or Cohere."""
    for candidate in dicts_in(document.get("candidates")):
        _read_parts(value_at(candidate, "content.parts"), texts, calls)
    _read_parts(value_at(document, "output.message.content"), texts, calls)
    for index, block in enumerate(dicts_in(document.get("content"))):
        _read_block(block, index, texts, calls)
    message = document.get("message")
    if isinstance(message, dict):
        content = message.get("content")
        texts.append(_text(content) if content else "")
        _read_tool_calls(message.get("tool_calls"), 0, calls)
    texts.append(_string(document.get("response")))


def _read_choice(choice: Mapping[str, Any], texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    texts.append(_string(choice.get("text")))
    for message in (choice.get("message"), choice.get("delta")):
        if not isinstance(message, dict):
            continue
        texts.append(_string(message.get("content")) or _string(message.get("refusal")))
        _read_tool_calls(message.get("tool_calls"), choice.get("index"), calls)
        old = message.get("function_call")
        if isinstance(old, dict):
            _add(calls, ("function_call", choice.get("index")), old.get("name"), old.get("arguments"), "")


def _read_tool_calls(listed: Any, choice: Any, calls: dict[Any, dict[str, str]]) -> None:
    """Whole calls, or pieces of them: some servers give all calls of a stream the same index, or none, and ids."""
    for index, call in enumerate(dicts_in(listed)):
        function = call.get("function", call.get("custom"))
        if not isinstance(function, dict):
            continue
        arguments, identity = function.get("arguments", function.get("input")), call.get("id")
        key: tuple[Any, ...] = choice, call.get("index", index)
        while (following := (*key, "next")) in calls:
            key = following
        known = calls.get(key, {"id": ""})["id"]
        another = known and function.get("name") and identity not in (known, None)
        if key in calls and (isinstance(arguments, dict) or another):
            key = following
        _add(calls, key, function.get("name"), arguments, identity)


def _read_items(items: Any, texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    """The output of a response of the Responses API."""
    for index, item in enumerate(dicts_in(items)):
        if item.get("type") in ("function_call", "custom_tool_call"):
            _add(calls, index, item.get("name"), item.get("arguments", item.get("input")), item.get("call_id"))
        elif str(item.get("type")).endswith("_call"):  # run by the provider: ``web_search_call``, ``mcp_call``
            name = item.get("name") or item["type"].removesuffix("_call")
            arguments = item.get("arguments", item.get("action", item.get("operation")))
            _add(calls, index, name, arguments, item.get("call_id", item.get("id")))
        elif item.get("type") in ("message", None):
            parts = dicts_in(item.get("content"))
            texts += [_string(part.get("text")) or _string(part.get("refusal")) for part in parts]


def _read_block(block: Mapping[str, Any], index: Any, texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    """A block of Anthropic's content."""
    if block.get("type") in ("tool_use", "server_tool_use", "mcp_tool_use"):
        _add(calls, index, block.get("name"), block.get("input"), block.get("id"))
    elif block.get("type") == "text":
        texts.append(_string(block.get("text")))


def _read_parts(parts: Any, texts: list[str], calls: dict[Any, dict[str, str]]) -> None:
    """Parts of Gemini's and Bedrock's content."""
    for part in dicts_in(parts):
        if not part.get("thought"):
            texts.append(_string(part.get("text")))
        for name, arguments in (("functionCall", "args"), ("function_call", "args"), ("toolUse", "input")):
            call = part.get(name)
            if isinstance(call, dict):
                _add(calls, len(calls), call.get("name"), call.get(arguments), call.get("id", call.get("toolUseId")))


def _add(calls: dict[Any, dict[str, str]], key: Any, name: Any, arguments: Any, identity: Any) -> None:
    """Add a tool call, or, in a stream, another piece of one."""
    call = calls.setdefault(key, {"name": "", "arguments": "", "id": ""})
    call["name"] += _string(name)
    call["id"] = call["id"] or _string(identity)
    if isinstance(arguments, str):
        call["arguments"] += arguments
    elif arguments is not None:
        call["arguments"] = json.dumps(arguments, ensure_ascii=False)


def _arguments(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return text


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(value: Any) -> str:
    """The text of a message's content, whatever its format."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    if isinstance(value, Mapping) and isinstance(value.get("parts"), list):
        return _text(value["parts"])
    return json.dumps(value, ensure_ascii=False, default=str)
