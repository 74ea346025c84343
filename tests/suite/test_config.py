"""Configurations: what they ask for a row, and the way to the lock file and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import Config, Template
from pytest_llmtune.suite.prompts import TaskTemplate
from pytest_llmtune.suite.propose import with_shots
from pytest_llmtune.suite.task import Task
from pytest_llmtune.types import Accept

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


def test_a_step_of_a_cascade_needs_a_rule_and_a_next_step() -> None:
    """Answers that nothing accepts would go nowhere, and a next step that nothing leads to would never be asked."""
    last = Config({"model": "large"}, TEXT)
    for accept, following in ((Accept(0.5), None), (None, last)):
        with pytest.raises(SuiteError, match="has both accept and a next step"):
            Config({"model": "small"}, TEXT, accept, following)


def test_the_label_of_a_cascade_names_every_rule() -> None:
    """With its regular expression, and that a schema and a function must be met."""
    rules = Accept(0.25, r"\d", None, {"type": "object"}, ask)
    label = Config({"model": "small"}, TEXT, rules, Config({"model": "large"}, TEXT)).label
    assert label == r"model='small'; if lead < 0.25 or not schema or not function or not '\\d': model='large'"


def test_a_configuration_of_a_task_is_read_with_its_suite() -> None:
    """Its prompt may be another one than the suite's, after an edit; without the suite nobody knows the task."""
    task = Task("json:dumps", json.dumps)
    locked = {"temperature": 0.5, "task": "json:dumps"}
    assert Config.from_lock(locked, [TaskTemplate.bare(task)]).to_lock() == locked
    read = Config.from_lock({"prompt": "an older one"}, [TaskTemplate("prompt", "a new one", task)])
    assert (read.template.source, read.runs_task) == ("an older one", True)
    with pytest.raises(SuiteError, match=r"is one of the task 'json:dumps'; give the suite it belongs to"):
        Config.from_lock({"model": "m", "task": "json:dumps"})


def test_examples_precede_only_a_question_that_is_text() -> None:
    """They are stored by their content; a message in parts, or a function, has none that could be stored."""
    shown = with_shots(TEXT, [({"q": "{1}"}, "{one}")])
    assert [message["content"] for message in shown.render({"q": "2"})] == ["{1} = ?", "{one}", "2 = ?"]
    parts = Template.messages([{"role": "user", "content": [{"type": "text", "text": "{q}"}]}])
    with pytest.raises(SuiteError, match="shots: what is asked for a row is no text"):
        with_shots(parts, [({"q": "1"}, "one")])
