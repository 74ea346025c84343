"""Configurations: what they ask for a row, and the way to the lock file and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import Config, Template

if TYPE_CHECKING:
    from collections.abc import Mapping


def ask(row: Mapping[str, Any]) -> str:
    return f"{row['q']}?"


TEXT = Template.prompt("{q} = ?")
FUNCTION = Template.prompt(ask)
MESSAGES = Template.messages([{"role": "system", "content": "S"}, {"role": "user", "content": ask}])
PARAMS = {"model": "m", "temperature": 0.3, "max_tokens": 50, "n": 3, "stop": ["\n"], "top_p": None}


def test_the_request_holds_parameters_and_messages() -> None:
    """None is not sent, and n is not part of the body."""
    request = Config(PARAMS, TEXT).request({"q": "1+1"})
    assert request.body == {
        "model": "m",
        "temperature": 0.3,
        "max_tokens": 50,
        "stop": ["\n"],
        "messages": [{"role": "user", "content": "1+1 = ?"}],
    }
    assert request.n == 3


def test_n_is_one_by_default() -> None:
    """A configuration without n asks once."""
    config = Config({"model": "m"}, TEXT)
    assert (config.n, config.model, config.request({"q": "a"}).n) == (1, "m", 1)


def test_what_json_cannot_say_is_a_suite_error() -> None:
    """A foreign object in a parameter gives our own error."""
    with pytest.raises(SuiteError, match="JSON cannot represent"):
        Config({"model": "m", "user": object()}, TEXT).request({"q": "a"})


@pytest.mark.parametrize("template", [TEXT, FUNCTION, MESSAGES])
def test_lock_and_back(template: Template) -> None:
    """A configuration survives the lock file, functions found among the suite's templates."""
    config = Config(PARAMS, template)
    locked = json.loads(json.dumps(config.to_lock()))
    assert locked.keys() == {"model", "temperature", "max_tokens", "n", "stop", template.kind}
    back = Config.from_lock(locked, [TEXT, FUNCTION, MESSAGES])
    assert back == config
    assert back.key == config.key


def test_a_text_that_the_suite_no_longer_has_still_reads() -> None:
    """The lock file alone is enough, where the template is text."""
    back = Config.from_lock({"model": "m", "prompt": "{q}!"})
    assert back.request({"q": "a"}).body["messages"] == [{"role": "user", "content": "a!"}]


@pytest.mark.parametrize(
    ("locked", "says"),
    [
        ({"prompt": "{q}"}, "has a model, and one of prompt and messages"),
        ({"model": "m"}, "this one has 'model'"),
        ({"model": "m", "prompt": "{q}", "messages": []}, "one of prompt and messages"),
        ({"model": 5, "prompt": "{q}"}, "has a model"),
        ({"model": "m", "prompt": {"callable": "os:system"}}, "which the suite does not have"),
        (
            {"model": "m", "messages": [{"role": "user", "content": {"callable": "os:getcwd"}}]},
            "which the suite does not have",
        ),
        ({"model": "m", "prompt": "{q.a}"}, "reaches into a value"),
        ({"model": "m", "prompt": 5}, "valid: a format string"),
    ],
)
def test_a_strangers_lock_file_runs_nothing(locked: Mapping[str, Any], says: str) -> None:
    """Functions are never imported by the name a lock file gives, and templates are held to the same rules."""
    with pytest.raises(SuiteError) as caught:
        Config.from_lock(locked, [TEXT])
    assert says in str(caught.value)


def test_keys_tell_configurations_apart() -> None:
    """By parameters and template, whatever the order of the parameters."""
    keys = {
        Config({"model": "m", "n": 1}, TEXT).key,
        Config({"n": 1, "model": "m", "top_p": None}, TEXT).key,
        Config({"model": "m", "n": 2}, TEXT).key,
        Config({"model": "m", "n": 1}, FUNCTION).key,
    }
    assert len(keys) == 3


def test_label_is_one_line() -> None:
    """For tables and progress."""
    assert Config({"model": "m", "n": 2}, TEXT).label == "model='m', n=2"


@pytest.mark.parametrize("n", [0, -1, 1.5, 10_001, 1e308, float("inf"), float("nan"), True, "3", [], {}])
def test_an_edited_number_of_answers_is_refused(n: object) -> None:
    """A lock file may be edited, or a stranger's: nobody is asked for a billion answers."""
    with pytest.raises(SuiteError, match=r"n is .*; valid: a whole number from 1 to 10,000"):
        Config.from_lock({"model": "m", "n": n, "prompt": "{q}"})
    assert Config.from_lock({"model": "m", "n": 3.0, "prompt": "{q}"}).n == 3
