"""A locked cascade as a module that needs the openai client only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmtune.commits.export import as_json, as_python
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.guard.lockfile import Lock


class Client:
    """The cheap model's answers as given; the dear one says 9."""

    def __init__(self, *cheap: str) -> None:
        self.cheap, self.asked = cheap, list[dict[str, Any]]()
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    def create(self, **body: Any) -> Any:
        self.asked.append(body)
        texts = self.cheap if body["model"] == "cheap" else ("9",)
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=text)) for text in texts])


def lock(**accept: Any) -> Lock:
    first = {"model": "cheap", "n": 3, "prompt": "{q}?", "accept": {"margin": 0.6, **accept}}
    steps = [first, {"model": "dear", "messages": [{"role": "user", "content": "Sure: {q}"}]}]
    return Lock('s """ x', {"cascade": steps}, {}, {}, {})


def ran(locked: Lock, client: Client, *read: Any) -> Any:
    namespace: dict[str, Any] = {}
    exec(as_python(locked), namespace)  # noqa: S102  # what was exported
    return namespace["complete"](client, {"q": "1+1"}, *read)


@pytest.mark.parametrize(
    ("answers", "found", "models"),
    [
        (("2", "2 ", "2"), ["2", "2 ", "2"], ["cheap"]),
        (("2", "3", "2"), ["9"], ["cheap", "dear"]),
        (("", "", ""), ["9"], ["cheap", "dear"]),
    ],
)
def test_a_cascade_runs_as_it_was_locked(answers: tuple[str, ...], found: list[str], models: list[str]) -> None:
    """A clear vote needs no second request; prompts are filled, and no rule of ours is sent."""
    client = Client(*answers)
    assert ran(lock(), client) == found
    assert [body["model"] for body in client.asked] == models
    assert client.asked[0] == {"model": "cheap", "n": 3, "messages": [{"role": "user", "content": "1+1?"}]}


def test_what_is_read_of_an_answer_is_for_the_app_where_a_grader_reads() -> None:
    """Unreadable answers count for no vote; a pattern may refuse them."""
    numbers = lambda text: next(iter(part for part in text.split() if part.isdigit()), None)  # noqa: E731
    assert ran(lock(grader="numeric"), Client("It is 2", "2 !", "so 2"), numbers) == ["It is 2", "2 !", "so 2"]
    assert ran(lock(grader="numeric"), Client("no", "no", "no"), numbers) == ["9"]
    assert ran(lock(grader="numeric", regex="^It"), Client("It is 2", "2 !", "so 2"), numbers) == ["9"]
    with pytest.raises(TypeError, match="read"):
        ran(lock(grader="numeric"), Client("2"))


@pytest.mark.parametrize(
    ("config", "row", "body"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "{q}?"}, {"type": "x", "x": 1}]}]},
            {"q": "1+1"},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "1+1?"}, {"type": "x", "x": 1}]}]},
        ),
        (
            {"messages": "{chat}"},
            {"chat": '[{"role": "user", "content": "{}"}]'},
            {"messages": [{"role": "user", "content": "{}"}]},
        ),
        (
            {"prompt": "{q}", "top_k": 5, "temperature": None, "extra_body": {"min_p": 0.1}},
            {"q": "x"},
            {"messages": [{"role": "user", "content": "x"}], "extra_body": {"min_p": 0.1, "top_k": 5}},
        ),
    ],
)
def test_the_client_sends_what_the_suite_sends(config: Any, row: Any, body: Any) -> None:
    """Parts of a content are filled, a column of messages is read, and what OpenAI does not know goes to the server as it is."""
    client = Client()
    namespace: dict[str, Any] = {}
    exec(as_python(Lock("s", {"model": "dear", **config}, {}, {}, {})), namespace)  # noqa: S102  # what was exported
    assert namespace["complete"](client, row) == ["9"]
    assert client.asked == [{"model": "dear", **body}]


def test_a_cascade_that_only_a_suite_can_decide_is_data() -> None:
    """And says which form it has."""
    with pytest.raises(LLMTuneError, match="a schema or a function decides; export it with --to=json"):
        as_python(lock(schema={"type": "object"}))
    assert '"cascade"' in as_json(lock(schema={"type": "object"}))
