"""What servers make up anew for each response reaches no recording, and what belongs together stays together."""

from __future__ import annotations

import itertools
import json
import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._dataclass import replace
from pytest_llmtune.recording.format import Interaction
from pytest_llmtune.recording.writer import stable
from pytest_llmtune.redaction.redactor import REQUEST_IDS

CHAT, RESPONSES = "https://api.example.com/v1/chat/completions", "https://api.example.com/v1/responses"


def interaction(body: dict[str, Any], response: dict[str, Any] | str, uri: str = CHAT) -> Interaction:
    text = response if isinstance(response, str) else json.dumps(response)
    return Interaction("POST", uri, json.dumps(body, sort_keys=True), 200, text)


def chat(question: str, **message: Any) -> Interaction:
    """A chat completion as served at this moment: every id is new."""
    response = {
        "id": f"chatcmpl-{secrets.token_hex(12)}1",
        "object": "chat.completion",
        "created": secrets.randbelow(10**9),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a", **message}}],
        "timings": {"predicted_ms": secrets.randbelow(1000)},
    }
    return interaction({"messages": [{"content": question}]}, response)


def conversation() -> list[Interaction]:
    """Two requests; the second sends back the id of the tool call that the first gave."""
    call = f"call_{secrets.token_hex(12)}1"
    first = chat("q", tool_calls=[{"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}}])
    messages = [{"content": "q"}, {"tool_calls": [{"id": call}]}, {"role": "tool", "tool_call_id": call}]
    return [first, interaction({"messages": messages}, json.loads(chat("x").text))]


def chain() -> list[Interaction]:
    """Two requests of the Responses API; the second goes on from the first."""
    found = []
    previous: dict[str, Any] = {}
    for number in range(2):
        response = {
            "id": f"resp_{secrets.token_hex(12)}1",
            "object": "response",
            "created_at": secrets.randbelow(10**9),
            "output": [{"type": "message", "id": f"msg_{secrets.token_hex(12)}1", "content": []}],
            **previous,
        }
        found.append(interaction({"input": f"q{number}", **previous}, response, RESPONSES))
        previous = {"previous_response_id": response["id"]}
    return found


def stream() -> list[Interaction]:
    """A stream: every event repeats the id, and is padded at random."""
    identity = f"chatcmpl-{secrets.token_hex(12)}1"
    head = {"id": identity, "object": "chat.completion.chunk", "created": secrets.randbelow(10**9)}
    events = [
        f"data: {json.dumps(head | {'choices': [{'delta': {'content': word}}], 'obfuscation': secrets.token_hex(3)})}"
        for word in ("a", "b")
    ]
    return [interaction({"stream": True}, "\n\n".join([*events, "data: [DONE]", ""]))]


def test_two_recordings_of_the_same_answers_are_equal() -> None:
    """Ids, times and stopwatches differ in every response, and in no recording."""
    for make in (lambda: [chat("q"), chat("q"), chat("r")], conversation, chain, stream):
        assert list(stable(make())) == list(stable(make()))
        assert make() != make()


@pytest.mark.parametrize("served", ["deadbeef-12ab-4cde-8f01-0123456789ab", "01234567-12ab-4cde-8f01-0123456789ab"])
def test_the_first_letters_of_a_uuid_are_no_prefix(served: str) -> None:
    """A prefix stays, and what is random may begin with letters and a hyphen as well."""
    body = {"object": "chat.completion", "id": served, "created": 1}
    item = replace(interaction({}, json.dumps(body)), headers={"x-request-id": served})
    (found,) = stable([item])
    new = json.loads(found.text)["id"]
    assert "-" not in new
    assert "-" not in found.headers["x-request-id"]


@pytest.mark.parametrize("served", ["aBcD-efgh0jklmnopqr", "aBcDefgh_jklmnopqrst", "0BcDefghijklmnopqrst"])
def test_an_id_of_geminis_has_no_prefix(served: str) -> None:
    """It is base64 with hyphens and underscores, which may come early."""
    body = {"candidates": [], "usageMetadata": {}, "responseId": served}
    (found,) = stable([interaction({}, json.dumps(body))])
    assert json.loads(found.text)["responseId"].isalnum()


def test_ids_of_a_recording_are_distinct() -> None:
    """Two samples of one request, and two requests, have ids of their own, with the server's prefix."""
    ids = [json.loads(item.text)["id"] for item in stable([chat("q"), chat("q"), chat("r")])]
    assert len(set(ids)) == 3
    assert all(identity.startswith("chatcmpl-") for identity in ids)


def test_an_id_sent_back_is_the_same_in_the_request() -> None:
    """A tool call and its answer, a response and the one after it, still belong together."""
    first, second = stable(conversation())
    call = json.loads(first.text)["choices"][0]["message"]["tool_calls"][0]["id"]
    assert json.loads(second.body)["messages"][2]["tool_call_id"] == call
    first, second = stable(chain())
    assert json.loads(second.body)["previous_response_id"] == json.loads(first.text)["id"]
    assert json.loads(second.text)["previous_response_id"] == json.loads(first.text)["id"]
    assert json.loads(second.text)["id"] != json.loads(first.text)["id"]


def test_making_ids_stable_again_changes_nothing() -> None:
    """What was recorded before is added to a recording as it is."""
    for make in (conversation, chain, stream, lambda: [chat("q"), chat("q")]):
        once = list(stable(make()))
        assert list(stable(once)) == once


def test_ids_of_the_client_are_left_alone() -> None:
    """An id that the request names, such as a stored prompt's, is the client's, and must match next time."""
    body = {"prompt": {"id": "pmpt_0123456789abcdef01234567"}}
    response = {"object": "response", "id": "resp_0123456789abcdef01234567", "prompt": body["prompt"]}
    (item,) = stable([interaction(body, response, RESPONSES)])
    assert json.loads(item.text)["prompt"] == body["prompt"]
    assert json.loads(item.body) == body


def test_other_documents_are_left_alone() -> None:
    """Lists of models, other APIs, short ids and plain text stay as they are, to the letter."""
    models = '{"object": "list", "data": [{"id": "gpt-4o-mini-2024-07-18", "object": "model", "created": 5}]}'
    short = '{"object":"chat.completion","id":"chatcmpl-1","created":0}'
    for text in (models, short, "plain text with chatcmpl-0123456789abcdef", "", "data: x\n\n"):
        (item,) = stable([interaction({}, text)])
        assert item.text == text


@given(st.text())
def test_what_a_model_says_is_never_changed(answer: str) -> None:
    """Ids are changed where a text is an id, not inside what a model says."""
    served = chat("q", content=answer)
    (item,) = stable([served])
    assert json.loads(item.text)["choices"][0]["message"]["content"] == answer


def test_an_answer_that_quotes_the_id_keeps_it() -> None:
    """An id within a sentence is part of the sentence."""
    served = chat("q")
    identity = json.loads(served.text)["id"]
    quoting = interaction(
        {"q": 1}, {**json.loads(served.text), "choices": [{"message": {"content": f"see {identity}"}}]}
    )
    (item,) = stable([quoting])
    assert json.loads(item.text)["choices"][0]["message"]["content"] == f"see {identity}"


def test_the_arguments_of_a_tool_call_are_what_the_model_says() -> None:
    """An ``id`` among them is a value like any other, also where arguments are JSON and not text."""
    said = {"call_id": "abcDEF123", "id": "INV-2026-000123456"}
    answers = [
        {"type": "message", "id": "msg_0123456789abcdef", "content": [{"type": "tool_use", "input": said}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"args": said}}]}}], "usageMetadata": {}},
        {"output": {"message": {"content": [{"toolUse": {"input": said}}]}}, "stopReason": "tool_use"},
        {"model": "m", "created_at": "", "done": True, "message": {"tool_calls": [{"function": {"arguments": said}}]}},
    ]
    for answer in answers:
        (item,) = stable([interaction({}, answer)])
        assert json.dumps(said) in json.dumps(json.loads(item.text)), answer


def test_two_headers_with_one_id_are_named_by_the_first_of_them() -> None:
    """In the order of their names, and not of a set, which differs from process to process."""
    for one, other in itertools.combinations(sorted(REQUEST_IDS), 2):
        value = f"req_{secrets.token_hex(12)}1"
        both = replace(chat("q"), headers={other: value, one: value})
        alone = replace(both, headers={one: value})
        [named], [expected] = stable([both]), stable([alone])
        assert named.headers == dict.fromkeys((one, other), expected.headers[one])
